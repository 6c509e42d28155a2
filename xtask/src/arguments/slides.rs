//! What the command lines of experiments on slides share.

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};

/// Of an experiment that trains on slides.
#[derive(Debug, Args)]
pub struct SlidesArguments {
    /// Folder with the data set in its published layout; without it and --csv, a made-up cohort is written and used
    #[arg(long, value_name = "DIR", conflicts_with = "csv")]
    pub data: Option<PathBuf>,
    /// Table of slides with the columns `slide`, `label` and, if wanted, `split`, `patient` and `microns_per_pixel`. Splits that
    /// are given stay, blank ones are drawn by patient, and a cross-validation takes none; a slide without a label is to be
    /// predicted; further columns are handed on to the predictions
    #[arg(long, value_name = "FILE")]
    pub csv: Option<PathBuf>,
    /// Settings as TOML; what is not in it is as by default
    #[arg(long, value_name = "FILE")]
    pub settings: Option<PathBuf>,
    /// Microns per pixel of slides that state none, or a wrong number
    #[arg(long, value_name = "MICRONS")]
    pub slide_mpp: Option<f64>,
    /// Type that activations and their gradients are stored as; without it, that of the settings
    #[arg(long, value_enum, value_name = "TYPE")]
    pub dtype: Option<TrainedType>,
    /// Folder for a file of what does not fit in the memory of the settings
    #[arg(long, value_name = "DIR")]
    pub offload: Option<PathBuf>,
    /// Folder for results; a second run with the same one goes on where the first stopped [default: runs/ and the experiment's
    /// name, and -quick after it]
    #[arg(long, value_name = "DIR")]
    output: Option<PathBuf>,
    /// A run of a minute or two on few slides, to see that everything works: its figures mean nothing
    #[arg(long, conflicts_with = "settings")]
    pub quick: bool,
}

/// Type that a trained network's activations are stored as; its weights are f32.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum TrainedType {
    /// Single precision
    F32,
    /// Two bytes; arithmetic is f32
    Bf16,
}

impl SlidesArguments {
    /// The folder for results of the experiment `name`.
    pub(super) fn output(&self, name: &str) -> PathBuf {
        let default = || {
            let rehearsal = if self.quick { "-quick" } else { "" };
            Path::new("runs").join(format!("{name}{rehearsal}"))
        };
        self.output.clone().unwrap_or_else(default)
    }
}
