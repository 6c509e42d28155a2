//! What the experiment ends with: JSON, CSV, a table.

use std::fmt;
use std::path::Path;

use serde::Serialize;
use stream_grad::ByteCount;
use stream_grad_files::write_whole;

use super::Rows;
use super::case::{Case, Planned, Way};
use crate::compare::measured::StepMeasurement;
use crate::compare::store::{Origin, Store};
use crate::tables::csv_bytes;

/// The figure that is published.
pub(super) const PUBLISHED: Published = Published {
    source: "about 50 GB saved per image of 8192 x 8192 pixels, TPAMI 2022 (10.1109/TPAMI.2020.3019563)",
    edge: 8192,
    bytes_saved: 50_000_000_000,
};

/// Bytes that a published method saves.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Published {
    pub(super) source: &'static str,
    /// Of the square image, in pixels.
    pub(super) edge: u64,
    pub(super) bytes_saved: u64,
}

/// Everything that was planned and measured.
#[derive(Debug, Serialize)]
pub(crate) struct MemoryResult {
    origin: Origin,
    pub(super) threads: usize,
    pub(super) budget_bytes: u64,
    published: Published,
    pub(crate) rows: Vec<Row>,
}

/// One step on one image.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Row {
    pub(crate) model: String,
    /// Of the square image, in pixels.
    pub(crate) edge: u64,
    pub(crate) way: String,
    #[serde(skip)]
    pub(crate) kind: Way,
    pub(crate) planned: Planned,
    pub(crate) measured: Option<Measured>,
    /// Why nothing was measured.
    pub(crate) not_measured: Option<String>,
    /// Bytes of the conventional step on this image, and of this one below it.
    pub(crate) conventional: Option<Conventional>,
}

/// What a step took.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Measured {
    /// Heap bytes that the step added at its peak, by a counting allocator.
    pub(crate) heap_peak_bytes: u64,
    /// What it added to the resident memory, where the system tells.
    pub(crate) resident_added_bytes: Option<u64>,
    pub(crate) seconds: f64,
}

/// A step beside the conventional one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) struct Conventional {
    pub(crate) bytes: u64,
    /// Less than `bytes` of this step; below 0 if it takes more.
    pub(crate) bytes_saved: i128,
    pub(crate) basis: Basis,
}

/// What bytes are of: both steps the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Basis {
    /// Counted while both steps ran.
    Measured,
    /// The peaks of both plans.
    Planned,
}

impl fmt::Display for Basis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Measured => "measured",
            Self::Planned => "planned",
        })
    }
}

impl Measured {
    fn new(step: &StepMeasurement) -> Option<Self> {
        Some(Self {
            heap_peak_bytes: step.plan.as_ref()?.heap_peak_bytes as u64,
            resident_added_bytes: step.resident.added_bytes(),
            seconds: step.seconds(),
        })
    }
}

impl MemoryResult {
    /// Everything that is stored of these cases. `refused` says why a case was not measured.
    pub(crate) fn new(
        store: &Store<Rows>,
        cases: &[Case],
        (threads, budget): (usize, ByteCount),
        refused: &dyn Fn(&str) -> Option<String>,
    ) -> Self {
        let rows = cases.iter().filter_map(|case| {
            let key = case.key(threads);
            let step = store.results().steps.get(&key);
            Some(Row {
                model: case.model.to_owned(),
                edge: case.edge,
                way: case.way.to_string(),
                kind: case.way,
                planned: store.results().plans.get(&key)?.clone(),
                measured: step.and_then(|step| Measured::new(&step.value)),
                not_measured: step.is_none().then(|| {
                    let unasked = || "larger than is measured in this way".to_owned();
                    refused(&key).unwrap_or_else(unasked)
                }),
                conventional: None,
            })
        });
        let mut rows: Vec<Row> = rows.collect();
        compare(&mut rows);
        Self {
            origin: store.origin().clone(),
            threads,
            budget_bytes: budget.get(),
            published: PUBLISHED,
            rows,
        }
    }

    /// Writes `memory.txt`, `memory.json` and `memory.csv`.
    pub(crate) fn write(&self, folder: &Path) -> anyhow::Result<()> {
        write_whole(folder.join("memory.txt"), self.to_string().as_bytes())?;
        let json = serde_json::to_vec_pretty(self)?;
        write_whole(folder.join("memory.json"), &json)?;
        write_whole(folder.join("memory.csv"), &self.csv()?)?;
        Ok(())
    }

