//! Runs that are killed, or that the disk fails, end as unbroken ones do. Each test starts itself anew as the process that trains.
//!
//! `STREAM_GRAD_KILLS=50 cargo test -p stream-grad-train --test killed_runs` kills fifty times.

#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a test: a panic is how it fails")]
#![allow(clippy::panic, reason = "a test")]

#[path = "../../files/tests/common/child.rs"]
mod child;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use candle_core::{Device, Tensor};
use child::{folder_of_child, start};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use stream_grad::TileSource;
use stream_grad_train::checkpoint::CheckpointFolder;
use stream_grad_train::data::{Sample, Task};
use stream_grad_train::model::{Model, ModelSettings, StreamedModel};
use stream_grad_train::source::ImageLoader;
use stream_grad_train::trainer::{Outcome, Run, TestWeights, TrainEvent, TrainSettings};
use stream_grad_train::{Result, TrainError};

/// How often the run is killed.
const KILLS: &str = "STREAM_GRAD_KILLS";

/// Noise, in memory.
struct Images;

impl ImageLoader for Images {
    fn expect(&self, _: &[&Path]) {}

    fn load(&self, slide: &Path) -> Result<Arc<dyn TileSource>> {
        let seed = slide.to_str().unwrap().parse().unwrap();
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let values: Vec<f32> = (0..3 * 32 * 48)
            .map(|_| rng.random::<f32>() - 0.5)
            .collect();
        let image = Tensor::from_vec(values, (1, 3, 32, 48), &Device::Cpu)?;
        Ok(Arc::new(image))
    }
}

/// Trains in `folder`, or goes on there, for at most `steps` steps. Everything that a checkpoint keeps is in use.
fn train(folder: &Path, steps: usize) -> Result<(Outcome, StreamedModel), Box<TrainError>> {
    let sample = |index: usize| {
        Sample::new(
            index.to_string(),
            f64::from(u8::from(index.is_multiple_of(3))),
        )
    };
    let samples: Vec<Sample> = (0..14).map(sample).collect();
    let settings = TrainSettings {
        epochs: 4,
        batch_size: 4,
        learning_rate: 2e-2,
        ema_decay: Some(0.8),
        validate_every: 1,
        test_weights: TestWeights::Best,
        checkpoint_every: 1,
        keep_checkpoints: 2,
        ..TrainSettings::default()
    };
    let model = ModelSettings {
        name: "small-2x1".to_owned(),
        memory_bytes: 64 << 20,
        ..ModelSettings::default()
    };
    let model = StreamedModel::new(&model, 1, 5)?;
    let (train, validation) = samples.split_at(10);
    let run = Run {
        settings: &settings,
        task: Task::Binary,
        train,
        validation,
        model: (&model).into(),
        loader: &Images,
        folder: Some(folder),
    };
    let (stop, mut made) = (AtomicBool::new(false), 0);
    let outcome = run.execute(&stop, &mut |event: &TrainEvent<'_>| match event {
        TrainEvent::Stepped(_) => {
            made += 1;
            stop.store(made >= steps, Ordering::Relaxed);
        }
        // Writing is whole or not at all: nothing may be damaged by a process that ends.
        TrainEvent::CheckpointUnusable { path, reason } => {
            panic!("{}: {reason}", path.display())
        }
        _ => {}
    })?;
    Ok((outcome, model))
}

