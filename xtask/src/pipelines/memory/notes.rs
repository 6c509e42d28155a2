//! What the report of the experiment is told: a plot for each network, and a table of what is saved.

use std::path::Path;

use stream_grad::ByteCount;
use stream_grad_files::write_whole;
use stream_grad_train::report::{AxisScale, Notes, PlotNote, TableNote};

use super::result::{MemoryResult, PUBLISHED, Row};
use crate::tables::csv_bytes;

/// Name of the table of what is saved.
const SAVED: &str = "saved.csv";

/// Writes the notes, and the tables that they name, into the folder of the results.
pub(super) fn write(result: &MemoryResult, folder: &Path) -> anyhow::Result<()> {
    write_whole(folder.join(SAVED), &saved(&result.rows)?)?;
    let mut plots = Vec::new();
    for rows in result.rows.chunk_by(|a, b| a.model == b.model) {
        let model = &rows[0].model;
        let file = format!("{model}.csv");
        write_whole(folder.join(&file), &peaks(rows)?)?;
        plots.push(PlotNote {
            title: model.clone(),
            caption: "Memory of one step against the image's edge in pixels: planned (solid) and measured (dashed).".to_owned(),
            file: file.into(),
            x: "edge".to_owned(),
            y: vec!["planned".to_owned(), "measured".to_owned()],
            y_label: "GiB".to_owned(),
            series: Some("way".to_owned()),
            x_scale: AxisScale::Log,
            y_scale: AxisScale::Log,
        });
    }
    let notes = Notes {
        title: "Memory of a step".to_owned(),
        asked: "How much memory do forward and backward pass of one image take, conventionally and streamed, and how much is saved?".to_owned(),
        remarks: vec![
            "Conventional is this engine with one tile and everything stored, which is less than other software takes for the same step: \
             what is saved is not overstated. Measured are the heap bytes that a step adds at its peak, weights' gradients \
             included, in f32."
                .to_owned(),
            "Where either step was not measured, because it is larger than this machine holds or takes longer than minutes, what is \
             saved is the difference of the plans' peaks; the table says which."
                .to_owned(),
            format!(
                "{} threads, streamed within {}. Published: {}.",
                result.threads,
                ByteCount::bytes(result.budget_bytes),
                PUBLISHED.source
            ),
        ],
        plots,
        tables: vec![TableNote {
            title: "Saved for each image".to_owned(),
            caption: "Memory in GiB; what is saved in GB (1e9 bytes), as published.".to_owned(),
            file: SAVED.into(),
        }],
        ..Notes::default()
    };
    Ok(notes.write(folder)?)
}

/// GiB, to three digits after the point.
fn gib(bytes: u64) -> String {
    format!("{:.3}", bytes as f64 / ByteCount::gib(1).get() as f64)
}

/// GB, to two digits after the point.
fn gb(bytes: i128) -> String {
    let hundredths = (bytes as f64 / 1e7).round();
    // Adding 0 makes a 0 of -0.
    format!("{:.2}", hundredths / 100.0 + 0.0)
}

fn measured(row: &Row) -> String {
    let measured = row.measured;
    measured.map_or_else(String::new, |measured| gib(measured.heap_peak_bytes))
}

/// What a plot shows of a network.
fn peaks(rows: &[Row]) -> anyhow::Result<Vec<u8>> {
    let rows = rows.iter().map(|row| {
        let planned = gib(row.planned.peak_bytes);
        [
            row.edge.to_string(),
            row.way.clone(),
            planned,
            measured(row),
        ]
    });
    csv_bytes(["edge", "way", "planned", "measured"], rows)
}

fn saved(rows: &[Row]) -> anyhow::Result<Vec<u8>> {
    let heading = [
        "network",
        "edge",
        "way",
        "planned",
        "measured",
        "saved",
        "saved by",
        "published",
    ];
    let rows = rows.iter().map(|row| {
        let conventional = row.conventional;
        let text = |value: Option<String>| value.unwrap_or_default();
        let published = (row.edge == PUBLISHED.edge).then(|| gb(PUBLISHED.bytes_saved.into()));
        [
            row.model.clone(),
            row.edge.to_string(),
            row.way.clone(),
            gib(row.planned.peak_bytes),
            measured(row),
            text(conventional.map(|conventional| gb(conventional.bytes_saved))),
            text(conventional.map(|conventional| conventional.basis.to_string())),
            text(published),
        ]
    });
    csv_bytes(heading, rows)
}

#[cfg(test)]
mod tests {
    use super::super::case::Way;
    use super::super::result::tests::{result, row};
    use super::*;

    #[test]
    fn nothing_saved_has_no_sign() {
        let numbers = [-4_000_000, 0, 6_000_000, -20_000_000];
        assert_eq!(numbers.map(gb), ["0.00", "0.00", "0.01", "-0.02"]);
    }

    #[test]
    fn the_report_is_made_of_the_notes_alone() {
        let within = Way::Within(ByteCount::gib(1));
        let mut rows = vec![
            row(Way::Conventional, 4096, 8 << 30, Some(7 << 30)),
            row(within, 4096, 1 << 30, Some(1 << 29)),
            row(Way::Conventional, 8192, 32 << 30, None),
            row(within, 8192, 1 << 30, None),
        ];
        let mut other = rows.clone();
        for row in &mut other {
            row.model = "other".into();
        }
        rows.append(&mut other);
        let folder = tempfile::tempdir().unwrap();
        write(&result(rows), folder.path()).unwrap();
        stream_grad_train::report::write(folder.path()).unwrap();
        let page = std::fs::read_to_string(folder.path().join("report.html")).unwrap();
        for part in [
            "Memory of a step",
            "within 1.00 GiB",
            "about 50 GB",
            "other",
        ] {
            assert!(page.contains(part), "the report lacks {part}");
        }
        let table = std::fs::read_to_string(folder.path().join(SAVED)).unwrap();
        assert!(
            table.contains("net,4096,within 1.00 GiB,1.000,0.500,6.98,measured,\n"),
            "{table}"
        );
        assert!(
            table.contains("net,8192,within 1.00 GiB,1.000,,33.29,planned,50.00\n"),
            "{table}"
        );
    }
}
