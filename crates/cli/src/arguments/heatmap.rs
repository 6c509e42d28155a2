//! The command line of `stream-grad heatmap`.

use std::num::NonZeroU64;
use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::LimitArguments;

/// Of `heatmap`.
#[derive(Debug, Args)]
#[command(after_help = "\
Of each slide four files are written: <name>.overlay.png, <name>.heatmap.tiff (a pyramid with its scale), <name>.geojson (outlines
at the thresholds, for QuPath) and <name>.json (the values). Slides that could not be read are named and left out.

Examples:
  stream-grad heatmap model.safetensors slide.svs --layer layer4 --target tumour --output maps
  stream-grad heatmap model.safetensors a.tif b.tif --output maps         (gradient of the image)")]
pub struct HeatmapArguments {
    /// Model file that a training left
    #[arg(value_name = "MODEL")]
    pub model: PathBuf,
    /// Slides to explain
    #[arg(value_name = "SLIDE", required = true)]
    pub slides: Vec<PathBuf>,
    /// Layer for Grad-CAM, such as layer4; without it, the gradient of the image is shown
    #[arg(long, value_name = "NAME", help_heading = "Method")]
    pub layer: Option<String>,
    /// What is explained: a class by its name, or an output by its number from 0; without it, the last class
    #[arg(long, value_name = "CLASS", help_heading = "Method")]
    pub target: Option<String>,
    /// Edge of the cells that gradients of the image are means over, in pixels of the image
    #[arg(
        long,
        value_name = "PIXELS",
        default_value = "8",
        conflicts_with = "layer",
        help_heading = "Method"
    )]
    pub cell: NonZeroU64,
    /// Where outlines run: shares of the largest magnitude, above 0 and up to 1
    #[arg(
        long,
        value_name = "SHARE",
        value_delimiter = ',',
        default_values = ["0.25", "0.5", "0.75"],
        help_heading = "Output"
    )]
    pub thresholds: Vec<f32>,
    /// From where outlines count
    #[arg(
        long,
        value_enum,
        default_value = "qupath",
        value_name = "FRAME",
        help_heading = "Output"
    )]
    pub frame: Frame,
    /// How much the map covers the slide, from 0 to 1
    #[arg(
        long,
        value_name = "SHARE",
        default_value = "0.5",
        help_heading = "Output"
    )]
    pub opacity: f64,
    /// Folder to write into
    #[arg(long, value_name = "DIR", help_heading = "Output")]
    pub output: PathBuf,
    /// What predictions may take.
    #[command(flatten)]
    pub limits: LimitArguments,
}

/// From where outlines count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Frame {
    /// From the corner of the slide's bounds, as QuPath does by default
    Qupath,
    /// From the corner of level 0, as QuPath does with --no-crop
    Level0,
}
