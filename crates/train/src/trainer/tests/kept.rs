//! Averages, the best epoch, and what a run keeps and writes down.

use std::path::PathBuf;
use std::sync::atomic::AtomicBool;

use super::*;
use crate::data::Split;
use crate::metrics::Metric;

/// A run with everything that changes from step to step.
fn averaged(epochs: u64) -> TrainSettings {
    TrainSettings {
        ema_decay: Some(0.7),
        validate_every: 1,
        monitor: Monitor::Loss,
        test_weights: TestWeights::Best,
        head_learning_rate: Some(5e-2),
        ..settings(epochs)
    }
}

/// Damaged checkpoints are named, and the one before them leads to the same end, averages and the best epoch included.
#[test]
fn a_damaged_checkpoint_is_told_and_changes_nothing() {
    let (samples, images) = cohort(14);
    let settings = averaged(3);
    let whole = model();
    let expected = finished(run(&settings, &samples, &images, &whole, None).unwrap());
    let folder = tempfile::tempdir().unwrap();
    let (train, validation) = samples.split_at(10);
    let execute = |stop_after: usize| {
        let (model, mut named) = (model(), Vec::new());
        let run = Run {
            settings: &settings,
            task: Task::Binary,
            train,
            validation,
            model: (&model).into(),
            loader: &images,
            folder: Some(folder.path()),
        };
        let steps = |event: &TrainEvent<'_>| matches!(event, TrainEvent::Stepped(_));
        let outcome = stopped_at(&run, (stop_after, steps), &mut |event| {
            if let TrainEvent::CheckpointUnusable { path, reason } = event {
                named.push((path.to_path_buf(), reason.clone()));
            }
        });
        (outcome, named, model)
    };
    assert_eq!(execute(5).0, Outcome::Stopped);
    let checkpoints = folder.path().join("checkpoints");
    let name =
        |epoch, step| checkpoints.join(format!("epoch-{epoch:04}-step-{step:06}.safetensors"));
    // Of a middle byte one bit; of another the end.
    let mut bytes = std::fs::read(name(1, 2)).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(name(1, 2), bytes).unwrap();
    let bytes = std::fs::read(name(1, 1)).unwrap();
    std::fs::write(name(1, 1), &bytes[..middle]).unwrap();
    let (outcome, named, model) = execute(usize::MAX);
    let paths: Vec<PathBuf> = named.iter().map(|(path, _)| path.clone()).collect();
    assert_eq!(paths, [name(1, 2), name(1, 1)]);
    assert!(named[0].1.contains("SHA-256"), "{named:?}");
    let summary = finished(outcome);
    assert_eq!(summary.history, expected.history);
    assert_eq!(summary.best, expected.best);
    assert_eq!(bits(&model), bits(&whole));
}

/// Averaged weights are evaluated and kept, and leave those that are stepped alone.
#[test]
fn averages_are_evaluated_and_change_no_step() {
    let (samples, images) = cohort(14);
    let averaging = TrainSettings {
        ema_decay: Some(0.9),
        validate_every: 1,
        ..settings(3)
    };
    let plain = TrainSettings {
        ema_decay: None,
        ..averaging.clone()
    };
    let [(average, averages), (last, lasts)] = [averaging, plain].map(|settings| {
        let model = model();
        let summary = finished(run(&settings, &samples, &images, &model, None).unwrap());
        (bits(&model), summary.history)
    });
    assert_ne!(average, last);
    for (averaged, plain) in averages.iter().zip(&lasts) {
        assert_eq!(averaged.train_loss.to_bits(), plain.train_loss.to_bits());
        assert_ne!(averaged.validation_loss, plain.validation_loss);
    }
    // What was evaluated last is what the model holds.
    let (_, validation) = samples.split_at(10);
    let model = model();
    let settings = TrainSettings {
        ema_decay: Some(0.9),
        validate_every: 1,
        ..settings(3)
    };
    let summary = finished(run(&settings, &samples, &images, &model, None).unwrap());
    let set = (validation, Split::Validation);
    let stop = AtomicBool::new(false);
    let evaluation = evaluate(&model, &images, set, &stop, &mut NoObserver)
        .unwrap()
        .unwrap();
    let loss = evaluation.loss(&binary()).unwrap();
    assert_eq!(Some(loss), summary.history[2].validation_loss);
}

