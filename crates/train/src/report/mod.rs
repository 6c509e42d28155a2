//! The report of a run: one HTML file without network, made from the run folder alone.
//!
//! [`write()`] reads what lies in the folder (`run.toml`, `samples.csv`, [`Notes`], and for each training `result.json`,
//! `epochs.csv`, `steps.csv` and `predictions.csv`) and writes `report.html`, `summary.json`, the figures as SVG in `figures`, the
//! data behind them as CSV in `tables`, and small pictures of slides in `thumbnails`. What is not there is left out. [`index()`]
//! makes one page that links several reports.

mod columns;
mod detail;
mod folder;
mod front;
mod index;
mod notes;
mod page;
mod pixels;
mod plot;
mod predictions;
mod result;
mod sections;
mod stages;
mod summary;

use std::path::{Component, Path, PathBuf};

pub use front::write_front;
pub use index::index;
pub use notes::{AxisScale, DataOrigin, Notes, PlotNote, PublishedFigure, PublishedRow, TableNote};
pub use predictions::{write_map_predictions, write_predictions};
pub use result::{ResolutionResult, SkippedSlides};
pub use summary::{ResolutionSummary, Summary, TrainingSummary, Verdict};

use crate::error::{Result, TrainError};
use crate::files::write_whole;
use folder::RunFolder;
use page::Page;

/// The files that [`write()`] writes beside the folders `figures`, `tables` and `thumbnails`.
pub const FILES: [&str; 2] = ["report.html", "summary.json"];

/// Makes the report of the run in `folder`, or makes it anew, and returns it in short. A run that has not ended has a report of
/// what there is. Figures and tables that the report before had, and this one has not, are removed.
///
/// # Errors
/// [`TrainError::NoRun`] for a folder that holds no run; [`TrainError::File`], [`TrainError::Csv`], [`TrainError::Json`],
/// [`TrainError::Settings`] for files that cannot be read or written; [`TrainError::Column`] for a column that the [`Notes`]
/// name and a table has not; [`TrainError::Setting`] for settings of intervals that cannot be used.
pub fn write(folder: &Path) -> Result<Summary> {
    let run = RunFolder::read(folder)?;
    run.bootstrap.check()?;
    let details = detail::details(&run)?;
    let mut summary = Summary::of(&run, &details)?;
    let mut page = Page::default();
    let sections = sections::all(&run, &details, &summary, &mut page)?;
    let html = page::document(&run.title(), &sections::head(&run, &summary), &sections);
    for (place, bytes) in &page.files {
        write_whole(&folder.join(place), bytes)?;
    }
    let stale = stale(folder);
    let made = page.files.iter().map(|(place, _)| place.clone());
    summary.files = made.filter(|place| is_ours(place)).collect();
    for place in stale.iter().filter(|place| !summary.files.contains(place)) {
        let path = folder.join(place);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(TrainError::file(&path)(error));
            }
            _ => {}
        }
    }
    let path = folder.join("summary.json");
    let json = serde_json::to_vec_pretty(&summary).map_err(TrainError::json(&path))?;
    write_whole(&path, &json)?;
    write_whole(&folder.join("report.html"), html.as_bytes())?;
    Ok(summary)
}

/// Figures and tables of an earlier report in `folder`: those that it says it wrote, and nothing else.
fn stale(folder: &Path) -> Vec<PathBuf> {
    let json = std::fs::read(folder.join("summary.json")).unwrap_or_default();
    let before = serde_json::from_slice::<Summary>(&json);
    let mut files = before.map_or_else(|_| Vec::new(), |before| before.files);
    files.retain(|place| is_ours(place));
    files
}

/// Whether a place is one of a figure or a table: `figures/NAME.svg` or `tables/NAME.csv`.
fn is_ours(place: &Path) -> bool {
    let kinds = [("figures", "svg"), ("tables", "csv")];
    let ending = place.extension();
    let names: Vec<_> = place.components().collect();
    kinds.iter().any(|(folder, kind)| {
        matches!(names.as_slice(), [Component::Normal(first), Component::Normal(_)] if first == folder)
            && ending.is_some_and(|ending| ending == *kind)
    })
}

#[cfg(test)]
mod tests;
