//! A ResNet-18 over the real slide (Aperio CMU-1-Small-Region): streamed region by region, against the conventional
//! computation on the same pixels as one tensor.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test: a panic is how it fails"
)]

#[path = "../../slides/tests/common/assets.rs"]
mod slide_files;

use candle_core::backprop::GradStore;
use candle_core::{DType, Device, Tensor};
use candle_nn::VarMap;
use stream_grad::{Net, PlanRequest, TileSource};
use stream_grad_models::{generator, resnet18, seeded};
use stream_grad_slides::{MicronsPerPixel, Region, Slide, SlideView, Target};
use stream_grad_train::source::{ReadSettings, SlideSource};

/// Largest relative L2 error of a gradient or of the features: f64 sums in another order.
const TOLERANCE: f64 = 1e-10;

fn norm(tensor: &Tensor) -> f64 {
    let squares = tensor.sqr().unwrap().sum_all().unwrap();
    squares.to_scalar::<f64>().unwrap().sqrt()
}

/// The pixels of a view as a tensor `[1, 3, H, W]`, normalised.
fn pixels(view: &SlideView, settings: &ReadSettings) -> Tensor {
    let size = |edge: u64| usize::try_from(edge).unwrap();
    let (height, width) = (size(view.extent().height), size(view.extent().width));
    let mut rgb = vec![0; height * width * 3];
    view.read(&view.extent().region(), &mut rgb).unwrap();
    let values = rgb.iter().enumerate().map(|(index, &level)| {
        (f64::from(level) / 255.0 - settings.mean[index % 3]) / settings.deviation[index % 3]
    });
    let image = Tensor::from_vec(values.collect(), (1, height, width, 3), &Device::Cpu);
    let image = image.unwrap().permute((0, 3, 1, 2)).unwrap();
    image.contiguous().unwrap()
}

fn gradients(net: &Net, request: PlanRequest, source: &dyn TileSource) -> (Tensor, GradStore) {
    let plan = net.plan(request).unwrap();
    let (features, residuals) = plan.forward(source).unwrap();
    let weights = generator::uniform_tensor("real slide/loss", features.dims()).unwrap();
    let weights = weights.to_dtype(DType::F64).unwrap();
    let loss = (&features * weights).unwrap().sum_all().unwrap();
    let gradients = plan.backward(residuals, &features, &loss).unwrap();
    (features.detach(), gradients)
}

/// Streams `view` in tiles of `edge` pixels and compares with one tile over a tensor.
fn compare(net: &Net, view: &SlideView, edge: u64) {
    let settings = ReadSettings::default();
    let extent = view.extent();
    let request = PlanRequest::new(extent.height, extent.width).dtype(DType::F64);
    let (features, expected) = gradients(net, request.clone(), &pixels(view, &settings));
    let source = SlideSource::new(view.clone(), &settings).unwrap();
    let request = request.tile(edge).poison(f64::NAN);
    let tiles = net.plan(request.clone()).unwrap().tiles();
    assert!(tiles > 4, "{tiles} tiles");
    let (streamed, found) = gradients(net, request, &source);
    let error = norm(&(&streamed - &features).unwrap()) / norm(&features);
    assert!(error <= TOLERANCE, "features differ by {error:e}");
    let mut compared = 0;
    for parameter in net.parameters().iter().filter(|known| known.trainable) {
        let expected = expected.get(&parameter.tensor).unwrap();
        let found = found.get(&parameter.tensor).unwrap();
        let (size, difference) = (norm(expected), norm(&(found - expected).unwrap()));
        assert!(size > 0.0, "{} has no gradient", parameter.name);
        assert!(
            difference <= TOLERANCE * size,
            "{}: {difference:e} of {size:e}",
            parameter.name
        );
        compared += 1;
    }
    // 20 convolutions, and scale and shift of as many norms.
    assert_eq!(compared, 60);
}

#[test]
fn a_resnet18_streams_over_the_slide_with_the_conventional_gradients() {
    let variables = VarMap::new();
    let net = resnet18(seeded(&variables, 7, DType::F64, &Device::Cpu)).unwrap();
    let slide = Slide::open(slide_files::asset("default.svs")).unwrap();
    // All of it, resampled, and a part as the scanner left it, across blocks of the file.
    let microns = MicronsPerPixel::new(8.0).unwrap();
    let whole = slide.view(Target::MicronsPerPixel(microns)).unwrap();
    compare(&net, &whole, 64);
    let native = slide.view(Target::Downsample(1.0)).unwrap();
    let part = native.cropped(&Region::new(1400..1545, 400..560)).unwrap();
    assert!(part.is_exact(), "pixels of the finest level");
    compare(&net, &part, 64);
}
