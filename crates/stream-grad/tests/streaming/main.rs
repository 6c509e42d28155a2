//! What streaming promises, from outside.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod fusing;
mod golden;
mod local_layers;
mod merging;
mod networks;
mod offloading;
mod promises;
mod random_graphs;
mod reads;
mod refusals;
mod reuse;
mod rounded;
mod taps;
mod weights;
mod winograd;
mod workspace;
