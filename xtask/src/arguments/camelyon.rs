//! The command line of `cargo xtask reproduce camelyon`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::SlidesArguments;

/// Of `reproduce camelyon`.
#[derive(Debug, Args)]
pub struct CamelyonArguments {
    /// Slides, settings and results.
    #[command(flatten)]
    pub slides: SlidesArguments,
    /// Classes of slides: 2 (negative, metastasis) or 4 (negative, itc, micro, macro), of which the stages of patients follow. Without
    /// it, what the data set has, or 2
    #[arg(long, value_enum)]
    pub classes: Option<SlideClasses>,
    /// How large slides and network are
    #[arg(long, value_enum, default_value_t, conflicts_with = "quick")]
    pub scale: Scale,
    /// Slides of the made-up cohort: three fifths to learn from, the others to test on [default: 520, of which 40 are for validation;
    /// with --scale paper 40]
    #[arg(long = "slides", value_name = "COUNT", conflicts_with_all = ["data", "csv"])]
    pub slide_count: Option<usize>,
    /// Passes over the slides to learn from [default: 20; with --scale paper 3]
    #[arg(long, value_name = "COUNT")]
    pub epochs: Option<u64>,
}

/// Which classes slides have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum SlideClasses {
    /// negative, metastasis
    #[value(name = "2")]
    Two,
    /// negative, itc, micro, macro
    #[value(name = "4")]
    Four,
}

/// How large slides and network are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum Scale {
    /// Images of up to 0.26 megapixels and a network of a few layers: minutes
    #[default]
    Small,
    /// Images of 2048, 4096 and 8192 pixels edge and ResNet-18, as published: hours; time, memory and disk are predicted first
    Paper,
}

impl CamelyonArguments {
    /// The folder for results.
    #[must_use]
    pub fn output(&self) -> PathBuf {
        let classes = match self.classes {
            Some(SlideClasses::Four) => "-4-classes",
            Some(SlideClasses::Two) | None => "",
        };
        let scale = match self.scale {
            Scale::Paper => "-paper",
            Scale::Small => "",
        };
        self.slides.output(&format!("camelyon{classes}{scale}"))
    }
}
