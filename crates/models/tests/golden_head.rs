//! Heads and the conventional tail against PyTorch.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[expect(dead_code, reason = "shared with the tests of networks")]
mod common;

use candle_core::{DType, Device, Tensor, Var};
use candle_nn::{VarBuilder, VarMap};
use common::{assert_close, fixture, load, values};
use stream_grad_models::{
    GlobalPooling, Head, HeadConfig, ImagenetteTail, Mode, Standardisation, generator,
};

const F64: f64 = 1e-13;

fn head(pooling: Vec<GlobalPooling>) -> (Head, VarMap) {
    let config = HeadConfig::new(pooling).standardised(Standardisation::RUNNING);
    let variables = VarMap::new();
    let vb = VarBuilder::from_varmap(&variables, DType::F64, &Device::Cpu);
    (Head::new(&config, 4, 2, vb).unwrap(), variables)
}

/// `<y_bar, y>` backward: the gradient of `x`.
fn pull_back(y: &Tensor, name: &str, x: &Var) -> Tensor {
    let y_bar = generator::uniform_tensor(name, y.dims()).unwrap();
    let gradients = (y * y_bar).unwrap().sum_all().unwrap().backward().unwrap();
    gradients.get(x).unwrap().clone()
}

#[test]
fn poolings() {
    let golden = load(fixture("head.safetensors"));
    let gem = GlobalPooling::GeneralisedMean {
        exponent: 2.5,
        epsilon: 1e-3,
    };
    let table = [
        ("average", GlobalPooling::Average),
        ("maximum", GlobalPooling::Maximum),
        ("gem_4", GlobalPooling::GEM_4),
        ("gem_2.5", gem),
    ];
    for (name, pooling) in table {
        let features = &golden["features"];
        let features = if name == "gem_2.5" {
            features.abs().unwrap()
        } else {
            features.clone()
        };
        let x = Var::from_tensor(&features).unwrap();
        let y = head(vec![pooling]).0.pooled(&x).unwrap();
        assert_close(name, &y, &golden[&format!("{name}/y")], F64);
        let x_bar = pull_back(&y, &format!("head/{name}/y_bar"), &x);
        assert_close(name, &x_bar, &golden[&format!("{name}/x_bar")], F64);
    }
}

/// Ties are decided exactly as PyTorch does, NaN and infinities included.
#[test]
fn the_maximum_takes_all_even_if_it_is_not_a_number() {
    let golden = load(fixture("head.safetensors"));
    let x = Var::from_tensor(&golden["broken"]).unwrap();
    let y = head(vec![GlobalPooling::Maximum]).0.pooled(&x).unwrap();
    let bits = |tensor: &Tensor| -> Vec<Option<u64>> {
        values(tensor)
            .iter()
            .map(|value| (!value.is_nan()).then_some(value.to_bits()))
            .collect()
    };
    let expected = &golden["maximum_broken/y"];
    assert!(bits(expected).contains(&None), "a NaN is expected");
    assert_eq!(bits(&y), bits(expected));
    // Not through a product: PyTorch was given the cotangent itself.
    let x_bar = {
        let y_bar = generator::uniform_tensor("head/maximum_broken/y_bar", y.dims()).unwrap();
        let finite = Var::from_tensor(&y_bar).unwrap();
        let gradients = (&y * finite.as_tensor())
            .unwrap()
            .sum_all()
            .unwrap()
            .backward()
            .unwrap();
        gradients.get(&x).unwrap().clone()
    };
    assert_eq!(values(&x_bar), values(&golden["maximum_broken/x_bar"]));
}

