//! The tables of STAMP: a clinical one with `PATIENT` and labels, and one of slides with `PATIENT` and `FILENAME`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use stream_grad_slides::{SlideColumns, SlideTable, TextRow, TextTable};

use super::contents::{Contents, SlidesByName, name, one_file};
use crate::data::columns::{Columns, no_column};
use crate::data::{DataSet, DataSettings, read};
use crate::error::{Result, TrainError};
use crate::files::csv_bytes;

const PATIENT: &str = "PATIENT";
const SLIDE: &str = "FILENAME";

/// Tables of slides, and clinical tables.
fn tables(contents: &Contents) -> (Vec<&Path>, Vec<&Path>) {
    let with_patient = |path: &&Path| TextTable::read(path, PATIENT).is_ok();
    contents.tables().filter(with_patient).partition(|path| {
        TextTable::read(path, PATIENT).is_ok_and(|table| table.column(SLIDE).is_some())
    })
}

pub(super) fn recognises(contents: &Contents) -> bool {
    let (slides, clinical) = tables(contents);
    !slides.is_empty() && !clinical.is_empty()
}

/// Slides have the label of their patient; those of a patient whom the clinical table lacks are to predict.
pub(super) fn read(contents: &Contents, settings: &DataSettings) -> Result<DataSet> {
    let (slides, clinical) = tables(contents);
    let (Some(slides), Some(clinical)) = (one_file(&slides)?, one_file(&clinical)?) else {
        return Err(TrainError::Layout {
            path: contents.root().to_path_buf(),
            expected: "a table with PATIENT and labels, and one with PATIENT and FILENAME"
                .to_owned(),
            found: contents.summary(),
        });
    };
    let columns = Columns {
        slide: SLIDE.to_owned(),
        label: settings.label_column.clone(),
        patient: PATIENT.to_owned(),
        ..Columns::default()
    };
    let slide_table = TextTable::read(slides, PATIENT)?;
    let clinical_table = TextTable::read(clinical, PATIENT)?;
    for label in columns.label.names() {
        if clinical_table.column(label).is_none() {
            return Err(no_column(&clinical_table, label, "label_column"));
        }
    }
    let (place, joined) = join(&slide_table, &clinical_table)?;
    let slide_columns = SlideColumns {
        slide: SLIDE,
        folder: slides.parent(),
        ..SlideColumns::default()
    };
    let table = SlideTable::parse_with(place, &joined, slide_columns)?;
    let mut data = read::parse(&table, &columns, settings)?;
    let mut found = SlidesByName::of(contents);
    for sample in &mut data.samples {
        if let Some(slide) = found.find(&sample.slide)? {
            sample.slide = slide.to_path_buf();
        }
    }
    found.check(slides)?;
    data.notices[0] = format!("STAMP's tables, {}", data.notices[0]);
    Ok(data)
}

/// The table of slides with what the clinical table says of each patient, one line a slide, and what to call it in errors.
fn join(slides: &TextTable, clinical: &TextTable) -> Result<(PathBuf, Vec<u8>)> {
    let place = slides.path().with_file_name(format!(
        "{} with {}",
        name(slides.path()),
        name(clinical.path())
    ));
    let mut patients: BTreeMap<&str, &TextRow> = BTreeMap::new();
    for row in clinical.rows() {
        let patient = clinical.cell(row, PATIENT).unwrap_or_default();
        if let Some(first) = patients.insert(patient, row) {
            return Err(TrainError::Cell {
                path: clinical.path().to_path_buf(),
                line: row.line,
                column: PATIENT.to_owned(),
                expected: format!("each patient once (the first is on line {})", first.line),
                found: patient.to_owned(),
            });
        }
    }
    let is_new = |name: &&String| slides.column(name).is_none();
    let new: Vec<&String> = clinical.columns().iter().filter(is_new).collect();
    let heading = slides.columns().iter().chain(new.iter().copied());
    let rows = slides.rows().iter().map(|row| {
        let patient = slides
            .cell(row, PATIENT)
            .and_then(|name| patients.get(name));
        let cells = new.iter().map(|column| {
            let cell = patient.and_then(|patient| clinical.cell(patient, column));
            cell.unwrap_or_default()
        });
        row.cells.iter().map(String::as_str).chain(cells).collect()
    });
    let heading: Vec<&str> = heading.map(String::as_str).collect();
    let joined = csv_bytes(&place, std::iter::once(heading).chain(rows))?;
    Ok((place, joined))
}
