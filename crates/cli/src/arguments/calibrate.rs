//! The command line of `stream-grad calibrate`.

use std::num::NonZeroUsize;

use clap::Args;

use super::FloatType;

/// Of `calibrate`.
#[derive(Debug, Args)]
pub struct CalibrateArguments {
    /// The network: resnet18, resnet34, resnet50, numerics, imagenette or another known one
    #[arg(long, value_name = "NAME", default_value = "resnet18")]
    pub model: String,
    /// Type that pixels, activations and their gradients are stored as
    #[arg(long, value_enum, default_value = "f32", value_name = "TYPE")]
    pub dtype: FloatType,
    /// Number of threads, at most four for each core; without it, all cores
    #[arg(long, value_name = "COUNT")]
    pub threads: Option<NonZeroUsize>,
}
