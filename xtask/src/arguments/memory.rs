//! The command line of `cargo xtask reproduce memory`.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::Args;
use stream_grad_tiling::ByteCount;

/// Of `reproduce memory`.
#[derive(Debug, Args)]
pub struct MemoryArguments {
    /// Largest number of heap bytes that a step may hold, where it is not asked for the least
    #[arg(long, value_name = "BYTES", default_value = "1GiB")]
    pub memory: ByteCount,
    /// Number of threads; without it, all cores
    #[arg(long, value_name = "COUNT")]
    pub threads: Option<NonZeroUsize>,
    /// Folder for results; a second run with the same one goes on where the first stopped [default: runs/memory, or
    /// runs/memory-quick]
    #[arg(long, value_name = "DIR")]
    output: Option<PathBuf>,
    /// Small images and one network, to see that everything works
    #[arg(long)]
    pub quick: bool,
}

impl MemoryArguments {
    /// The folder for results.
    #[must_use]
    pub fn output(&self) -> PathBuf {
        let default = if self.quick {
            "runs/memory-quick"
        } else {
            "runs/memory"
        };
        self.output.clone().unwrap_or_else(|| default.into())
    }
}
