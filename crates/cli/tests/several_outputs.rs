//! `vjp` and `plan` of a feature pyramid, which has several outputs.

#![expect(clippy::unwrap_used, reason = "a failure is the test's message")]

use std::collections::HashMap;
use std::path::Path;
use std::process::{Command, Output};

use candle_core::{DType, Device, Tensor};
use candle_nn::VarMap;
use stream_grad::{Net, PlanRequest};
use stream_grad_models::{ModelName, save_map, seeded};

const MODEL: &str = "resnet18_fpn";

fn run(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_stream-grad"));
    command
        .env("XDG_CACHE_HOME", env!("CARGO_TARGET_TMPDIR"))
        .current_dir(folder)
        .args(arguments)
        .output()
        .unwrap()
}

/// A network with the weights of the file `w.safetensors`.
fn pyramid(folder: &Path) -> Net {
    let variables = VarMap::new();
    let name: ModelName = MODEL.parse().unwrap();
    let net = name.build(seeded(&variables, 1, DType::F64, &Device::Cpu));
    save_map(folder.join("w.safetensors"), &variables).unwrap();
    net.unwrap()
}

fn values(tensor: &Tensor) -> Vec<f64> {
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

fn vjp(folder: &Path) -> Output {
    let input = ["--weights", "w.safetensors", "--input", "x.safetensors"];
    let cut = ["--dtype", "f64", "--tile", "32", "--threads", "2"];
    let output = ["--output", "g.safetensors"];
    let arguments = [&["vjp", "--model", MODEL][..], &input, &cut, &output];
    run(folder, &arguments.concat())
}

#[test]
fn each_output_has_features_and_a_cotangent_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let net = pyramid(folder);
    let image = Tensor::rand(-1.0, 1.0, (1, 3, 96, 64), &Device::Cpu).unwrap();
    let plan = PlanRequest::new(96, 64).dtype(DType::F64).tile(96);
    let plan = net.plan(plan).unwrap();
    let (features, residuals) = plan.forward_all(&image).unwrap();
    let random = |like: &Tensor| Tensor::rand(-1.0, 1.0, like.dims(), &Device::Cpu).unwrap();
    let cotangents: Vec<Tensor> = features.iter().map(random).collect();
    let expected = plan.vjp(residuals, &cotangents).unwrap();

    let names: Vec<&str> = net.output_names().collect();
    assert_eq!(names, ["0", "1", "2", "3", "pool"]);
    let mut tensors = HashMap::from([("input".to_owned(), image)]);
    for (name, cotangent) in names.iter().zip(&cotangents) {
        tensors.insert(format!("y_bar.{name}"), cotangent.clone());
    }
    let save = |tensors: &HashMap<String, Tensor>| {
        candle_core::safetensors::save(tensors, folder.join("x.safetensors")).unwrap();
    };
    save(&tensors);
    let output = vjp(folder);
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{message}");
    let found = candle_core::safetensors::load(folder.join("g.safetensors"), &Device::Cpu).unwrap();
    for (name, features) in names.iter().zip(&features) {
        let found = &found[&format!("y.{name}")];
        assert_eq!(found.dims(), features.dims(), "{name}");
        assert!(values(found) == values(features), "{name}");
    }
    let trained = net.parameters().iter().filter(|one| one.trainable);
    assert_eq!(found.len(), names.len() + trained.clone().count());
    for parameter in trained {
        let expected = values(expected.get(&parameter.tensor).unwrap());
        let scale = expected
            .iter()
            .fold(0.0_f64, |most, value| most.max(value.abs()));
        assert!(scale > 0.0, "{} has no gradient", parameter.name);
        for (found, expected) in values(&found[&parameter.name]).iter().zip(expected) {
            assert!(
                (found - expected).abs() <= 1e-12 * scale,
                "{}: {found}, expected {expected}, scale {scale}",
                parameter.name
            );
        }
    }

    // What is missing or misshapen is named.
    let refuses = |tensors: &HashMap<String, Tensor>, told: &str| {
        save(tensors);
        let output = vjp(folder);
        let message = String::from_utf8_lossy(&output.stderr);
        assert!(
            !output.status.success() && message.contains(told),
            "{message}"
        );
    };
    let pool = tensors.insert("y_bar.pool".to_owned(), cotangents[0].clone());
    refuses(
        &tensors,
        "`y_bar.pool`: expected the shape of the features, [1, 256, 2, 1], found [1, 256, 24, 16]",
    );
    tensors.remove("y_bar.pool");
    tensors.insert("y_bar".to_owned(), pool.unwrap());
    refuses(&tensors, "`y_bar.pool`");
}

#[test]
fn a_plan_tells_the_extents_and_receptive_fields_of_all_outputs() {
    let folder = tempfile::tempdir().unwrap();
    let arguments = ["--image", "1024x1024", "--memory", "1GiB", "--threads", "1"];
    let arguments = [&["plan", "--model", MODEL][..], &arguments].concat();
    let output = run(folder.path(), &arguments);
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{message}");
    let text = String::from_utf8(output.stdout).unwrap();
    for part in [
        "256 x 256 x 256, 256 x 128 x 128, 256 x 64 x 64, 256 x 32 x 32, 256 x 16 x 16, streamed",
        "receptive field of 0: ",
        "total stride 4x4\n",
        "receptive field of pool: ",
        "total stride 64x64\n",
        "published method: only of networks with one output, and this one has 5",
    ] {
        assert!(text.contains(part), "{part} in {text}");
    }
}
