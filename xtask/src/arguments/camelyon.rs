//! The command line of `cargo xtask reproduce camelyon`.

use std::path::PathBuf;

use clap::Args;

use super::SlidesArguments;

/// Of `reproduce camelyon`.
#[derive(Debug, Args)]
pub struct CamelyonArguments {
    /// Slides, settings and results.
    #[command(flatten)]
    pub slides: SlidesArguments,
}

impl CamelyonArguments {
    /// The folder for results.
    #[must_use]
    pub fn output(&self) -> PathBuf {
        self.slides.output("camelyon")
    }
}
