//! The same training at one resolution after another, in a folder that a second call goes on with.

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use stream_grad::CostModel;
use stream_grad_models::save_tensors;
use stream_grad_slides::MicronsPerPixel;

use crate::data::{self, Sample, SampleWarning, Split, check_labels, check_samples, of_split};
use crate::error::{Result, TrainError};
use crate::files::write_whole;
use crate::model::{Model, StreamedModel};
use crate::report::{ResolutionResult, SkippedSlides, write_predictions};
use crate::settings::Settings;
use crate::source::SlideLoader;
use crate::trainer::{Outcome, Run, TrainObserver, evaluate};

/// An experiment and the folder that holds what it gives.
#[derive(Debug, Clone, PartialEq)]
pub struct Experiment {
    folder: PathBuf,
    settings: Settings,
    samples: Vec<Sample>,
    warnings: Vec<SampleWarning>,
    cost_model: CostModel,
}

impl Experiment {
    /// Claims `folder` for an experiment: writes `settings.toml` and `samples.csv` there, or finds the same ones. Every sample has
    /// a split, and [`check_samples`] lets it pass.
    ///
    /// # Errors
    /// [`TrainError::OtherRun`] if the folder holds other settings or other slides; [`TrainError::Classes`] if the training or
    /// the test split has labels of one kind only; [`TrainError::Splits`] for samples without a split; as [`check_samples`];
    /// [`TrainError::Setting`]; [`TrainError::File`].
    pub fn open(
        folder: impl Into<PathBuf>,
        settings: Settings,
        samples: Vec<Sample>,
    ) -> Result<Self> {
        let folder = folder.into();
        settings.check()?;
        check_splits(&samples)?;
        let warnings = check_samples(&samples)?;
        check_labels("the training split", &of_split(&samples, Split::Train))?;
        check_labels("the test split", &of_split(&samples, Split::Test))?;
        settings.claim(&folder)?;
        let path = folder.join("samples.csv");
        let table = data::table(&path, &samples)?;
        if path.is_file() {
            if std::fs::read(&path).map_err(TrainError::file(&path))? != table {
                return Err(TrainError::OtherRun {
                    folder,
                    what: "slides",
                    file: path,
                });
            }
        } else {
            write_whole(&path, &table)?;
        }
        Ok(Self {
            folder,
            settings,
            samples,
            warnings,
            cost_model: CostModel::FIXED,
        })
    }

    /// The same experiment, with recipes chosen by `cost_model`; without this, by a fixed table. A run that goes on keeps the
    /// recipes of its checkpoint.
    #[must_use]
    pub fn cost_model(mut self, cost_model: CostModel) -> Self {
        self.cost_model = cost_model;
        self
    }

    /// All settings.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// What is suspicious in the samples: to be told to whoever runs the experiment.
    #[must_use]
    pub fn warnings(&self) -> &[SampleWarning] {
        &self.warnings
    }

    /// The samples of `split`.
    #[must_use]
    pub fn split(&self, split: Split) -> Vec<Sample> {
        of_split(&self.samples, split)
    }

    /// Trains at `microns_per_pixel` on the training split, evaluates on the test split, and writes, into a folder of the
    /// experiment's, `checkpoint.safetensors`, `weights.safetensors`, `predictions.csv` and `result.json`. Where settings ask
    /// for them, masks of tissue and profiles of stains are kept in `masks` and `stains`, for all resolutions.
    ///
    /// A resolution whose `result.json` is there is not trained again; one whose checkpoint is there goes on. Returns
    /// `None` if `stop` was set before the end. The test split is looked at once, after the last epoch, with the weights of
    /// that epoch.
    ///
    /// # Errors
    /// As [`Run::execute`] and [`evaluate`].
    pub fn run(
        &self,
        microns_per_pixel: f64,
        stop: &AtomicBool,
        observer: &mut dyn TrainObserver,
    ) -> Result<Option<ResolutionResult>> {
        let folder = self.folder.join(format!("{microns_per_pixel}-microns"));
        let path = folder.join("result.json");
        if path.is_file() {
            return stored(&path).map(Some);
        }
        let result = self.train(microns_per_pixel, &folder, stop, observer)?;
        if let Some(result) = &result {
            // Written last: its being there says that the resolution is finished.
            let json = serde_json::to_vec_pretty(result).map_err(TrainError::json(&path))?;
            write_whole(&path, &json)?;
        }
        Ok(result)
    }

