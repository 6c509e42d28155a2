//! Receptive-field and tile mathematics for exact gradient streaming, in integers.
//!
//! A network is a [`Graph`] of local layers; each edge states, per axis, an [`AxisRule`]: how many outputs a
//! prefix of the input allows, and which inputs a span of outputs reads. From these two the crate derives
//! which tile *owns* which part of every node, what has to be carried from tile to tile, the size of
//! every buffer and the cost of a [`Recipe`], without touching a pixel.
//!
//! Coordinates are `i64` indices of a node's own plane, half-open spans throughout; areas, bytes and FLOPs are
//! `u128`. There are no floating-point numbers, tensors or files in this crate.

mod arena;
mod buffers;
mod bytes;
mod candidates;
mod cost;
mod error;
mod fraction;
mod graph;
mod keeping;
mod lifetimes;
mod memory;
mod overlap;
mod planner;
mod published;
mod receptive_field;
mod recipe;
mod rule;
mod saved;
mod schedule;
mod search;
mod span;
mod time;
mod transposed_window;
mod window;
mod work;

pub use arena::{ALIGNMENT, Lifetime, Placement, aligned, place};
pub use buffers::{Buffers, Place, Residual, Sweep};
pub use bytes::ByteCount;
pub use cost::{Cost, conventional_activation_bytes, conventional_flops};
pub use error::TilingError;
pub use fraction::Fraction;
pub use graph::{Edge, Graph, Node, NodeId, SizedGraph, VjpReads};
pub use memory::{
    FixedBytes, HeldMemory, LayerScratch, Maps, MemoryRequest, PeakBytes, PhaseBytes, file_bytes,
    peak_bytes,
};
pub use overlap::BlockOverlap;
pub use planner::{FrontPoint, Keep, Planned, PlannerRequest, pareto, plan};
pub use published::{PublishedBorders, PublishedCost};
pub use receptive_field::{LostBorder, ReceptiveField, strides};
pub use recipe::{Block, Geometry, MAX_BLOCKS, Recipe, Tile};
pub use rule::{AxisRule, Corners, LocalRule, bilinear_left_neighbour};
pub use saved::Storage;
pub use schedule::{AxisSchedule, MAX_BANDS};
pub use span::{Axis, PerAxis, Span};
pub use time::{NodeTime, Picoseconds, TileTime, TimeModel};
pub use transposed_window::TransposedWindow;
pub use window::{MAX_EXTENT, Window};
