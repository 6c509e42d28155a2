//! A model for what a task asks: of each slide, or of each pixel.

use std::collections::BTreeMap;
use std::fmt;

use candle_core::Tensor;
use rand_chacha::ChaCha8Rng;
use stream_grad::tiling::Recipe;

use super::{Model, Precision, SegmentationModel};
use crate::error::Result;
use crate::gradients::NamedVariables;
use crate::loss::SegmentationLoss;
use crate::optimizer::ParameterGroup;
use crate::source::LabelLoader;

/// What is trained or evaluated.
#[derive(Clone, Copy)]
pub enum TaskModel<'a> {
    /// A label for each slide.
    Slides(&'a dyn Model),
    /// A class for each pixel.
    Pixels(PixelModel<'a>),
}

/// A model of pixels, with what it is compared with and how.
#[derive(Clone, Copy)]
pub struct PixelModel<'a> {
    /// The model.
    pub model: &'a SegmentationModel,
    /// Where label maps come from.
    pub labels: &'a dyn LabelLoader,
    /// What is minimised.
    pub loss: &'a SegmentationLoss,
}

impl<'a, M: Model> From<&'a M> for TaskModel<'a> {
    fn from(model: &'a M) -> Self {
        Self::Slides(model)
    }
}

impl fmt::Debug for TaskModel<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Slides(_) => f.write_str("a model of slides"),
            Self::Pixels(pixels) => pixels.fmt(f),
        }
    }
}

impl fmt::Debug for PixelModel<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PixelModel")
            .field("model", self.model)
            .field("loss", self.loss)
            .finish_non_exhaustive()
    }
}

/// What both kinds have: weights, and what checkpoints keep.
impl TaskModel<'_> {
    pub(crate) fn variables(self) -> NamedVariables {
        match self {
            Self::Slides(model) => model.variables(),
            Self::Pixels(pixels) => pixels.model.variables(),
        }
    }

    pub(crate) fn parameter_groups(self) -> Vec<ParameterGroup> {
        match self {
            Self::Slides(model) => model.parameter_groups(),
            Self::Pixels(pixels) => pixels.model.parameter_groups(),
        }
    }

    pub(crate) fn tensors(self) -> BTreeMap<String, Tensor> {
        match self {
            Self::Slides(model) => model.tensors(),
            Self::Pixels(pixels) => pixels.model.tensors(),
        }
    }

    pub(crate) fn load_tensors(self, tensors: &BTreeMap<String, Tensor>) -> Result<()> {
        match self {
            Self::Slides(model) => model.load_tensors(tensors),
            Self::Pixels(pixels) => pixels.model.load_tensors(tensors),
        }
    }

    /// [`Model::draw`]; networks of pixels leave nothing to chance.
    pub(crate) fn draw(self, rng: &mut ChaCha8Rng) -> Result<()> {
        match self {
            Self::Slides(model) => model.draw(rng),
            Self::Pixels(_) => Ok(()),
        }
    }

    /// [`Model::settle`].
    pub(crate) fn settle(self) -> Result<()> {
        match self {
            Self::Slides(model) => model.settle(),
            Self::Pixels(_) => Ok(()),
        }
    }

    pub(crate) fn precision(self) -> Precision {
        match self {
            Self::Slides(model) => model.precision(),
            Self::Pixels(pixels) => pixels.model.precision(),
        }
    }

    pub(crate) fn recipes(self) -> Vec<Recipe> {
        match self {
            Self::Slides(model) => model.recipes(),
            Self::Pixels(pixels) => pixels.model.recipes(),
        }
    }

    pub(crate) fn load_recipes(self, recipes: Vec<Recipe>) {
        match self {
            Self::Slides(model) => model.load_recipes(recipes),
            Self::Pixels(pixels) => pixels.model.load_recipes(recipes),
        }
    }
}
