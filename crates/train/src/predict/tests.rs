//! Tables that grow, go on and are refused.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use candle_core::{Device, Tensor};
use stream_grad::TileSource;
use stream_grad_files::FileError;
use stream_grad_slides::FurtherCell;

use super::*;
use crate::data::{ClassNames, Task};
use crate::error::TrainError;
use crate::model::{ModelSettings, Precision};
use crate::model_file::{Limits, TrainedBy, save};
use crate::trainer::{NoObserver, Phase, TrainEvent};

/// Images in memory by name.
struct Images(BTreeMap<PathBuf, Tensor>);

impl ImageLoader for Images {
    fn expect(&self, _: &[&Path]) {}

    fn load(&self, slide: &Path) -> Result<Arc<dyn TileSource>> {
        match self.0.get(slide) {
            Some(image) => Ok(Arc::new(image.clone())),
            None => Err(TrainError::file(slide)(std::io::Error::from(
                std::io::ErrorKind::NotFound,
            ))),
        }
    }
}

fn image(seed: u32) -> Tensor {
    let values =
        (0..3 * 32 * 32_u32).map(|place| ((place * (37 + seed) % 101) as f32) / 50.0 - 1.0);
    Tensor::from_iter(values, &Device::Cpu)
        .unwrap()
        .reshape((1, 3, 32, 32))
        .unwrap()
}

fn cohort(slides: u32) -> (Vec<Sample>, Images) {
    let mut images = BTreeMap::new();
    let samples = (0..slides).map(|index| {
        let slide = PathBuf::from(format!("slide_{index}"));
        images.insert(slide.clone(), image(index));
        Sample {
            label: None,
            patient: (index == 0).then(|| "p, 1".to_owned()),
            further: vec![FurtherCell {
                column: "Predicted".to_owned(),
                text: index.to_string(),
            }],
            ..Sample::new(slide, 0.0)
        }
    });
    let samples = samples.collect();
    (samples, Images(images))
}

fn predictor(folder: &Path, seed: u64) -> Predictor {
    let path = folder.join(format!("model-{seed}.safetensors"));
    let task = Task::Classification { classes: 3 };
    let description = ModelDescription {
        model: ModelSettings {
            name: "small-2x1".to_owned(),
            ..ModelSettings::default()
        },
        task,
        classes: ClassNames::new(["low", "mid", "high"]).unwrap(),
        microns_per_pixel: 4.0,
        read: ReadSettings::default(),
        trained_by: TrainedBy::new(seed, 0),
    };
    let model = StreamedModel::new(&description.model, 3, seed).unwrap();
    let pooled = [
        model.pooled(&image(0)).unwrap(),
        model.pooled(&image(9)).unwrap(),
    ];
    model.update_statistics(&pooled).unwrap();
    save(&path, &description, &model.tensors()).unwrap();
    Predictor::open(&path, Limits::new(64 << 20, 0)).unwrap()
}

fn rows(path: &Path) -> Vec<Vec<String>> {
    let mut reader = csv::ReaderBuilder::new()
        .has_headers(false)
        .from_path(path)
        .unwrap();
    let records = reader.records().map(std::result::Result::unwrap);
    records
        .map(|record| record.iter().map(str::to_owned).collect())
        .collect()
}

#[test]
fn what_is_written_is_what_the_model_predicts_and_a_call_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let predictor = predictor(folder.path(), 3);
    let (samples, images) = cohort(5);
    let path = folder.path().join("predictions.csv");
    let stop = AtomicBool::new(false);
    let mut done = 0;
    let mut observer = |event: &TrainEvent<'_>| {
        if let TrainEvent::SlidePredicted { .. } = event {
            done += 1;
            stop.store(done == 2, Ordering::Relaxed);
        }
    };
    let first = predictor
        .predict_with(&images, &samples, &path, (&stop, &mut observer))
        .unwrap();
    assert_eq!((first.predicted, first.is_stopped), (2, true));
    let begun = rows(&path);
    // Killed in the middle of a row.
    let mut text = std::fs::read(&path).unwrap();
    text.truncate(text.len() - 5);
    std::fs::write(&path, text).unwrap();
    let stop = AtomicBool::new(false);
    let second = predictor
        .predict_with(&images, &samples, &path, (&stop, &mut NoObserver))
        .unwrap();
    assert_eq!((second.before, second.predicted), (1, 4));
    let rows = rows(&path);
    assert_eq!(rows[..3], begun[..]);
    assert_eq!(
        rows[0],
        [
            "slide",
            "predicted",
            "probability_low",
            "probability_mid",
            "probability_high",
            "output_0",
            "output_1",
            "output_2",
            "patient",
            "table_Predicted"
        ]
    );
    assert_eq!(rows.len(), 6);
    for (index, row) in rows[1..].iter().enumerate() {
        let outputs = predictor
            .model()
            .predict(&images.0[&samples[index].slide])
            .unwrap();
        let written: Vec<u64> = row[5..8]
            .iter()
            .map(|cell| cell.parse::<f64>().unwrap().to_bits())
            .collect();
        let expected: Vec<u64> = outputs.iter().map(|output| output.to_bits()).collect();
        assert_eq!(written, expected);
        assert!(["low", "mid", "high"].contains(&row[1].as_str()));
        assert_eq!(row[9], index.to_string());
    }
    assert_eq!(rows[1][8], "p, 1");
}

