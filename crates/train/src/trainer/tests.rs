//! The loop on a model without a stream, and on a small streamed one.

mod kept;
mod maps;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use candle_core::{DType, Device, Tensor};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use stream_grad::{PlanRequest, TileSource};

use super::*;
use crate::augment::AugmentationSettings;
use crate::checkpoint::{Checkpoint, CheckpointFolder, UnusableCheckpoint};
use crate::data::{Sample, Task};
use crate::error::{Result, TrainError};
use crate::loss::{ClassWeights, Objective};
use crate::model::{Model, ModelSettings, Precision, StreamedModel};
use crate::optimizer::OptimizerKind;
use crate::source::ImageLoader;

/// Images in memory by name; a name that is not there cannot be opened.
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

/// Noise; in a positive image the first channel is brighter, which norms over the channels of a pixel let through.
fn image(index: usize, positive: bool) -> Tensor {
    let mut rng = ChaCha8Rng::seed_from_u64(u64::try_from(index).unwrap());
    let brighter = if positive { 32 * 48 } else { 0 };
    let values: Vec<f32> = (0..3 * 32 * 48)
        .map(|place| {
            let shift = if place < brighter { 0.5 } else { 0.0 };
            rng.random::<f32>() - 0.5 + shift
        })
        .collect();
    Tensor::from_vec(values, (1, 3, 32, 48), &Device::Cpu).unwrap()
}

fn cohort(slides: usize) -> (Vec<Sample>, Images) {
    let mut images = BTreeMap::new();
    let samples = (0..slides)
        .map(|index| {
            let positive = index % 2 == 1;
            let slide = PathBuf::from(format!("slide_{index:02}"));
            images.insert(slide.clone(), image(index, positive));
            Sample::new(slide, f64::from(u8::from(positive)))
        })
        .collect();
    (samples, Images(images))
}

fn model() -> StreamedModel {
    model_in(Precision::F32)
}

fn model_in(dtype: Precision) -> StreamedModel {
    let settings = ModelSettings {
        name: "small-2x1".to_owned(),
        dtype,
        memory_bytes: 64 << 20,
        ..ModelSettings::small()
    };
    StreamedModel::new(&settings, 1, 5).unwrap()
}

fn settings(epochs: u64) -> TrainSettings {
    TrainSettings {
        epochs,
        batch_size: 4,
        learning_rate: 2e-2,
        checkpoint_every: 1,
        validate_every: 2,
        augmentation: AugmentationSettings::strong(),
        ..TrainSettings::default()
    }
}

/// The newest checkpoint of a run.
fn newest(folder: &Path) -> Checkpoint {
    let folder = CheckpointFolder::new(folder.join("checkpoints"), 3);
    let mut unusable = |unusable: UnusableCheckpoint| panic!("{unusable:?}");
    folder.newest(&mut unusable).unwrap().unwrap().1
}

fn binary() -> Objective {
    Objective::fit(Task::Binary, &ClassWeights::None, &[]).unwrap()
}

fn bits(model: &dyn Model) -> Vec<(String, Vec<u32>)> {
    let flatten = |tensor: Tensor| {
        tensor
            .to_dtype(DType::F32)
            .unwrap()
            .flatten_all()
            .unwrap()
            .to_vec1::<f32>()
            .unwrap()
    };
    model
        .tensors()
        .into_iter()
        .map(|(name, tensor)| {
            (
                name,
                flatten(tensor).into_iter().map(f32::to_bits).collect(),
            )
        })
        .collect()
}

fn run(
    settings: &TrainSettings,
    samples: &[Sample],
    images: &Images,
    model: &StreamedModel,
    folder: Option<&Path>,
) -> Result<Outcome> {
    let (train, validation) = samples.split_at(samples.len() - 4);
    let run = Run {
        settings,
        task: Task::Binary,
        train,
        validation,
        model: model.into(),
        loader: images,
        folder,
    };
    run.execute(&AtomicBool::new(false), &mut NoObserver)
}

