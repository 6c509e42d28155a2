//! The published layout of TUPAC16.

use std::collections::BTreeMap;
use std::path::Path;

use stream_grad_slides::FurtherCell;

use super::contents::{Contents, one_file};
use super::{Layout, data_set, wrong_task};
use crate::data::{DataSet, Label, Sample, Split, Task};
use crate::error::{Result, TrainError};

const TABLE: &[&str] = &["training_ground_truth.csv"];

pub(super) fn recognises(contents: &Contents) -> bool {
    contents.slides().keys().any(|name| part(name).is_some())
}

/// Whether a slide is of the training part, and its number.
fn part(stem: &str) -> Option<(bool, usize)> {
    let name = stem.to_ascii_uppercase();
    let (training, number) = match name.strip_prefix("TUPAC-TR-") {
        Some(number) => (true, number),
        None => (false, name.strip_prefix("TUPAC-TE-")?),
    };
    number.parse().ok().map(|number| (training, number))
}

/// What row `n` says of slide `n`.
struct Scores {
    line: u64,
    mitotic: String,
    molecular: String,
}

/// Slides of the training part have the scores of their row; the others, whose truth was never published, are the test split, to
/// predict. Both scores are kept as further columns.
pub(super) fn read(contents: &Contents, task: Task) -> Result<DataSet> {
    let classes: &[&str] = match task {
        Task::Regression => &[],
        Task::Classification { classes: 3 } | Task::Ordinal { levels: 3 } => &["1", "2", "3"],
        _ => {
            let expected = "regression, or classification or ordinal of 3";
            return Err(wrong_task(Layout::Tupac16, expected, task));
        }
    };
    let table = one_file(&contents.named(TABLE))?;
    let scores = table.map(scores).transpose()?.unwrap_or_default();
    let mut samples = Vec::new();
    let (mut training, mut scored) = (0, 0);
    for (stem, files) in contents.slides() {
        let (Some((is_training, number)), Some(slide)) = (part(&stem), one_file(&files)?) else {
            continue;
        };
        let mut sample = Sample::unlabelled(slide);
        if is_training {
            training += 1;
            if let (Some(table), Some(scores)) = (table, scores.get(&number)) {
                scored += 1;
                sample.label = Some(label(table, scores, task)?);
                sample.further = further(scores);
            }
        } else {
            sample.split = Some(Split::Test);
        }
        samples.push(sample);
    }
    let test = samples.len() - training;
    let mut line = format!("TUPAC16, {training} training slides, scores for {scored}");
    if test > 0 {
        line += &format!(", {test} test slides without truth, to predict");
    }
    data_set(line, samples, task, classes)
}

fn label(table: &Path, scores: &Scores, task: Task) -> Result<Label> {
    let wrong = |column: &str, expected: &str, found: &str| TrainError::Cell {
        path: table.to_path_buf(),
        line: scores.line,
        column: column.to_owned(),
        expected: expected.to_owned(),
        found: found.to_owned(),
    };
    if task == Task::Regression {
        let score: Option<f64> = scores.molecular.parse().ok();
        let score = score.filter(|score| score.is_finite());
        return score
            .map(Label::Number)
            .ok_or_else(|| wrong("2 (molecular score)", "a finite number", &scores.molecular));
    }
    let score: Option<f64> = scores.mitotic.parse().ok();
    let class = score.and_then(|score| Label::Number(score - 1.0).class());
    class
        .filter(|class| *class < 3)
        .map(Label::of_class)
        .ok_or_else(|| wrong("1 (mitotic score)", "1, 2 or 3", &scores.mitotic))
}

fn further(scores: &Scores) -> Vec<FurtherCell> {
    [
        ("mitotic_score", &scores.mitotic),
        ("molecular_score", &scores.molecular),
    ]
    .map(|(column, text)| FurtherCell {
        column: column.to_owned(),
        text: text.clone(),
    })
    .into()
}

/// The rows by number, from 1. A heading, which the published file has not, is passed over.
fn scores(table: &Path) -> Result<BTreeMap<usize, Scores>> {
    let mut reader = super::headerless(table)?;
    let mut scores = BTreeMap::new();
    for record in reader.records() {
        let record = record.map_err(TrainError::csv(table))?;
        let line = record.position().map_or(1, csv::Position::line);
        if record.len() != 2 {
            return Err(TrainError::Layout {
                path: table.to_path_buf(),
                expected: "two columns without a heading, the mitotic and the molecular score"
                    .to_owned(),
                found: format!("{} columns on line {line}", record.len()),
            });
        }
        let is_number = |cell: &str| cell.parse::<f64>().is_ok();
        if scores.is_empty() && line == 1 && !record.iter().any(is_number) {
            continue;
        }
        let row = Scores {
            line,
            mitotic: record[0].to_owned(),
            molecular: record[1].to_owned(),
        };
        scores.insert(scores.len() + 1, row);
    }
    Ok(scores)
}