#[test]
fn bad_slides_are_named_and_the_others_predicted() {
    let folder = tempfile::tempdir().unwrap();
    let predictor = predictor(folder.path(), 3);
    let (samples, mut images) = cohort(3);
    let missing = images.0.remove(&samples[1].slide).unwrap();
    let path = folder.path().join("predictions.csv");
    let stop = AtomicBool::new(false);
    let mut named = Vec::new();
    let mut observer = |event: &TrainEvent<'_>| {
        if let TrainEvent::SlideSkipped(skipped) = event {
            named.push((*skipped).clone());
        }
    };
    let found = predictor
        .predict_with(&images, &samples, &path, (&stop, &mut observer))
        .unwrap();
    assert_eq!((found.predicted, found.skipped.len()), (2, 1));
    assert_eq!(named, found.skipped);
    assert_eq!(named[0].slide, samples[1].slide);
    assert_eq!(named[0].phase, Phase::Prediction);
    // It is there the next time.
    images.0.insert(samples[1].slide.clone(), missing);
    let found = predictor
        .predict_with(&images, &samples, &path, (&stop, &mut NoObserver))
        .unwrap();
    assert_eq!((found.before, found.predicted), (2, 1));

    let none = Images(BTreeMap::new());
    let error = predictor
        .predict_with(
            &none,
            &samples,
            &folder.path().join("b.csv"),
            (&stop, &mut NoObserver),
        )
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("all 3 slides of the prediction failed") && !error.contains("again"),
        "{error}"
    );
}

#[test]
fn tables_of_others_are_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let (samples, images) = cohort(2);
    let path = folder.path().join("predictions.csv");
    let predict = |predictor: &Predictor, path: &Path, samples: &[Sample]| {
        let stop = AtomicBool::new(false);
        predictor.predict_with(&images, samples, path, (&stop, &mut NoObserver))
    };
    let (first, second) = (predictor(folder.path(), 3), predictor(folder.path(), 4));
    predict(&first, &path, &samples).unwrap();
    let before = std::fs::read(&path).unwrap();
    let error = predict(&second, &path, &samples).unwrap_err().to_string();
    assert!(error.contains("other model"), "{error}");
    let rounded = Limits {
        precision: Some(Precision::Bf16),
        ..Limits::new(64 << 20, 0)
    };
    let rounded = Predictor::open(&folder.path().join("model-3.safetensors"), rounded).unwrap();
    let [single, other] = [&first, &rounded].map(|one| one.model().predict(&image(1)).unwrap());
    assert!(single != other && single.iter().zip(&other).all(|(a, b)| (a - b).abs() < 0.1));
    let error = predict(&rounded, &path, &samples).unwrap_err().to_string();
    assert!(error.contains("other model"), "{error}");
    let mut others = samples.clone();
    others[0].further.clear();
    others[1].further.clear();
    let error = predict(&first, &path, &others).unwrap_err().to_string();
    assert!(error.contains("other columns"), "{error}");
    assert_eq!(std::fs::read(&path).unwrap(), before);

    let table = folder.path().join("mine.csv");
    std::fs::write(&table, "my own\n").unwrap();
    let refused = predict(&first, &table, &samples).unwrap_err();
    assert!(
        matches!(&refused, TrainError::OtherTable { path, .. } if *path == table),
        "{refused}"
    );
    assert_eq!(std::fs::read(&table).unwrap(), b"my own\n");
    // A slide is no table.
    let input = vec![Sample {
        label: None,
        ..Sample::new(&table, 0.0)
    }];
    let refused = predict(&first, &table, &input).unwrap_err();
    assert!(
        matches!(&refused, TrainError::Destination(FileError::Input { input, .. }) if *input == table),
        "{refused}"
    );
}
