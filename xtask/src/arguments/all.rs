//! The command line of `cargo xtask reproduce all`.

use std::path::PathBuf;

use clap::Args;

/// Of `reproduce all`.
#[derive(Debug, Args)]
pub struct AllArguments {
    /// Folder for results, with a folder for each experiment and a page that links their reports; a second run with the same one
    /// goes on where the first stopped [default: runs, or runs/quick]
    #[arg(long, value_name = "DIR")]
    output: Option<PathBuf>,
    /// Every experiment with little of everything, to see that all works: the figures mean nothing
    #[arg(long)]
    pub quick: bool,
}

impl AllArguments {
    /// The folder for results.
    #[must_use]
    pub fn output(&self) -> PathBuf {
        let default = if self.quick { "runs/quick" } else { "runs" };
        self.output.clone().unwrap_or_else(|| default.into())
    }
}
