//! The command line of `stream-grad plan`.

use std::path::PathBuf;

use clap::Args;

use super::RecipeArguments;
use crate::image_size::ImageSize;

/// Of `plan`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  stream-grad plan --model resnet34 --image 65536x65536 --memory 8GiB
  stream-grad plan --model resnet18 --image 8192x8192 --all --plot front.svg")]
pub struct PlanArguments {
    /// The network: resnet18, resnet34, resnet50, numerics, imagenette or another known one
    #[arg(long, value_name = "NAME")]
    pub model: String,
    /// Extent of the image in pixels, HEIGHTxWIDTH
    #[arg(long, value_name = "SIZE")]
    pub image: ImageSize,
    /// The recipe.
    #[command(flatten)]
    pub recipe: RecipeArguments,
    /// Lists every recipe that no other beats, not only a dozen that matter
    #[arg(long, help_heading = "Output")]
    pub all: bool,
    /// SVG to write: what memory brings
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    pub plot: Option<PathBuf>,
}
