//! Loading and saving: torchvision's `state_dict`, checkpoints, and everything that can be wrong with them.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[expect(dead_code, reason = "shared with the tests of networks")]
mod common;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};
use candle_nn::{VarBuilder, VarMap};
use common::{fixture, values};
use stream_grad::Net;
use stream_grad_models::{
    ModelError, ResNetConfig, ResidualBlock, StateDict, generator, load_map, load_net, save_map,
    save_tensors,
};

/// The network of `resnet_1111.pth`.
fn tiny_resnet(dtype: DType) -> (Net, VarMap) {
    let variables = VarMap::new();
    let vb = stream_grad_models::seeded(&variables, 1, dtype, &Device::Cpu);
    let config = ResNetConfig::new(ResidualBlock::Basic, [1, 1, 1, 1]).base_width(1);
    (config.build(vb).unwrap(), variables)
}

fn tensor(net: &Net, name: &str) -> Vec<f64> {
    values(
        &net.parameters()
            .iter()
            .find(|parameter| parameter.name == name)
            .unwrap()
            .tensor,
    )
}

#[test]
fn reads_a_state_dict_of_torchvision() {
    for dtype in [DType::F32, DType::F64] {
        let (net, _) = tiny_resnet(dtype);
        load_net(fixture("resnet_1111.pth"), &net).unwrap();
        assert_eq!(net.parameters().len(), 60, "12 convolutions and norms");
        for parameter in net.parameters() {
            let expected =
                generator::parameter("resnet_1111", &parameter.name, parameter.tensor.dims())
                    .unwrap();
            assert_eq!(
                values(&parameter.tensor),
                values(&expected),
                "{}",
                parameter.name
            );
            assert_eq!(parameter.tensor.dtype(), dtype);
        }
    }
}

#[test]
fn reads_a_checkpoint_that_holds_a_state_dict() {
    let variables = VarMap::new();
    let vb = VarBuilder::from_varmap(&variables, DType::F32, &Device::Cpu);
    let net = stream_grad_models::imagenette(vb).unwrap();
    load_net(fixture("imagenette_nested.pth"), &net).unwrap();
    for parameter in net.parameters() {
        let expected =
            generator::parameter("imagenette", &parameter.name, parameter.tensor.dims()).unwrap();
        let expected = expected.to_dtype(DType::F16).unwrap();
        assert_eq!(
            values(&parameter.tensor),
            values(&expected),
            "{}",
            parameter.name
        );
    }
}

#[test]
fn what_was_saved_is_loaded() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("weights.safetensors");
    let (first, variables) = tiny_resnet(DType::F32);
    save_map(&path, &variables).unwrap();
    let (second, other) = tiny_resnet(DType::F64);
    load_net(fixture("resnet_1111.pth"), &second).unwrap();
    assert_ne!(
        tensor(&first, "conv1.weight"),
        tensor(&second, "conv1.weight")
    );
    load_map(&path, &other).unwrap();
    for parameter in first.parameters() {
        assert_eq!(
            values(&parameter.tensor),
            tensor(&second, &parameter.name),
            "{}",
            parameter.name
        );
    }
    assert_eq!(
        entries(folder.path()),
        ["weights.safetensors"],
        "nothing else is left"
    );
}

#[cfg(unix)]
#[test]
fn weights_have_the_permissions_of_any_new_file() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let mode = |name: &str| {
        let metadata = std::fs::metadata(folder.path().join(name)).unwrap();
        metadata.permissions().mode()
    };
    std::fs::write(folder.path().join("plain"), "").unwrap();
    let (_, variables) = tiny_resnet(DType::F32);
    save_map(folder.path().join("weights.safetensors"), &variables).unwrap();
    assert_eq!(mode("weights.safetensors"), mode("plain"));
}

fn entries(folder: &Path) -> Vec<String> {
    let names = std::fs::read_dir(folder).unwrap();
    names
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect()
}

/// The weights of `resnet_1111.pth`, altered, as safetensors.
fn altered(folder: &Path, alter: impl FnOnce(&mut BTreeMap<String, Tensor>)) -> PathBuf {
    let state = StateDict::read(fixture("resnet_1111.pth")).unwrap();
    let mut tensors = state
        .names()
        .map(|name| (name.to_owned(), state.tensor(name).unwrap()))
        .collect();
    alter(&mut tensors);
    let path = folder.join("altered.safetensors");
    save_tensors(&path, &tensors).unwrap();
    path
}

/// Loading fails, its message holds all `parts`, and nothing was changed.
#[track_caller]
fn assert_refused(alter: impl FnOnce(&mut BTreeMap<String, Tensor>), parts: &[&str]) -> ModelError {
    let folder = tempfile::tempdir().unwrap();
    let path = altered(folder.path(), alter);
    let (net, _) = tiny_resnet(DType::F32);
    let before = tensor(&net, "conv1.weight");
    let error = load_net(&path, &net).unwrap_err();
    let message = error.to_string();
    for part in parts.iter().chain(&["altered.safetensors"]) {
        assert!(message.contains(part), "{message} lacks {part}");
    }
    assert_eq!(tensor(&net, "conv1.weight"), before);
    error
}

fn zeros(shape: &[usize], dtype: DType) -> Tensor {
    Tensor::zeros(shape, dtype, &Device::Cpu).unwrap()
}

#[test]
fn a_missing_tensor_is_named() {
    let name = "layer4.0.bn2.running_var";
    let error = assert_refused(|tensors| drop(tensors.remove(name)), &[name, "[8]"]);
    assert!(
        matches!(&error, ModelError::MissingTensor { name: lacks, expected, .. } if lacks == name && *expected == [8]),
        "{error}"
    );
}

