//! What the program `stream-grad` is made of, for it and for `cargo xtask`, which runs the experiments of the paper through the
//! same code.
//!
//! Without the feature `commands` there is what a command line needs before anything is computed: it compiles in seconds and
//! needs no system library.

#[cfg(feature = "commands")]
pub mod arguments;
#[cfg(feature = "commands")]
pub mod calibrate;
#[cfg(feature = "commands")]
pub mod completions;
#[cfg(feature = "commands")]
pub mod counting_allocator;
pub mod exit;
#[cfg(feature = "commands")]
pub mod heatmap;
pub mod image_size;
#[cfg(feature = "commands")]
pub mod init;
mod message;
#[cfg(feature = "commands")]
pub mod model;
#[cfg(feature = "commands")]
pub mod plan;
#[cfg(feature = "commands")]
pub mod predict;
#[cfg(feature = "commands")]
pub mod progress;
#[cfg(feature = "commands")]
pub mod report;
#[cfg(feature = "commands")]
pub mod resident_memory;
#[cfg(feature = "commands")]
pub mod settings;
#[cfg(feature = "commands")]
mod slide_input;
#[cfg(feature = "commands")]
pub mod stop;
#[cfg(feature = "commands")]
pub mod train;
#[cfg(feature = "commands")]
pub mod training;
#[cfg(feature = "commands")]
pub mod vjp;

pub use message::{message, tell};
