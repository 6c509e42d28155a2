//! Files that PyTorch wrote, in every form that people save weights in: the same values bit for bit, or a refusal that
//! says why. `golden/saved/make.py` writes them.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[expect(dead_code, reason = "shared with the tests of networks")]
mod common;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor, Var};
use common::{fixture, load};
use proptest::prelude::*;
use stream_grad_models::{Loaded, ModelError, StateDict, save_tensors};

/// The shapes of the saved network.
const SHAPES: [(&str, &[usize]); 4] = [
    ("0.weight", &[4, 3, 2, 3]),
    ("0.bias", &[4]),
    ("3.weight", &[2, 4, 3, 2]),
    ("3.bias", &[2]),
];

fn saved(name: &str) -> PathBuf {
    fixture(&format!("saved/{name}"))
}

/// Variables of the saved network, all NaN.
fn variables(dtype: DType) -> BTreeMap<String, Var> {
    let variable = |(name, shape): (&str, &[usize])| {
        let nan = Tensor::full(f32::NAN, shape, &Device::Cpu).unwrap();
        let nan = nan.to_dtype(dtype).unwrap();
        (name.to_owned(), Var::from_tensor(&nan).unwrap())
    };
    SHAPES.into_iter().map(variable).collect()
}

fn bits(tensor: &Tensor) -> Vec<u64> {
    let values = tensor.to_dtype(DType::F64).unwrap().flatten_all().unwrap();
    let values: Vec<f64> = values.to_vec1().unwrap();
    values.into_iter().map(f64::to_bits).collect()
}

/// The variables have the values of `plain.safetensors`.
#[track_caller]
fn assert_plain(variables: &BTreeMap<String, Var>, file: &str) {
    let plain = load(saved("plain.safetensors"));
    assert_eq!(plain.len(), variables.len());
    for (name, variable) in variables {
        assert_eq!(bits(variable), bits(&plain[name]), "{file}: {name}");
    }
}

/// Loads a file in both precisions and compares it with `plain.safetensors`.
#[track_caller]
fn loads(file: &str) -> Loaded {
    let single = variables(DType::F32);
    let loaded = StateDict::read(saved(file))
        .unwrap()
        .assign(&single)
        .unwrap();
    assert_plain(&single, file);
    let double = variables(DType::F64);
    let again = StateDict::read(saved(file))
        .unwrap()
        .assign(&double)
        .unwrap();
    assert_plain(&double, file);
    assert_eq!(loaded, again);
    assert_eq!(loaded.path(), saved(file));
    assert_eq!(loaded.tensors(), 4);
    assert_eq!(loaded.to_string().lines().count(), 1);
    loaded
}

#[test]
fn every_layout_of_values_and_files_gives_the_same() {
    // Names of files say nothing, and two of these mislead.
    for file in [
        "plain.safetensors",
        "channels_last.pth",
        "legacy.safetensors",
        "views.pth",
        "module.pt",
    ] {
        let loaded = loads(file);
        assert_eq!(loaded.prefix(), "", "{file}");
        assert!(loaded.left_out().is_empty(), "{file}: {loaded:?}");
        assert!(loaded.to_string().ends_with("`: 4 tensors"), "{loaded}");
    }
}

#[test]
fn types_are_converted_and_counters_left_out() {
    let loaded = loads("mixed.pth");
    assert_eq!(loaded.left_out(), ["5.num_batches_tracked", "fc.weight"]);
    let state = StateDict::read(saved("mixed.pth")).unwrap();
    let dtype = |name: &str| state.tensor(name).unwrap().dtype();
    let found = ["0.weight", "0.bias", "3.weight", "5.num_batches_tracked"].map(dtype);
    assert_eq!(found, [DType::F16, DType::BF16, DType::F64, DType::I32]);
}

#[test]
fn dictionaries_and_prefixes_are_found() {
    for (file, prefix) in [
        ("stream_network.pth", "stream_network."),
        ("averaged.pt", "module."),
        ("nested.pth", "net.encoder."),
        ("lightning.ckpt", "state_dict.model.backbone."),
    ] {
        let loaded = loads(file);
        assert_eq!(loaded.prefix(), prefix, "{file}");
        assert!(loaded.to_string().contains(&format!("`{prefix}`")));
    }
    assert_eq!(loads("averaged.pt").left_out(), ["n_averaged"]);
    let message = loads("lightning.ckpt").to_string();
    let end = "lightning.ckpt`: 4 tensors under `state_dict.model.backbone.`; left out: `callbacks.…` (1), \
               `optimizer_states.…` (1), `state_dict.…` (1)";
    assert!(message.ends_with(end), "{message}");
}