/// What a finished run left: the result's weights bit by bit, and all that the last checkpoint and the table of epochs hold.
fn end(folder: &Path) -> (BTreeMap<String, Vec<u32>>, String, String) {
    let bits = |tensors: BTreeMap<String, Tensor>| {
        let bits = |tensor: Tensor| -> Vec<u32> {
            let tensor = tensor.to_dtype(candle_core::DType::F32).unwrap();
            let values = tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
            values.into_iter().map(f32::to_bits).collect()
        };
        tensors
            .into_iter()
            .map(move |(name, tensor)| (name, bits(tensor)))
            .collect::<Vec<_>>()
    };
    let (outcome, model) = train(folder, usize::MAX).unwrap();
    let Outcome::Finished(summary) = outcome else {
        panic!("stopped")
    };
    let checkpoints = CheckpointFolder::new(folder.join("checkpoints"), 2);
    let newest = checkpoints.newest(&mut |_| panic!("damaged")).unwrap();
    let (_, newest) = newest.unwrap();
    let mut weights: BTreeMap<String, Vec<u32>> = bits(model.tensors()).into_iter().collect();
    let optimizer = newest.optimizer.into_iter().collect();
    for (prefix, tensors) in [
        ("last", newest.model),
        ("average", newest.average),
        ("optimizer", optimizer),
    ] {
        let named = bits(tensors).into_iter();
        weights.extend(named.map(|(name, bits)| (format!("{prefix}/{name}"), bits)));
    }
    assert_eq!(summary.history, newest.progress.history);
    let progress = format!("{:?}", newest.progress);
    let epochs = std::fs::read_to_string(folder.join("epochs.csv")).unwrap();
    (weights, progress, epochs)
}

#[test]
fn a_run_that_is_killed_ends_bit_by_bit_as_an_unbroken_one() {
    if let Some(folder) = folder_of_child() {
        train(&folder, usize::MAX).unwrap();
        return;
    }
    let test = "a_run_that_is_killed_ends_bit_by_bit_as_an_unbroken_one";
    let place = tempfile::tempdir().unwrap();
    let unbroken = place.path().join("unbroken");
    let started = Instant::now();
    assert!(start(test, &unbroken, ":").wait().unwrap().success());
    let whole = started.elapsed();
    let expected = end(&unbroken);

    let kills = std::env::var(KILLS).map_or(5, |kills| kills.parse().unwrap());
    let mut rng = ChaCha8Rng::seed_from_u64(13);
    let (mut killed, mut runs, mut killed_of_run) = (0, 0, 0);
    loop {
        let folder = place.path().join(format!("killed-{runs}"));
        let mut child = start(test, &folder, ":");
        if killed < kills {
            let delay = whole.mul_f64(rng.random::<f64>());
            let deadline = Instant::now() + delay;
            while Instant::now() < deadline && child.try_wait().unwrap().is_none() {
                std::thread::sleep(Duration::from_millis(1));
            }
            if child.try_wait().unwrap().is_none() {
                child.kill().unwrap();
                child.wait().unwrap();
                killed += 1;
                killed_of_run += 1;
                continue;
            }
        }
        assert!(child.wait().unwrap().success(), "after {killed} kills");
        assert_eq!(end(&folder), expected, "after {killed_of_run} kills");
        // Nothing is left under way, and the last few checkpoints stay.
        let names = std::fs::read_dir(folder.join("checkpoints")).unwrap();
        let names: Vec<_> = names.map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names.len(), 4, "{names:?}");
        if killed == kills {
            break;
        }
        (runs, killed_of_run) = (runs + 1, 0);
    }
    println!("{killed} kills in {} runs", runs + 1);
}

/// A limit on the size of files stands for a full disk: it holds for root, too.
#[test]
fn a_full_disk_is_told_and_loses_nothing() {
    if let Some(folder) = folder_of_child() {
        let error = train(&folder, usize::MAX).err().unwrap();
        let TrainError::CheckpointNotWritten { bytes, .. } = &*error else {
            panic!("{error}")
        };
        let text = error.to_string();
        assert!(
            text.contains(&bytes.to_string()) && text.contains("make room"),
            "{text}"
        );
        return;
    }
    let test = "a_full_disk_is_told_and_loses_nothing";
    let place = tempfile::tempdir().unwrap();
    let (unbroken, full) = (place.path().join("unbroken"), place.path().join("full"));
    train(&unbroken, usize::MAX).unwrap();
    train(&full, 4).unwrap();
    let names = || {
        let names = std::fs::read_dir(full.join("checkpoints")).unwrap();
        let mut names: Vec<_> = names.map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    };
    let before = names();
    let mut child = start(test, &full, "trap '' XFSZ; ulimit -f 16");
    assert!(child.wait().unwrap().success());
    assert_eq!(names(), before);
    assert_eq!(end(&full), end(&unbroken));
}
