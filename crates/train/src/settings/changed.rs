//! Whether a folder's run was begun with the same settings.

use std::path::Path;

use serde::Serialize;

use super::{FILE, Settings};
use crate::change::Change;
use crate::error::{Result, TrainError};

/// Keys, or whole tables, that may change from one call to the next: no result of the training depends on them. `memory_bytes`
/// is not one of them, since sums of images whose size comes up for the first time are rounded in an order that depends on it;
/// nor is `epochs`, since learning rates depend on how many come. Where slides lie is, since the slides themselves are compared
/// beside the settings.
const HARMLESS: [&str; 8] = [
    "data.csv",
    "data.folder",
    "data.read.held_bytes",
    "data.read.decoding_threads",
    "model.threads",
    "model.offload",
    "train.checkpoint_every",
    "report",
];

fn is_harmless(change: &Change) -> bool {
    HARMLESS.iter().any(|harmless| {
        let rest = change.key.strip_prefix(harmless);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    })
}

impl Settings {
    /// Writes the settings into `folder` as `run.toml`, or finds there those of a run that this one may go on with: the same ones,
    /// but for such that no result of the training depends on (where the table and the slides lie, threads, where to offload, how much
    /// is held and decoded ahead, how often checkpoints are written, and all of `[report]`). The file then has these as they are here.
    ///
    /// # Errors
    /// As [`check_folder`](Self::check_folder) and [`write`](Self::write).
    pub fn claim(&self, folder: &Path) -> Result<()> {
        match self.check_folder(folder)? {
            Some(before) if before == *self => Ok(()),
            _ => self.write(&folder.join(FILE)),
        }
    }

    /// The settings of the run in `folder`, if there is one, with which this one may go on.
    ///
    /// # Errors
    /// [`TrainError::OtherSettings`] naming every setting that differs and that results depend on; as [`read`](Self::read).
    pub fn check_folder(&self, folder: &Path) -> Result<Option<Self>> {
        let path = folder.join(FILE);
        if !path.exists() {
            return Ok(None);
        }
        let before = Self::read(&path)?;
        let mut changes = changes(&before, self)?;
        changes.retain(|change| !is_harmless(change));
        if changes.is_empty() {
            return Ok(Some(before));
        }
        Err(TrainError::OtherSettings {
            folder: folder.to_path_buf(),
            file: path,
            changes,
        })
    }
}

/// Every setting of `before` that differs in `now`; of one kind of settings.
///
/// # Errors
/// [`TrainError::Settings`] for a number that TOML cannot hold.
pub fn changes(before: &impl Serialize, now: &impl Serialize) -> Result<Vec<Change>> {
    let mut changes = Vec::new();
    compare("", &table(before)?, &table(now)?, &mut changes);
    Ok(changes)
}

fn table(settings: &impl Serialize) -> Result<toml::Table> {
    toml::Table::try_from(settings).map_err(|error| TrainError::Settings(error.to_string()))
}

fn compare(path: &str, before: &toml::Table, now: &toml::Table, changes: &mut Vec<Change>) {
    let added = now.keys().filter(|key| !before.contains_key(*key));
    for name in before.keys().chain(added) {
        let key = match path {
            "" => name.clone(),
            path => format!("{path}.{name}"),
        };
        match (before.get(name), now.get(name)) {
            (Some(toml::Value::Table(before)), Some(toml::Value::Table(now))) => {
                compare(&key, before, now, changes);
            }
            (before, now) if before == now => {}
            (before, now) => changes.push(Change {
                key,
                before: before.map(ToString::to_string),
                now: now.map(ToString::to_string),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_change_is_named_with_both_values() {
        let folder = tempfile::tempdir().unwrap();
        let first = Settings::default();
        first.claim(folder.path()).unwrap();
        first.claim(folder.path()).unwrap();

        let mut other = first.clone();
        other.train.epochs = 7;
        other.data.microns_per_pixel = vec![4.0];
        other.data.read.scale_override = Some(0.25);
        other.model.threads = 1;
        let error = other.claim(folder.path()).unwrap_err();
        let TrainError::OtherSettings { changes, .. } = &error else {
            panic!("{error}")
        };
        let keys: Vec<&str> = changes.iter().map(|change| change.key.as_str()).collect();
        assert_eq!(
            keys,
            [
                "data.microns_per_pixel",
                "data.read.scale_override",
                "train.epochs"
            ]
        );
        let message = error.to_string();
        for part in [
            "train.epochs is 20 there and 7 here",
            "data.microns_per_pixel is [8.0, 3.0, 2.0] there and [4.0] here",
            "data.read.scale_override is absent there and 0.25 here",
            "another folder",
            "run.toml",
        ] {
            assert!(message.contains(part), "{part:?} in {message:?}");
        }
        assert_eq!(Settings::read(&folder.path().join(FILE)).unwrap(), first);
    }

    #[test]
    fn what_no_result_depends_on_may_change() {
        let folder = tempfile::tempdir().unwrap();
        let mut settings = Settings::default();
        settings.claim(folder.path()).unwrap();
        settings.data.csv = Some("elsewhere.csv".into());
        settings.data.folder = Some("elsewhere".into());
        settings.model.threads = 1;
        settings.model.offload = Some("elsewhere".into());
        settings.data.read.held_bytes = 1 << 20;
        settings.data.read.decoding_threads = 2;
        settings.train.checkpoint_every = 3;
        settings.report.bootstrap.resamples = 100;
        settings.claim(folder.path()).unwrap();
        assert_eq!(Settings::read(&folder.path().join(FILE)).unwrap(), settings);
        // A key that begins like a harmless one is none.
        settings.model.memory_bytes += 1;
        let error = settings.claim(folder.path()).unwrap_err();
        let TrainError::OtherSettings { changes, .. } = &error else {
            panic!("{error}")
        };
        let keys: Vec<&str> = changes.iter().map(|change| change.key.as_str()).collect();
        assert_eq!(keys, ["model.memory_bytes"]);
    }

    /// A key of the list that no setting has would be one that was renamed since.
    #[test]
    fn harmless_keys_are_keys() {
        let mut settings = Settings::default();
        settings.data.csv = Some("elsewhere.csv".into());
        settings.data.folder = Some("elsewhere".into());
        settings.model.offload = Some("elsewhere".into());
        let table = table(&settings).unwrap();
        for key in HARMLESS {
            let mut names = key.split('.');
            let first = table.get(names.next().unwrap());
            let found = names.try_fold(first.unwrap(), |value, name| value.get(name));
            assert!(found.is_some(), "{key}");
        }
    }
}
