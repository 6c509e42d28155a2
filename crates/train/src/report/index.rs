//! One page that links several reports.

use std::path::{Path, PathBuf};

use maud::{Markup, html};

use super::page::{Align, document, table, text};
use super::summary::Summary;
use crate::error::{Result, TrainError};
use crate::files::write_whole;

/// Writes `index.html` into `folder`: a table of the runs, each with its main metric and a link to its `report.html`. `runs` are
/// folders that [`write`](super::write()) made reports in, relative to `folder`.
///
/// # Errors
/// [`TrainError::File`], [`TrainError::Json`] for a folder without a `summary.json`.
pub fn index(folder: &Path, title: &str, runs: &[PathBuf]) -> Result<()> {
    let mut rows: Vec<Vec<Markup>> = Vec::new();
    for run in runs {
        let path = folder.join(run).join("summary.json");
        let json = std::fs::read(&path).map_err(TrainError::file(&path))?;
        let summary: Summary = serde_json::from_slice(&json).map_err(TrainError::json(&path))?;
        let link = run.join("report.html");
        rows.push(vec![
            html! { a href=(link.display()) { (summary.title) } },
            text(summary.data.as_deref().unwrap_or("")),
            figures(&summary),
        ]);
    }
    let columns = [
        ("Experiment", Align::Text),
        ("Slides", Align::Text),
        ("Main metric", Align::Text),
    ];
    let body = table("Each links to its report", &html! {}, &columns, &rows);
    let html = document(
        title,
        &html! { h1 { (title) } },
        &[("reports", "Reports", body)],
    );
    write_whole(&folder.join("index.html"), html.as_bytes())
}

/// The main metric of each resolution.
fn figures(summary: &Summary) -> Markup {
    html! {
        @if let Some(metric) = summary.metric {
            (metric.title())
            @for resolution in &summary.resolutions {
                @if let Some(estimate) = resolution.metrics.get(metric.name()) {
                    br;
                    @if let Some(microns) = resolution.microns_per_pixel { (microns) " µm/px: " }
                    (estimate.to_string())
                }
            }
        }
    }
}