/// Executes `run`, which is told to stop at that event, counted from 1, of those that `counts` counts. All are shown to `observer`.
fn stopped_at(
    run: &Run<'_>,
    (mut left, counts): (usize, fn(&TrainEvent<'_>) -> bool),
    observer: &mut dyn FnMut(&TrainEvent<'_>),
) -> Outcome {
    let stop = AtomicBool::new(false);
    let outcome = run.execute(&stop, &mut |event: &TrainEvent<'_>| {
        observer(event);
        if counts(event) {
            left -= 1;
            stop.store(left == 0, Ordering::Relaxed);
        }
    });
    outcome.unwrap()
}

fn finished(outcome: Outcome) -> Summary {
    match outcome {
        Outcome::Finished(summary) => summary,
        Outcome::Stopped => panic!("stopped"),
    }
}

#[test]
fn learns_a_difference_in_colour() {
    learns_in(Precision::F32);
}

/// Gradients of weights that are f32, in plans that store bf16.
#[test]
fn learns_a_difference_in_colour_in_bf16() {
    learns_in(Precision::Bf16);
}

fn learns_in(dtype: Precision) {
    let (samples, images) = cohort(20);
    let model = model_in(dtype);
    for (name, variable) in model.variables() {
        assert_eq!(variable.dtype(), DType::F32, "{name}");
    }
    let settings = TrainSettings {
        augmentation: AugmentationSettings::none(),
        ..settings(20)
    };
    let summary = finished(run(&settings, &samples, &images, &model, None).unwrap());
    let history = summary.history;
    assert_eq!(history.len(), 20);
    assert!(
        history[19].train_loss < 0.5 * history[0].train_loss,
        "{history:?}"
    );
    assert_eq!(history[19].validation_metric, Some(1.0), "{history:?}");
    assert_eq!(history[0].validation_metric, None);
    assert!(summary.not_finite.is_empty() && summary.broken.is_empty());
}

/// Stopped after 1, 6 and 11 slides, in the middle of groups, and once between epochs: bit for bit as never stopped.
#[test]
fn a_stopped_run_goes_on_as_if_it_had_not() {
    let (samples, images) = cohort(14);
    let settings = settings(3);
    let whole = model();
    let expected = finished(run(&settings, &samples, &images, &whole, None).unwrap());
    let folder = tempfile::tempdir().unwrap();
    let (train, validation) = samples.split_at(10);
    let mut stops = 0;
    let mut budgets = [1, 6, 11, 5].into_iter();
    let (model, summary) = loop {
        let model = model();
        let counts = |event: &TrainEvent<'_>| {
            matches!(
                event,
                TrainEvent::SlideTrained { .. } | TrainEvent::SlideEvaluated { .. }
            )
        };
        let budget = budgets.next().unwrap_or(usize::MAX);
        let run = Run {
            settings: &settings,
            task: Task::Binary,
            train,
            validation,
            model: (&model).into(),
            loader: &images,
            folder: Some(folder.path()),
        };
        match stopped_at(&run, (budget, counts), &mut |_| ()) {
            Outcome::Stopped => stops += 1,
            Outcome::Finished(summary) => break (model, summary),
        }
    };
    assert!(stops >= 3, "{stops}");
    let timing = summary.timing;
    assert!(
        timing.waiting_seconds > 0.0 && timing.waiting_share() < 1.0,
        "{timing:?}"
    );
    let untimed = |summary: Summary| Summary {
        timing: Timing::default(),
        ..summary
    };
    assert_eq!(untimed(summary), untimed(expected));
    assert_eq!(bits(&model), bits(&whole));
}

/// The file is of the code before checkpoints had a version: see `tests/golden/README.md`. It goes on as the same content in
/// the current version does.
#[test]
fn an_unversioned_checkpoint_goes_on() {
    let (samples, images) = cohort(12);
    let settings = TrainSettings {
        optimizer: OptimizerKind::ADAMW,
        ..settings(2)
    };
    let committed = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden/checkpoint_unversioned.safetensors");
    let old = Checkpoint::load(&committed).unwrap();
    let folders = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let [unversioned, current] = folders.each_ref().map(|folder| {
        let folder = folder.path().join("checkpoints");
        std::fs::create_dir(&folder).unwrap();
        folder.join("checkpoint.safetensors")
    });
    std::fs::copy(&committed, &unversioned).unwrap();
    old.save(&current).unwrap();
    let ends = folders.map(|folder| {
        let (model, folder) = (model(), folder.path());
        let summary = finished(run(&settings, &samples, &images, &model, Some(folder)).unwrap());
        assert_eq!(summary.history[..1], old.progress.history);
        assert_eq!(summary.history.len(), 2);
        // Two epochs of two groups.
        let last = newest(folder);
        for (name, tensor) in &last.optimizer {
            if name.starts_with("step.") {
                assert_eq!(tensor.to_scalar::<i64>().unwrap(), 4, "{name}");
            }
        }
        bits(&model)
    });
    assert_eq!(ends[0], ends[1]);
}

#[test]
fn a_checkpoint_of_another_run_is_refused() {
    let (samples, images) = cohort(12);
    let place = tempfile::tempdir().unwrap();
    let folder = Some(place.path());
    run(&settings(1), &samples, &images, &model(), folder).unwrap();
    let others = [
        run(&settings(2), &samples, &images, &model(), folder),
        run(
            &settings(1),
            &samples,
            &images,
            &model_in(Precision::Bf16),
            folder,
        ),
    ];
    for error in others.map(Result::unwrap_err) {
        assert!(
            matches!(&error, TrainError::Checkpoint { path, .. } if path.starts_with(place.path())),
            "{error}"
        );
        assert!(error.to_string().contains("another folder"), "{error}");
    }
}

/// A loader that will not go on without a slide.
struct Strict(Images);

impl ImageLoader for Strict {
    fn expect(&self, upcoming: &[&Path]) {
        self.0.expect(upcoming);
    }

    fn load(&self, slide: &Path) -> Result<Arc<dyn TileSource>> {
        self.0.load(slide)
    }

    fn stops_at(&self, error: &TrainError) -> bool {
        matches!(error, TrainError::File { .. })
    }
}

#[test]
fn a_loader_may_stop_training_and_evaluation() {
    let (samples, mut images) = cohort(12);
    images.0.remove(&samples[3].slide);
    let (settings, model, loader) = (settings(1), model(), Strict(images));
    let run = Run {
        settings: &settings,
        task: Task::Binary,
        train: &samples,
        validation: &[],
        model: (&model).into(),
        loader: &loader,
        folder: None,
    };
    let stop = AtomicBool::new(false);
    let error = run.execute(&stop, &mut NoObserver).err().unwrap();
    assert!(error.to_string().contains("slide_03"), "{error}");
    let set = (samples.as_slice(), crate::data::Split::Test);
    let error = evaluate(&model, &loader, set, &stop, &mut NoObserver).unwrap_err();
    assert!(error.to_string().contains("slide_03"), "{error}");
}

/// How a model cuts images, after a run.
fn tiles(model: &StreamedModel) -> Vec<(u64, usize)> {
    let recipes = model.recipes().into_iter();
    recipes
        .map(|recipe| (recipe.tile.rows, recipe.stored.len()))
        .collect()
}

/// Killed after its first step and before its first checkpoint: the recipe is on disk, and another choice later changes no bit.
#[test]
fn a_killed_run_keeps_the_recipe_of_its_first_step() {
    let (samples, images) = cohort(14);
    let settings = TrainSettings {
        checkpoint_every: 0,
        ..settings(2)
    };
    let whole = model();
    // Another choice, as what was measured later could make it.
    let tiled = || {
        let model = model();
        let recipes = [(32, 48), (48, 32)].map(|(height, width)| {
            let request = PlanRequest::new(height, width).tile(16);
            model.net().plan(request).unwrap().recipe().clone()
        });
        model.load_recipes(recipes.to_vec());
        model
    };
    run(&settings, &samples, &images, &whole, None).unwrap();
    let other = tiled();
    run(&settings, &samples, &images, &other, None).unwrap();
    assert_ne!(tiles(&other), tiles(&whole));
    assert_ne!(bits(&other), bits(&whole));

    let folder = tempfile::tempdir().unwrap();
    let checkpoints = folder.path().join("checkpoints");
    let (train, validation) = samples.split_at(10);
    let killed = model();
    let mut steps = 0;
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let run = Run {
            settings: &settings,
            task: Task::Binary,
            train,
            validation,
            model: (&killed).into(),
            loader: &images,
            folder: Some(folder.path()),
        };
        run.execute(&AtomicBool::new(false), &mut |event: &TrainEvent<'_>| {
            if let TrainEvent::Stepped { .. } = event {
                steps += 1;
                panic!("killed");
            }
        })
    }));
    // It is the observer that panicked, and nothing before it.
    let panic = outcome.err().unwrap();
    assert_eq!((panic.downcast_ref(), steps), (Some(&"killed"), 1));
    let files: Vec<_> = std::fs::read_dir(&checkpoints).unwrap().collect();
    assert_eq!(files.len(), 1);
    assert!(checkpoints.join("recipes.json").exists());

    let resumed = tiled();
    run(&settings, &samples, &images, &resumed, Some(folder.path())).unwrap();
    assert_eq!(tiles(&resumed), tiles(&whole));
    assert_eq!(bits(&resumed), bits(&whole));
}

