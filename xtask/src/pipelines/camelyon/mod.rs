//! `reproduce camelyon`: the same training at several resolutions, and whether accuracy rises with them.

mod bars;
mod results;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, bail};
use stream_grad_slides::MicronsPerPixel;
use stream_grad_train::cohort::{SplitSizes, generate};
use stream_grad_train::data::{
    Sample, Split, Task, assign_splits, of_split, read_camelyon17, read_table,
};
use stream_grad_train::model::{Model, StreamedModel};
use stream_grad_train::settings::Settings;
use stream_grad_train::source::SlideLoader;
use stream_grad_train::trainer::{Outcome, Run, evaluate};
use xtask::arguments::CamelyonArguments;

use bars::Bars;
use results::{Origin, Resolution};

/// Runs the experiment, or goes on with one that was stopped.
pub(crate) fn run(arguments: &CamelyonArguments) -> anyhow::Result<()> {
    let stop = Arc::new(AtomicBool::new(false));
    let handler = Arc::clone(&stop);
    ctrlc::set_handler(move || handler.store(true, Ordering::Relaxed))
        .context("catching Ctrl-C")?;

    let settings = settings(arguments)?;
    let (samples, origin) = samples(arguments, &settings, &stop)?;
    let mut resolutions = Vec::with_capacity(settings.microns_per_pixel.len());
    for &microns in &settings.microns_per_pixel {
        let folder = arguments.output.join(format!("{microns}-microns"));
        let resolution = match results::finished(&folder)? {
            Some(resolution) => resolution,
            None => train(&settings, microns, &samples, &folder, &stop)?,
        };
        resolutions.push(resolution);
    }
    let summary = results::summary(origin, settings.task, &resolutions);
    results::write_summary(&arguments.output, origin, &resolutions, &summary)?;
    println!(
        "\n{summary}\n\nResults are in {}",
        arguments.output.display()
    );
    Ok(())
}

/// The settings of the run, which stay those with which its folder began.
fn settings(arguments: &CamelyonArguments) -> anyhow::Result<Settings> {
    let mut settings = match &arguments.settings {
        Some(path) => Settings::read(path)?,
        None => Settings::default(),
    };
    if arguments.quick {
        settings.train.epochs = 2;
        settings.cohort.splits = SplitSizes {
            train: 16,
            validation: 4,
            test: 16,
        };
    }
    let path = arguments.output.join("settings.toml");
    if path.exists() {
        let stored = Settings::read(&path)?;
        if stored != settings {
            bail!(
                "{} holds a run with other settings: give another --output, or the same settings",
                arguments.output.display()
            );
        }
    } else {
        settings.write(&path)?;
    }
    Ok(settings)
}

/// The slides with a split each, and where they come from.
fn samples(
    arguments: &CamelyonArguments,
    settings: &Settings,
    stop: &AtomicBool,
) -> anyhow::Result<(Vec<Sample>, Origin)> {
    let mut samples = match (&arguments.data, &arguments.csv) {
        (Some(root), _) => read_camelyon17(root)?,
        (None, Some(table)) => read_table(table, settings.task)?,
        (None, None) => {
            let folder = arguments.output.join("cohort");
            let bar = Bars::cohort(settings.cohort.splits.total());
            let made = generate(&settings.cohort, &folder, stop, &|done, _| {
                bar.set_position(done as u64)
            })?;
            bar.finish();
            let made = made.ok_or_else(|| stopped("writing the cohort"))?;
            return Ok((made, Origin::MadeUp));
        }
    };
    if samples.iter().any(|sample| sample.split.is_none()) {
        assign_splits(&mut samples, settings.splits, settings.train.seed)?;
    }
    Ok((samples, Origin::Given))
}

/// Trains and tests at one resolution.
fn train(
    settings: &Settings,
    microns: f64,
    samples: &[Sample],
    folder: &Path,
    stop: &AtomicBool,
) -> anyhow::Result<Resolution> {
    std::fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
    let task: Task = settings.task;
    let model = StreamedModel::new(&settings.model, task.outputs(), settings.train.seed)?;
    let loader = SlideLoader::new(MicronsPerPixel::new(microns)?, settings.read.clone())?;
    let split = |split| of_split(samples, split);
    let (training, validation, test) = (
        split(Split::Train),
        split(Split::Validation),
        split(Split::Test),
    );
    let checkpoint = folder.join("checkpoint.safetensors");
    let run = Run {
        settings: &settings.train,
        task,
        train: &training,
        validation: &validation,
        model: &model,
        loader: &loader,
        checkpoint: Some(&checkpoint),
    };
    let mut bars = Bars::training(microns, settings.train.epochs, training.len());
    let outcome = run.execute(stop, &mut bars);
    bars.finish();
    let summary = match outcome? {
        Outcome::Finished(summary) => summary,
        Outcome::Stopped => return Err(stopped("training")),
    };
    let mut bars = Bars::testing(microns, test.len());
    let evaluation = evaluate(&model, &loader, (&test, Split::Test), stop, &mut bars);
    bars.finish();
    let evaluation = evaluation?.ok_or_else(|| stopped("testing"))?;
    let estimate = evaluation.estimate(task, &settings.bootstrap)?;
    let resolution = Resolution::new(microns, estimate, &evaluation, &summary);
    results::write(folder, &resolution, &evaluation, &summary, &model.tensors())?;
    Ok(resolution)
}

fn stopped(what: &str) -> anyhow::Error {
    anyhow::anyhow!("stopped while {what}: run the same command again to go on from here")
}
