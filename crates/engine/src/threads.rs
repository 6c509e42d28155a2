//! How many threads are let to work.

use std::num::NonZeroUsize;

use crate::error::{Result, StreamError};

/// The most threads for each core that anything here starts.
///
/// Work is computation, so more threads than cores gain nothing; four for each are room for comparisons. Thousands take
/// minutes to start and to stop.
pub const THREADS_PER_CORE: usize = 4;

/// Cores that this process may use, at least one.
#[must_use]
pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, NonZeroUsize::get)
}

/// Refuses more than [`THREADS_PER_CORE`] threads for each core; 0 stands for as many as there are cores.
///
/// ```
/// let cores = stream_grad_engine::cores();
/// assert!(stream_grad_engine::check_threads(0).is_ok() && stream_grad_engine::check_threads(4 * cores).is_ok());
/// let error = stream_grad_engine::check_threads(4 * cores + 1).unwrap_err();
/// assert!(error.to_string().contains(&format!("at most {}", 4 * cores)));
/// ```
///
/// # Errors
/// [`StreamError::TooManyThreads`], with both numbers.
pub fn check_threads(threads: usize) -> Result<()> {
    let cores = cores();
    let most = cores.saturating_mul(THREADS_PER_CORE);
    if threads > most {
        return Err(StreamError::TooManyThreads {
            threads,
            cores,
            most,
        });
    }
    Ok(())
}