#[test]
fn wrapping_modules_are_passed_over() {
    let loaded = loads("compiled.weights");
    assert_eq!(
        (loaded.prefix(), loaded.wrappers()),
        ("", &["_orig_mod"][..])
    );
    let loaded = loads("compiled_in_part.bin");
    assert_eq!(loaded.prefix(), "module.");
    let message = loaded.to_string();
    let end = "4 tensors under `module.`, without `_orig_mod.`";
    assert!(message.ends_with(end), "{message}");
}

/// A tensor beside the dictionary does not hide it, and one dictionary under two keys is one.
#[test]
fn a_training_scripts_checkpoint_is_read() {
    let loaded = loads("training.tar");
    assert_eq!(loaded.prefix(), "model.");
    assert_eq!(loaded.copies(), ["model_state_dict."]);
    for name in [
        "best_acc1",
        "loss",
        "class_weights",
        "rng",
        "optimizer.state.0.exp_avg",
    ] {
        assert!(
            loaded.left_out().iter().any(|other| other == name),
            "{name}"
        );
    }
    let loaded = loads("legacy_nested");
    assert_eq!(
        (loaded.prefix(), loaded.copies()),
        ("model.", &["state_dict.".to_owned()][..])
    );
}

#[test]
fn two_different_models_are_refused_and_one_can_be_chosen() {
    let state = StateDict::read(saved("refused_ambiguous.pth")).unwrap();
    let wanted = variables(DType::F32);
    let error = state.assign(&wanted).unwrap_err();
    assert!(
        matches!(&error, ModelError::AmbiguousTensors { name, prefixes, .. }
            if wanted.contains_key(name) && prefixes == "`state_dict.`, `state_dict_ema.`"),
        "{error}"
    );
    assert!(
        bits(&wanted["0.bias"])
            .iter()
            .all(|&bits| f64::from_bits(bits).is_nan())
    );

    let loaded = state.under("state_dict.").unwrap().assign(&wanted).unwrap();
    assert_eq!(loaded.prefix(), "state_dict.");
    assert_plain(&wanted, "state_dict.");
    state
        .under("state_dict_ema.")
        .unwrap()
        .assign(&wanted)
        .unwrap();
    let plain = load(saved("plain.safetensors"));
    for (name, variable) in &wanted {
        let doubled = (&plain[name] * 2.0).unwrap();
        assert_eq!(bits(variable), bits(&doubled), "{name}");
    }
    let message = state.under("ema.").unwrap_err().to_string();
    assert!(
        message.contains("`ema.`") && message.contains("state_dict., state_dict_ema."),
        "{message}"
    );
}

#[test]
fn what_is_not_read_is_refused_with_its_name() {
    for (file, found) in [
        ("refused_float8.pth", "torch.float8_e4m3fn"),
        ("refused_complex.pth", "ComplexFloatStorage"),
        ("refused_sparse.pth", "_rebuild_sparse_tensor"),
        ("refused_quantised.pth", "QInt8Storage"),
        ("refused_script.pt", "TorchScript"),
    ] {
        let error = StateDict::read(saved(file)).unwrap_err();
        assert!(
            matches!(&error, ModelError::UnsupportedObject { path, found: named }
                if *path == saved(file) && named.contains(found)),
            "{error}"
        );
    }
    let error = StateDict::read(saved("refused_list.pth")).unwrap_err();
    assert!(error.to_string().contains("found list"), "{error}");
    let nothing = saved("refused_nothing.pth");
    let error = StateDict::read(&nothing).unwrap_err();
    assert!(
        matches!(&error, ModelError::NoTensors { path } if *path == nothing),
        "{error}"
    );

    let state = StateDict::read(saved("refused_float8.safetensors")).unwrap();
    let end = "tensor `0.bias`: expected float16, bfloat16, float32 or float64, found F8_E4M3";
    for error in [
        state.assign(&variables(DType::F32)).unwrap_err(),
        state.tensor("0.bias").unwrap_err(),
    ] {
        let message = error.to_string();
        assert!(message.ends_with(end), "{message}");
    }
    assert!(matches!(
        state.tensor("1.bias"),
        Err(ModelError::NoSuchTensor { name, .. }) if name == "1.bias"
    ));
}

/// What is missing is listed beside the nearest that the file has, and what has the right name is not.
#[test]
fn missing_tensors_are_listed_beside_the_nearest() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("renamed.safetensors");
    let plain = load(saved("plain.safetensors"));
    let renamed = [
        ("model.0.bias", "0.bias"),
        ("model.0.conv.weight", "0.weight"),
        ("model.3.bias", "3.bias"),
        ("model.3.w", "3.weight"),
    ];
    let renamed = renamed.map(|(new, old)| (new.to_owned(), plain[old].clone()));
    save_tensors(&path, &BTreeMap::from(renamed)).unwrap();
    let error = StateDict::read(&path)
        .unwrap()
        .assign(&variables(DType::F32));
    let message = error.unwrap_err().to_string();
    let end = "renamed.safetensors` lacks `model.0.weight`, expected with shape [4, 3, 2, 3]; 2 of 4 tensors are missing; \
               wanted, and the nearest of the file's others:\n  \
               0.weight [4, 3, 2, 3]  model.0.conv.weight [4, 3, 2, 3]\n  \
               3.weight [2, 4, 3, 2]  model.3.w [2, 4, 3, 2]";
    assert!(message.ends_with(end), "{message}");
}

