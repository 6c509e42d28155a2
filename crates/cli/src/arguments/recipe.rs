//! What bounds a recipe: shared by the commands that make a plan.

use std::num::{NonZeroU64, NonZeroUsize};
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use stream_grad::ByteCount;
use stream_grad_train::model::Precision;

/// Type that pixels, activations and their gradients are stored as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum FloatType {
    /// Single precision
    F32,
    /// Double precision
    F64,
    /// Two bytes; arithmetic, weights and what is written are f32
    Bf16,
}

/// Type that a trained network's activations are stored as; its weights are f32.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum TrainedType {
    /// Single precision
    F32,
    /// Two bytes; arithmetic is f32
    Bf16,
}

impl From<TrainedType> for Precision {
    fn from(dtype: TrainedType) -> Self {
        match dtype {
            TrainedType::F32 => Self::F32,
            TrainedType::Bf16 => Self::Bf16,
        }
    }
}

/// How convolutions are computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Arithmetic {
    /// As is fastest: by Winograd's F(2x2, 3x3) where that gains
    Auto,
    /// Directly, one product after the other
    Direct,
}

/// What bounds a recipe.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
#[command(next_help_heading = "Recipe")]
pub struct RecipeArguments {
    /// Largest number of heap bytes that streaming may hold, as 1GiB
    #[arg(long, value_name = "BYTES")]
    pub memory: Option<ByteCount>,
    /// Edge of a tile in pixels; without it, the planner chooses
    #[arg(long, value_name = "PIXELS", conflicts_with = "memory")]
    pub tile: Option<NonZeroU64>,
    /// Edge of a block in pixels; without it, one block
    #[arg(long, value_name = "PIXELS")]
    pub block: Option<NonZeroU64>,
    /// Folder for a file of what does not fit in --memory (without it: of all that the backward sweep needs)
    #[arg(long, value_name = "DIR")]
    pub offload: Option<PathBuf>,
    /// Type that pixels, activations and their gradients are stored as
    #[arg(long, value_enum, default_value = "f32", value_name = "TYPE")]
    pub dtype: FloatType,
    /// Asks for the gradient of the image, too
    #[arg(long)]
    pub input_gradient: bool,
    /// Number of threads, at most four for each core; without it, all cores
    #[arg(long, value_name = "COUNT")]
    pub threads: Option<NonZeroUsize>,
}
