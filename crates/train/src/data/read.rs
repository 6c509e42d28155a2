//! A table of slides, read as the settings say.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use stream_grad_slides::{
    FurtherCell, SlideColumns, SlideRow, SlideTable, TextTable, slides_in_folder,
};

use super::columns::{Columns, LabelColumn};
use super::table::{KNOWN, check_files};
use super::{ClassNames, DataSettings, Label, Sample, Split, Task, check_patients};
use crate::error::{Result, TrainError};

/// What programs write for what they do not know.
const UNKNOWN: [&str; 7] = ["na", "n/a", "#n/a", "<na>", "nan", "null", "none"];

/// Slides, and what their labels mean.
#[derive(Debug, Clone, PartialEq)]
pub struct DataSet {
    /// The slides; those without a label are to predict.
    pub samples: Vec<Sample>,
    /// What is predicted.
    pub task: Task,
    /// Names of the classes, levels or labels.
    pub classes: ClassNames,
    /// What a person should know of how the data were understood, each in one line.
    pub notices: Vec<String>,
}

impl DataSet {
    /// Slides and, of them, those with a label: `500 slides, 400 with a label`.
    pub(super) fn count(samples: &[Sample]) -> String {
        let with_label = samples.iter().filter(|sample| sample.label.is_some());
        let with_label = with_label.count();
        if with_label == samples.len() {
            return format!("{with_label} slides, all with a label");
        }
        format!("{} slides, {with_label} with a label", samples.len())
    }
}

/// The names of `classes`, as many as the task has.
pub(super) fn class_names(classes: &[String], task: Task) -> Result<ClassNames> {
    let names = ClassNames::new(classes.iter().map(String::as_str))?;
    names.check(task)?;
    Ok(names)
}

/// Whether a table has all columns of labels.
pub(super) fn has_labels(path: &Path, columns: &Columns) -> Result<bool> {
    let table = TextTable::read(path, &columns.slide)?;
    let names = columns.label.names();
    Ok(!names.is_empty() && names.iter().all(|name| table.column(name).is_some()))
}

/// Reads a table.
pub(super) fn read(path: &Path, columns: &Columns, settings: &DataSettings) -> Result<DataSet> {
    let slide_columns = SlideColumns {
        slide: &columns.slide,
        microns_per_pixel: &columns.microns_per_pixel,
        folder: columns.folder.as_deref(),
    };
    let table = SlideTable::read_with(path, slide_columns)?;
    let mut data = parse(&table, columns, settings)?;
    let mut finder = SlideFinder::default();
    for sample in &mut data.samples {
        finder.complete(&mut sample.slide)?;
    }
    check_files(path, &data.samples)?;
    let folder = columns.folder.as_deref().or_else(|| path.parent());
    place_maps(path, folder.unwrap_or(Path::new("")), &mut data.samples)?;
    Ok(data)
}

/// Takes the paths of label maps from `folder`, and refuses those that are not there.
fn place_maps(table: &Path, folder: &Path, samples: &mut [Sample]) -> Result<()> {
    let maps = samples
        .iter_mut()
        .filter_map(|sample| match &mut sample.label {
            Some(Label::Map(map)) => Some(map),
            _ => None,
        });
    let mut missing = Vec::new();
    let mut total = 0;
    for map in maps {
        *map = folder.join(&map);
        total += 1;
        if !map.is_file() {
            missing.push(map.clone());
        }
    }
    match missing.first() {
        None => Ok(()),
        Some(first) => Err(TrainError::MissingMaps {
            path: table.to_path_buf(),
            missing: missing.len(),
            total,
            first: first.clone(),
        }),
    }
}