/// Of two names that become one without their wrappers, neither is passed over.
#[test]
fn a_model_beside_its_compiled_copy_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("both.safetensors");
    let mut tensors: BTreeMap<String, Tensor> =
        load(saved("plain.safetensors")).into_iter().collect();
    let compiled = tensors.clone().into_iter();
    let compiled =
        compiled.map(|(name, value)| (format!("_orig_mod.{name}"), (value + 1.0).unwrap()));
    tensors.extend(compiled.collect::<Vec<_>>());
    save_tensors(&path, &tensors).unwrap();
    let error = StateDict::read(&path)
        .unwrap()
        .assign(&variables(DType::F32));
    let message = error.unwrap_err().to_string();
    assert!(message.contains("no prefix, `_orig_mod.`"), "{message}");
}

/// A tensor that is not asked for is not read: its bytes may go after the file was opened.
#[test]
fn only_what_is_wanted_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("shrinks.safetensors");
    let mut tensors: BTreeMap<String, Tensor> = load(saved("plain.safetensors"))
        .into_iter()
        .map(|(name, value)| (format!("model.{name}"), value))
        .collect();
    // The writer sorts by width of element, then by name, so the bytes of this one are the last.
    let state = Tensor::zeros(1000, DType::U8, &Device::Cpu).unwrap();
    tensors.insert("optimizer.state".into(), state);
    save_tensors(&path, &tensors).unwrap();
    let state = StateDict::read(&path).unwrap();
    let file = std::fs::File::options().write(true).open(&path).unwrap();
    file.set_len(file.metadata().unwrap().len() - 1000).unwrap();
    let wanted = variables(DType::F32);
    state.assign(&wanted).unwrap();
    assert_plain(&wanted, "shrinks.safetensors");
    for refused in [
        state.tensor("optimizer.state").map(drop),
        StateDict::read(&path).map(drop),
    ] {
        assert!(
            matches!(&refused, Err(ModelError::Read { path: named, .. }) if *named == path),
            "{refused:?}"
        );
    }
}

/// How a file is damaged.
#[derive(Debug, Clone)]
enum Damage {
    Set(prop::sample::Index, u8),
    Remove(prop::sample::Index),
    Insert(prop::sample::Index, u8),
    Cut(prop::sample::Index),
}

fn damage() -> impl Strategy<Value = Damage> {
    let at = any::<prop::sample::Index>;
    prop_oneof![
        6 => (at(), any::<u8>()).prop_map(|(at, byte)| Damage::Set(at, byte)),
        2 => at().prop_map(Damage::Remove),
        2 => (at(), any::<u8>()).prop_map(|(at, byte)| Damage::Insert(at, byte)),
        1 => at().prop_map(Damage::Cut),
    ]
}

fn damaged(path: &Path, damages: &[Damage]) -> Vec<u8> {
    let mut bytes = std::fs::read(path).unwrap();
    for damage in damages {
        if bytes.is_empty() {
            break;
        }
        match damage {
            Damage::Set(at, byte) => {
                let at = at.index(bytes.len());
                bytes[at] = *byte;
            }
            Damage::Remove(at) => drop(bytes.remove(at.index(bytes.len()))),
            Damage::Insert(at, byte) => bytes.insert(at.index(bytes.len()), *byte),
            Damage::Cut(at) => bytes.truncate(at.index(bytes.len())),
        }
    }
    bytes
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Damaged files are read or refused: nothing panics, and a refusal changes no variable.
    #[test]
    fn damaged_files_are_read_or_refused(
        file in prop::sample::select(vec![
            "plain.safetensors", "channels_last.pth", "legacy.safetensors", "legacy_nested", "nested.pth",
            "views.pth", "mixed.pth", "training.tar", "module.pt",
        ]),
        damages in prop::collection::vec(damage(), 1..5),
    ) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("damaged");
        std::fs::write(&path, damaged(&saved(file), &damages)).unwrap();
        let wanted = variables(DType::F32);
        let result = StateDict::read(&path).and_then(|state| {
            for name in state.names() {
                let _ = state.tensor(name);
            }
            state.assign(&wanted)
        });
        if let Err(error) = result {
            prop_assert!(error.to_string().contains("damaged"), "{}", error);
            for variable in wanted.values() {
                prop_assert!(bits(variable).iter().all(|&bits| f64::from_bits(bits).is_nan()));
            }
        }
    }
}
