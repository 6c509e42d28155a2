//! Networks against PyTorch: every value of narrow and small ones, summaries of the full ones; conventionally, in
//! tiles, and in blocks of tiles, with all memory that may not be read set to NaN.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use candle_core::{DType, Tensor};
use candle_nn::VarBuilder;
use common::{
    Cut, Swept, assert_close, f64, generated_network, golden, golden_path, network, sweep,
    sweep_all, values,
};
use serde::Deserialize;
use stream_grad::Net;
use stream_grad_models::{ModelName, PlainConfig, ResNetConfig, Result, SmallConfig, generator};

/// Sums in another order, in f64.
const F64: f64 = 1e-12;
/// Values stored in f32: half a unit in the last place, relative to the largest.
const STORED_F32: f64 = 6e-8;

fn check(golden: &std::collections::HashMap<String, Tensor>, swept: &Swept, gradients_to: f64) {
    assert_close("y", &swept.y, &golden["y"], F64);
    assert_close("x_bar", &swept.x_bar, &golden["x_bar"], gradients_to);
    let stored = golden
        .keys()
        .filter(|key| key.starts_with("gradient/"))
        .count();
    assert_eq!(
        swept.gradients.len(),
        stored,
        "number of trainable parameters"
    );
    for (name, gradient) in &swept.gradients {
        assert_close(
            name,
            gradient,
            &golden[&format!("gradient/{name}")],
            gradients_to,
        );
    }
}

