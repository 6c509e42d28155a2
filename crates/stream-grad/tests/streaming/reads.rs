//! A source is told what it will be asked for.

use std::sync::Mutex;

use candle_core::{DType, Device, Tensor};
use candle_nn::{VarBuilder, VarMap};
use stream_grad::{
    Conv2d, ExternalError, NetBuilder, PlanRequest, Pool2d, Rect, TileMut, TileSource,
};

use crate::networks::tensor;

type Reads = Vec<(usize, Rect)>;

/// A tensor that writes down what it was told and what it was asked for.
struct Recorded {
    images: Tensor,
    told: Mutex<Reads>,
    asked: Mutex<Reads>,
}

impl Recorded {
    fn take(&self) -> (Reads, Reads) {
        let take = |reads: &Mutex<Reads>| std::mem::take(&mut *reads.lock().unwrap());
        (take(&self.told), take(&self.asked))
    }
}

impl TileSource for Recorded {
    fn batch(&self) -> usize {
        self.images.batch()
    }

    fn channels(&self) -> usize {
        self.images.channels()
    }

    fn extent(&self) -> (u64, u64) {
        self.images.extent()
    }

    fn expect_reads(&self, reads: &mut dyn Iterator<Item = (usize, Rect)>) {
        self.told.lock().unwrap().extend(reads);
    }

    fn read(&self, image: usize, region: Rect, out: TileMut<'_>) -> Result<(), ExternalError> {
        self.asked.lock().unwrap().push((image, region));
        self.images.read(image, region, out)
    }
}

#[test]
fn sources_are_told_what_they_will_be_asked_for() {
    let variables = VarMap::new();
    let vb = VarBuilder::from_varmap(&variables, DType::F32, &Device::Cpu);
    let mut net = NetBuilder::new(3);
    let convolution = Conv2d::new(3, 4, 5).stride(2).padding(2);
    let x = net.conv2d(net.input(), convolution, vb.pp("a")).unwrap();
    let x = net.max_pool2d(x, Pool2d::new(3).stride(2)).unwrap();
    let net = net.build(x).unwrap();
    let image = net.operation_names().next().unwrap().to_owned();
    let request = PlanRequest::new(61, 47).batch(2);
    for request in [
        request.clone(),
        request.clone().tile(16),
        request.clone().tile(9).segments(3),
        request.clone().tile(16).block(32),
        request.clone().tile(7).block(24).segments(2),
        request.tile(16).stored([image]),
    ] {
        let name = format!("{request:?}");
        let Ok(plan) = net.plan(request) else {
            panic!("no plan: {name}");
        };
        let source = Recorded {
            images: tensor(&[2, 3, 61, 47], DType::F32, 1),
            told: Mutex::default(),
            asked: Mutex::default(),
        };
        let (features, residuals) = plan.forward(&source).unwrap();
        let (told, asked) = source.take();
        assert!(!asked.is_empty() && told == asked, "forward, {name}");
        plan.vjp(residuals, &[features.ones_like().unwrap()])
            .unwrap();
        let (told, asked) = source.take();
        assert_eq!(told, asked, "backward, {name}");
    }
}
