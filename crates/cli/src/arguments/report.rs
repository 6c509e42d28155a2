//! The command line of `stream-grad report`.

use std::path::PathBuf;

use clap::Args;

/// Of `report`.
#[derive(Debug, Args)]
#[command(after_help = "\
A training that has not ended has a report of what there is.

Example:
  stream-grad report runs/run")]
pub struct ReportArguments {
    /// Folder of results that a training left
    #[arg(value_name = "FOLDER")]
    pub folder: PathBuf,
}
