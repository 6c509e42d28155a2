//! What `vjp --report` writes.

use std::path::Path;

use serde::Serialize;
use stream_grad_files::write_whole;

/// Recipe, memory and time of one image, forward and backward.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) model: String,
    pub(crate) recipe: String,
    pub(crate) blocks: usize,
    pub(crate) segments: u64,
    /// Of all blocks, for one image of the batch.
    pub(crate) tiles: usize,
    pub(crate) stored_nodes: usize,
    pub(crate) stored_node_names: Vec<String>,
    pub(crate) arithmetic: &'static str,
    /// Streaming's, and what reading a slide holds.
    pub(crate) planned_peak_bytes: u64,
    /// Heap bytes from the start of the forward to the end of the backward sweep, by a counting allocator.
    pub(crate) measured_peak_bytes: usize,
    /// The most bytes that wait in a file for the backward sweep.
    pub(crate) offloaded_bytes: u64,
    pub(crate) peak_rss_bytes: Option<u64>,
    pub(crate) compute_ratio: f64,
    /// Of forward and backward together, for the whole batch.
    pub(crate) seconds_predicted: f64,
    pub(crate) seconds_forward: f64,
    pub(crate) seconds_backward: f64,
    /// Forward and backward, for the whole batch.
    pub(crate) flops: u128,
    pub(crate) threads: usize,
}

impl Report {
    pub(crate) fn write(&self, path: &Path) -> anyhow::Result<()> {
        let text = serde_json::to_string_pretty(self)? + "\n";
        Ok(write_whole(path, text.as_bytes())?)
    }
}
