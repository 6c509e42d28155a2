//! The command line of `stream-grad plan`.

use std::path::PathBuf;

use clap::Args;

use super::{BackgroundKind, RecipeArguments};
use crate::image_size::ImageSize;

/// Of `plan`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  stream-grad plan --model resnet34 --image 65536x65536 --memory 8GiB
  stream-grad plan --model resnet18 --image 8192x8192 --all --plot front.svg
  stream-grad plan --model resnet34 --slide a.svs --mpp 0.5 --background fill --memory 8GiB")]
pub struct PlanArguments {
    /// The network: resnet18, resnet34, resnet50, numerics, imagenette or another known one
    #[arg(long, value_name = "NAME")]
    pub model: String,
    /// Extent of the image in pixels, HEIGHTxWIDTH
    #[arg(long, value_name = "SIZE", required_unless_present = "slide")]
    pub image: Option<ImageSize>,
    /// Slide whose extent it is, in place of --image
    #[arg(long, value_name = "FILE", conflicts_with = "image")]
    pub slide: Option<PathBuf>,
    /// Microns per pixel at which the slide is read; without it, its finest level as it is
    #[arg(
        long,
        value_name = "MICRONS",
        requires = "slide",
        conflicts_with = "image"
    )]
    pub mpp: Option<f64>,
    /// What is shown where a slide has no tissue: what is read, or one colour, so that tiles without tissue are computed once
    #[arg(long, value_enum, default_value = "as_read", value_name = "KIND")]
    pub background: BackgroundKind,
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