/// Checks a network whose parameters are stored, in several cuts.
fn check_stored(
    file: &str,
    build: impl FnOnce(VarBuilder<'_>) -> Result<Net>,
    cuts: &[Cut],
    gradients_to: f64,
) {
    let golden = golden(file);
    let net = network(build, |name, _| golden[&format!("weight/{name}")].clone());
    check_cuts(&golden, &net, cuts, gradients_to);
}

fn check_cuts(
    golden: &std::collections::HashMap<String, Tensor>,
    net: &Net,
    cuts: &[Cut],
    gradients_to: f64,
) {
    let image = f64(&golden["input"]);
    for &cut in cuts {
        let swept = sweep(net, &image, cut, |_| golden["y_bar"].clone());
        assert_eq!(
            swept.tiles > 1,
            !matches!(cut, Cut::Conventional),
            "{cut:?}: {} tiles",
            swept.tiles
        );
        check(golden, &swept, gradients_to);
    }
}

#[test]
fn narrow_resnet18() {
    let build = |vb: VarBuilder<'_>| ResNetConfig::resnet18().base_width(8).build(vb);
    let cuts = [Cut::Conventional, Cut::Tiles(32), Cut::Blocks(32, 32)];
    check_stored("resnet18_eighth.safetensors", build, &cuts, STORED_F32);
}

/// The generator makes the parameters that are stored for the narrow ResNet-18.
#[test]
fn generated_parameters_are_those_of_the_golden_files() {
    for (name, rounded_to) in [
        ("resnet18_eighth", DType::F16),
        ("numerics", DType::F32),
        ("imagenette", DType::F32),
    ] {
        let golden = golden(&format!("{name}.safetensors"));
        let weights = golden
            .iter()
            .filter_map(|(key, value)| Some((key.strip_prefix("weight/")?, value)));
        let mut compared = 0;
        for (key, expected) in weights {
            let found = generator::parameter(name, key, expected.dims()).unwrap();
            assert_eq!(
                values(&found.to_dtype(rounded_to).unwrap()),
                values(expected),
                "{name}/{key}"
            );
            compared += 1;
        }
        assert!(compared >= 4, "{name}");
    }
}

#[test]
fn narrow_resnet50() {
    let golden = golden("resnet50_eighth.safetensors");
    let build = |vb: VarBuilder<'_>| ResNetConfig::resnet50().base_width(8).build(vb);
    let net = network(build, |name, shape| {
        let parameter = generator::parameter("resnet50_eighth", name, shape).unwrap();
        parameter.to_dtype(DType::F16).unwrap()
    });
    check_cuts(
        &golden,
        &net,
        &[Cut::Conventional, Cut::Tiles(32)],
        STORED_F32,
    );
}

#[test]
fn numerics() {
    let cuts = [
        Cut::Conventional,
        Cut::Tiles(8),
        Cut::Tiles(17),
        Cut::Blocks(16, 8),
    ];
    check_stored(
        "numerics.safetensors",
        stream_grad_models::numerics,
        &cuts,
        F64,
    );
}

#[test]
fn imagenette() {
    let cuts = [
        Cut::Conventional,
        Cut::Tiles(4),
        Cut::Tiles(13),
        Cut::Blocks(16, 8),
    ];
    check_stored(
        "imagenette.safetensors",
        stream_grad_models::imagenette,
        &cuts,
        F64,
    );
}

/// Every value of a network with parameters, image and cotangent drawn under `name`.
fn check_whole(name: &str, net: &Net) {
    let golden = common::load(common::fixture(&format!("{name}.safetensors")));
    let image = generator::uniform_tensor(&format!("{name}/input"), &[1, 3, 45, 38]).unwrap();
    for cut in [Cut::Conventional, Cut::Tiles(16), Cut::Blocks(32, 16)] {
        let swept = sweep(net, &image, cut, |shape| {
            generator::uniform_tensor(&format!("{name}/y_bar"), shape).unwrap()
        });
        check(&golden, &swept, F64);
    }
}

#[test]
fn small() {
    let build = |vb: VarBuilder<'_>| SmallConfig { width: 2, depth: 1 }.build(vb);
    check_whole("small", &generated_network(build, "small"));
}

#[test]
fn plain() {
    let build = |vb: VarBuilder<'_>| PlainConfig { width: 2, depth: 4 }.build(vb);
    check_whole("plain", &generated_network(build, "plain"));
}

#[derive(Deserialize)]
struct Description {
    network: String,
    input: Vec<usize>,
    tensors: Vec<Described>,
}

#[derive(Deserialize)]
struct Described {
    name: String,
    shape: Vec<usize>,
}

/// Norm, dot product and 64 entries of every tensor of a full network.
fn check_full(name: &str, cut: Cut) {
    let file = std::fs::File::open(golden_path("full.json")).unwrap();
    let descriptions: Vec<Description> =
        serde_json::from_reader(std::io::BufReader::new(file)).unwrap();
    let description = descriptions
        .iter()
        .find(|description| description.network == name)
        .unwrap();
    let golden = golden("full.safetensors");
    let summaries = |what: &str| f64(&golden[&format!("{name}/{what}")]);
    let norms = values(&summaries("norm"));
    let dots = values(&summaries("dot"));
    let entries = summaries("entries").to_vec2::<f64>().unwrap();

    let model: ModelName = name.parse().unwrap();
    let net = generated_network(|vb| model.build(vb), name);
    let image = generator::uniform_tensor(&format!("{name}/input"), &description.input).unwrap();
    let numbered = |what: &str, place: usize| match place {
        0 => what.to_owned(),
        place => format!("{what}.{place}"),
    };
    let swept = sweep_all(&net, &image, cut, |place, shape| {
        let y_bar = numbered("y_bar", place);
        generator::uniform_tensor(&format!("{name}/{y_bar}"), shape).unwrap()
    });
    let outputs = 1 + swept.further.len();
    assert_eq!(
        swept.gradients.len() + outputs + 1,
        description.tensors.len()
    );
    let further: Vec<String> = (1..outputs).map(|place| numbered("y", place)).collect();
    for (
        row,
        Described {
            name: tensor,
            shape,
        },
    ) in description.tensors.iter().enumerate()
    {
        let found = match tensor.as_str() {
            "y" => &swept.y,
            "x_bar" => &swept.x_bar,
            tensor if further.iter().any(|name| name == tensor) => {
                let place = further.iter().position(|name| name == tensor).unwrap();
                &swept.further[place]
            }
            _ => {
                &swept
                    .gradients
                    .iter()
                    .find(|(known, _)| known == tensor)
                    .unwrap()
                    .1
            }
        };
        assert_eq!(found.dims(), shape, "{tensor}");
        let found = values(found);
        let norm = found.iter().map(|value| value * value).sum::<f64>().sqrt();
        // Each entry, and the dot product by Cauchy and Schwarz, is off by no more than the whole tensor is.
        let tolerance = F64 * norms[row];
        assert!(
            (norm - norms[row]).abs() <= tolerance,
            "{tensor}: norm {norm} for {}",
            norms[row]
        );
        let direction = generator::uniform(&format!("{name}/{tensor}/dot"));
        let (dot, length) = found
            .iter()
            .zip(direction)
            .fold((0.0, 0.0), |(dot, length), (value, u)| {
                (dot + value * u, length + u * u)
            });
        let difference = (dot - dots[row]).abs();
        assert!(
            difference <= tolerance * f64::sqrt(length),
            "{tensor}: dot {dot} for {}",
            dots[row]
        );
        let places = generator::indices(&format!("{name}/{tensor}/entries"), found.len(), 64);
        for (place, expected) in places.into_iter().zip(&entries[row]) {
            assert!(
                (found[place] - expected).abs() <= tolerance,
                "{tensor}[{place}]: {} for {expected}",
                found[place]
            );
        }
    }
}

#[test]
fn full_resnet18() {
    check_full("resnet18", Cut::Conventional);
    check_full("resnet18", Cut::Tiles(32));
}

#[test]
fn full_resnet34() {
    check_full("resnet34", Cut::Tiles(64));
}

#[test]
fn full_resnet50() {
    check_full("resnet50", Cut::Tiles(64));
}

#[test]
fn full_convnext() {
    check_full("convnext_tiny", Cut::Conventional);
    check_full("convnext_tiny", Cut::Tiles(32));
    check_full("convnext_small", Cut::Tiles(64));
}

#[test]
fn full_feature_pyramids() {
    check_full("resnet18_fpn", Cut::Conventional);
    check_full("resnet18_fpn", Cut::Tiles(32));
    check_full("resnet50_fpn", Cut::Tiles(64));
}

#[test]
fn full_unets() {
    check_full("unet_resnet18-3", Cut::Conventional);
    check_full("unet_resnet18-3", Cut::Tiles(32));
    check_full("unet_resnet50-1", Cut::Tiles(64));
}

#[test]
fn full_mobilenet() {
    check_full("mobilenet_v2", Cut::Conventional);
    check_full("mobilenet_v2", Cut::Tiles(32));
}