/// What the rows of a table say; its slides are not looked for.
pub(super) fn parse(
    table: &SlideTable,
    columns: &Columns,
    settings: &DataSettings,
) -> Result<DataSet> {
    let task = settings.task;
    columns.check(table.text())?;
    let mut notices = Vec::new();
    let classes = if settings.classes.is_empty() {
        found_classes(table.text(), columns, task, &mut notices)?
    } else {
        class_names(&settings.classes, task)?
    };
    let reader = RowReader {
        table,
        columns,
        known: columns.known(),
        task,
        classes: &classes,
    };
    let samples = table
        .rows()
        .map(|row| reader.sample(row))
        .collect::<Result<Vec<_>>>()?;
    if samples.is_empty() {
        return Err(TrainError::Classes {
            set: format!("table {}", table.text().path().display()),
            expected: "one slide or more".to_owned(),
            found: "no rows".to_owned(),
        });
    }
    check_patients(&samples)?;
    notices.insert(0, DataSet::count(&samples));
    Ok(DataSet {
        samples,
        task,
        classes,
        notices,
    })
}

/// The classes of a table whose settings name none: numbers, columns, or what is found, in the order of the alphabet.
fn found_classes(
    table: &TextTable,
    columns: &Columns,
    task: Task,
    notices: &mut Vec<String>,
) -> Result<ClassNames> {
    let numbered = ClassNames::numbered(task);
    let column = match &columns.label {
        LabelColumn::Several(names) if names.is_empty() => return Ok(numbered),
        LabelColumn::Several(names) => return class_names(names, task),
        LabelColumn::One(column) => column,
    };
    // In the cells are numbers, or paths.
    if let Task::Regression | Task::Segmentation { .. } = task {
        return Ok(numbered);
    }
    let is_number = |name: &str| name.parse::<f64>().is_ok();
    let mut found: BTreeMap<&str, u64> = BTreeMap::new();
    for row in table.rows() {
        for name in names_in(table.cell(row, column).unwrap_or_default(), task) {
            if UNKNOWN.contains(&name.to_lowercase().as_str()) {
                return Err(cell_error(table, row.line, column, LABEL_OR_NOTHING, name));
            }
            found.entry(name).or_insert(row.line);
        }
    }
    if found.keys().all(|name| is_number(name)) {
        return Ok(numbered);
    }
    let most = task.classes().unwrap_or(0);
    if found.len() > most {
        // The last to come is the one too many.
        let mut by_line: Vec<(u64, &str)> =
            found.iter().map(|(name, line)| (*line, *name)).collect();
        by_line.sort_unstable();
        let (line, name) = by_line[most];
        let before: Vec<String> = by_line[..most]
            .iter()
            .map(|(line, name)| format!("`{name}` (line {line})"))
            .collect();
        let expected = format!("one of the {most} of the task, after {}", before.join(", "));
        return Err(cell_error(table, line, column, &expected, name));
    }
    let names: Vec<String> = found.keys().map(|name| (*name).to_owned()).collect();
    let names = class_names(&names, task)?;
    let numbers: Vec<String> = names
        .iter()
        .enumerate()
        .map(|(number, name)| format!("{number} is `{name}`"))
        .collect();
    notices.push(format!(
        "classes in the order of the alphabet: {} (`classes` gives another order)",
        numbers.join(", ")
    ));
    Ok(names)
}

/// The names of classes in a cell.
fn names_in(cell: &str, task: Task) -> impl Iterator<Item = &str> {
    let several = matches!(task, Task::MultiLabel { .. });
    cell.split(move |letter| several && letter == super::label::SEPARATOR)
        .map(str::trim)
        .filter(|name| !name.is_empty())
}

const LABEL_OR_NOTHING: &str = "a label, or nothing where it is to be predicted";

fn cell_error(
    table: &TextTable,
    line: u64,
    column: &str,
    expected: &str,
    found: &str,
) -> TrainError {
    TrainError::Cell {
        path: table.path().to_path_buf(),
        line,
        column: column.to_owned(),
        expected: expected.to_owned(),
        found: found.to_owned(),
    }
}

/// Reads rows of one table.
struct RowReader<'a> {
    table: &'a SlideTable,
    columns: &'a Columns,
    known: Vec<String>,
    task: Task,
    classes: &'a ClassNames,
}

