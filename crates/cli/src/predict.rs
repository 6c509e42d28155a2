//! `stream-grad predict`: a trained model on slides without labels.

use std::path::Path;
use std::sync::atomic::AtomicBool;

use stream_grad_files::refuse_input;
use stream_grad_train::data::{ClassNames, DataSettings, Layout, Sample, Task};
use stream_grad_train::model_file::{self, ModelDescription};
use stream_grad_train::predict::{MapPredictor, Predicted, Predictor};
use stream_grad_train::trainer::{TrainEvent, TrainObserver};

use crate::arguments::PredictArguments;
use crate::exit::{Incomplete, Stopped};
use crate::progress::counting_bar;
use crate::stop;
use crate::tell;

/// Predicts all slides, or goes on with what was stopped, and names those that could not be.
///
/// # Errors
/// [`Stopped`] after Ctrl-C; [`Incomplete`] if some slides were left out; whatever data and model refuse.
pub fn run(arguments: &PredictArguments) -> anyhow::Result<()> {
    let stop = stop::on_ctrl_c()?;
    let output = &arguments.output;
    refuse_input(output, arguments.csv.iter().chain([&arguments.model]))?;
    let predictor = AnyPredictor::open(arguments)?;
    let trained = predictor.description();
    let names = &trained.classes;
    let settings = DataSettings {
        csv: arguments.csv.clone(),
        folder: arguments.folder.clone(),
        layout: arguments.csv.is_none().then_some(Layout::Slides),
        slide_column: arguments.slide_column.clone(),
        task: trained.task,
        classes: if *names == ClassNames::numbered(trained.task) {
            Vec::new()
        } else {
            names.iter().map(str::to_owned).collect()
        },
        ..DataSettings::default()
    };
    let data = settings.load_to_predict(Path::new(""))?;
    data.notices.iter().for_each(tell);
    let found = match &predictor {
        AnyPredictor::Slides(predictor) => predict(predictor, &data.samples, output, &stop)?,
        AnyPredictor::Pixels(predictor) => with_bar(&data.samples, |observer| {
            Ok(predictor.predict(&data.samples, output, &stop, observer)?)
        })?,
    };
    let known = found.before + found.predicted;
    let all = data.samples.len();
    println!("{} has {known} of {all} slides", output.display());
    Incomplete::check(found.skipped.len(), all)
}

/// A model of slides or of pixels.
enum AnyPredictor {
    Slides(Predictor),
    Pixels(MapPredictor),
}

impl AnyPredictor {
    fn open(arguments: &PredictArguments) -> anyhow::Result<Self> {
        let limits = arguments.limits.of_model();
        Ok(match model_file::load(&arguments.model)?.description.task {
            Task::Segmentation { .. } => {
                Self::Pixels(MapPredictor::open(&arguments.model, limits)?)
            }
            _ => Self::Slides(Predictor::open(&arguments.model, limits)?),
        })
    }

    fn description(&self) -> &ModelDescription {
        match self {
            Self::Slides(predictor) => predictor.description(),
            Self::Pixels(predictor) => predictor.description(),
        }
    }
}

/// Predicts `samples` into the table `output` with a bar, or goes on with what was stopped, and names those that could not be.
///
/// # Errors
/// [`Stopped`] if `stop` was set before the end; as [`Predictor::predict`].
pub fn predict(
    predictor: &Predictor,
    samples: &[Sample],
    output: &Path,
    stop: &AtomicBool,
) -> anyhow::Result<Predicted> {
    with_bar(samples, |observer| {
        Ok(predictor.predict(samples, output, stop, observer)?)
    })
}

/// Shows how far `predict` is, and names what it left out.
fn with_bar(
    samples: &[Sample],
    predict: impl FnOnce(&mut dyn TrainObserver) -> anyhow::Result<Predicted>,
) -> anyhow::Result<Predicted> {
    let bar = counting_bar("predicting", samples.len() as u64);
    let mut observer = |event: &TrainEvent<'_>| {
        if let TrainEvent::SlidePredicted { done, slides, .. } = event {
            bar.set_length(*slides as u64);
            bar.set_position(*done as u64);
        }
    };
    let found = predict(&mut observer);
    bar.abandon();
    let found = found?;
    found.skipped.iter().for_each(tell);
    if found.is_stopped {
        let known = found.before + found.predicted;
        let place = format!("with {known} of {} slides predicted", samples.len());
        return Err(Stopped::error(place));
    }
    Ok(found)
}
