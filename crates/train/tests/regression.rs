//! Numbers are learnt whatever their unit, and predicted in it.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use candle_core::{Device, Tensor};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use stream_grad::TileSource;
use stream_grad_train::TrainError;
use stream_grad_train::data::{Sample, Split, Task};
use stream_grad_train::loss::TargetScale;
use stream_grad_train::metrics::spearmanr;
use stream_grad_train::model::{Model, ModelSettings, StreamedModel};
use stream_grad_train::source::ImageLoader;
use stream_grad_train::trainer::{NoObserver, Run, TrainSettings, evaluate};

const EDGE: usize = 32;

/// Noise with as many bright squares as its name says.
struct Squares;

impl ImageLoader for Squares {
    fn expect(&self, _: &[&Path]) {}

    fn load(&self, slide: &Path) -> Result<Arc<dyn TileSource>, TrainError> {
        let name = slide.display().to_string();
        let (index, count) = name.split_once('_').unwrap();
        let mut rng = ChaCha8Rng::seed_from_u64(index.parse().unwrap());
        let mut values: Vec<f32> = (0..3 * EDGE * EDGE)
            .map(|_| rng.random::<f32>() - 0.5)
            .collect();
        for _ in 0..count.parse::<usize>().unwrap() {
            let [top, left] = [(); 2].map(|()| rng.random_range(0..EDGE - 4));
            for place in 0..3 * 16 {
                let (channel, row, column) = (place / 16, place / 4 % 4, place % 4);
                values[(channel * EDGE + top + row) * EDGE + left + column] = 2.0;
            }
        }
        let shape = (1, 3, EDGE, EDGE);
        Ok(Arc::new(Tensor::from_vec(values, shape, &Device::Cpu)?))
    }
}

fn samples(range: std::ops::Range<usize>, scale: TargetScale) -> Vec<Sample> {
    range
        .map(|index| {
            let count = index * 7 % 11;
            let label = scale.restore(f64::from(u32::try_from(count).unwrap()) / 3.0 - 1.5);
            Sample::new(PathBuf::from(format!("{index}_{count}")), label)
        })
        .collect()
}

/// Predictions for 20 images after training on 40 with labels in units of `scale`, and the model.
fn learn(scale: TargetScale) -> (Vec<f64>, Vec<f64>, StreamedModel) {
    let (train, test) = (samples(0..40, scale), samples(40..60, scale));
    let settings = ModelSettings {
        name: "plain-8x3".to_owned(),
        memory_bytes: 64 << 20,
        ..ModelSettings::default()
    };
    let model = StreamedModel::new(&settings, 1, 3).unwrap();
    let settings = TrainSettings {
        epochs: 8,
        ..TrainSettings::default()
    };
    let run = Run {
        settings: &settings,
        task: Task::Regression,
        train: &train,
        validation: &[],
        model: (&model).into(),
        loader: &Squares,
        folder: None,
    };
    let stop = AtomicBool::new(false);
    run.execute(&stop, &mut NoObserver).unwrap();
    let set = (test.as_slice(), Split::Test);
    let evaluation = evaluate(&model, &Squares, set, &stop, &mut NoObserver);
    let evaluation = evaluation.unwrap().unwrap();
    let scores = evaluation.labelled().map(|(found, _)| found.logits[0]);
    let truth = evaluation
        .labelled()
        .filter_map(|(_, label)| label.number());
    (scores.collect(), truth.collect(), model)
}

#[test]
fn labels_in_another_unit_give_the_same_predictions_in_it() {
    let plain = TargetScale::default();
    let (expected, truth, _) = learn(plain);
    assert!(spearmanr(&truth, &expected).unwrap() > 0.5);
    for (mean, deviation) in [(12.0, 4.0), (5000.0, 900.0)] {
        let scale = TargetScale { mean, deviation };
        let (found, _, model) = learn(scale);
        for (found, expected) in found.iter().zip(&expected) {
            let difference = scale.standardise_exactly(*found) - expected;
            assert!(difference.abs() < 1e-3, "{found} for {expected}");
        }

        // A model that takes up the tensors predicts in the unit too.
        let settings = ModelSettings {
            name: "plain-8x3".to_owned(),
            memory_bytes: 64 << 20,
            ..ModelSettings::default()
        };
        let again = StreamedModel::new(&settings, 1, 99).unwrap();
        again.load_tensors(&model.tensors()).unwrap();
        let image = Squares.load(&samples(40..41, scale)[0].slide).unwrap();
        assert_eq!(
            again.predict(&*image).unwrap()[0].to_bits(),
            found[0].to_bits()
        );
    }
}

#[test]
fn a_damaged_scale_is_refused() {
    let settings = ModelSettings {
        name: "plain-2x2".to_owned(),
        ..ModelSettings::default()
    };
    let model = StreamedModel::new(&settings, 1, 1).unwrap();
    model
        .set_target_scale(TargetScale {
            mean: 3.0,
            deviation: 2.0,
        })
        .unwrap();
    let mut tensors = model.tensors();
    tensors.insert(
        "target.mean".to_owned(),
        Tensor::new(&[f64::NAN], &Device::Cpu).unwrap(),
    );
    let error = model.load_tensors(&tensors).unwrap_err().to_string();
    assert!(
        error.contains("target.mean") && error.contains("finite"),
        "{error}"
    );
}
