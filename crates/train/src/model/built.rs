//! The model that settings ask for, of either kind.

use std::collections::BTreeMap;

use candle_core::Tensor;
use stream_grad::tiling::{Recipe, Reuse};
use stream_grad::{CostModel, Net, Plan, PlanRequest};

use super::{Model, ModelSettings, SegmentationModel, StreamedModel};
use crate::data::Task;
use crate::error::Result;

/// A model for a task.
#[derive(Debug)]
pub enum BuiltModel {
    /// For a label of each slide.
    Slides(StreamedModel),
    /// For a class of each pixel.
    Pixels(SegmentationModel),
}

impl BuiltModel {
    /// The model of `task`.
    ///
    /// # Errors
    /// As [`StreamedModel::new`] and [`SegmentationModel::new`].
    pub fn new(settings: &ModelSettings, task: Task, seed: u64) -> Result<Self> {
        match task {
            Task::Segmentation { classes } => {
                SegmentationModel::new(settings, classes, seed).map(Self::Pixels)
            }
            _ => StreamedModel::new(settings, task.outputs(), seed).map(Self::Slides),
        }
    }

    /// The same model, with recipes chosen by `cost_model`.
    #[must_use]
    pub fn cost_model(self, cost_model: CostModel) -> Self {
        match self {
            Self::Slides(model) => Self::Slides(model.cost_model(cost_model)),
            Self::Pixels(model) => Self::Pixels(model.cost_model(cost_model)),
        }
    }

    /// The same model, whose recipes compute tiles of one colour once if `reuse` says so.
    #[must_use]
    pub fn reuse(self, reuse: Reuse) -> Self {
        match self {
            Self::Slides(model) => Self::Slides(model.reuse(reuse)),
            Self::Pixels(model) => Self::Pixels(model.reuse(reuse)),
        }
    }

    /// The network that is streamed.
    #[must_use]
    pub fn net(&self) -> &Net {
        match self {
            Self::Slides(model) => model.net(),
            Self::Pixels(model) => model.net(),
        }
    }

    /// The plan for images of `height x width` pixels.
    ///
    /// # Errors
    /// As [`StreamedModel::plan`].
    pub fn plan(&self, height: u64, width: u64) -> Result<Plan> {
        match self {
            Self::Slides(model) => model.plan(height, width),
            Self::Pixels(model) => model.plan(height, width),
        }
    }

    /// What a plan for images of `height x width` pixels is asked for, unless a recipe is stored.
    #[must_use]
    pub fn request(&self, height: u64, width: u64) -> PlanRequest {
        match self {
            Self::Slides(model) => model.request(height, width),
            Self::Pixels(model) => model.request(height, width),
        }
    }

    /// Decisions that results depend on in their last bits.
    #[must_use]
    pub fn recipes(&self) -> Vec<Recipe> {
        match self {
            Self::Slides(model) => model.recipes(),
            Self::Pixels(model) => model.recipes(),
        }
    }

    /// Weights and running statistics.
    #[must_use]
    pub fn tensors(&self) -> BTreeMap<String, Tensor> {
        match self {
            Self::Slides(model) => model.tensors(),
            Self::Pixels(model) => model.tensors(),
        }
    }
}
