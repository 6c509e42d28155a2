//! The tables of CLAM: one with `case_id,slide_id,label`, and files of splits.

use std::collections::BTreeMap;
use std::path::Path;

use stream_grad_slides::{SlideColumns, SlideTable, TextTable};

use super::contents::{Contents, SlidesByName, name, one_file};
use crate::data::columns::Columns;
use crate::data::{DataSet, DataSettings, Split, read};
use crate::error::{Result, TrainError};

/// CLAM's file of the first of several splits.
const SPLITS: &[&str] = &["splits_0.csv"];

fn tables(contents: &Contents) -> Vec<&Path> {
    let is_table = |path: &&Path| {
        TextTable::read(path, "slide_id").is_ok_and(|table| {
            ["case_id", "label"]
                .iter()
                .all(|column| table.column(column).is_some())
        })
    };
    contents.tables().filter(is_table).collect()
}

pub(super) fn recognises(contents: &Contents) -> bool {
    !tables(contents).is_empty()
}

/// `splits_0.csv` gives the splits, unless the settings ask for folds of their own.
pub(super) fn read(contents: &Contents, settings: &DataSettings) -> Result<DataSet> {
    let Some(path) = one_file(&tables(contents))? else {
        return Err(TrainError::Layout {
            path: contents.root().to_path_buf(),
            expected: "a table with the columns case_id, slide_id and label".to_owned(),
            found: contents.summary(),
        });
    };
    let columns = Columns {
        slide: "slide_id".to_owned(),
        patient: "case_id".to_owned(),
        ..Columns::default()
    };
    let slide_columns = SlideColumns {
        slide: &columns.slide,
        ..SlideColumns::default()
    };
    let table = SlideTable::read_with(path, slide_columns)?;
    let mut data = read::parse(&table, &columns, settings)?;
    let draws = settings.folds.is_some() || settings.leave_one_out.is_some();
    let split_file = if draws {
        None
    } else {
        one_file(&contents.named(SPLITS))?
    };
    let splits = split_file.map(splits).transpose()?.unwrap_or_default();
    let mut slides = SlidesByName::of(contents);
    for sample in &mut data.samples {
        if sample.split.is_none() {
            sample.split = splits.get(name(&sample.slide)).copied();
        }
        if let Some(slide) = slides.find(&sample.slide)? {
            sample.slide = slide.to_path_buf();
        }
    }
    slides.check(path)?;
    let from = split_file.map_or("to be drawn", name);
    data.notices[0] = format!("CLAM's tables, {}; splits: {from}", data.notices[0]);
    Ok(data)
}

/// Splits by `slide_id`; the columns are `train`, `val` and `test`.
fn splits(path: &Path) -> Result<BTreeMap<String, Split>> {
    let table = TextTable::read(path, "train")?;
    let mut splits = BTreeMap::new();
    for row in table.rows() {
        for (column, split) in [
            ("train", Split::Train),
            ("val", Split::Validation),
            ("test", Split::Test),
        ] {
            let Some(slide) = table.cell(row, column) else {
                continue;
            };
            if splits
                .insert(slide.to_owned(), split)
                .is_some_and(|other| other != split)
            {
                return Err(TrainError::Cell {
                    path: path.to_path_buf(),
                    line: row.line,
                    column: column.to_owned(),
                    expected: "each slide in one split".to_owned(),
                    found: slide.to_owned(),
                });
            }
        }
    }
    Ok(splits)
}
