//! Ctrl-C: the first asks for an end at a place from which the work can go on, the second ends at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context;

use crate::exit::STOPPED;
use crate::tell;

/// A flag that Ctrl-C sets, and so do the signals by which systems end programs.
///
/// # Errors
/// If the system does not let signals be handled, or they are handled already.
pub fn on_ctrl_c() -> anyhow::Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    let handler = Arc::clone(&stop);
    ctrlc::set_handler(move || {
        if handler.swap(true, Ordering::Relaxed) {
            // What is on disk is whole at any moment.
            std::process::exit(i32::from(STOPPED));
        }
        tell("\nstopping at the next place to go on from; Ctrl-C again stops at once");
    })
    .context("catching Ctrl-C")?;
    Ok(stop)
}
