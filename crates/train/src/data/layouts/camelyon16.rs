//! The published layout of CAMELYON16.

use std::collections::BTreeMap;
use std::path::Path;

use super::contents::{Contents, name, one_file};
use super::{Layout, data_set, wrong_task};
use crate::data::{DataSet, Label, Sample, Split, Task};
use crate::error::{Result, TrainError};

const TABLE: &[&str] = &["reference.csv"];

pub(super) fn recognises(contents: &Contents) -> bool {
    contents.slides().keys().any(|name| part(name).is_some())
}

/// What a slide's name says: the part of the data set, and whether there is tumour.
fn part(stem: &str) -> Option<(Option<Split>, Option<bool>)> {
    let (part, number) = stem.split_once('_')?;
    let is_number = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    match part.to_ascii_lowercase().as_str() {
        _ if !is_number => None,
        "normal" => Some((None, Some(false))),
        "tumor" => Some((None, Some(true))),
        "test" => Some((Some(Split::Test), None)),
        _ => None,
    }
}

/// Slides whose name begins with `test` are the test split; where `reference.csv` lacks or does not name them, they are to
/// predict.
pub(super) fn read(contents: &Contents, task: Task) -> Result<DataSet> {
    if task != Task::Binary {
        return Err(wrong_task(Layout::Camelyon16, "binary", task));
    }
    let truths = match one_file(&contents.named(TABLE))? {
        Some(table) => truths(table)?,
        None => BTreeMap::new(),
    };
    let mut samples = Vec::new();
    for (stem, files) in contents.slides() {
        let (Some((split, by_name)), Some(slide)) = (part(&stem), one_file(&files)?) else {
            continue;
        };
        let tumour = truths.get(&stem.to_lowercase()).copied().or(by_name);
        samples.push(Sample {
            split,
            label: tumour.map(|tumour| Label::of_class(usize::from(tumour))),
            ..Sample::unlabelled(slide)
        });
    }
    let test = samples.iter().filter(|sample| sample.split.is_some());
    let (known, all) = (
        test.clone().filter(|sample| sample.label.is_some()).count(),
        test.count(),
    );
    let line = format!(
        "CAMELYON16, {} training slides, {all} test slides, truth for {known} of these",
        samples.len() - all
    );
    data_set(line, samples, task, &["negative", "metastasis"])
}

/// Whether there is tumour, by name in small letters. With or without a heading: both were published.
fn truths(table: &Path) -> Result<BTreeMap<String, bool>> {
    let mut reader = super::headerless(table)?;
    let mut truths = BTreeMap::new();
    for record in reader.records() {
        let record = record.map_err(TrainError::csv(table))?;
        let slide = record.get(0).unwrap_or_default().to_lowercase();
        let slide = slide.split('.').next().unwrap_or_default();
        if part(slide).is_none() {
            continue;
        }
        let tumour = match record.get(1).unwrap_or_default().to_lowercase().as_str() {
            "negative" | "normal" | "0" => false,
            "" => {
                return Err(TrainError::Cell {
                    path: table.to_path_buf(),
                    line: record.position().map_or(1, csv::Position::line),
                    column: "class".to_owned(),
                    expected: "negative, or what was found".to_owned(),
                    found: String::new(),
                });
            }
            _ => true,
        };
        truths.insert(slide.to_owned(), tumour);
    }
    if truths.is_empty() {
        return Err(TrainError::Layout {
            path: table.to_path_buf(),
            expected: "rows of `test_NNN` and a class".to_owned(),
            found: format!("{} without one", name(table)),
        });
    }
    Ok(truths)
}