#[test]
fn predictions_have_what_is_known_of_their_slides() {
    let (mut samples, mut images) = cohort(3);
    images.0.remove(&samples[1].slide);
    for (sample, age) in samples.iter_mut().zip(["61", "", "47"]) {
        sample.patient = Some(format!("patient of {age}"));
        sample.further = vec![stream_grad_slides::FurtherCell {
            column: "age".to_owned(),
            text: age.to_owned(),
        }];
    }
    let (stop, set) = (
        AtomicBool::new(false),
        (samples.as_slice(), crate::data::Split::Test),
    );
    let evaluation = evaluate(&model(), &images, set, &stop, &mut NoObserver)
        .unwrap()
        .unwrap();
    let predictions = evaluation.predictions.iter();
    let of: Vec<&Sample> = predictions.map(|prediction| &prediction.sample).collect();
    assert_eq!(of, [&samples[0], &samples[2]]);
}

#[test]
fn a_run_that_goes_on_names_a_slide_that_failed_before() {
    let (samples, mut images) = cohort(4);
    for (index, sample) in samples.iter().enumerate() {
        let nothing = (image(index, true) * f64::NAN).unwrap();
        images.0.insert(sample.slide.clone(), nothing);
    }
    let folder = tempfile::tempdir().unwrap();
    let (settings, model) = (settings(2), model());
    let run = Run {
        settings: &settings,
        task: Task::Binary,
        train: &samples,
        validation: &[],
        model: (&model).into(),
        loader: &images,
        folder: Some(folder.path()),
    };
    // The second one begins after the epoch's last checkpoint, and tries none.
    for _ in 0..2 {
        let error = run.execute(&AtomicBool::new(false), &mut NoObserver);
        let error = error.err().unwrap();
        assert!(
            matches!(&error, TrainError::AllSlidesFailed { count: 4, slide, last, .. }
                if samples.iter().any(|sample| sample.slide == *slide) && last.contains("no finite number")),
            "{error}"
        );
    }
}

