//! The table `[data]` of a run.toml.

use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::columns::{Columns, LabelColumn};
use super::layouts::{self, Layout};
use super::read::{self, DataSet};
use super::rounds::{Round, leave_one_out};
use super::{Sample, SplitShares, Task, assign_splits, cross_validation};
use crate::error::{Result, TrainError};
use crate::loss::SegmentationLoss;
use crate::source::{ReadSettings, Unlabelled};

/// Which slides are trained on, what is predicted from them, and how they are read.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct DataSettings {
    /// Table of the slides (CSV, with commas, semicolons or tabs), one row a slide. None by default; `csv` or `folder` must be
    /// given.
    #[schemars(example = &"slides.csv")]
    pub csv: Option<PathBuf>,
    /// Without `csv`: a folder in the layout of a published data set, or any folder of slides, to predict. With `csv`: the
    /// folder that the table's slides are in; by default that of the table.
    #[schemars(example = &"slides")]
    pub folder: Option<PathBuf>,
    /// Layout of `folder`: `camelyon17`, `camelyon16`, `tupac16`, `panda`, `imagenette`, `streaming_pipeline`, `clam`, `stamp` or
    /// `slides`. By default it is found by what lies there.
    pub layout: Option<Layout>,
    /// Column of the slides: a path, or a name, with or without its extension.
    pub slide_column: String,
    /// Column of the labels; a blank cell is a slide to predict. Several labels stand in one column, with semicolons between
    /// them, or in a column each, which a list names.
    pub label_column: LabelColumn,
    /// Column of the label maps, in place of labels, where each pixel has a class: a mask (PNG or TIFF, one channel of 8 bits, whose
    /// values are classes) or annotations (ASAP's XML or GeoJSON), whose areas are called as `classes`; a blank cell is a slide to predict.
    pub mask_column: String,
    /// What stands in masks for pixels of no class, which have no say; 0 to 255.
    pub ignore_index: u8,
    /// What pixels are that no annotation covers: `background`, the first class, or `ignored`. By default background. Where annotations
    /// overlap, the class that comes later in `classes` counts.
    pub unlabelled: Unlabelled,
    /// Column of the patients, whose slides stay in one split. The default's column may lack; a blank name is for none.
    pub patient_column: String,
    /// Column of the splits: `train`, `validation` or `test`, or blank where it is to be drawn. The default's column may lack;
    /// a blank name is for none, so that all splits are drawn.
    pub split_column: String,
    /// Column of the microns per pixel of the slides' finest levels, used in place of what the slides say. The default's column
    /// may lack; a blank name is for none.
    pub microns_per_pixel_column: String,
    /// Names of the classes, levels or labels, as they stand in the label column, in the order of their numbers. By default
    /// labels are numbers from 0; where they are text, classes are in the order of the alphabet.
    pub classes: Vec<String>,
    /// What is predicted.
    pub task: Task,
    /// Shares of the patients in the splits, for slides that have none; each from 0, together below 1.
    pub splits: SplitShares,
    /// Parts of a cross-validation by patient, 3 or more: each is the test split once. By default there is one split.
    #[schemars(example = 5)]
    pub folds: Option<usize>,
    /// A column, such as `center`: the slides of each of its values are the test split once. None by default.
    #[schemars(example = &"center")]
    pub leave_one_out: Option<String>,
    /// Resolutions to train at, one after another, in microns per pixel; finite numbers above 0, at least one.
    pub microns_per_pixel: Vec<f64>,
    /// How slides are read.
    pub read: ReadSettings,
}

impl Default for DataSettings {
    fn default() -> Self {
        let columns = Columns::default();
        Self {
            csv: None,
            folder: None,
            layout: None,
            slide_column: columns.slide,
            label_column: columns.label,
            mask_column: "mask".to_owned(),
            ignore_index: SegmentationLoss::IGNORE_INDEX,
            unlabelled: Unlabelled::default(),
            patient_column: columns.patient,
            split_column: columns.split,
            microns_per_pixel_column: columns.microns_per_pixel,
            classes: Vec::new(),
            task: Task::Binary,
            splits: SplitShares {
                validation: 0.1,
                test: 0.3,
            },
            folds: None,
            leave_one_out: None,
            microns_per_pixel: vec![8.0, 3.0, 2.0],
            read: ReadSettings::default(),
        }
    }
}

impl DataSettings {
    /// Checks the settings.
    ///
    /// # Errors
    /// [`TrainError::Setting`] naming the first that cannot be used.
    pub fn check(&self) -> Result<()> {
        let legal = |microns: &f64| microns.is_finite() && *microns > 0.0;
        if self.microns_per_pixel.is_empty() || !self.microns_per_pixel.iter().all(legal) {
            return Err(TrainError::setting(
                "data.microns_per_pixel",
                "one or more finite numbers above 0",
                format!("{:?}", self.microns_per_pixel),
            ));
        }
        self.task.check()?;
        self.splits.check()?;
        if let Some(folds @ 0..3) = self.folds {
            return Err(TrainError::setting("data.folds", "3 or more", folds));
        }
        if let (Some(folds), Some(column)) = (self.folds, &self.leave_one_out) {
            return Err(TrainError::setting(
                "data.folds and data.leave_one_out",
                "one of them",
                format!("{folds} and `{column}`"),
            ));
        }
        if self.slide_column.trim().is_empty() {
            return Err(TrainError::setting(
                "data.slide_column",
                "the name of a column",
                "a blank name",
            ));
        }
        self.label_column.check(self.task)?;
        if self.mask_column.trim().is_empty() {
            return Err(TrainError::setting(
                "data.mask_column",
                "the name of a column",
                "a blank name",
            ));
        }
        if !self.classes.is_empty() {
            read::class_names(&self.classes, self.task)?;
        }
        self.read.check()
    }

