//! A plain folder of slides, to predict.

use super::contents::{Contents, slides_directly_in};
use crate::data::{ClassNames, DataSet, Sample, Task};
use crate::error::Result;

pub(super) fn recognises(contents: &Contents) -> bool {
    slides_directly_in(contents.root()).is_ok_and(|slides| !slides.is_empty())
}

pub(super) fn read(contents: &Contents, task: Task) -> Result<DataSet> {
    let slides = slides_directly_in(contents.root())?;
    let notice = format!(
        "a folder of {} slides without labels, to predict",
        slides.len()
    );
    Ok(DataSet {
        samples: slides.into_iter().map(Sample::unlabelled).collect(),
        task,
        classes: ClassNames::numbered(task),
        notices: vec![notice],
    })
}