/// Trained at a rate at which the loss only rises, the first epoch is the best: its weights come back, and patience ends the run.
#[test]
fn patience_ends_a_run_and_the_best_weights_come_back() {
    let (samples, images) = cohort(14);
    let diverging = TrainSettings {
        optimizer: OptimizerKind::ADAMW,
        learning_rate: 3.0,
        validate_every: 1,
        patience: Some(2),
        test_weights: TestWeights::Best,
        schedule: crate::schedule::Schedule::Constant,
        ..settings(12)
    };
    let folder = tempfile::tempdir().unwrap();
    let (_, validation) = samples.split_at(10);
    let ends = [None, Some(folder.path())].map(|folder| {
        let model = model();
        let summary = finished(run(&diverging, &samples, &images, &model, folder).unwrap());
        let best = summary.best.unwrap();
        let losses: Vec<f64> = summary
            .history
            .iter()
            .map(|epoch| epoch.validation_loss.unwrap())
            .collect();
        assert_eq!(losses.len() as u64, best.epoch + 3, "{losses:?}");
        assert!(losses.len() < 12, "{losses:?}");
        let least = losses.iter().copied().fold(f64::INFINITY, f64::min);
        assert_eq!((best.value, summary.tested_epoch), (least, best.epoch));
        let set = (validation, Split::Validation);
        let stop = AtomicBool::new(false);
        let evaluation = evaluate(&model, &images, set, &stop, &mut NoObserver);
        let loss = evaluation.unwrap().unwrap().loss(&binary()).unwrap();
        assert_eq!(loss, least);
        bits(&model)
    });
    assert_eq!(ends[0], ends[1]);
    // A second call finds the run ended, and gives the same.
    let again = model();
    let summary =
        finished(run(&diverging, &samples, &images, &again, Some(folder.path())).unwrap());
    assert!(summary.history.len() < 12);
    assert_eq!(bits(&again), ends[1]);

    let model = model();
    let without = Run {
        settings: &diverging,
        task: Task::Binary,
        train: &samples,
        validation: &[],
        model: (&model).into(),
        loader: &images,
        folder: None,
    };
    let error = without.execute(&AtomicBool::new(false), &mut NoObserver);
    let error = error.err().unwrap();
    assert_eq!(
        error.to_string(),
        "setting `train.patience`: expected a validation split with labels to go by, found none"
    );
}

#[test]
fn what_goes_by_the_validation_split_needs_one() {
    let (samples, images) = cohort(8);
    for (settings, part) in [
        (
            TrainSettings {
                patience: Some(1),
                ..settings(1)
            },
            "train.patience",
        ),
        (
            TrainSettings {
                test_weights: TestWeights::Best,
                ..settings(1)
            },
            "train.test_weights",
        ),
    ] {
        let model = model();
        let run = Run {
            settings: &settings,
            task: Task::Binary,
            train: &samples,
            validation: &[],
            model: (&model).into(),
            loader: &images,
            folder: None,
        };
        let error = run
            .execute(&AtomicBool::new(false), &mut NoObserver)
            .unwrap_err()
            .to_string();
        assert!(error.contains(part), "{error}");
    }
}

/// One row a step, however often the run was begun.
#[test]
fn steps_and_epochs_are_written_down() {
    let (samples, images) = cohort(14);
    let folder = tempfile::tempdir().unwrap();
    let settings = averaged(2);
    for _ in 0..2 {
        run(&settings, &samples, &images, &model(), Some(folder.path())).unwrap();
    }
    let mut reader = csv::Reader::from_path(folder.path().join("steps.csv")).unwrap();
    let steps: Vec<StepRecord> = reader
        .deserialize()
        .map(std::result::Result::unwrap)
        .collect();
    // Ten slides in groups of four.
    assert_eq!(
        steps.iter().map(|step| step.step).collect::<Vec<_>>(),
        [1, 2, 3, 4, 5, 6]
    );
    assert_eq!(
        steps.iter().map(|step| step.slides).collect::<Vec<_>>(),
        [4, 4, 2, 4, 4, 2]
    );
    for step in &steps {
        assert!(
            step.gradient_norm > 0.0 && step.loss > 0.0 && step.learning_rate > 0.0,
            "{step:?}"
        );
        assert!(step.megapixels_per_second > 0.0, "{step:?}");
        assert!((0.0..=1.0).contains(&step.waiting_share), "{step:?}");
        assert!(step.memory_bytes > 1 << 20, "{step:?}");
    }
    let epochs = std::fs::read_to_string(folder.path().join("epochs.csv")).unwrap();
    assert_eq!(epochs.lines().count(), 3, "{epochs}");
}

/// Weights that a step barely changes give the slides of an epoch what they give them afterwards.
#[test]
fn an_epochs_accuracy_is_that_of_its_slides() {
    let (samples, images) = cohort(14);
    let settings = TrainSettings {
        learning_rate: 1e-12,
        batch_size: 10,
        augmentation: AugmentationSettings::none(),
        ..settings(1)
    };
    let model = model();
    let summary = finished(run(&settings, &samples, &images, &model, None).unwrap());
    let (train, _) = samples.split_at(10);
    let stop = AtomicBool::new(false);
    let evaluation = evaluate(
        &model,
        &images,
        (train, Split::Train),
        &stop,
        &mut NoObserver,
    );
    let outcomes = evaluation.unwrap().unwrap().outcomes(Task::Binary).unwrap();
    let expected = outcomes.metric(Metric::Accuracy).unwrap();
    assert_eq!(summary.history[0].train_accuracy, Some(expected));
}
