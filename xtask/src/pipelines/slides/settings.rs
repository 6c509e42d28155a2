//! Settings of an experiment on slides: those of any training, and the made-up cohort's.

use std::path::Path;

use anyhow::Context;
use serde::{Deserialize, Serialize};
use stream_grad_cli::exit::WrongUse;
use stream_grad_train::cohort::CohortConfig;
use stream_grad_train::data::DataSettings;
use stream_grad_train::model::ModelSettings;
use stream_grad_train::settings::{ReportSettings, Settings};
use stream_grad_train::trainer::TrainSettings;

/// What `--settings` holds.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct File {
    data: DataSettings,
    model: ModelSettings,
    train: TrainSettings,
    report: ReportSettings,
    /// The made-up cohort, used where no slides are given.
    cohort: CohortConfig,
}

/// Settings of the training and of the cohort: what `path` says, and `defaults` for what it does not say.
pub(super) fn read(
    path: &Path,
    defaults: (Settings, CohortConfig),
) -> anyhow::Result<(Settings, CohortConfig)> {
    let file = crate::settings::read(path, &File::from(defaults))?;
    file.checked()
        .with_context(|| path.display().to_string())
        .map_err(WrongUse::from_error)
}

impl File {
    fn checked(self) -> anyhow::Result<(Settings, CohortConfig)> {
        let Self {
            data,
            model,
            train,
            report,
            cohort,
        } = self;
        if data.csv.is_some() || data.folder.is_some() {
            anyhow::bail!(
                "an experiment's slides are given by --csv or --data, not by its settings"
            );
        }
        let settings = Settings {
            data,
            model,
            train,
            report,
        };
        Ok((settings, cohort))
    }
}

impl From<(Settings, CohortConfig)> for File {
    fn from((settings, cohort): (Settings, CohortConfig)) -> Self {
        let Settings {
            data,
            model,
            train,
            report,
        } = settings;
        Self {
            data,
            model,
            train,
            report,
            cohort,
        }
    }
}

#[cfg(test)]
mod tests {
    use stream_grad_train::data::Task;

    use super::*;

    fn defaults() -> (Settings, CohortConfig) {
        let mut settings = Settings::default();
        settings.data.task = Task::Ordinal { levels: 3 };
        settings.data.microns_per_pixel = vec![8.0, 4.0];
        settings.train.epochs = 7;
        (settings, CohortConfig::mitoses())
    }

    fn over(
        text: &str,
        defaults: (Settings, CohortConfig),
    ) -> anyhow::Result<(Settings, CohortConfig)> {
        crate::settings::over(text, &File::from(defaults))?.checked()
    }

    #[test]
    fn what_a_file_does_not_say_is_the_experiments() {
        let (settings, cohort) = over("", defaults()).unwrap();
        assert_eq!((settings, cohort), defaults());

        let text =
            "[train]\nbatch_size = 3\n[cohort.splits]\ntrain = 5\nvalidation = 0\ntest = 1\n";
        let (settings, cohort) = over(text, defaults()).unwrap();
        let (mut expected, mut expected_cohort) = defaults();
        expected.train.batch_size = 3;
        expected_cohort.splits.train = 5;
        expected_cohort.splits.test = 1;
        assert_eq!((settings, cohort), (expected, expected_cohort));
    }

    #[test]
    fn a_table_with_a_kind_is_taken_whole() {
        let (settings, _) = over("[data.task]\nkind = \"regression\"\n", defaults()).unwrap();
        assert_eq!(settings.data.task, Task::Regression);
    }

    #[test]
    fn wrong_files_are_refused() {
        for (text, expected) in [
            ("[train]\nepoch = 3\n", "the nearest is `epochs` in [train]"),
            ("[data]\ncsv = \"a.csv\"\n", "--csv or --data"),
        ] {
            let error = over(text, defaults()).unwrap_err();
            let error = format!("{error:#}");
            assert!(error.contains(expected), "{error}");
        }
    }
}