#[test]
fn slides_that_break_are_named_skipped_and_counted() {
    let (samples, mut images) = cohort(16);
    images.0.remove(&samples[3].slide);
    images.0.insert(
        samples[5].slide.clone(),
        (image(5, true) * f64::NAN).unwrap(),
    );
    images.0.insert(
        samples[6].slide.clone(),
        Tensor::zeros((1, 3, 32, 48), DType::F32, &Device::Cpu)
            .unwrap()
            .narrow(2, 0, 0)
            .unwrap(),
    );
    let mut named: BTreeMap<PathBuf, Vec<SkipReason>> = BTreeMap::new();
    let mut observer = |event: &TrainEvent<'_>| {
        if let TrainEvent::SlideSkipped(skipped) = event {
            let reasons = named.entry(skipped.slide.clone()).or_default();
            reasons.push(skipped.reason.clone());
        }
    };
    let (settings, model) = (settings(2), model());
    let run = Run {
        settings: &settings,
        task: Task::Binary,
        train: &samples,
        validation: &[],
        model: (&model).into(),
        loader: &images,
        folder: None,
    };
    let summary = finished(run.execute(&AtomicBool::new(false), &mut observer).unwrap());
    let slide = |index: usize| samples[index].slide.clone();
    assert_eq!(summary.not_finite, [slide(5)]);
    assert_eq!(summary.broken, [slide(3), slide(6)]);
    assert_eq!(named[&slide(5)], [SkipReason::NotFinite]);
    assert_eq!(named[&slide(3)].len(), 2);
    assert_eq!(named.len(), 3);
    for (name, values) in bits(&model) {
        assert!(
            values
                .iter()
                .all(|value| f32::from_bits(*value).is_finite()),
            "{name}"
        );
    }
}

