//! The command line of `stream-grad init`.

use std::path::PathBuf;

use clap::Args;

use super::SettingsArguments;

/// Of `init`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  stream-grad init
  stream-grad init --csv slides.csv --label-column diagnosis --task classification --classes benign,atypical,malignant")]
pub struct InitArguments {
    /// File to write; one that is there stays as it is, and that is an error
    #[arg(value_name = "FILE", default_value = "run.toml")]
    pub file: PathBuf,
    /// Settings.
    #[command(flatten)]
    pub settings: SettingsArguments,
}
