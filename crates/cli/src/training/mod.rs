//! Training at one resolution after another with bars, a model of this machine, Ctrl-C and a report: what
//! `stream-grad train` and the experiments of `cargo xtask reproduce` share.

mod bars;

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use stream_grad::CostModel;
use stream_grad_files::refuse_input;
use stream_grad_train::calibration::{CostModelCache, cache_folder};
use stream_grad_train::data::{ClassNames, Round, Split};
use stream_grad_train::experiment::{Experiment, RunKey};
use stream_grad_train::model::BuiltModel;
use stream_grad_train::report::{self, Notes};
use stream_grad_train::settings::Settings;

use crate::exit::Stopped;
use crate::tell;
use bars::Bars;

/// What is trained on, and what it is called.
#[derive(Debug, Clone, PartialEq)]
pub struct Training {
    /// All settings.
    pub settings: Settings,
    /// Names of the classes, levels or labels.
    pub classes: ClassNames,
    /// The slides, with a split each, once or in several rounds.
    pub rounds: Vec<Round>,
    /// What the report is told: title, question, where the slides come from, rows of a publication.
    pub notes: Notes,
    /// Files that are read, and never written over.
    pub inputs: Vec<PathBuf>,
}

impl Training {
    /// Trains into `folder`, or goes on with what was stopped there, and prints the report. Returns all trainings, which lie in
    /// folders called as these.
    ///
    /// # Errors
    /// [`Stopped`] if `stop` was set before the end; as [`Experiment::open`] and [`Experiment::run`].
    pub fn run(self, folder: &Path, stop: &AtomicBool) -> anyhow::Result<Vec<RunKey>> {
        for name in report::FILES {
            refuse_input(&folder.join(name), &self.inputs)?;
        }
        let experiment = Experiment::open(folder, self.settings, self.classes, self.rounds)?;
        for warning in experiment.warnings() {
            tell(format_args!("warning: {warning}"));
        }
        // Measured last: what is wrong is told at once.
        let cost_model = cost_model(experiment.settings())?;
        let experiment = experiment.cost_model(cost_model);
        self.notes.write(folder)?;
        let epochs = experiment.settings().train.epochs;
        let keys = experiment.runs();
        for key in &keys {
            let slides = experiment.split(key, Split::Train).len();
            let mut bars = Bars::new(key, epochs, slides);
            let result = experiment.run(key, stop, &mut bars);
            bars.finish();
            result?.ok_or_else(|| Stopped::error(format!("in {key}")))?;
            // What is finished is on disk, whatever comes next.
            report::write(folder)?;
        }
        let summary = report::write(folder)?;
        let page = folder.join("report.html");
        println!("\n{summary}\nThe report is {}", page.display());
        Ok(keys)
    }
}

/// How long the network's operations take here, with as many threads.
///
/// # Errors
/// As [`BuiltModel::new`] and [`CostModelCache::model`].
pub fn cost_model(settings: &Settings) -> anyhow::Result<CostModel> {
    let Settings {
        data, model, train, ..
    } = settings;
    let streamed = BuiltModel::new(model, data.task, train.seed)?;
    // The size of the image does not matter.
    let request = streamed.request(1, 1);
    let cache = CostModelCache::new(cache_folder().as_deref(), model.threads);
    let model = cache.model(streamed.net(), &request, &mut |notice| {
        tell(notice);
    })?;
    Ok(model)
}
