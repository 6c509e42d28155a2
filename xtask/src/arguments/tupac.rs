//! The command line of `cargo xtask reproduce tupac`.

use std::path::PathBuf;

use clap::Args;

use super::SlidesArguments;

/// Of `reproduce tupac`.
#[derive(Debug, Args)]
pub struct TupacArguments {
    /// Slides, settings and results.
    #[command(flatten)]
    pub slides: SlidesArguments,
}

impl TupacArguments {
    /// The folder for results.
    #[must_use]
    pub fn output(&self) -> PathBuf {
        self.slides.output("tupac")
    }
}
