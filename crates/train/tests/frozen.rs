//! Weights from a file, and parts of the network that keep theirs.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
#![expect(clippy::result_large_err, reason = "a loss has the error of its crate")]

use candle_core::{DType, Device, Tensor};
use candle_nn::VarMap;
use stream_grad_models::{ModelName, save_map, seeded};
use stream_grad_train::data::{Label, Task};
use stream_grad_train::loss::slide_loss;
use stream_grad_train::model::{Model, ModelSettings, StreamedModel};

fn image() -> Tensor {
    Tensor::rand(-1.0_f32, 1.0, (1, 3, 48, 40), &Device::Cpu).unwrap()
}

fn gradients(model: &StreamedModel, image: &Tensor) -> stream_grad_train::gradients::Gradients {
    let label = Label::Number(1.0);
    let found = model.gradients(image, &|outputs| slide_loss(Task::Binary, outputs, &label));
    found.unwrap().gradients
}

fn settings(frozen: &[&str]) -> ModelSettings {
    ModelSettings {
        name: "small-2x1".to_owned(),
        frozen: frozen.iter().map(|part| (*part).to_owned()).collect(),
        momentum: 0.0,
        ..ModelSettings::small()
    }
}

/// What is frozen is no variable and has no gradient; the others' gradients are as if nothing were frozen, and the plan counts less
/// work backward.
#[test]
fn frozen_parts_have_no_gradient_and_cost_no_work() {
    let image = image();
    let whole = StreamedModel::new(&settings(&[]), 1, 7).unwrap();
    let all = gradients(&whole, &image);
    let model = StreamedModel::new(&settings(&["stem", "blocks.0"]), 1, 7).unwrap();
    let some = gradients(&model, &image);
    let is_frozen = |name: &str| name.starts_with("net.stem") || name.starts_with("net.blocks.0.");
    let trained: Vec<String> = model
        .variables()
        .into_iter()
        .map(|(name, _)| name)
        .collect();
    assert!(trained.iter().any(|name| name.starts_with("net.blocks.1.")));
    for (name, variable) in whole.variables() {
        assert_eq!(trained.contains(&name), !is_frozen(&name), "{name}");
        let Some(found) = some.get(&name) else {
            assert!(is_frozen(&name), "{name}");
            continue;
        };
        let expected = all.get(&name).unwrap();
        let worst = (found - expected)
            .unwrap()
            .abs()
            .unwrap()
            .flatten_all()
            .unwrap()
            .max(0)
            .unwrap();
        let scale = expected
            .abs()
            .unwrap()
            .flatten_all()
            .unwrap()
            .max(0)
            .unwrap();
        let (worst, scale) = (
            worst.to_scalar::<f32>().unwrap(),
            scale.to_scalar::<f32>().unwrap(),
        );
        assert!(
            worst <= 1e-5 * scale.max(1e-3),
            "{name}: {worst} of {scale}"
        );
        assert_eq!(found.dims(), variable.dims());
    }
    // Frozen weights are in the checkpoint all the same.
    assert_eq!(model.tensors().len(), whole.tensors().len());
    assert!(model.tensors().contains_key("net.stem.weight"));
}

#[test]
fn the_stem_of_a_resnet_is_its_first_convolution_and_norm() {
    let settings = ModelSettings {
        name: "resnet18".to_owned(),
        frozen: vec!["stem".to_owned(), "layer1".to_owned()],
        ..ModelSettings::default()
    };
    let model = StreamedModel::new(&settings, 2, 1).unwrap();
    let names: Vec<String> = model
        .variables()
        .into_iter()
        .map(|(name, _)| name)
        .collect();
    for part in ["net.conv1.", "net.bn1.", "net.layer1."] {
        assert!(names.iter().all(|name| !name.starts_with(part)), "{part}");
    }
    assert!(names.contains(&"net.layer2.0.conv1.weight".to_owned()));
    assert!(names.contains(&"head.fc.weight".to_owned()));
}

#[test]
fn unknown_parts_are_refused_with_those_that_are_known() {
    for part in ["layer1", "blocks.9", "block", ""] {
        let error = StreamedModel::new(&settings(&[part]), 1, 7)
            .unwrap_err()
            .to_string();
        for text in ["model.frozen", "blocks, norm, stem", &format!("`{part}`")] {
            assert!(error.contains(text), "{text} in {error}");
        }
    }
}

/// The network takes the file's weights under the names that torchvision has, without `net.`; the head is drawn.
#[test]
fn weights_come_from_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("small.safetensors");
    let source = VarMap::new();
    let name: ModelName = "small-2x1".parse().unwrap();
    name.build(seeded(&source, 5, DType::F32, &Device::Cpu))
        .unwrap();
    save_map(&file, &source).unwrap();
    let with = ModelSettings {
        weights: Some(file.clone()),
        ..settings(&[])
    };
    let model = StreamedModel::new(&with, 1, 7).unwrap().tensors();
    let drawn = StreamedModel::new(&settings(&[]), 1, 7).unwrap().tensors();
    let values = |tensor: &Tensor| tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    let stored = source.data().lock().unwrap()["stem.weight"]
        .as_tensor()
        .clone();
    assert_eq!(values(&model["net.stem.weight"]), values(&stored));
    assert_ne!(values(&drawn["net.stem.weight"]), values(&stored));
    assert_eq!(
        values(&model["head.fc.weight"]),
        values(&drawn["head.fc.weight"])
    );

    let other = ModelSettings {
        name: "small-3x1".to_owned(),
        ..with
    };
    let error = StreamedModel::new(&other, 1, 7).unwrap_err().to_string();
    assert!(error.contains("small.safetensors"), "{error}");
}