    fn csv(&self) -> anyhow::Result<Vec<u8>> {
        let heading = [
            "model",
            "edge",
            "way",
            "recipe",
            "planned_peak_bytes",
            "planned_file_bytes",
            "predicted_seconds",
            "compute_ratio",
            "measured_heap_peak_bytes",
            "measured_resident_added_bytes",
            "measured_seconds",
            "not_measured",
            "conventional_bytes",
            "conventional_basis",
            "bytes_saved",
            "published_bytes_saved",
        ];
        let rows = self.rows.iter().map(|row| {
            let (planned, measured) = (&row.planned, row.measured.as_ref());
            let published = (row.edge == PUBLISHED.edge).then_some(PUBLISHED.bytes_saved);
            [
                row.model.clone(),
                row.edge.to_string(),
                row.way.clone(),
                planned.recipe.clone(),
                planned.peak_bytes.to_string(),
                planned.file_bytes.to_string(),
                planned.seconds.to_string(),
                planned.compute_ratio.to_string(),
                cell(measured.map(|measured| measured.heap_peak_bytes)),
                cell(measured.and_then(|measured| measured.resident_added_bytes)),
                cell(measured.map(|measured| measured.seconds)),
                cell(row.not_measured.as_ref()),
                cell(row.conventional.map(|conventional| conventional.bytes)),
                cell(row.conventional.map(|conventional| conventional.basis)),
                cell(
                    row.conventional
                        .map(|conventional| conventional.bytes_saved),
                ),
                cell(published),
            ]
        });
        csv_bytes(heading, rows)
    }
}

fn cell(value: Option<impl ToString>) -> String {
    value.map_or_else(String::new, |value| value.to_string())
}

/// Puts each step beside the conventional one on the same image: what was measured of both, or what was planned.
fn compare(rows: &mut [Row]) {
    let whole: Vec<Row> = rows
        .iter()
        .filter(|row| row.kind == Way::Conventional)
        .cloned()
        .collect();
    for row in rows {
        let mut whole = whole.iter();
        let same = |whole: &&Row| whole.model == row.model && whole.edge == row.edge;
        row.conventional = whole.find(same).map(|whole| {
            let (bytes, own, basis) = match (whole.measured, row.measured) {
                (Some(whole), Some(own)) => {
                    (whole.heap_peak_bytes, own.heap_peak_bytes, Basis::Measured)
                }
                _ => (
                    whole.planned.peak_bytes,
                    row.planned.peak_bytes,
                    Basis::Planned,
                ),
            };
            Conventional {
                bytes,
                bytes_saved: i128::from(bytes) - i128::from(own),
                basis,
            }
        });
    }
}

impl fmt::Display for MemoryResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let origin = &self.origin;
        writeln!(f, "{}, {} threads", origin.processor, self.threads)?;
        writeln!(
            f,
            "memory of one step, forward and backward of one image, weights' gradients included, in f32; the image is computed \
             as it is read"
        )?;
        let mut models: Vec<&str> = self.rows.iter().map(|row| row.model.as_str()).collect();
        models.dedup();
        let width = self.rows.iter().map(|row| row.way.chars().count()).max();
        let width = width.unwrap_or(0);
        for model in models {
            writeln!(
                f,
                "\n{model}\n{:>6}  {:width$}  {:>11}  {:>11}  {:>11}  {:>11}  {:>9}  {:>9}  saved",
                "edge", "", "planned", "measured", "resident", "file", "predicted", "seconds"
            )?;
            for row in self.rows.iter().filter(|row| row.model == model) {
                writeln!(f, "{}", line(row, width))?;
            }
        }
        writeln!(f, "\npublished: {}", PUBLISHED.source)?;
        for row in self.rows.iter().filter(|row| row.edge == PUBLISHED.edge) {
            if let (Way::Within(_), Some(conventional)) = (row.kind, row.conventional) {
                writeln!(
                    f,
                    "here:      {:.1} GB ({}), {}, {}",
                    conventional.bytes_saved as f64 / 1e9,
                    conventional.basis,
                    row.model,
                    row.way
                )?;
            }
        }
        Ok(())
    }
}

fn line(row: &Row, width: usize) -> String {
    let bytes = |bytes: u64| ByteCount::bytes(bytes).to_string();
    let planned = &row.planned;
    let measured = row.measured;
    let dash = || "-".to_owned();
    let heap = measured.map_or_else(dash, |measured| bytes(measured.heap_peak_bytes));
    let resident = measured.and_then(|measured| measured.resident_added_bytes);
    let seconds = measured.map_or_else(dash, |measured| format!("{:.1} s", measured.seconds));
    let file = match planned.file_bytes {
        0 => dash(),
        held => bytes(held),
    };
    let mut line = format!(
        "{:>6}  {:width$}  {:>11}  {heap:>11}  {:>11}  {file:>11}  {:>9}  {seconds:>9}",
        row.edge,
        row.way,
        bytes(planned.peak_bytes),
        resident.map_or_else(dash, bytes),
        format!("{:.1} s", planned.seconds),
    );
    if let (Some(conventional), false) = (row.conventional, row.kind == Way::Conventional) {
        line += &format!(
            "  {:.2} of {:.2} GB, {}",
            conventional.bytes_saved as f64 / 1e9,
            conventional.bytes as f64 / 1e9,
            conventional.basis
        );
    }
    if row.kind == Way::Conventional {
        line += match row.measured {
            Some(_) => "  measured",
            None => "  from the plan of one tile",
        };
        if let Some(reason) = &row.not_measured {
            line += &format!(": {reason}");
        }
    }
    if let Way::Within(budget) = row.kind
        && planned.peak_bytes > budget.get()
    {
        line += "; the budget holds no recipe, this is the smallest";
    }
    line
}

