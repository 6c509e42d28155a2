//! `reproduce tupac`: a score for each slide by regression, at several resolutions, cross-validated by patient.
//!
//! Of slides without truth, such as TUPAC16's test set, the means of what the models of all folds predict are written.

mod unlabelled;

use std::sync::atomic::AtomicBool;

use anyhow::Context;
use stream_grad_cli::training::Training;
use stream_grad_files::refuse_input;
use stream_grad_train::cohort::{CohortConfig, SplitSizes, leak_check};
use stream_grad_train::data::{Sample, Task};
use stream_grad_train::report::{DataOrigin, Notes, PublishedFigure, PublishedRow};
use stream_grad_train::settings::Settings;
use xtask::arguments::TupacArguments;

use crate::slides::{self, Slides};

/// Parts of the cross-validation.
const FOLDS: usize = 3;
/// Of the made-up tumours, in microns per pixel: each has four times the pixels of the one before it.
const MADE_UP: [f64; 3] = [8.0, 4.0, 2.0];
/// Of slides of some 16 mm: about 1, 4 and 16 megapixels, as published.
const GIVEN: [f64; 3] = [16.0, 8.0, 4.0];

/// Runs the experiment, or goes on with one that was stopped.
pub(crate) fn run(arguments: &TupacArguments, stop: &AtomicBool) -> anyhow::Result<()> {
    let output = arguments.output();
    let slides = &arguments.slides;
    let (settings, cohort) = slides::settings(slides, defaults(arguments))?;
    let inputs = slides::inputs(slides);
    refuse_input(&output.join(unlabelled::TABLE), &inputs)?;
    let Slides {
        samples,
        classes,
        origin,
    } = slides::load(slides, &output, (&settings.data, &cohort), stop)?;
    let to_predict: Vec<Sample> = samples
        .iter()
        .filter(|sample| sample.label.is_none())
        .cloned()
        .collect();
    let mut notes = notes(origin);
    notes.remarks.extend(leaks(&notes, &samples, &settings)?);
    if !to_predict.is_empty() {
        notes.remarks.push(format!(
            "{} slides have no truth: {} has what is predicted of them at each resolution, the mean over the models of all folds.",
            to_predict.len(),
            unlabelled::TABLE
        ));
    }
    let model = settings.model.clone();
    let training = Training {
        notes,
        classes,
        rounds: settings.data.rounds(&samples, settings.train.seed)?,
        settings,
        inputs,
    };
    let trained = training.run(&output, stop)?;
    unlabelled::predict(&output, &trained, (&to_predict, &model), stop)
}

fn defaults(arguments: &TupacArguments) -> (Settings, CohortConfig) {
    let (mut settings, mut cohort) = (slides::for_small_things(), CohortConfig::mitoses());
    let slides = &arguments.slides;
    let resolutions = if slides::are_made_up(slides) {
        MADE_UP
    } else {
        GIVEN
    };
    settings.data.task = Task::Regression;
    settings.data.folds = Some(FOLDS);
    settings.data.microns_per_pixel = resolutions.to_vec();
    if slides.quick {
        settings.train.epochs = 2;
        cohort.splits = SplitSizes {
            train: 24,
            validation: 0,
            test: 3,
        };
    }
    (settings, cohort)
}

/// What a linear model makes of the made-up slides' colour and cellularity, which is also printed.
fn leaks(notes: &Notes, samples: &[Sample], settings: &Settings) -> anyhow::Result<Vec<String>> {
    if !matches!(notes.origin, Some(DataOrigin::MadeUp { .. })) {
        return Ok(Vec::new());
    }
    let (data, seed) = (&settings.data, settings.train.seed);
    let checks = leak_check(samples, data.task, &data.microns_per_pixel, seed)
        .context("looking for scores in colour and cellularity")?;
    let remarks = checks.iter().map(|check| {
        println!("{check}");
        format!("What colour and cellularity alone would give: {check}.")
    });
    Ok(remarks.collect())
}

/// What the report must be told.
fn notes(origin: DataOrigin) -> Notes {
    let figure = |megapixels, value| PublishedFigure { megapixels, value };
    let mut remarks = slides::remarks(&origin);
    remarks.push(
        "The best entry of the TUPAC16 challenge, on test slides whose truth was never published, reached a Spearman correlation \
         of 0.617 (95% interval 0.581 to 0.651)."
            .to_owned(),
    );
    Notes {
        title: "Proliferation of tumours, a score for each slide".to_owned(),
        asked: "Does a network that sees a whole slide at once predict a tumour's proliferation score better with the slide's resolution? The same network is trained anew at each resolution, by regression on the scores of whole slides, cross-validated by patient.".to_owned(),
        origin: Some(origin),
        remarks,
        published: vec![PublishedRow {
            source: "Spearman correlation on TUPAC16 at 1 and 16 megapixels, TPAMI 2022 (10.1109/TPAMI.2020.3019563)"
                .to_owned(),
            figures: vec![figure(1.0, 0.485), figure(16.0, 0.570)],
        }],
        ..Notes::default()
    }
}
