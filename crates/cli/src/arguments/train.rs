//! The command line of `stream-grad train`.

use std::path::{Path, PathBuf};

use clap::Args;

use super::SettingsArguments;

/// Of `train`.
#[derive(Debug, Args)]
#[command(after_help = "\
The folder of results holds everything that the training needs to go on: after Ctrl-C, a crash or a power cut the same
command continues where it stopped.

Examples:
  stream-grad init && stream-grad train run.toml
  stream-grad train run.toml --epochs 40 --output runs/longer
  stream-grad train --csv slides.csv --task binary --mpp 2,1 --model resnet18 --memory 8GiB --offload /scratch
  stream-grad train --csv cases.csv --slide-column file --label-column grade --patient-column case --task ordinal --classes 1,2,3
  stream-grad train --csv masks.csv --mask-column mask --task segmentation --classes background,tumour --model unet_resnet18-2")]
pub struct TrainArguments {
    /// Settings, as `stream-grad init` writes them; flags go before what is in the file
    #[arg(value_name = "RUN.TOML")]
    pub file: Option<PathBuf>,
    /// Settings.
    #[command(flatten)]
    pub settings: SettingsArguments,
    /// Folder for results [default: runs/NAME, of NAME.toml, NAME.csv or the folder NAME]
    #[arg(long, value_name = "DIR", help_heading = "Output")]
    output: Option<PathBuf>,
}

impl TrainArguments {
    /// The folder for results; `None` where nothing is given that it could be named after.
    #[must_use]
    pub fn output(&self) -> Option<PathBuf> {
        let SettingsArguments { csv, folder, .. } = &self.settings;
        let after = || {
            let named = [&self.file, csv, folder];
            let name = named.into_iter().flatten().next()?;
            Some(Path::new("runs").join(name.file_stem()?))
        };
        self.output.clone().or_else(after)
    }
}
