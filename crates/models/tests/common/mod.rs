//! Golden files, and comparison with them.

use std::collections::HashMap;
use std::path::PathBuf;

use candle_core::{DType, Device, Tensor};
use candle_nn::{VarBuilder, VarMap};
use stream_grad::{InputGradient, Net, PlanRequest};
use stream_grad_models::{Result, generator};

/// Tensors of a file of the repository's `golden/data`.
pub(crate) fn golden(file: &str) -> HashMap<String, Tensor> {
    load(golden_path(file))
}

/// Path of a file of the repository's `golden/data`.
pub(crate) fn golden_path(file: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../../golden/data")
        .join(file)
}

/// Path of a file of `tests/golden`.
pub(crate) fn fixture(file: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(file)
}

pub(crate) fn load(path: PathBuf) -> HashMap<String, Tensor> {
    candle_core::safetensors::load(path, &Device::Cpu).unwrap()
}

pub(crate) fn f64(tensor: &Tensor) -> Tensor {
    tensor.to_dtype(DType::F64).unwrap()
}

pub(crate) fn values(tensor: &Tensor) -> Vec<f64> {
    f64(tensor).flatten_all().unwrap().to_vec1().unwrap()
}

/// A network in f64 whose parameters are variables, set to `parameter(name, shape)`.
pub(crate) fn network(
    build: impl FnOnce(VarBuilder<'_>) -> Result<Net>,
    parameter: impl Fn(&str, &[usize]) -> Tensor,
) -> Net {
    let mut variables = VarMap::new();
    let vb = VarBuilder::from_varmap(&variables, DType::F64, &Device::Cpu);
    let net = build(vb).unwrap();
    for known in net.parameters() {
        let value = f64(&parameter(&known.name, known.tensor.dims()));
        variables.set_one(&known.name, &value).unwrap();
    }
    net
}

/// A golden network with generated parameters.
pub(crate) fn generated_network(
    build: impl FnOnce(VarBuilder<'_>) -> Result<Net>,
    name: &str,
) -> Net {
    network(build, |parameter, shape| {
        generator::parameter(name, parameter, shape).unwrap()
    })
}

/// Value, gradient of the image, and gradients of the trainable parameters by name.
pub(crate) struct Swept {
    pub(crate) y: Tensor,
    /// Outputs after the first.
    pub(crate) further: Vec<Tensor>,
    pub(crate) x_bar: Tensor,
    pub(crate) gradients: Vec<(String, Tensor)>,
    pub(crate) tiles: usize,
}

/// How an image is cut.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Cut {
    /// Not at all.
    Conventional,
    /// Tiles of this edge.
    Tiles(u64),
    /// Blocks of this edge, tiles of the other.
    Blocks(u64, u64),
}

/// Forward and backward in f64 for cotangents that depend on the shapes of the outputs, of which they are told the place.
pub(crate) fn sweep_all(
    net: &Net,
    image: &Tensor,
    cut: Cut,
    y_bar: impl Fn(usize, &[usize]) -> Tensor,
) -> Swept {
    let (_, _, height, width) = image.dims4().unwrap();
    let request = PlanRequest::new(height as u64, width as u64)
        .dtype(DType::F64)
        .input_gradient(InputGradient::Wanted);
    let request = match cut {
        Cut::Conventional => request,
        Cut::Tiles(edge) => request.tile(edge).poison(f64::NAN),
        Cut::Blocks(block, edge) => request.block(block).tile(edge).poison(f64::NAN),
    };
    let plan = net.plan(request).unwrap();
    let (mut outputs, residuals) = plan.forward_all(image).unwrap();
    let cotangents: Vec<Tensor> = outputs
        .iter()
        .enumerate()
        .map(|(place, y)| y_bar(place, y.dims()))
        .collect();
    let (store, x_bar) = plan.vjp_with_input(residuals, &cotangents).unwrap();
    let y = outputs.remove(0);
    let trainable = net
        .parameters()
        .iter()
        .filter(|parameter| parameter.trainable);
    let gradients = trainable
        .map(|known| {
            (
                known.name.clone(),
                store.get(&known.tensor).unwrap().clone(),
            )
        })
        .collect();
    Swept {
        y,
        further: outputs,
        x_bar,
        gradients,
        tiles: plan.tiles(),
    }
}

/// [`sweep_all`] of a network with one output.
pub(crate) fn sweep(
    net: &Net,
    image: &Tensor,
    cut: Cut,
    y_bar: impl Fn(&[usize]) -> Tensor,
) -> Swept {
    sweep_all(net, image, cut, |_, shape| y_bar(shape))
}

/// Panics unless the largest difference is within `tolerance` of the largest magnitude.
#[track_caller]
pub(crate) fn assert_close(what: &str, found: &Tensor, expected: &Tensor, tolerance: f64) {
    assert_eq!(found.dims(), expected.dims(), "{what}");
    let (found, expected) = (values(found), values(expected));
    let scale = expected
        .iter()
        .fold(0.0_f64, |scale, value| scale.max(value.abs()));
    assert!(
        scale > 0.0,
        "{what}: expected values are all zero, nothing would be tested"
    );
    for (position, (found, expected)) in found.iter().zip(&expected).enumerate() {
        let difference = (found - expected).abs();
        // Written so that a NaN fails.
        assert!(
            difference <= tolerance * scale,
            "{what}[{position}]: {found} for {expected}, scale {scale}"
        );
    }
}