    /// The slides to train on: those of `csv`, or of `folder` in its layout. Paths are taken from `base` unless they are absolute.
    ///
    /// # Errors
    /// [`TrainError::Setting`] where neither is given; [`TrainError::NoColumn`], [`TrainError::Cell`],
    /// [`TrainError::MissingSlides`] and whatever else is wrong in a table or a layout.
    ///
    /// # Examples
    /// ```
    /// use stream_grad_train::data::{DataSettings, Label, Task};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let folder = tempfile::tempdir()?;
    /// std::fs::write(folder.path().join("a.svs"), "")?;
    /// std::fs::write(folder.path().join("b.svs"), "")?;
    /// std::fs::write(folder.path().join("cases.csv"), "Case;Grade\na;high\nb;low\n")?;
    /// let settings = DataSettings {
    ///     csv: Some("cases.csv".into()),
    ///     slide_column: "case".to_owned(),
    ///     label_column: "grade".into(),
    ///     classes: vec!["low".to_owned(), "high".to_owned()],
    ///     ..DataSettings::default()
    /// };
    /// let data = settings.load(folder.path())?;
    /// assert_eq!(data.samples[0].slide, folder.path().join("a.svs"));
    /// assert_eq!(data.samples[0].label, Some(Label::Number(1.0)));
    /// # Ok(())
    /// # }
    /// ```
    pub fn load(&self, base: &Path) -> Result<DataSet> {
        self.check()?;
        match (&self.csv, &self.folder) {
            (Some(csv), _) => read::read(&base.join(csv), &self.columns(base), self),
            (None, Some(folder)) => layouts::load(&base.join(folder), self),
            (None, None) => Err(self.nothing()),
        }
    }

    /// The slides to predict: as [`load`](Self::load), but labels may lack altogether.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn load_to_predict(&self, base: &Path) -> Result<DataSet> {
        let Some(csv) = &self.csv else {
            return self.load(base);
        };
        let (path, mut columns) = (base.join(csv), self.columns(base));
        // Label maps are not looked at, and need not be there.
        let is_map = matches!(self.task, Task::Segmentation { .. });
        if is_map || !read::has_labels(&path, &columns)? {
            columns.label = LabelColumn::Several(Vec::new());
        }
        read::read(&path, &columns, self)
    }

    /// The rounds of training and testing that the settings ask for: each labelled slide with a split. One round, or one for each
    /// fold or for each value of the column that is left out. Slides without a label are in none.
    ///
    /// # Errors
    /// As [`assign_splits`] and [`cross_validation`]; [`TrainError::NoColumn`] for a column that slides lack,
    /// [`TrainError::Classes`] where it has one value only, [`TrainError::SplitPatient`] for a patient with two values.
    pub fn rounds(&self, samples: &[Sample], seed: u64) -> Result<Vec<Round>> {
        let labelled = samples.iter().filter(|sample| sample.label.is_some());
        let mut labelled: Vec<Sample> = labelled.cloned().collect();
        if let Some(folds) = self.folds {
            let folds = cross_validation(&labelled, self.task, folds, seed)?;
            let rounds = folds.into_iter().enumerate();
            return Ok(rounds
                .map(|(place, fold)| Round {
                    name: Some(format!("fold-{}", place + 1)),
                    samples: fold.samples,
                })
                .collect());
        }
        if let Some(column) = &self.leave_one_out {
            return leave_one_out(&labelled, column, self, seed);
        }
        assign_splits(&mut labelled, self.task, self.splits, seed)?;
        Ok(vec![Round {
            name: None,
            samples: labelled,
        }])
    }

    /// What the columns of the table are called.
    fn columns(&self, base: &Path) -> Columns {
        Columns {
            slide: self.slide_column.clone(),
            label: match self.task {
                Task::Segmentation { .. } => LabelColumn::One(self.mask_column.clone()),
                _ => self.label_column.clone(),
            },
            label_setting: match self.task {
                Task::Segmentation { .. } => "mask_column",
                _ => "label_column",
            },
            patient: self.patient_column.clone(),
            split: self.split_column.clone(),
            microns_per_pixel: self.microns_per_pixel_column.clone(),
            folder: self.folder.as_ref().map(|folder| base.join(folder)),
        }
    }

    fn nothing(&self) -> TrainError {
        TrainError::setting(
            "data",
            "`csv`, a table of slides, or `folder`, a folder of slides",
            "neither",
        )
    }
}

#[cfg(test)]
mod tests;
