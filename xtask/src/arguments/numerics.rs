//! The command line of `cargo xtask reproduce numerics`.

use std::num::NonZeroU64;
use std::path::PathBuf;

use clap::Args;

/// Of `reproduce numerics`.
#[derive(Debug, Args)]
pub struct NumericsArguments {
    /// Edge of the square image in pixels
    #[arg(long, value_name = "PIXELS", default_value = "1024")]
    pub image: NonZeroU64,
    /// Edge of a tile in pixels
    #[arg(long, value_name = "PIXELS", default_value = "512")]
    pub tile: NonZeroU64,
    /// Seed of image, weights and cotangent
    #[arg(long, default_value = "0")]
    pub seed: u64,
    /// Folder for results
    #[arg(long, value_name = "DIR", default_value = "runs/numerics")]
    pub output: PathBuf,
}
