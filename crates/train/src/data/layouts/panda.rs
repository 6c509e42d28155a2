//! The published layout of PANDA (Kaggle's "Prostate cANcer graDe Assessment").

use stream_grad_slides::{SlideColumns, SlideTable, TextTable};

use super::contents::{Contents, SlidesByName};
use super::{Layout, wrong_task};
use crate::data::columns::Columns;
use crate::data::{DataSet, DataSettings, Task, read};
use crate::error::Result;

const TABLE: &[&str] = &["train.csv"];

pub(super) fn recognises(contents: &Contents) -> bool {
    contents.named(TABLE).iter().any(|table| {
        TextTable::read(table, "image_id").is_ok_and(|table| table.column("isup_grade").is_some())
    })
}

pub(super) fn read(contents: &Contents, settings: &DataSettings) -> Result<DataSet> {
    let six = Task::Ordinal { levels: 6 };
    match settings.task {
        Task::Ordinal { levels: 6 } | Task::Classification { classes: 6 } | Task::Regression => {}
        task => {
            let expected = "ordinal or classification of 6, or regression";
            return Err(wrong_task(Layout::Panda, expected, task));
        }
    }
    let path = contents.table(TABLE)?;
    let columns = Columns {
        slide: "image_id".to_owned(),
        label: "isup_grade".into(),
        ..Columns::default()
    };
    let slide_columns = SlideColumns {
        slide: &columns.slide,
        ..SlideColumns::default()
    };
    let table = SlideTable::read_with(path, slide_columns)?;
    // Grades are numbers from 0, whatever names the settings have for them.
    let grades = DataSettings {
        classes: Vec::new(),
        ..settings.clone()
    };
    let mut data = read::parse(&table, &columns, &grades)?;
    let mut slides = SlidesByName::of(contents);
    for sample in &mut data.samples {
        if let Some(slide) = slides.find(&sample.slide)? {
            sample.slide = slide.to_path_buf();
        }
    }
    slides.check(path)?;
    if !settings.classes.is_empty() && settings.task != Task::Regression {
        data.classes = read::class_names(&settings.classes, six)?;
    }
    data.notices = vec![format!(
        "PANDA, {} slides, grades for {}; scales are those of the TIFFs' resolution tags unless others are given",
        data.samples.len(),
        data.samples
            .iter()
            .filter(|sample| sample.label.is_some())
            .count()
    )];
    Ok(data)
}
