//! The tables of the streaming pipeline: `train.csv` and `val.csv` with `slide_id,label`.

use stream_grad_slides::{SlideColumns, SlideTable, TextTable};

use super::contents::{Contents, SlidesByName};
use crate::data::columns::Columns;
use crate::data::{DataSet, DataSettings, Sample, Split, read};
use crate::error::Result;

/// Tables and their splits; the last may lack.
const TABLES: [(&str, Split); 3] = [
    ("train.csv", Split::Train),
    ("val.csv", Split::Validation),
    ("test.csv", Split::Test),
];

pub(super) fn recognises(contents: &Contents) -> bool {
    let is_table = |name: &str| {
        contents.named(&[name]).iter().any(|table| {
            TextTable::read(table, "slide_id").is_ok_and(|table| table.column("label").is_some())
        })
    };
    TABLES[..2].iter().all(|(name, _)| is_table(name))
}

pub(super) fn read(contents: &Contents, settings: &DataSettings) -> Result<DataSet> {
    let columns = Columns {
        slide: "slide_id".to_owned(),
        ..Columns::default()
    };
    let slide_columns = SlideColumns {
        slide: &columns.slide,
        ..SlideColumns::default()
    };
    let mut settings = settings.clone();
    let mut whole: Option<DataSet> = None;
    for (name, split) in TABLES {
        if split == Split::Test && contents.named(&[name]).is_empty() {
            continue;
        }
        let path = contents.table(&[name])?;
        let table = SlideTable::read_with(path, slide_columns)?;
        let mut part = read::parse(&table, &columns, &settings)?;
        let mut slides = SlidesByName::of(contents);
        for sample in &mut part.samples {
            sample.split = Some(split);
            if let Some(slide) = slides.find(&sample.slide)? {
                sample.slide = slide.to_path_buf();
            }
        }
        slides.check(path)?;
        match &mut whole {
            None => {
                // The classes of the first table are those of all.
                settings.classes = part.classes.clone().into();
                whole = Some(part);
            }
            Some(whole) => whole.samples.append(&mut part.samples),
        }
    }
    let mut data = whole.unwrap_or_else(|| DataSet {
        samples: Vec::new(),
        task: settings.task,
        classes: crate::data::ClassNames::numbered(settings.task),
        notices: Vec::new(),
    });
    data.notices.retain(|notice| notice.starts_with("classes"));
    data.notices.insert(0, summary(&data.samples));
    Ok(data)
}

fn summary(samples: &[Sample]) -> String {
    let count = |split| {
        let of_split = samples.iter().filter(|sample| sample.split == Some(split));
        of_split.count()
    };
    format!(
        "the streaming pipeline's tables, {} training slides, {} to validate, {} to test",
        count(Split::Train),
        count(Split::Validation),
        count(Split::Test)
    )
}
