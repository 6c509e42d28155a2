//! `predict` and `heatmap` on slides without labels, one of which is none.

#![expect(clippy::unwrap_used, reason = "a failure is the test's message")]

use std::path::Path;
use std::process::Command;
use std::sync::atomic::AtomicBool;

use candle_core::{Device, Tensor};
use stream_grad_train::cohort::{CohortConfig, SplitSizes, generate};
use stream_grad_train::data::{ClassNames, Task};
use stream_grad_train::model::{Model, ModelSettings, StreamedModel};
use stream_grad_train::model_file::{ModelDescription, TrainedBy, save};
use stream_grad_train::source::ReadSettings;

/// A model whose weights are drawn: its predictions mean nothing.
fn write_model(path: &Path) {
    let settings = ModelSettings {
        name: "small-2x1".to_owned(),
        ..ModelSettings::default()
    };
    let task = Task::Classification { classes: 3 };
    let model = StreamedModel::new(&settings, task.outputs(), 0).unwrap();
    let image = || Tensor::rand(0_f32, 1.0, (1, 3, 32, 32), &Device::Cpu).unwrap();
    let pooled = [image(), image()].map(|image| model.pooled(&image).unwrap());
    model.update_statistics(&pooled).unwrap();
    let description = ModelDescription {
        model: settings,
        task,
        classes: ClassNames::new(["low", "mid", "high"]).unwrap(),
        microns_per_pixel: 8.0,
        read: ReadSettings::default(),
        trained_by: TrainedBy::new(0, 0),
    };
    save(path, &description, &model.tensors()).unwrap();
}

fn write_slides(folder: &Path) {
    let config = CohortConfig {
        splits: SplitSizes {
            train: 2,
            validation: 0,
            test: 1,
        },
        ..CohortConfig::default()
    };
    generate(&config, folder, &AtomicBool::new(false), &|_, _| ()).unwrap();
}

fn predict(folder: &Path, output: &str, arguments: &[&str]) -> (Option<i32>, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_stream-grad"));
    let output = command
        .current_dir(folder)
        .args(["predict", "model.safetensors", "--output", output])
        .args(arguments)
        .output()
        .unwrap();
    let messages = String::from_utf8(output.stderr).unwrap();
    assert!(!messages.contains("panicked"), "{messages}");
    (output.status.code(), messages)
}

#[test]
fn slides_of_a_folder_are_predicted_and_bad_ones_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    write_model(&path.join("model.safetensors"));
    write_slides(&path.join("slides"));
    std::fs::write(path.join("slides/torn.tif"), "II*\0").unwrap();
    for _ in 0..2 {
        let (code, messages) = predict(path, "found.csv", &["--folder", "slides"]);
        assert_eq!(code, Some(3), "{messages}");
        for part in ["torn.tif", "1 of 4 slides were left out"] {
            assert!(messages.contains(part), "{part:?} in {messages}");
        }
        let table = std::fs::read_to_string(path.join("found.csv")).unwrap();
        assert_eq!(table.lines().count(), 1 + 3, "{table}");
        assert!(table.contains("slide_0001"), "{table}");
    }
}

#[test]
fn a_table_hands_its_columns_on() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    write_model(&path.join("model.safetensors"));
    write_slides(&path.join("slides"));
    let table = "File,Case\nslides/slide_0001.tif,A17\n";
    std::fs::write(path.join("cases.csv"), table).unwrap();
    let csv = ["--csv", "cases.csv", "--slide-column", "file"];
    let (code, messages) = predict(path, "found.csv", &csv);
    assert_eq!(code, Some(0), "{messages}");
    let table = std::fs::read_to_string(path.join("found.csv")).unwrap();
    assert!(table.contains("A17"), "{table}");

    // A table is no output, and neither is the model.
    for output in ["cases.csv", "model.safetensors"] {
        let (code, messages) = predict(path, output, &csv);
        assert_eq!(code, Some(1), "{messages}");
        assert!(messages.contains(output), "{messages}");
    }
}

#[test]
fn slides_are_explained_and_bad_ones_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    write_model(&path.join("model.safetensors"));
    write_slides(&path.join("slides"));
    std::fs::write(path.join("slides/torn.tif"), "II*\0").unwrap();
    let heatmap = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_stream-grad"));
        let output = command
            .current_dir(path)
            .args(["heatmap", "model.safetensors", "--output", "maps"])
            .args(arguments)
            .output()
            .unwrap();
        (
            output.status.code(),
            String::from_utf8(output.stderr).unwrap(),
        )
    };
    let slides = ["slides/torn.tif", "slides/slide_0001.tif"];
    let (code, messages) = heatmap(&[&slides[..], &["--target", "mid"]].concat());
    assert_eq!(code, Some(3), "{messages}");
    assert!(messages.contains("torn.tif"), "{messages}");
    for ending in ["overlay.png", "heatmap.tiff", "geojson", "json"] {
        let file = path.join(format!("maps/slide_0001.{ending}"));
        assert!(file.is_file(), "{}", file.display());
    }
    let outlines = std::fs::read_to_string(path.join("maps/slide_0001.geojson")).unwrap();
    assert!(outlines.contains("mid >= 0.5"), "{outlines}");

    let (code, messages) = heatmap(&[slides[1], "--target", "tall"]);
    assert_eq!(code, Some(2), "{messages}");
    assert!(messages.contains("low, mid, high"), "{messages}");
    let (code, messages) = heatmap(&[slides[1], "--layer", "layer9"]);
    assert_eq!(code, Some(1), "{messages}");
    assert!(messages.contains("layer9"), "{messages}");
}
