//! What a trained model may take: shared by the commands that use a model file.

use clap::Args;
use stream_grad::ByteCount;
use stream_grad_train::model::Precision;
use stream_grad_train::model_file::Limits;

use super::TrainedType;

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
    /// Type that activations are stored as; without it, that of the training
    #[arg(long, value_enum, value_name = "TYPE", help_heading = "Recipe")]
    pub dtype: Option<TrainedType>,
}

impl LimitArguments {
    /// As model files take them.
    #[must_use]
    pub fn of_model(&self) -> Limits {
        Limits {
            precision: self.dtype.map(Precision::from),
            ..Limits::new(self.memory.get(), self.threads)
        }
    }
}