impl RowReader<'_> {
    fn sample(&self, row: SlideRow<'_>) -> Result<Sample> {
        let (text, columns) = (self.table.text(), self.columns);
        let wrong = |column: &str, expected: &str, found: &str| {
            cell_error(text, row.text.line, column, expected, found)
        };
        let split = text
            .cell(row.text, &columns.split)
            .map(|name| {
                let expected = "train, validation or test, or nothing where it is to be drawn";
                Split::parse(name).ok_or_else(|| wrong(&columns.split, expected, name))
            })
            .transpose()?;
        let patient = text.cell(row.text, &columns.patient);
        if let Some(name) = patient.filter(|name| UNKNOWN.contains(&name.to_lowercase().as_str())) {
            return Err(wrong(
                &columns.patient,
                "a patient, or nothing where it is unknown",
                name,
            ));
        }
        let known: Vec<&str> = self.known.iter().map(String::as_str).collect();
        Ok(Sample {
            label: self.label(row)?,
            split,
            patient: patient.map(str::to_owned),
            microns_per_pixel: row.microns_per_pixel,
            further: text
                .further(row.text, &known)
                .into_iter()
                .map(renamed)
                .collect(),
            ..Sample::unlabelled(row.slide)
        })
    }

    fn label(&self, row: SlideRow<'_>) -> Result<Option<Label>> {
        let text = self.table.text();
        let cell = |column: &str| text.cell(row.text, column).unwrap_or_default();
        let wrong = |column: &str, expected: &str| {
            cell_error(text, row.text.line, column, expected, cell(column))
        };
        match &self.columns.label {
            LabelColumn::One(column) if cell(column).is_empty() => Ok(None),
            LabelColumn::One(column) => {
                let label = Label::parse(cell(column), self.task, self.classes);
                let expected = || self.task.expected(self.classes);
                label.map(Some).ok_or_else(|| wrong(column, &expected()))
            }
            LabelColumn::Several(columns) => {
                if columns.iter().all(|column| cell(column).is_empty()) {
                    return Ok(None);
                }
                let label = Label::parse_columns(columns.iter().map(|column| cell(column)));
                label.map(Some).map_err(|place| {
                    let expected = "1 or 0 (or nothing in all of the labels' columns)";
                    wrong(&columns[place], expected)
                })
            }
        }
    }
}

/// A further column that has the name of a known one says where it is from.
fn renamed(cell: FurtherCell) -> FurtherCell {
    if KNOWN.contains(&cell.column.to_lowercase().as_str()) {
        let column = format!("{} (table)", cell.column);
        return FurtherCell { column, ..cell };
    }
    cell
}

/// Finds slides that are named without their extension.
#[derive(Default)]
pub(super) struct SlideFinder {
    /// Slides of folders, by name without extension.
    folders: BTreeMap<PathBuf, BTreeMap<String, Vec<PathBuf>>>,
}

impl SlideFinder {
    /// Adds its extension to the path of a slide that is not there, if one file of that name is.
    pub(super) fn complete(&mut self, slide: &mut PathBuf) -> Result<()> {
        if slide.is_file() {
            return Ok(());
        }
        let (Some(folder), Some(name)) = (slide.parent(), slide.file_name()) else {
            return Ok(());
        };
        let name = name.to_string_lossy().into_owned();
        let names = self.folders.entry(folder.to_path_buf()).or_insert_with(|| {
            let mut names: BTreeMap<String, Vec<PathBuf>> = BTreeMap::new();
            // A folder that cannot be read has none: its slides are then told to be missing.
            for listed in slides_in_folder(folder).unwrap_or_default() {
                let stem = listed.path.file_stem().unwrap_or_default();
                let stem = stem.to_string_lossy().into_owned();
                names.entry(stem).or_default().push(listed.path);
            }
            names
        });
        match names.get(&name).map(Vec::as_slice) {
            Some([only]) => *slide = only.clone(),
            Some([first, second, ..]) => {
                return Err(TrainError::TwoFiles {
                    first: first.clone(),
                    second: second.clone(),
                });
            }
            _ => {}
        }
        Ok(())
    }
}
