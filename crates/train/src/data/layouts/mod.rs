//! Published data sets as they lie on disk; each is found by what lies there.

mod camelyon16;
mod camelyon17;
mod clam;
mod contents;
mod imagenette;
mod panda;
mod slides;
mod stamp;
mod streaming_pipeline;
mod tupac16;

use std::fmt;
use std::path::Path;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{ClassNames, DataSet, DataSettings, Sample, Task};
use crate::error::{Result, TrainError};
use contents::Contents;

/// How a data set lies on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Layout {
    /// CAMELYON17: `stage_labels.csv` or `stages.csv`, and `patient_XXX_node_Y.tif` in whatever folders. Patients from 100 are the
    /// test split. Tasks: binary (any metastasis), 4 classes or levels (negative, itc, micro, macro).
    Camelyon17,
    /// CAMELYON16: `normal_NNN.tif`, `tumor_NNN.tif`, and `test_NNN.tif` with their truth in `reference.csv`. Task: binary.
    Camelyon16,
    /// TUPAC16: `TUPAC-TR-NNN.svs`, `TUPAC-TE-NNN.svs` and `training_ground_truth.csv` without a heading. Tasks: regression (the
    /// molecular proliferation score), 3 classes or levels (the mitotic score).
    Tupac16,
    /// PANDA: `train.csv` with `image_id` and `isup_grade`, and `train_images`. Tasks: 6 levels or classes (ISUP 0 to 5),
    /// regression.
    Panda,
    /// Imagenette, or any pictures in a folder for each class below `train` and `val`. Task: as many classes.
    Imagenette,
    /// The streaming pipeline's `train.csv` and `val.csv` with `slide_id` and `label`. Any task.
    StreamingPipeline,
    /// CLAM: a table with `case_id`, `slide_id` and `label`, and its files of splits where there are some. Any task.
    Clam,
    /// STAMP: a clinical table with `PATIENT` and labels, and a table of slides with `PATIENT` and `FILENAME`. Any task;
    /// `label_column` says which column of the clinical table.
    Stamp,
    /// Slides in a folder, without labels: to predict.
    Slides,
}

impl Layout {
    /// All layouts, in the order in which they are looked for.
    pub const ALL: [Self; 9] = [
        Self::Camelyon17,
        Self::Tupac16,
        Self::Camelyon16,
        Self::Panda,
        Self::Imagenette,
        Self::Stamp,
        Self::Clam,
        Self::StreamingPipeline,
        Self::Slides,
    ];

    /// The layout of `root`, by what lies there.
    ///
    /// # Errors
    /// [`TrainError::File`] for a folder that cannot be read, [`TrainError::Layout`] for one of no known layout.
    pub fn find(root: &Path) -> Result<Self> {
        Self::of(&Contents::of(root)?)
    }

    fn of(contents: &Contents) -> Result<Self> {
        let found = Self::ALL
            .into_iter()
            .find(|layout| layout.recognises(contents));
        found.ok_or_else(|| TrainError::Layout {
            path: contents.root().to_path_buf(),
            expected: "slides, or a data set in a published layout".to_owned(),
            found: contents.summary(),
        })
    }

    fn recognises(self, contents: &Contents) -> bool {
        match self {
            Self::Camelyon17 => camelyon17::recognises(contents),
            Self::Camelyon16 => camelyon16::recognises(contents),
            Self::Tupac16 => tupac16::recognises(contents),
            Self::Panda => panda::recognises(contents),
            Self::Imagenette => imagenette::recognises(contents),
            Self::StreamingPipeline => streaming_pipeline::recognises(contents),
            Self::Clam => clam::recognises(contents),
            Self::Stamp => stamp::recognises(contents),
            Self::Slides => slides::recognises(contents),
        }
    }
}

/// The name as people write it.
impl fmt::Display for Layout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Camelyon17 => "CAMELYON17",
            Self::Camelyon16 => "CAMELYON16",
            Self::Tupac16 => "TUPAC16",
            Self::Panda => "PANDA",
            Self::Imagenette => "pictures in folders, as Imagenette's",
            Self::StreamingPipeline => "the streaming pipeline's tables",
            Self::Clam => "CLAM's tables",
            Self::Stamp => "STAMP's tables",
            Self::Slides => "a folder of slides",
        })
    }
}

/// Reads the slides of `root` in the layout that the settings name, or the one that is found.
pub(super) fn load(root: &Path, settings: &DataSettings) -> Result<DataSet> {
    let contents = Contents::of(root)?;
    let layout = match settings.layout {
        Some(layout) => layout,
        None => Layout::of(&contents)?,
    };
    if let (Task::Segmentation { .. }, false) = (settings.task, layout == Layout::Slides) {
        let expected = "a task with a label for each slide (label maps stand in a table, by `csv`)";
        return Err(wrong_task(layout, expected, settings.task));
    }
    let mut data = match layout {
        Layout::Camelyon17 => camelyon17::read(&contents, settings.task),
        Layout::Camelyon16 => camelyon16::read(&contents, settings.task),
        Layout::Tupac16 => tupac16::read(&contents, settings.task),
        Layout::Panda => panda::read(&contents, settings),
        Layout::Imagenette => imagenette::read(&contents, settings.task),
        Layout::StreamingPipeline => streaming_pipeline::read(&contents, settings),
        Layout::Clam => clam::read(&contents, settings),
        Layout::Stamp => stamp::read(&contents, settings),
        Layout::Slides => slides::read(&contents, settings.task),
    }?;
    if data.samples.is_empty() {
        return Err(TrainError::Layout {
            path: root.to_path_buf(),
            expected: format!("the slides of {layout}"),
            found: contents.summary(),
        });
    }
    if settings.split_column.is_empty() {
        for sample in data
            .samples
            .iter_mut()
            .filter(|sample| sample.label.is_some())
        {
            sample.split = None;
        }
    }
    Ok(data)
}

/// A data set whose classes are fixed, and what is said of it in one line.
fn data_set(line: String, samples: Vec<Sample>, task: Task, classes: &[&str]) -> Result<DataSet> {
    let classes = if let Task::Regression | Task::Segmentation { .. } = task {
        ClassNames::numbered(task)
    } else {
        ClassNames::new(classes.iter().copied())?
    };
    classes.check(task)?;
    Ok(DataSet {
        samples,
        task,
        classes,
        notices: vec![line],
    })
}

/// The error for a task that a layout has no labels for.
fn wrong_task(layout: Layout, expected: &str, task: Task) -> TrainError {
    TrainError::setting(
        "data.task",
        format!("{expected}, of {layout} (`layout` says that it is another data set)"),
        format!("{task:?}"),
    )
}

/// Reads a table whose first row may be data, and whose rows may differ in length.
fn headerless(table: &Path) -> Result<csv::Reader<std::fs::File>> {
    csv::ReaderBuilder::new()
        .has_headers(false)
        .flexible(true)
        .trim(csv::Trim::All)
        .from_path(table)
        .map_err(TrainError::csv(table))
}

#[cfg(test)]
mod tests;
