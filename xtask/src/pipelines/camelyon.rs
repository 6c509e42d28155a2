//! `reproduce camelyon`: the same training at several resolutions, and whether accuracy rises with them.

use std::sync::atomic::AtomicBool;

use stream_grad_cli::training::Training;
use stream_grad_train::cohort::{CohortConfig, SplitSizes};
use stream_grad_train::data::{ClassNames, Task};
use stream_grad_train::report::{DataOrigin, Notes, PublishedFigure, PublishedRow};
use stream_grad_train::settings::Settings;
use xtask::arguments::CamelyonArguments;

use crate::slides::{self, Slides};

/// Runs the experiment, or goes on with one that was stopped.
pub(crate) fn run(arguments: &CamelyonArguments, stop: &AtomicBool) -> anyhow::Result<()> {
    let output = arguments.output();
    let slides = &arguments.slides;
    let (settings, cohort) = slides::settings(slides, defaults(arguments))?;
    let Slides {
        samples,
        classes,
        origin,
    } = slides::load(slides, &output, (&settings.data, &cohort), stop)?;
    let training = Training {
        notes: notes(origin, names(&classes)),
        classes,
        rounds: settings.data.rounds(&samples, settings.train.seed)?,
        settings,
        inputs: slides::inputs(slides),
    };
    training.run(&output, stop).map(drop)
}

fn defaults(arguments: &CamelyonArguments) -> (Settings, CohortConfig) {
    let (mut settings, mut cohort) = (slides::for_small_things(), CohortConfig::default());
    if arguments.slides.quick {
        settings.train.epochs = 2;
        cohort.splits = SplitSizes {
            train: 16,
            validation: 4,
            test: 16,
        };
    }
    (settings, cohort)
}

/// What the classes are called in the report: in tables without names they are numbers.
fn names(classes: &ClassNames) -> Vec<String> {
    if *classes == ClassNames::numbered(Task::Binary) {
        return vec!["negative".to_owned(), "metastasis".to_owned()];
    }
    classes.iter().map(str::to_owned).collect()
}

/// What the report must be told.
fn notes(origin: DataOrigin, classes: Vec<String>) -> Notes {
    let figure = |megapixels, value| PublishedFigure { megapixels, value };
    Notes {
        title: "Metastasis in lymph nodes, from slide-level labels".to_owned(),
        asked: "Does the accuracy of a network that sees a whole slide at once rise with the slide's resolution? The same network is trained anew at each resolution, from slide-level labels alone.".to_owned(),
        remarks: slides::remarks(&origin),
        origin: Some(origin),
        classes,
        published: vec![PublishedRow {
            source: "AUC on CAMELYON17 at 2048 x 2048 and 8192 x 8192 pixels, TPAMI 2022 \
                     (10.1109/TPAMI.2020.3019563)"
                .to_owned(),
            figures: vec![figure(4.2, 0.580), figure(67.1, 0.706)],
        }],
        ..Notes::default()
    }
}