#[test]
fn a_misshapen_tensor_is_named_with_both_shapes() {
    let name = "layer2.0.downsample.0.weight";
    let misshapen = zeros(&[2, 1, 3, 3], DType::F32);
    let error = assert_refused(
        |tensors| drop(tensors.insert(name.into(), misshapen)),
        &[name, "[2, 1, 1, 1]", "[2, 1, 3, 3]"],
    );
    assert!(
        matches!(&error, ModelError::TensorShape { expected, found, .. }
            if *expected == [2, 1, 1, 1] && *found == [2, 1, 3, 3]),
        "{error}"
    );
}

#[test]
fn an_unknown_tensor_is_named() {
    let name = "layer5.0.conv1.weight";
    let unknown = zeros(&[7, 9], DType::F32);
    let error = assert_refused(
        |tensors| drop(tensors.insert(name.into(), unknown)),
        &[name, "[7, 9]"],
    );
    assert!(
        matches!(&error, ModelError::UnknownTensor { name: unknown, found, .. } if unknown == name && *found == [7, 9]),
        "{error}"
    );
}

#[test]
fn integers_are_no_weights() {
    let integers = zeros(&[1], DType::I64);
    let error = assert_refused(
        |tensors| drop(tensors.insert("bn1.weight".into(), integers)),
        &["bn1.weight", "I64", "float32"],
    );
    assert!(
        matches!(&error, ModelError::TensorType { name, found, .. } if name == "bn1.weight" && found == "I64"),
        "{error}"
    );
}

#[test]
fn a_classifier_is_loaded_if_it_is_wanted() {
    let state = StateDict::read(fixture("resnet_1111.pth")).unwrap();
    assert!(
        state.names().any(|name| name == "fc.weight"),
        "the file has a classifier"
    );
    let (_, variables) = tiny_resnet(DType::F32);
    let vb = VarBuilder::from_varmap(&variables, DType::F32, &Device::Cpu);
    let config =
        stream_grad_models::HeadConfig::new(vec![stream_grad_models::GlobalPooling::Average]);
    stream_grad_models::Head::new(&config, 8, 3, vb).unwrap();
    load_map(fixture("resnet_1111.pth"), &variables).unwrap();
    let loaded = variables.data().lock().unwrap()["fc.weight"]
        .as_tensor()
        .clone();
    assert_eq!(values(&loaded), values(&state.tensor("fc.weight").unwrap()));
}

#[test]
fn files_that_are_no_weights_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    };
    let whole = std::fs::read(fixture("resnet_1111.pth")).unwrap();
    let unreadable = [
        folder.path().join("absent.safetensors"),
        folder.path().join("absent.pth"),
        write("text.safetensors", b"these are not weights at all"),
        write("text.pth", b"these are not weights at all"),
        write("cut.pth", &whole[..whole.len() / 2]),
    ];
    for path in unreadable {
        let error = StateDict::read(&path).unwrap_err();
        assert!(
            matches!(&error, ModelError::Read { path: named, .. } if *named == path),
            "{error}"
        );
    }
    let others: [(&str, &[u8], &str); 6] = [
        ("weights.npz", b"", "an empty file"),
        ("empty.safetensors", b"", "an empty file"),
        (
            "pointer.safetensors",
            b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
            "Git LFS",
        ),
        ("page.pth", b"<!DOCTYPE html><html></html>", "HTML"),
        (
            "model.safetensors.index.json",
            b"{\"metadata\": {}, \"weight_map\": {}}",
            "several files",
        ),
        ("model.h5", b"\x89HDF\r\n\x1a\n\0\0\0\0", "HDF5"),
    ];
    for (name, bytes, found) in others {
        let error = StateDict::read(write(name, bytes)).unwrap_err();
        let message = error.to_string();
        assert!(
            matches!(&error, ModelError::UnknownFormat { .. })
                && message.contains(name)
                && message.contains(found),
            "{error}"
        );
    }
    let nothing = folder.path().join("nothing.safetensors");
    save_tensors(&nothing, &BTreeMap::new()).unwrap();
    assert!(matches!(
        StateDict::read(&nothing),
        Err(ModelError::NoTensors { path }) if path == nothing
    ));
}

#[test]
fn constants_cannot_be_loaded_into() {
    let vb = VarBuilder::zeros(DType::F32, &Device::Cpu);
    let net = stream_grad_models::imagenette(vb).unwrap();
    let error = load_net(fixture("imagenette_nested.pth"), &net).unwrap_err();
    assert!(
        matches!(&error, ModelError::NotVariable { name } if name == "0.weight"),
        "{error}"
    );
}

/// A save that fails leaves what was there, and no half-written file.
#[test]
fn a_failed_save_loses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (_, variables) = tiny_resnet(DType::F32);
    let missing = folder.path().join("no such folder").join("w.safetensors");
    let message = save_map(&missing, &variables).unwrap_err().to_string();
    assert!(message.contains("no such folder"), "{message}");
    // A folder in the file's place: the rename is what fails.
    let place = folder.path().join("w.safetensors");
    std::fs::create_dir_all(place.join("inside")).unwrap();
    for path in [place.as_path(), Path::new("/")] {
        let error = save_map(path, &variables).unwrap_err();
        assert!(
            matches!(&error, ModelError::Write { path: named, source }
                if named == path && source.to_string().contains("a folder")),
            "{error}"
        );
    }
    assert_eq!(entries(folder.path()), ["w.safetensors"]);
}
