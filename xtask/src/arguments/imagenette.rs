//! The command line of `cargo xtask reproduce imagenette`.

use std::path::PathBuf;

use clap::Args;

/// Of `reproduce imagenette`.
#[derive(Debug, Args)]
pub struct ImagenetteArguments {
    /// Folder with Imagenette, such as imagenette2-320, or with other pictures as train/CLASS/* and val/CLASS/* of ten classes; without
    /// it, made-up textures are written and used
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// Settings as TOML; what is not in it is as by default
    #[arg(long, value_name = "FILE")]
    pub settings: Option<PathBuf>,
    /// Folder for results; a second run with the same one goes on where the first stopped [default: runs/imagenette, or
    /// runs/imagenette-quick]
    #[arg(long, value_name = "DIR")]
    output: Option<PathBuf>,
    /// Few textures and two epochs, to see that everything works: its figures mean nothing
    #[arg(long, conflicts_with_all = ["settings", "data"])]
    pub quick: bool,
}

impl ImagenetteArguments {
    /// The folder for results.
    #[must_use]
    pub fn output(&self) -> PathBuf {
        let default = if self.quick {
            "runs/imagenette-quick"
        } else {
            "runs/imagenette"
        };
        self.output.clone().unwrap_or_else(|| default.into())
    }
}
