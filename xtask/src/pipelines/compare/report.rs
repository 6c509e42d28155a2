//! What a comparison ends with: a table, JSON, a plot for each image.

use std::fmt::Write as _;
use std::path::Path;

use serde::Serialize;
use stream_grad::ByteCount;
use stream_grad_files::write_whole;

use super::conditions::Conditions;
use super::entry::{Contender, Entry};
use super::measured::{StepMeasurement, median};
use super::plot;
use super::runner::Runner;
use super::scope::Run;
use super::store::Timed;
use super::targets::Target;

/// Everything that was measured, in the order of its runs.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    #[serde(flatten)]
    conditions: Conditions,
    /// First and last measurement, in seconds since 1970.
    period: Option<(u64, u64)>,
    groups: Vec<Group>,
    targets: Vec<Target>,
}

/// The contenders on one image.
#[derive(Debug, Serialize)]
pub(crate) struct Group {
    /// Network, image and threads.
    pub(crate) title: String,
    pub(crate) rows: Vec<Row>,
}

/// A contender's runs.
#[derive(Debug, Serialize)]
pub(crate) struct Row {
    pub(crate) contender: String,
    /// Whether it is this project.
    pub(crate) own: bool,
    pub(crate) runs: Vec<Timed<StepMeasurement>>,
    pub(crate) median_seconds: Option<f64>,
    /// Why runs are missing.
    pub(crate) failure: Option<String>,
}

impl Row {
    /// The largest resident set of any run.
    pub(crate) fn peak_bytes(&self) -> Option<u64> {
        let runs = self.runs.iter();
        runs.filter_map(|run| run.value.resident.peak_bytes).max()
    }

    fn added_bytes(&self) -> Option<u64> {
        self.runs
            .iter()
            .filter_map(|run| run.value.resident.added_bytes())
            .max()
    }
}

impl Report {
    pub(crate) fn new(runner: &Runner<'_>, runs: &[Run], targets: Vec<Target>) -> Self {
        let mut groups: Vec<Group> = Vec::new();
        for Run { entry, .. } in runs {
            let title = title(entry);
            let row = row(runner, entry);
            match groups.iter_mut().find(|group| group.title == title) {
                Some(group) => group.rows.push(row),
                None => groups.push(Group {
                    title,
                    rows: vec![row],
                }),
            }
        }
        Self {
            conditions: Conditions::new(runner.store.origin(), &runner.python),
            period: runner.store.period(),
            groups,
            targets,
        }
    }

    /// Writes `compare.txt`, `compare.json` and an SVG for each image.
    pub(crate) fn write(&self, folder: &Path) -> anyhow::Result<()> {
        write_whole(folder.join("compare.txt"), self.to_string().as_bytes())?;
        let json = serde_json::to_vec_pretty(self)?;
        write_whole(folder.join("compare.json"), &json)?;
        for group in &self.groups {
            if let Some(svg) = plot::svg(group)? {
                let name = group.title.replace(", ", "-").replace(' ', "-");
                write_whole(folder.join(format!("{name}.svg")), svg.as_bytes())?;
            }
        }
        Ok(())
    }
}

fn title(entry: &Entry) -> String {
    let threads = match entry.threads {
        1 => "1 thread".to_owned(),
        threads => format!("{threads} threads"),
    };
    format!("{}, {}, {threads}", entry.model, entry.image)
}

fn row(runner: &Runner<'_>, entry: &Entry) -> Row {
    let key = entry.key();
    let runs = runner.store.steps(&key).to_vec();
    Row {
        contender: entry.name(),
        own: matches!(entry.contender, Contender::Own(_)),
        median_seconds: median(runs.iter().map(|run| run.value.seconds())),
        runs,
        failure: runner.failures.get(&key).cloned(),
    }
}

impl std::fmt::Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.conditions)?;
        for group in &self.groups {
            write!(f, "\n{group}")?;
        }
        if !self.targets.is_empty() {
            writeln!(f, "\ntargets")?;
        }
        for target in &self.targets {
            let verdict = match target.reached {
                Some(true) => "reached",
                Some(false) => "missed",
                None => "",
            };
            let measured = target.measured.as_deref().unwrap_or("not measured");
            writeln!(
                f,
                "{}\n    {}: {measured}  {verdict}",
                target.what, target.target
            )?;
        }
        Ok(())
    }
}

