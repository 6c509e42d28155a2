//! What is measured.

use serde::{Deserialize, Serialize};
use stream_grad_cli::resident_memory;

/// One step: forward and backward of one image, in a process of its own. The peers' scripts write times and resident memory. Where the
/// image is a file, it is the second step of its process: what training keeps from one step to the next is there already.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct StepMeasurement {
    pub(crate) seconds_forward: f64,
    pub(crate) seconds_backward: f64,
    /// From the first step on.
    #[serde(flatten)]
    pub(crate) resident: Resident,
    /// Of this project's runs.
    #[serde(default)]
    pub(crate) plan: Option<PlanMeasurement>,
    /// Of the runs whose gradients were compared.
    #[serde(default)]
    pub(crate) error: Option<GradientError>,
}

impl StepMeasurement {
    /// Forward and backward.
    pub(crate) fn seconds(&self) -> f64 {
        self.seconds_forward + self.seconds_backward
    }
}

/// Resident memory of a process while something is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Resident {
    /// When it began: the program, the network, and what is in memory for it.
    #[serde(rename = "resident_before_bytes")]
    pub(crate) before_bytes: Option<u64>,
    /// The largest resident set since then.
    #[serde(rename = "resident_peak_bytes")]
    pub(crate) peak_bytes: Option<u64>,
}

impl Resident {
    /// Begins: the peak is what is resident now.
    pub(crate) fn watch() -> Self {
        resident_memory::forget_peak();
        let before_bytes = resident_memory::rss_bytes();
        Self {
            before_bytes,
            peak_bytes: before_bytes,
        }
    }

    /// Ends.
    pub(crate) fn to_peak(self) -> Self {
        Self {
            peak_bytes: resident_memory::peak_rss_bytes(),
            ..self
        }
    }

    /// Bytes that were added to those that were there before.
    pub(crate) fn added_bytes(self) -> Option<u64> {
        Some(self.peak_bytes?.saturating_sub(self.before_bytes?))
    }
}

/// How this project ran the step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct PlanMeasurement {
    pub(crate) recipe: String,
    pub(crate) tiles: usize,
    pub(crate) stored_nodes: Vec<String>,
    pub(crate) compute_ratio: f64,
    /// What was actually computed.
    pub(crate) flops: f64,
    pub(crate) budget: Option<Budget>,
    pub(crate) planned_peak_bytes: u64,
    /// The part of it in the backward sweep that is shaped like the weights: packed weights, sums, gradients.
    pub(crate) planned_weight_bytes: u64,
    /// Heap bytes that the step added at its peak, by a counting allocator.
    pub(crate) heap_peak_bytes: usize,
}

/// The bytes that a recipe was allowed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Budget {
    pub(crate) bytes: u64,
    /// Whose step they were derived from.
    pub(crate) from: String,
}

/// Relative L2 errors of the parameters' gradients against f64.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct GradientError {
    pub(crate) median: f64,
    pub(crate) worst: f64,
    pub(crate) worst_parameter: String,
    /// Parameters of which the contender computes a gradient.
    pub(crate) compared: usize,
    /// Parameters of the network.
    pub(crate) parameters: usize,
}

/// The rate of products of matrices: the yardstick for arithmetic.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct RateMeasurement {
    pub(crate) flops_per_second: f64,
}

/// The middle of a list, the mean of the two in the middle of one of even length; `None` of an empty one.
pub(crate) fn median(values: impl IntoIterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    let upper = *values.get(values.len() / 2)?;
    let lower = *values.get((values.len() - 1) / 2)?;
    Some(f64::midpoint(lower, upper))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians() {
        assert_eq!(median([]), None);
        assert_eq!(median([3.0]), Some(3.0));
        assert_eq!(median([3.0, 1.0]), Some(2.0));
        assert_eq!(median([9.0, 1.0, 2.0]), Some(2.0));
    }
}
