//! The sections of a report, each from the run folder alone. One without anything to say is empty.

mod agreement;
mod data;
mod overview;
mod own;
mod pixels;
mod results;
mod slides;
mod stages;
mod technical;
mod training;

use maud::Markup;

use super::detail::Detail;
use super::folder::RunFolder;
use super::page::Page;
use super::summary::Summary;
use crate::error::Result;

pub(super) use overview::head;

/// All sections: ids, headings and bodies.
pub(super) fn all(
    run: &RunFolder,
    details: &[Detail<'_>],
    summary: &Summary,
    page: &mut Page,
) -> Result<Vec<(&'static str, &'static str, Markup)>> {
    Ok(vec![
        ("asked", "What was asked", overview::asked(run)),
        ("own", "Measurements", own::section(run, page)?),
        ("data", "Data and splits", data::section(run, page)?),
        (
            "results",
            "Results",
            results::section(run, details, summary, page)?,
        ),
        ("training", "Training", training::section(run, page)?),
        (
            "agreement",
            "Predictions beside the truth",
            agreement::section(run, details, page)?,
        ),
        ("pixels", "Classes of pixels", pixels::section(run, page)?),
        (
            "stages",
            "Stages of patients",
            stages::section(details, page)?,
        ),
        ("slides", "Slides", slides::section(run, details, page)?),
        (
            "skipped",
            "Skipped slides and bad regions",
            technical::skipped(run),
        ),
        ("time", "Time and memory", technical::time(run, page)?),
        (
            "settings",
            "Settings that differ from the defaults",
            technical::settings(run)?,
        ),
        (
            "versions",
            "Versions, seeds and hardware",
            technical::versions(run),
        ),
    ])
}
