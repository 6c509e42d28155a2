//! Which parts of an image speak for an output of a model: Grad-CAM and input gradients of images of any size, and the files that
//! show them over a slide.
//!
//! Both are streamed, in the memory that the model's sweeps may take and one value for each cell of the map. The output is a
//! logit by its index: of a class, of a label, of a level, or the score of a regression.

mod cells;
mod files;
mod grad_cam;
mod input_gradient;
mod target;

pub use files::{HeatmapFiles, HeatmapMethod, HeatmapOptions, write};
pub use grad_cam::grad_cam;
pub use input_gradient::{ChannelSum, InputGradientOptions, input_gradient};

/// A grid of values over all of an image, cut into equal cells.
#[derive(Debug, Clone, PartialEq)]
pub struct AttributionMap {
    /// Rows of cells.
    pub height: u64,
    /// Columns of cells.
    pub width: u64,
    /// `height x width` values, row by row.
    pub values: Vec<f32>,
    /// All logits of the image.
    pub logits: Vec<f64>,
}

impl AttributionMap {
    /// The largest magnitude of any value; NaN does not count.
    #[must_use]
    pub fn largest(&self) -> f32 {
        let magnitudes = self.values.iter().map(|value| value.abs());
        magnitudes.fold(0.0, f32::max)
    }
}

#[cfg(test)]
mod tests;
