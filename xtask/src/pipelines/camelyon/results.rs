//! What a run leaves behind: epochs, predictions and figures as CSV and JSON, weights as safetensors, a summary.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::Context;
use candle_core::Tensor;
use serde::{Deserialize, Serialize};
use stream_grad_train::data::Task;
use stream_grad_train::metrics::Estimate;
use stream_grad_train::trainer::{Evaluation, Summary};

/// Where the slides come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) enum Origin {
    /// The cohort that this project makes.
    MadeUp,
    /// The user's slides.
    Given,
}

/// The figures of one resolution.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Resolution {
    /// Microns per pixel.
    microns_per_pixel: f64,
    /// The task's metric on the test split.
    metric: Estimate,
    /// Slides that were tested.
    tested: usize,
    /// Slides of the test split that could not be used.
    skipped: Vec<PathBuf>,
    /// Slides of the training split that could not be read at least once.
    broken: Vec<PathBuf>,
    /// Slides of the training split whose loss or gradient was no number.
    not_finite: Vec<PathBuf>,
}

impl Resolution {
    pub(crate) fn new(
        microns_per_pixel: f64,
        metric: Estimate,
        evaluation: &Evaluation,
        summary: &Summary,
    ) -> Self {
        Self {
            microns_per_pixel,
            metric,
            tested: evaluation.predictions.len(),
            skipped: evaluation.skipped.clone(),
            broken: summary.broken.clone(),
            not_finite: summary.not_finite.clone(),
        }
    }
}

/// The figures of a resolution that an earlier run finished.
pub(crate) fn finished(folder: &Path) -> anyhow::Result<Option<Resolution>> {
    let path = folder.join("result.json");
    if !path.exists() {
        return Ok(None);
    }
    let text = std::fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
    let resolution =
        serde_json::from_slice(&text).with_context(|| format!("reading {}", path.display()))?;
    Ok(Some(resolution))
}

/// Writes everything of one resolution; `result.json` last, since it says that the resolution is finished.
pub(crate) fn write(
    folder: &Path,
    resolution: &Resolution,
    evaluation: &Evaluation,
    summary: &Summary,
    weights: &BTreeMap<String, Tensor>,
) -> anyhow::Result<()> {
    let mut epochs = csv::Writer::from_writer(Vec::new());
    for record in &summary.history {
        epochs.serialize(record)?;
    }
    place(&folder.join("epochs.csv"), &epochs.into_inner()?)?;

    let mut predictions = csv::Writer::from_writer(Vec::new());
    predictions.write_record(["slide", "label", "logits"])?;
    for prediction in &evaluation.predictions {
        let logits: Vec<String> = prediction.logits.iter().map(f64::to_string).collect();
        predictions.write_record([
            prediction.slide.display().to_string(),
            prediction.label.to_string(),
            logits.join(" "),
        ])?;
    }
    place(&folder.join("predictions.csv"), &predictions.into_inner()?)?;

    let tensors: HashMap<String, Tensor> = weights
        .iter()
        .map(|(name, tensor)| (name.clone(), tensor.clone()))
        .collect();
    let path = folder.join("weights.safetensors");
    let temporary = folder.join("weights.safetensors.partial");
    candle_core::safetensors::save(&tensors, &temporary)
        .and_then(|()| Ok(std::fs::rename(&temporary, &path)?))
        .with_context(|| format!("writing {}", path.display()))?;

    place(
        &folder.join("result.json"),
        &serde_json::to_vec_pretty(resolution)?,
    )
}

/// Writes the figures of all resolutions.
pub(crate) fn write_summary(
    folder: &Path,
    origin: Origin,
    resolutions: &[Resolution],
    summary: &str,
) -> anyhow::Result<()> {
    let mut table = csv::Writer::from_writer(Vec::new());
    table.write_record([
        "microns_per_pixel",
        "metric",
        "low",
        "high",
        "tested",
        "skipped",
    ])?;
    for resolution in resolutions {
        let Estimate { value, low, high } = resolution.metric;
        table.write_record([
            resolution.microns_per_pixel.to_string(),
            value.to_string(),
            low.to_string(),
            high.to_string(),
            resolution.tested.to_string(),
            resolution.skipped.len().to_string(),
        ])?;
    }
    place(&folder.join("metrics.csv"), &table.into_inner()?)?;
    let json = serde_json::json!({ "slides": origin, "resolutions": resolutions });
    place(
        &folder.join("summary.json"),
        &serde_json::to_vec_pretty(&json)?,
    )?;
    place(&folder.join("summary.txt"), summary.as_bytes())
}

/// The table that the run ends with.
pub(crate) fn summary(origin: Origin, task: Task, resolutions: &[Resolution]) -> String {
    let metric = match task {
        Task::Binary => "AUC",
        Task::Classification { .. } => "accuracy",
        Task::Regression => "Spearman",
    };
    let mut text = match origin {
        Origin::MadeUp => {
            "Made-up slides (no patient's data): does accuracy rise with resolution?\n".to_owned()
        }
        Origin::Given => String::new(),
    };
    let _ = writeln!(
        text,
        "{:>18}  {metric:>8}  {:>16}  {:>6}  {:>7}",
        "microns per pixel", "95% interval", "tested", "skipped"
    );
    for resolution in resolutions {
        let Estimate { value, low, high } = resolution.metric;
        let interval = format!("{low:.3} to {high:.3}");
        let _ = writeln!(
            text,
            "{:>18}  {value:>8.3}  {interval:>16}  {:>6}  {:>7}",
            resolution.microns_per_pixel,
            resolution.tested,
            resolution.skipped.len()
        );
    }
    let left_out: Vec<String> = resolutions
        .iter()
        .flat_map(|resolution| resolution.broken.iter().chain(&resolution.not_finite))
        .map(|path| path.display().to_string())
        .collect();
    if !left_out.is_empty() {
        let _ = writeln!(
            text,
            "Left out of training at least once: {}",
            left_out.join(", ")
        );
    }
    text.push_str(
        "Published, CAMELYON17 (TPAMI 2022): AUC 0.580 at 2048 x 2048 pixels, 0.706 at 8192 x 8192",
    );
    text
}

/// Writes a file beside its place and renames it, so that it is whole or not there.
fn place(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    let temporary = path.with_extension("partial");
    std::fs::write(&temporary, bytes)
        .and_then(|()| std::fs::rename(&temporary, path))
        .with_context(|| format!("writing {}", path.display()))
}
