//! `reproduce camelyon`: the same training at several resolutions, and whether accuracy rises with them.

mod bars;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context;
use stream_grad::CostModel;
use stream_grad_files::refuse_input;
use stream_grad_train::calibration::{CostModelCache, cache_folder};
use stream_grad_train::cohort::{SplitSizes, generate};
use stream_grad_train::data::{Sample, Split, Task, assign_splits, read_camelyon17, read_table};
use stream_grad_train::experiment::Experiment;
use stream_grad_train::model::StreamedModel;
use stream_grad_train::report::{DataOrigin, PublishedFigure, PublishedRow, Report};
use stream_grad_train::settings::Settings;
use xtask::arguments::CamelyonArguments;

use bars::Bars;

/// Runs the experiment, or goes on with one that was stopped.
pub(crate) fn run(arguments: &CamelyonArguments) -> anyhow::Result<()> {
    let stop = Arc::new(AtomicBool::new(false));
    let handler = Arc::clone(&stop);
    ctrlc::set_handler(move || handler.store(true, Ordering::Relaxed))
        .context("catching Ctrl-C")?;

    let output = arguments.output();
    for name in Report::FILES {
        refuse_input(&output.join(name), arguments.csv.iter())?;
    }
    let settings = settings(arguments)?;
    let (samples, data) = samples(arguments, &output, &settings, &stop)?;
    let cost_model = cost_model(&settings)?;
    let experiment = Experiment::open(&output, settings, samples)?.cost_model(cost_model);
    for warning in experiment.warnings() {
        eprintln!("warning: {warning}");
    }
    let mut report = report(experiment.settings(), data);
    for &microns in &experiment.settings().microns_per_pixel {
        let mut bars = Bars::new(
            microns,
            experiment.settings().train.epochs,
            experiment.split(Split::Train).len(),
        );
        let result = experiment.run(microns, &stop, &mut bars);
        bars.finish();
        report
            .results
            .push(result?.ok_or_else(|| stopped(&format!("at {microns} microns")))?);
        // What is finished is on disk, whatever comes next.
        report.write(&output)?;
    }
    println!("\n{report}\nResults are in {}", output.display());
    Ok(())
}

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
    if arguments.spill.is_some() {
        settings.model.spill.clone_from(&arguments.spill);
    }
    if arguments.slide_mpp.is_some() {
        settings.read.scale_override = arguments.slide_mpp;
    }
    settings.check()?;
    Ok(settings)
}

/// How long the network's operations take here, with as many threads.
fn cost_model(settings: &Settings) -> anyhow::Result<CostModel> {
    let Settings {
        model, task, train, ..
    } = settings;
    let streamed = StreamedModel::new(model, task.outputs(), train.seed)?;
    // The size of the image does not matter.
    let request = streamed.request(1, 1);
    let cache = CostModelCache::new(cache_folder().as_deref(), model.threads);
    let model = cache.model(streamed.net(), &request, &mut |notice| {
        eprintln!("{notice}")
    })?;
    Ok(model)
}

/// The slides with a split each, and where they come from.
fn samples(
    arguments: &CamelyonArguments,
    output: &Path,
    settings: &Settings,
    stop: &AtomicBool,
) -> anyhow::Result<(Vec<Sample>, DataOrigin)> {
    let (mut samples, place) = match (&arguments.data, &arguments.csv) {
        (Some(root), _) => (read_camelyon17(root)?, root),
        (None, Some(table)) => (read_table(table, settings.task)?, table),
        (None, None) => {
            let bar = bars::cohort(settings.cohort.splits.total());
            let made = generate(
                &settings.cohort,
                &output.join("cohort"),
                stop,
                &|done, _| bar.set_position(done as u64),
            );
            bar.abandon();
            let made = made?.ok_or_else(|| stopped("while writing the cohort"))?;
            let seed = settings.cohort.seed;
            return Ok((made, DataOrigin::MadeUp { seed }));
        }
    };
    let (task, seed) = (settings.task, settings.train.seed);
    let drawn = assign_splits(&mut samples, task, settings.splits, seed)?;
    println!("{drawn}");
    let place = place.display().to_string();
    Ok((samples, DataOrigin::Given { place }))
}

/// A report without results yet.
fn report(settings: &Settings, data: DataOrigin) -> Report {
    let metric = match settings.task {
        Task::Binary => "AUC",
        Task::Classification { .. } => "accuracy",
        Task::Regression => "Spearman",
    };
    let figure = |megapixels, value| PublishedFigure { megapixels, value };
    Report {
        title: "Metastasis in lymph nodes, from slide-level labels".to_owned(),
        data,
        metric: metric.to_owned(),
        confidence: settings.bootstrap.confidence,
        results: Vec::new(),
        published: vec![PublishedRow {
            source: "AUC on CAMELYON17 at 2048 x 2048 and 8192 x 8192 pixels, TPAMI 2022 \
                     (10.1109/TPAMI.2020.3019563)"
                .to_owned(),
            figures: vec![figure(4.2, 0.580), figure(67.1, 0.706)],
        }],
    }
}

fn stopped(place: &str) -> anyhow::Error {
    anyhow::anyhow!("stopped {place}: run the same command again to go on from here")
}