impl std::fmt::Display for Group {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "{}: forward and backward of one image", self.title)?;
        let width = self.rows.iter().map(|row| row.contender.chars().count());
        let width = width.max().unwrap_or(0);
        writeln!(
            f,
            "{:width$}  {:>9}  {:>17}  {:>10}  {:>10}  {:>21}",
            "", "median", "lowest, highest", "step adds", "resident", "gradient error",
        )?;
        for row in &self.rows {
            write!(f, "{:width$}", row.contender)?;
            if row.runs.is_empty() {
                let reason = row.failure.as_deref().unwrap_or("not run");
                writeln!(f, "  {reason}")?;
            } else {
                writeln!(f, "  {}", figures(row))?;
            }
        }
        Ok(())
    }
}

fn figures(row: &Row) -> String {
    let seconds = row.runs.iter().map(|run| run.value.seconds());
    let lowest = seconds.clone().fold(f64::INFINITY, f64::min);
    let highest = seconds.fold(0.0, f64::max);
    let bytes = |bytes: Option<u64>| {
        bytes.map_or("unknown".to_owned(), |bytes| {
            ByteCount::bytes(bytes).to_string()
        })
    };
    let mut line = format!(
        "{:>7.2} s  {:>17}  {:>10}  {:>10}",
        row.median_seconds.unwrap_or(f64::NAN),
        format!("{lowest:.2}, {highest:.2}"),
        bytes(row.added_bytes()),
        bytes(row.peak_bytes())
    );
    let error = row.runs.iter().find_map(|run| run.value.error.as_ref());
    let mut notes = Vec::new();
    let text = error.map_or(String::new(), |error| {
        if error.compared < error.parameters {
            notes.push(format!(
                "gradients of {} of {} parameters",
                error.compared, error.parameters
            ));
        }
        format!("{:.1e}, worst {:.1e}", error.median, error.worst)
    });
    let _ = write!(line, "  {text:>21}");
    if let Some(plan) = row.runs.iter().find_map(|run| run.value.plan.as_ref()) {
        if let Some(budget) = &plan.budget {
            let bytes = ByteCount::bytes(budget.bytes);
            notes.push(format!("budget {bytes}, by {}", budget.from));
        }
        let heap = row.runs.iter().filter_map(|run| run.value.plan.as_ref());
        let heap = heap.map(|plan| plan.heap_peak_bytes as u64).max();
        notes.push(format!(
            "heap {} of {} planned, weights {}; compute {:.2}",
            bytes(heap),
            bytes(Some(plan.planned_peak_bytes)),
            bytes(Some(plan.planned_weight_bytes)),
            plan.compute_ratio
        ));
    }
    if row.runs.len() == 1 {
        notes.push("one run".to_owned());
    }
    notes.extend(row.failure.as_ref().map(|reason| format!("then {reason}")));
    if !notes.is_empty() {
        let _ = write!(line, "  {}", notes.join("; "));
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::measured::{GradientError, Resident};

    fn run(seconds: f64) -> Timed<StepMeasurement> {
        Timed {
            at: 0,
            value: StepMeasurement {
                seconds_forward: seconds,
                seconds_backward: 0.0,
                resident: Resident {
                    before_bytes: Some(1 << 20),
                    peak_bytes: Some(3 << 20),
                },
                plan: None,
                error: Some(GradientError {
                    median: 1.25e-7,
                    worst: 2e-6,
                    worst_parameter: "a".into(),
                    compared: 1,
                    parameters: 3,
                }),
            },
        }
    }

    #[test]
    fn a_row_says_what_was_measured_and_what_was_not() {
        let row = Row {
            contender: "one".into(),
            own: false,
            runs: vec![run(2.0), run(1.0), run(4.0)],
            median_seconds: Some(2.0),
            failure: None,
        };
        let failed = Row {
            contender: "another".into(),
            own: false,
            runs: Vec::new(),
            median_seconds: None,
            failure: Some("it broke".into()),
        };
        let group = Group {
            title: "net".into(),
            rows: vec![row, failed],
        };
        let text = group.to_string();
        let lines: Vec<&str> = text.lines().collect();
        for part in [
            "2.00 s",
            "1.00, 4.00",
            "2.00 MiB",
            "3.00 MiB",
            "2.0e-6",
            "1 of 3",
        ] {
            assert!(lines[2].contains(part), "{text} lacks {part}");
        }
        assert!(
            lines[3].starts_with("another") && lines[3].ends_with("it broke"),
            "{text}"
        );
    }
}