#[test]
fn poolings_together_standardised_and_linear() {
    let golden = load(fixture("head.safetensors"));
    let (head, mut variables) = head(vec![
        GlobalPooling::Average,
        GlobalPooling::Maximum,
        GlobalPooling::GEM_4,
    ]);
    for (name, shape) in [
        ("running_mean", &[12][..]),
        ("running_var", &[12]),
        ("fc.weight", &[2, 12]),
        ("fc.bias", &[2]),
    ] {
        let value = generator::parameter("head", name, shape).unwrap();
        variables
            .set_one(name, value.to_dtype(DType::F64).unwrap())
            .unwrap();
    }
    let x = Var::from_tensor(&golden["features"]).unwrap();
    let y = head.forward(&x, Mode::Eval).unwrap();
    assert_close("logits", &y, &golden["classify/y"], F64);
    let y_bar = generator::uniform_tensor("head/classify/y_bar", y.dims()).unwrap();
    let gradients = (y * y_bar).unwrap().sum_all().unwrap().backward().unwrap();
    assert_close(
        "features",
        gradients.get(&x).unwrap(),
        &golden["classify/x_bar"],
        F64,
    );
    let variables = variables.data().lock().unwrap();
    for name in ["fc.weight", "fc.bias"] {
        let found = gradients.get(&variables[name]).unwrap();
        assert_close(name, found, &golden[&format!("classify/{name}")], F64);
    }
}

#[test]
fn tail_of_the_imagenette_classifier() {
    let golden = load(fixture("imagenette.safetensors"));
    let mut variables = VarMap::new();
    let vb = VarBuilder::from_varmap(&variables, DType::F64, &Device::Cpu);
    let tail = ImagenetteTail::new(vb).unwrap();
    let shapes: Vec<(String, Vec<usize>)> = variables
        .data()
        .lock()
        .unwrap()
        .iter()
        .map(|(name, variable)| (name.clone(), variable.dims().to_vec()))
        .collect();
    for (name, shape) in &shapes {
        let value = generator::parameter("imagenette", name, shape).unwrap();
        variables
            .set_one(name, value.to_dtype(DType::F64).unwrap())
            .unwrap();
    }
    let features = generator::uniform_tensor("imagenette/features", &[2, 32, 5, 6]).unwrap();
    let features = Var::from_tensor(&features).unwrap();
    let logits = tail.forward(&features).unwrap();
    assert_close("logits", &logits, &golden["logits"], F64);
    let y_bar = generator::uniform_tensor("imagenette/logits_bar", logits.dims()).unwrap();
    let gradients = (logits * y_bar)
        .unwrap()
        .sum_all()
        .unwrap()
        .backward()
        .unwrap();
    assert_close(
        "features_bar",
        gradients.get(&features).unwrap(),
        &golden["features_bar"],
        F64,
    );
    assert_eq!(shapes.len() + 2, golden.len());
    for (name, _) in &shapes {
        let found = values(
            gradients
                .get(&variables.data().lock().unwrap()[name])
                .unwrap(),
        );
        let direction = generator::uniform(&format!("imagenette/{name}/dot"));
        let norm = found.iter().map(|value| value * value).sum::<f64>().sqrt();
        let dot = found
            .iter()
            .zip(direction)
            .map(|(value, u)| value * u)
            .sum::<f64>();
        let expected = values(&golden[&format!("summary/{name}")]);
        let tolerance =
            F64 * expected[0] * f64::sqrt(f64::from(u32::try_from(found.len()).unwrap()));
        assert!(
            (norm - expected[0]).abs() <= tolerance,
            "{name}: {norm} for {}",
            expected[0]
        );
        assert!(
            (dot - expected[1]).abs() <= tolerance,
            "{name}: {dot} for {}",
            expected[1]
        );
    }
}

/// The paper's classifier has 395,178 parameters.
#[test]
fn the_imagenette_classifier_has_the_published_size() {
    let variables = VarMap::new();
    let vb = VarBuilder::from_varmap(&variables, DType::F32, &Device::Cpu);
    let net = stream_grad_models::imagenette(vb.clone()).unwrap();
    let tail = ImagenetteTail::new(vb).unwrap();
    let count: usize = variables
        .all_vars()
        .iter()
        .map(|variable| variable.elem_count())
        .sum();
    assert_eq!(count, 395_178);
    assert!(net.output_channels().eq([32]));
    for shape in [&[1, 32, 3, 9][..], &[1, 16, 8, 8], &[32, 8, 8]] {
        let features = Tensor::zeros(shape, DType::F32, &Device::Cpu).unwrap();
        let message = tail.forward(&features).unwrap_err().to_string();
        assert!(message.contains(&format!("{shape:?}")), "{message}");
    }
}
