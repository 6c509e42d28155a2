//! The command line of `cargo xtask compare`.

use std::num::{NonZeroU64, NonZeroUsize};
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use stream_grad_cli::image_size::ImageSize;

/// Of `compare`.
#[derive(Debug, Args)]
pub struct CompareArguments {
    /// The network: a ResNet (resnet18, resnet34, resnet50), or a ConvNeXt or MobileNetV2, which lightstream is not run with; of other
    /// known ones, this project's runs alone
    #[arg(long, value_name = "NAME", default_value = "resnet18")]
    pub model: String,
    /// Extent of the image in pixels, HEIGHTxWIDTH
    #[arg(long, value_name = "SIZE", default_value = "2048x2048")]
    pub image: ImageSize,
    /// How often each is run; medians are shown
    #[arg(long, value_name = "COUNT", default_value = "3")]
    pub repeats: NonZeroUsize,
    /// Number of threads for all; without it, all cores
    #[arg(long, value_name = "COUNT")]
    pub threads: Option<NonZeroUsize>,
    /// Edges of the tiles with which this project runs without keeping anything
    #[arg(long = "tile", value_name = "PIXELS", default_values = ["512", "1024"], value_delimiter = ',')]
    pub tiles: Vec<NonZeroU64>,
    /// Edge of lightstream's tiles; of ResNet-18's it loses 490 pixels on each side
    #[arg(long, value_name = "PIXELS", default_value = "1920")]
    pub lightstream_tile: NonZeroU64,
    /// Folder for results; a second run with the same one goes on where the first stopped
    #[arg(long, value_name = "DIR", default_value = "runs/compare")]
    pub output: PathBuf,
    /// What to leave out
    #[arg(long, value_enum, value_name = "WHAT", value_delimiter = ',')]
    pub skip: Vec<Skip>,
    /// A Python that has the packages of crates/bench/peers/requirements.txt; without it, an environment is made
    #[arg(long, value_name = "FILE")]
    pub python: Option<PathBuf>,
    /// Measures everything that this project has set itself as a target, target and measured side by side; takes hours
    #[arg(long, conflicts_with_all = ["model", "image", "tiles", "lightstream_tile"])]
    pub table: bool,
    /// Compares an epoch of training on slides with PyTorch's, in place of a step; of the others, `image` (the slides' size),
    /// `model`, `repeats`, `threads`, `output`, `python` and `quick` count
    #[arg(long, conflicts_with_all = ["table", "tiles", "lightstream_tile"])]
    pub train: bool,
    /// Number of slides that are trained on
    #[arg(long, value_name = "COUNT", default_value = "16", requires = "train")]
    pub slides: NonZeroUsize,
    /// A rehearsal with small images, each run once: its figures mean nothing
    #[arg(long, conflicts_with_all = ["image", "repeats"])]
    pub quick: bool,
}

impl CompareArguments {
    /// How often each is run; once in a rehearsal.
    #[must_use]
    pub fn repeats(&self) -> usize {
        if self.quick { 1 } else { self.repeats.get() }
    }
}

/// A part of the comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Skip {
    /// PyTorch in its default layout
    Pytorch,
    /// PyTorch in the layout `channels_last`
    ChannelsLast,
    /// PyTorch with checkpointing
    Checkpoint,
    /// lightstream
    Lightstream,
    /// Everything in bf16
    Bf16,
    /// Gradient errors against f64
    Error,
    /// Everything that needs Python
    Python,
}