#[cfg(test)]
pub(crate) mod tests {
    use stream_grad::tiling::{PerAxis, Recipe, Reuse, Weights};

    use super::*;
    use crate::compare::step::PlannedStep;

    pub(crate) fn row(kind: Way, edge: u64, planned: u64, measured: Option<u64>) -> Row {
        let extent = PerAxis {
            rows: edge,
            columns: edge,
        };
        Row {
            model: "net".into(),
            edge,
            way: kind.to_string(),
            kind,
            planned: Planned {
                step: PlannedStep {
                    recipe: Recipe {
                        image: extent,
                        output_block: extent,
                        segments: 1,
                        tile: extent,
                        stored: Vec::new(),
                        reuse: Reuse::Nothing,
                        weights: Weights::Held,
                    },
                    memory: None,
                    offload: None,
                },
                recipe: "tiles, \"some\"".into(),
                peak_bytes: planned,
                file_bytes: 0,
                seconds: 1.5,
                compute_ratio: 1.0,
            },
            measured: measured.map(|bytes| Measured {
                heap_peak_bytes: bytes,
                resident_added_bytes: None,
                seconds: 2.0,
            }),
            not_measured: measured.is_none().then(|| "too large".to_owned()),
            conventional: None,
        }
    }

    /// What an experiment with these rows ends with, each beside the conventional one.
    pub(crate) fn result(mut rows: Vec<Row>) -> MemoryResult {
        compare(&mut rows);
        MemoryResult {
            origin: Origin {
                build: String::new(),
                processor: "p".into(),
                cores: 2,
            },
            threads: 2,
            budget_bytes: 1 << 30,
            published: PUBLISHED,
            rows,
        }
    }

    #[test]
    fn measured_is_compared_with_measured_and_planned_with_planned() {
        let within = Way::Within(ByteCount::gib(1));
        let mut rows = vec![
            row(Way::Conventional, 1024, 900, Some(800)),
            row(within, 1024, 300, Some(250)),
            row(Way::Least, 1024, 200, None),
            row(Way::Conventional, 2048, 3600, None),
            row(within, 2048, 400, Some(300)),
            row(Way::Least, 4096, 1, None),
        ];
        compare(&mut rows);
        let saved = rows.iter().map(|row| {
            let conventional = row.conventional?;
            Some((conventional.bytes_saved, conventional.basis))
        });
        let expected = [
            Some((0, Basis::Measured)),
            Some((550, Basis::Measured)),
            Some((700, Basis::Planned)),
            Some((0, Basis::Planned)),
            Some((3200, Basis::Planned)),
            None,
        ];
        assert_eq!(saved.collect::<Vec<_>>(), expected);
    }

    #[test]
    fn rows_say_what_they_rest_on() {
        let result = result(vec![
            row(Way::Conventional, 8192, 30_000_000_000, None),
            row(Way::Within(ByteCount::gib(1)), 8192, 2 << 30, Some(5)),
        ]);
        let text = result.to_string();
        for part in [
            "from the plan of one tile: too large",
            "27.85 of 30.00 GB, planned; the budget holds no recipe",
            "here:      27.9 GB (planned)",
            "about 50 GB",
        ] {
            assert!(text.contains(part), "{text} lacks {part}");
        }
        let csv = String::from_utf8(result.csv().unwrap()).unwrap();
        let mut lines = csv::Reader::from_reader(csv.as_bytes());
        let headers = lines.headers().unwrap().clone();
        let place = |name| headers.iter().position(|header| header == name).unwrap();
        let records: Vec<_> = lines.records().map(Result::unwrap).collect();
        assert_eq!(&records[0][place("recipe")], "tiles, \"some\"");
        assert_eq!(&records[0][place("not_measured")], "too large");
        assert_eq!(&records[1][place("measured_heap_peak_bytes")], "5");
        assert_eq!(&records[1][place("published_bytes_saved")], "50000000000");
        let folder = tempfile::tempdir().unwrap();
        result.write(folder.path()).unwrap();
        let json = std::fs::read(folder.path().join("memory.json")).unwrap();
        let json: serde_json::Value = serde_json::from_slice(&json).unwrap();
        assert_eq!(json["rows"][1]["conventional"]["basis"], "planned");
    }
}
