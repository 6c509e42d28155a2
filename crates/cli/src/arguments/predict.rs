//! The command line of `stream-grad predict`.

use std::path::PathBuf;

use clap::Args;

use super::LimitArguments;

/// Of `predict`.
#[derive(Debug, Args)]
#[command(after_help = "\
Each prediction is written as soon as it is known. After Ctrl-C or a crash the same command goes on; slides that could not be
read are named, left out, and tried again by the next call; the exit code is 3 then.

A model of --task segmentation writes, beside TABLE.csv, a folder TABLE with SLIDE.classes.tiff, a pyramid of the class of each pixel,
and SLIDE.geojson, outlines for QuPath.

Examples:
  stream-grad predict model.safetensors --folder new-slides --output predictions.csv
  stream-grad predict model.safetensors --csv cases.csv --slide-column file --output predictions.csv")]
pub struct PredictArguments {
    /// Model file that a training left
    #[arg(value_name = "MODEL")]
    pub model: PathBuf,
    /// Table of slides; its further columns are handed on
    #[arg(long, value_name = "FILE", help_heading = "Data")]
    pub csv: Option<PathBuf>,
    /// Folder of the slides, where --csv names them only; without --csv, all slides in it are predicted
    #[arg(
        long,
        value_name = "DIR",
        required_unless_present = "csv",
        help_heading = "Data"
    )]
    pub folder: Option<PathBuf>,
    /// Column with the slides' files
    #[arg(
        long,
        value_name = "NAME",
        default_value = "slide",
        help_heading = "Data"
    )]
    pub slide_column: String,
    /// What predictions may take.
    #[command(flatten)]
    pub limits: LimitArguments,
    /// Table to write
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    pub output: PathBuf,
}
