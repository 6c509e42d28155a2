//! `reproduce camelyon`: the same training at several resolutions, and whether accuracy rises with them.

mod prediction;
mod settings;

use std::sync::atomic::AtomicBool;

use stream_grad_cli::training::Training;
use stream_grad_files::refuse_input;
use stream_grad_train::cohort;
use stream_grad_train::data::{ClassNames, Layout, Task};
use stream_grad_train::report::{DataOrigin, Notes, PublishedFigure, PublishedRow};
use xtask::arguments::{CamelyonArguments, Scale};

use crate::slides::{self, Slides};
use prediction::{Prediction, Timed};

/// Runs the experiment, or goes on with one that was stopped.
pub(crate) fn run(arguments: &CamelyonArguments, stop: &AtomicBool) -> anyhow::Result<()> {
    let output = arguments.output();
    let slides = &arguments.slides;
    let inputs = slides::inputs(slides);
    refuse_input(&output.join(prediction::TABLE), &inputs)?;
    let (settings, cohort) = settings::settings(arguments)?;
    let mut timed = None;
    // Before the cohort is written: it takes most of the disk.
    if arguments.scale == Scale::Paper && slides::are_made_up(slides) {
        let samples = cohort::samples(&cohort, &output.join("cohort"));
        let rounds = settings.data.rounds(&samples, settings.train.seed)?;
        let prediction = Prediction::of_made_up(&settings, &cohort, &rounds)?;
        timed = Some(Timed::begin(prediction, &output)?);
    }
    let Slides {
        samples,
        classes,
        origin,
    } = slides::load(slides, &output, (&settings.data, &cohort), stop)?;
    let rounds = settings.data.rounds(&samples, settings.train.seed)?;
    if arguments.scale == Scale::Paper && timed.is_none() {
        let prediction = Prediction::of_given(&settings, &output, &rounds)?;
        timed = Some(Timed::begin(prediction, &output)?);
    }
    let mut notes = notes(settings.data.task, slides::layout(slides), origin);
    notes.classes = names(&classes);
    notes
        .tables
        .extend(timed.as_ref().map(|_| prediction::note()));
    let training = Training {
        notes,
        classes,
        rounds,
        settings,
        inputs,
    };
    training.run(&output, stop)?;
    match timed {
        Some(timed) => timed.end(&output),
        None => Ok(()),
    }
}

/// What the classes are called in the report: in tables without names they are numbers.
fn names(classes: &ClassNames) -> Vec<String> {
    if *classes == ClassNames::numbered(Task::Binary) {
        return vec!["negative".to_owned(), "metastasis".to_owned()];
    }
    classes.iter().map(str::to_owned).collect()
}

/// What the report must be told.
fn notes(task: Task, layout: Option<Layout>, origin: DataOrigin) -> Notes {
    let figure = |megapixels, value| PublishedFigure { megapixels, value };
    let question = |what: &str| {
        format!(
            "Does the accuracy of a network that sees a whole slide at once rise with the slide's resolution? The same network is \
             trained anew at each resolution, to tell {what}, from slide-level labels alone."
        )
    };
    let mut remarks = slides::remarks(&origin);
    let (title, asked) = match (layout, settings::is_of_stages(task)) {
        (Some(Layout::Panda), _) => ("Grades of prostate biopsies", "their ISUP grades"),
        (_, true) => {
            remarks.push(
                "Of the CAMELYON17 challenge, which judges the stages of patients, submissions reached a quadratically weighted kappa \
                 of -0.13 to 0.89 (10.1109/TMI.2018.2867350)."
                    .to_owned(),
            );
            (
                "Stages of metastasis in lymph nodes",
                "how far disease has spread",
            )
        }
        _ => (
            "Metastasis in lymph nodes",
            "slides with a metastasis from others",
        ),
    };
    let published = PublishedRow {
        source: "AUC on CAMELYON17 at 2048 x 2048 and 8192 x 8192 pixels, TPAMI 2022 \
                 (10.1109/TPAMI.2020.3019563)"
            .to_owned(),
        figures: vec![figure(4.2, 0.580), figure(67.1, 0.706)],
    };
    Notes {
        title: format!("{title}, from slide-level labels"),
        asked: question(asked),
        remarks,
        origin: Some(origin),
        // An AUC of two classes.
        published: (task == Task::Binary)
            .then_some(published)
            .into_iter()
            .collect(),
        ..Notes::default()
    }
}