#[test]
fn a_run_without_a_usable_slide_fails() {
    let (samples, _) = cohort(8);
    let error = run(
        &settings(1),
        &samples,
        &Images(BTreeMap::new()),
        &model(),
        None,
    )
    .unwrap_err()
    .to_string();
    assert!(
        error.contains("all 4 slides of epoch 1 failed") && error.contains("slide_"),
        "{error}"
    );
}

#[test]
fn one_class_and_bad_settings_are_refused() {
    let (mut samples, images) = cohort(8);
    let bad = TrainSettings {
        batch_size: 0,
        ..settings(1)
    };
    assert!(
        run(&bad, &samples, &images, &model(), None)
            .unwrap_err()
            .to_string()
            .contains("train.batch_size")
    );
    samples
        .iter_mut()
        .for_each(|sample| sample.label = Some(1.0.into()));
    let error = run(&settings(1), &samples, &images, &model(), None)
        .unwrap_err()
        .to_string();
    assert!(error.contains("4 slides, all with label 1"), "{error}");
}

/// Accumulating a group is the same as differentiating its mean loss: gradients of two slides by hand.
#[test]
fn gradients_of_a_group_are_the_mean() {
    let (samples, images) = cohort(2);
    let model = model();
    let pooled: Vec<Tensor> = samples
        .iter()
        .map(|sample| model.pooled(&*images.load(&sample.slide).unwrap()).unwrap())
        .collect();
    model.update_statistics(&pooled).unwrap();
    let gradients: Vec<_> = samples
        .iter()
        .map(|sample| {
            let loss = |logits: &Tensor| {
                crate::loss::slide_loss(Task::Binary, logits, sample.label.as_ref().unwrap())
            };
            model
                .gradients(&*images.load(&sample.slide).unwrap(), &loss)
                .unwrap()
                .gradients
        })
        .collect();
    let mut sum = gradients[0].clone();
    sum.add_all(&gradients[1]).unwrap();
    sum.scale(0.5).unwrap();
    for (name, variable) in model.variables() {
        let value = |gradients: &crate::gradients::Gradients| {
            gradients
                .get(&name)
                .unwrap()
                .flatten_all()
                .unwrap()
                .to_vec1::<f32>()
                .unwrap()
        };
        assert_eq!(variable.elem_count(), value(&sum).len());
        for ((mean, a), b) in value(&sum)
            .into_iter()
            .zip(value(&gradients[0]))
            .zip(value(&gradients[1]))
        {
            assert!(
                (mean - 0.5 * (a + b)).abs() <= 1e-6 * mean.abs().max(1e-3),
                "{name}"
            );
        }
    }
}
