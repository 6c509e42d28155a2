//! What a trained model may take: shared by the commands that use a model file.

use clap::Args;
use stream_grad::ByteCount;

/// What predictions may take.
#[derive(Debug, Args)]
pub struct LimitArguments {
    /// Largest number of heap bytes that streaming may hold
    #[arg(
        long,
        value_name = "BYTES",
        default_value = "1GiB",
        help_heading = "Recipe"
    )]
    pub memory: ByteCount,
    /// Number of threads, at most four for each core; 0 for all cores
    #[arg(
        long,
        value_name = "COUNT",
        default_value = "0",
        help_heading = "Recipe"
    )]
    pub threads: usize,
}