    fn train(
        &self,
        microns_per_pixel: f64,
        folder: &Path,
        stop: &AtomicBool,
        observer: &mut dyn TrainObserver,
    ) -> Result<Option<ResolutionResult>> {
        let started = Instant::now();
        let Self { settings, .. } = self;
        let [train, validation, test] = Split::ALL.map(|split| self.split(split));
        let scale = MicronsPerPixel::new(microns_per_pixel)?;
        let loader = SlideLoader::with_folder(scale, settings.read.clone(), &self.folder)?;
        loader.state_scales(&self.samples);
        let outputs = settings.task.outputs();
        let model = StreamedModel::new(&settings.model, outputs, settings.train.seed)?
            .cost_model(self.cost_model.clone());
        let checkpoint = folder.join("checkpoint.safetensors");
        let run = Run {
            settings: &settings.train,
            task: settings.task,
            train: &train,
            validation: &validation,
            model: &model,
            loader: &loader,
            checkpoint: Some(&checkpoint),
        };
        let Outcome::Finished(summary) = run.execute(stop, observer)? else {
            return Ok(None);
        };
        let set = (test.as_slice(), Split::Test);
        let Some(evaluation) = evaluate(&model, &loader, set, stop, observer)? else {
            return Ok(None);
        };
        save_tensors(folder.join("weights.safetensors"), &model.tensors())?;
        write_predictions(&folder.join("predictions.csv"), &evaluation)?;
        Ok(Some(ResolutionResult {
            microns_per_pixel,
            mean_pixels: evaluation.mean_pixels(),
            test: evaluation.estimate(settings.task, &settings.bootstrap)?,
            test_slides: evaluation.predictions.len(),
            skipped: SkippedSlides {
                test: evaluation.skipped,
                broken: summary.broken,
                not_finite: summary.not_finite,
            },
            bad_regions: loader.bad_regions().by_slide(),
            seconds: started.elapsed().as_secs_f64(),
            training: summary.timing,
            history: summary.history,
        }))
    }
}

/// Samples without a split would be left out without a word.
fn check_splits(samples: &[Sample]) -> Result<()> {
    let without = |sample: &&Sample| sample.split.is_none();
    match samples.iter().find(without) {
        None => Ok(()),
        Some(first) => Err(TrainError::Splits {
            place: "an experiment",
            expected: "a split for each sample (`assign_splits` draws them)",
            count: samples.iter().filter(without).count(),
            total: samples.len(),
            found: "without one",
            first: first.slide.clone(),
        }),
    }
}

fn stored(path: &Path) -> Result<ResolutionResult> {
    let text = std::fs::read(path).map_err(TrainError::file(path))?;
    serde_json::from_slice(&text).map_err(TrainError::json(path))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trainer::NoObserver;

    fn sample(name: &str, label: f64, split: Split) -> Sample {
        Sample {
            split: Some(split),
            ..Sample::new(name, label)
        }
    }

    fn samples() -> Vec<Sample> {
        vec![
            sample("a.tif", 0.0, Split::Train),
            sample("b.tif", 1.0, Split::Train),
            sample("c.tif", 0.0, Split::Test),
            sample("d.tif", 1.0, Split::Test),
        ]
    }

    #[test]
    fn a_folder_belongs_to_one_experiment() {
        let folder = tempfile::tempdir().unwrap();
        let open = |settings, samples| Experiment::open(folder.path(), settings, samples);
        let first = open(Settings::default(), samples()).unwrap();
        assert_eq!(open(Settings::default(), samples()).unwrap(), first);

        let mut settings = Settings::default();
        settings.train.epochs += 1;
        let error = open(settings, samples()).unwrap_err().to_string();
        assert!(error.contains("other settings"), "{error}");

        let mut others = samples();
        others[1].label = 0.0;
        others.push(sample("e.tif", 1.0, Split::Train));
        let error = open(Settings::default(), others).unwrap_err().to_string();
        assert!(error.contains("other slides"), "{error}");
    }

    #[test]
    fn samples_without_a_split_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let mut some = samples();
        some[2].split = None;
        let error = Experiment::open(folder.path(), Settings::default(), some).unwrap_err();
        for part in ["1 of 4", "c.tif", "without"] {
            assert!(error.to_string().contains(part), "{part:?} in {error}");
        }
    }

    #[test]
    fn one_content_in_two_splits_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let samples: Vec<Sample> = samples()
            .into_iter()
            .map(|sample| {
                let slide = folder.path().join(&sample.slide);
                let content = if sample.label > 0.5 {
                    "one content"
                } else {
                    ""
                };
                std::fs::write(&slide, content).unwrap();
                Sample { slide, ..sample }
            })
            .collect();
        let run = folder.path().join("run");
        let experiment = Experiment::open(run, Settings::default(), samples).unwrap();
        let [warning] = experiment.warnings() else {
            panic!("{:?}", experiment.warnings())
        };
        for part in ["b.tif", "d.tif", "TWO SPLITS, train and test"] {
            assert!(warning.to_string().contains(part), "{part:?} in {warning}");
        }
    }

    #[test]
    fn one_class_is_refused_before_anything_is_written() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("run");
        let mut one_class = samples();
        one_class[3].label = 0.0;
        let error = Experiment::open(&place, Settings::default(), one_class).unwrap_err();
        assert!(error.to_string().contains("the test split"), "{error}");
        assert!(!place.exists());
    }

    /// Slides that are not there are skipped one by one, and the run says so when none is left.
    #[test]
    fn a_run_without_a_readable_slide_fails() {
        let folder = tempfile::tempdir().unwrap();
        let experiment = Experiment::open(folder.path(), Settings::default(), samples()).unwrap();
        let stop = AtomicBool::new(false);
        let error = experiment.run(8.0, &stop, &mut NoObserver).unwrap_err();
        assert!(
            matches!(error, TrainError::AllSlidesFailed { .. }),
            "{error}"
        );
        assert!(!folder.path().join("8-microns/result.json").exists());
    }
}
