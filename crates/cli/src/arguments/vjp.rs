//! The command line of `stream-grad vjp`.

use std::path::PathBuf;

use clap::Args;

use super::{Arithmetic, BackgroundKind, RecipeArguments};

/// Of `vjp`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  stream-grad vjp --model resnet18 --weights resnet18.pth --input x.safetensors --output g.safetensors --memory 1GiB
  stream-grad vjp --model resnet18 --weights resnet18.pth --slide a.svs --mpp 0.5 --output g.safetensors --tile 512")]
pub struct VjpArguments {
    /// The network: resnet18, resnet34, resnet50, numerics, imagenette or another known one
    #[arg(long, value_name = "NAME")]
    pub model: String,
    /// Weights, as safetensors or a file of torch.save, under torchvision's names, with any prefix before them all
    #[arg(long, value_name = "FILE")]
    pub weights: PathBuf,
    /// Safetensors with `input` [N, 3, H, W] and `y_bar`, the cotangent of the features; of several outputs, such as those of
    /// resnet18_fpn, `y_bar.NAME` for each: `y_bar.0` to `y_bar.3`, and `y_bar.pool`
    #[arg(long, value_name = "FILE", required_unless_present = "slide")]
    pub input: Option<PathBuf>,
    /// Slide that the image comes from, in place of --input: red, green and blue from 0 to 1; `y_bar` is all ones
    #[arg(long, value_name = "FILE", conflicts_with = "input")]
    pub slide: Option<PathBuf>,
    /// Microns per pixel at which the slide is read; without it, its finest level as it is
    #[arg(
        long,
        value_name = "MICRONS",
        requires = "slide",
        conflicts_with = "input"
    )]
    pub mpp: Option<f64>,
    /// What is shown of the slide further than 64 microns from all tissue: as it is read, or its background colour, which costs next to
    /// nothing
    #[arg(
        long,
        value_enum,
        default_value = "as_read",
        value_name = "KIND",
        requires = "slide",
        conflicts_with = "input"
    )]
    pub background: BackgroundKind,
    /// The recipe.
    #[command(flatten)]
    pub recipe: RecipeArguments,
    /// How 3x3 convolutions are computed
    #[arg(
        long,
        value_enum,
        default_value = "auto",
        value_name = "KIND",
        help_heading = "Recipe"
    )]
    pub arithmetic: Arithmetic,
    /// Safetensors to write: `y`, or `y.NAME` of several outputs, the gradient of each parameter under its name, `x_bar` if asked for
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    pub output: PathBuf,
    /// JSON to write: recipe, memory, time
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    pub report: Option<PathBuf>,
}
