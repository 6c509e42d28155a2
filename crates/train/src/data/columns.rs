//! What the columns of a table of slides are called.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use stream_grad_slides::TextTable;

use super::Task;
use crate::error::{Result, TrainError};

/// The column of the labels, or the columns of several labels.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum LabelColumn {
    /// One column.
    One(String),
    /// A column for each of several labels, which says yes or no (`1` or `0`); none where labels are not read.
    Several(Vec<String>),
}

impl From<&str> for LabelColumn {
    fn from(name: &str) -> Self {
        Self::One(name.to_owned())
    }
}

impl LabelColumn {
    /// All names.
    #[must_use]
    pub fn names(&self) -> &[String] {
        match self {
            Self::One(name) => std::slice::from_ref(name),
            Self::Several(names) => names,
        }
    }

    /// Refuses columns of which the task has another number.
    pub(super) fn check(&self, task: Task) -> Result<()> {
        let refuse = |expected: String| {
            let found = self.names().join(", ");
            Err(TrainError::setting("data.label_column", expected, found))
        };
        match (self, task) {
            (Self::One(name), _) if name.trim().is_empty() => {
                refuse("the name of a column".to_owned())
            }
            (Self::One(_), _) => Ok(()),
            (Self::Several(names), Task::MultiLabel { labels }) if names.len() == labels => Ok(()),
            (Self::Several(_), Task::MultiLabel { labels }) => {
                refuse(format!("one column, or {labels}, one for each label"))
            }
            (Self::Several(_), _) => refuse("one column, since slides have one label".to_owned()),
        }
    }
}

/// What the columns are called, in whatever case; blank for those that are not read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Columns {
    pub(super) slide: String,
    pub(super) label: LabelColumn,
    /// The setting that says what they are called.
    pub(super) label_setting: &'static str,
    pub(super) patient: String,
    pub(super) split: String,
    pub(super) microns_per_pixel: String,
    /// Where the slides are; by default where the table is.
    pub(super) folder: Option<PathBuf>,
}

impl Default for Columns {
    fn default() -> Self {
        Self {
            slide: "slide".to_owned(),
            label: "label".into(),
            label_setting: "label_column",
            patient: "patient".to_owned(),
            split: "split".to_owned(),
            microns_per_pixel: "microns_per_pixel".to_owned(),
            folder: None,
        }
    }
}

impl Columns {
    /// Checks that the table has all columns; those that may lack may do so under their default name only.
    pub(super) fn check(&self, table: &TextTable) -> Result<()> {
        let default = Self::default();
        let (labels, setting) = (self.label.names().iter(), self.label_setting);
        let optional = [
            ("patient_column", &self.patient, default.patient),
            ("split_column", &self.split, default.split),
            (
                "microns_per_pixel_column",
                &self.microns_per_pixel,
                default.microns_per_pixel,
            ),
        ];
        let optional = optional
            .iter()
            .filter(|(_, name, default)| !name.is_empty() && *name != default)
            .map(|(setting, name, _)| (*setting, *name));
        for (setting, name) in labels.map(|name| (setting, name)).chain(optional) {
            if table.column(name).is_none() {
                return Err(no_column(table, name, setting));
            }
        }
        Ok(())
    }

    /// All names, in small letters.
    pub(super) fn known(&self) -> Vec<String> {
        let names = [
            &self.slide,
            &self.patient,
            &self.split,
            &self.microns_per_pixel,
        ];
        names
            .into_iter()
            .chain(self.label.names())
            .map(|name| name.to_lowercase())
            .collect()
    }
}

/// The error for a column that lacks; it lists those that are there.
pub(super) fn no_column(table: &TextTable, name: &str, setting: &'static str) -> TrainError {
    TrainError::NoColumn {
        path: table.path().to_path_buf(),
        column: name.to_owned(),
        setting,
        columns: table
            .nearest_columns(name)
            .into_iter()
            .map(str::to_owned)
            .collect(),
    }
}
