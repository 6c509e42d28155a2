//! Tiles of one colour are computed once: poolings of a tensor's features train as if all were, and layers of a user's own say whether
//! they are the same everywhere.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use candle_core::{DType, Device, Tensor};
use candle_nn::{VarBuilder, VarMap};
use stream_grad::tiling::{AxisRule, PerAxis, Reuse};
use stream_grad::{
    CandleLayer, Conv2d, ExternalError, Net, NetBuilder, PlanRequest, Pool2d, Rect, TileMut,
    TileSource,
};

use crate::networks::fill;
use crate::promises::list;

/// Counts what is read of a tensor.
struct Counted<'a>(&'a Tensor, AtomicUsize);

impl TileSource for Counted<'_> {
    fn batch(&self) -> usize {
        self.0.batch()
    }

    fn channels(&self) -> usize {
        self.0.channels()
    }

    fn extent(&self) -> (u64, u64) {
        self.0.extent()
    }

    fn one_color(&self, image: usize, region: Rect) -> Result<Option<Vec<f64>>, ExternalError> {
        self.0.one_color(image, region)
    }

    fn read(&self, image: usize, region: Rect, out: TileMut<'_>) -> Result<(), ExternalError> {
        self.1.fetch_add(1, Ordering::Relaxed);
        TileSource::read(self.0, image, region, out)
    }
}

/// Two convolutions with a layer of a user's own between them.
fn net(layer: CandleLayer) -> (Net, VarMap) {
    let variables = VarMap::new();
    let vb = VarBuilder::from_varmap(&variables, DType::F64, &Device::Cpu);
    let mut net = NetBuilder::new(3);
    let conv = |from, to| Conv2d::new(from, to, 3).padding(1);
    let x = net
        .conv2d(net.input(), conv(3, 4).stride(2), vb.pp("a"))
        .unwrap();
    let x = net.max_pool2d(x, Pool2d::new(2)).unwrap();
    let x = net.local(x, Arc::new(layer)).unwrap();
    let x = net.conv2d(x, conv(4, 5), vb.pp("b")).unwrap();
    let net = net.build(x).unwrap();
    fill(&variables, 3);
    (net, variables)
}

fn square() -> CandleLayer {
    CandleLayer::new("square", PerAxis::both(AxisRule::Pointwise), |x, _| x.sqr())
}

/// White, with a square of noise.
fn image() -> Tensor {
    let noise = crate::networks::tensor(&[1, 3, 30, 40], DType::F64, 5);
    let white = Tensor::ones((1, 3, 200, 240), DType::F64, &Device::Cpu).unwrap();
    white
        .slice_assign(&[0..1, 0..3, 90..120, 100..140], &noise)
        .unwrap()
}

/// What a loss is made of the features.
type Head = fn(&Tensor) -> candle_core::Result<Tensor>;

/// Features and gradients, and how many regions were read.
fn step(net: &Net, reuse: Reuse, image: &Tensor, head: Head) -> (Vec<Vec<f64>>, usize) {
    let request = PlanRequest::new(200, 240).dtype(DType::F64).tile(16);
    let plan = net.plan(request.reuse(reuse)).unwrap();
    let source = Counted(image, AtomicUsize::new(0));
    let (features, residuals) = plan.forward(&source).unwrap();
    let loss = head(&features).unwrap();
    let gradients = plan.backward(residuals, &features, &loss).unwrap();
    let parameters = net.parameters().iter();
    let parameters = parameters.map(|parameter| list(gradients.get(&parameter.tensor).unwrap()));
    let all = std::iter::once(list(&features)).chain(parameters).collect();
    (all, source.1.into_inner())
}

#[test]
fn poolings_of_mostly_white_train_the_same() {
    let (net, _variables) = net(square().same_everywhere());
    let image = image();
    let heads: [Head; 3] = [
        |features| features.mean_all(),
        // Cotangents follow from the features.
        |features| {
            features
                .sqr()?
                .sqr()?
                .mean((2, 3))?
                .sqrt()?
                .sqrt()?
                .sum_all()
        },
        // But for one position, and what sees it.
        |features| features.max(3)?.max(2)?.sum_all(),
    ];
    for head in heads {
        let (expected, reads) = step(&net, Reuse::Nothing, &image, head);
        let (found, reused) = step(&net, Reuse::OneColor, &image, head);
        assert_eq!(found[0], expected[0]);
        for (found, expected) in found.iter().zip(&expected).skip(1) {
            let scale = expected
                .iter()
                .fold(0.0_f64, |most, value| most.max(value.abs()));
            for (a, b) in found.iter().zip(expected) {
                assert!(
                    (a - b).abs() <= 1e-12 * scale,
                    "{a}, expected {b} of {scale}"
                );
            }
        }
        assert!(3 * reused < reads, "{reused} of {reads}");
    }
}

#[test]
fn layers_that_may_see_positions_are_computed_everywhere() {
    let (net, _variables) = net(square());
    let image = image();
    let (expected, reads) = step(&net, Reuse::Nothing, &image, |features| features.mean_all());
    let (found, reused) = step(&net, Reuse::OneColor, &image, |features| {
        features.mean_all()
    });
    assert_eq!((found, reused), (expected, reads));
}
