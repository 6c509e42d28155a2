//! Receptive-field and tile mathematics for exact gradient streaming, in integers.
//!
//! A network is a [`Graph`] of local layers; each edge states, per axis, an [`AxisRule`]: how many outputs a
//! prefix of the input allows, and which inputs a span of outputs reads. From these two the crate derives
//! which tile *owns* which part of every node, what has to be carried from tile to tile, the size of
//! every buffer and the cost of a [`Recipe`], without touching a pixel.
//!
//! Coordinates are `i64` indices of a node's own plane, half-open spans throughout; areas, bytes and FLOPs are
//! `u128`. There are no floating-point numbers, tensors or files in this crate.
//!
//! # Definitions
//! The axes are independent, so let everything be one axis. Node `v` has `N_v` positions. Its edge from `u` has a rule: `prefix(a)` is
//! the number of leading outputs that the first `a` of the `N_u` inputs allow, and `needed(o)` the inputs that output `o` reads. A
//! rule keeps three promises:
//!
//! 1. `prefix` does not fall, and `prefix(N_u) = N_v`;
//! 2. what `o < prefix(a)` reads of `[0, N_u)` lies in `[0, a)`;
//! 3. the ends of `needed` do not fall as `o` rises.
//!
//! What a rule needs outside `[0, N_u)` is padding: a constant of the layer, which nobody owns.
//!
//! The image is cut at `0 = R_0 < R_1 < ... < R_B = N`, anywhere. A cut is pushed through the graph: `f(R)` is `R` at the image, and at a
//! node the least of `prefix(f_u(R))` over its inputs `u`; `f(0)` is 0 everywhere. **Tile `i` owns, at node `v`, the span
//! `[f_v(R_i), f_v(R_i+1))`**; in two axes tile `(i, j)` owns the product of a span of rows and one of columns.
//!
//! # Theorem
//! For any graph of such layers, and any cuts:
//!
//! 1. *Partition.* Every position of every node is owned by exactly one tile.
//! 2. *Forward.* With tiles in raster order, everything that an owned position reads is padding, or is owned by this tile or by one
//!    before it.
//! 3. *Backward.* With tiles in reverse raster order, and in each tile nodes in reverse order, the cotangent of what a tile owns is
//!    complete when the tile gets to it: nobody adds to it later.
//! 4. *Gradients.* So the sum over tiles of what each adds to the gradient of a parameter, or of the image, is the gradient of the
//!    whole image: the same terms, in another order.
//!
//! *Proof.* (1) `f_v` does not fall in `R`: at the image it is `R`, and elsewhere the least of functions that do not fall, of
//! functions that do not fall (promise 1, along the graph). `f_v(R_0) = 0` and `f_v(R_B) = N_v`. So the spans of tiles follow one another
//! from 0 to `N_v`, without gap or overlap; some may be empty.
//!
//! (2) Let tile `i` own output `o` of `v`. Then `o < f_v(R_i+1) <= prefix(f_u(R_i+1))` for each input `u`, so by promise 2 what `o`
//! reads of `u` lies in `[0, f_u(R_i+1))`, which by (1) is what tiles `0` to `i` own. In two axes: what a position of tile `(i, j)` reads
//! is owned by tiles `(i', j')` with `i' <= i` and `j' <= j`, and raster order has these first.
//!
//! (3) What adds to the cotangent of a position of tile `(i, j)` is the VJP of positions that read it. By (2) these are owned by tiles
//! `(i', j')` with `i' >= i` and `j' >= j`: by tiles that reverse order has first, or by this one, at later nodes, which it has first.
//!
//! (4) A parameter's gradient is a sum over the positions of its node, of terms that depend on the cotangent there and on what the
//! position reads. By (1) each term is added once, and by (2) and (3) with the values that the whole image gives. The same holds for
//! the image's own cotangent. ∎
//!
//! What has to be held between tiles follows: of node `u` in front of band `i`, the positions from
//! `keep_lo = min over readers v of the first input that [f_v(R_i), N_v) needs` to `f_u(R_i)`. By promise 3 that is all that tiles from band
//! `i` on read of earlier ones. These strips are the *halos*: carried to the right and down in the forward sweep, and their cotangents
//! to the left and up in the backward sweep.
//!
//! *Blocks* are a second partition, of the outputs alone: a VJP is linear in the cotangent, so gradients may be summed over any partition
//! of it. Each block is an image of its own, the part that its outputs depend on.
//!
//! # An example by hand
//! Two 3 x 3 convolutions with padding 1 and weights of ones, along one axis: `y[o] = x[o-1] + x[o] + x[o+1]`, and `z` of `y` likewise.
//! The image has 6 pixels and is cut at 4.
//!
//! | node | pushed cut | tile 0 owns | tile 1 owns | carried to tile 1 |
//! |---|---|---|---|---|
//! | `x` | 4 | 1 2 3 4 | 5 6 | `x[2..4]`: 3 4 |
//! | `y` | `prefix(4) = 3` | 3 6 9 | 12 15 11 | `y[1..3]`: 6 9 |
//! | `z` | `prefix(3) = 2` | 9 18 | 27 36 38 26 | |
//!
//! Back, with a cotangent of ones at `z`. Tile 1 first: its four outputs give `y` the cotangents `[1, 2, 3, 3, 2]` from `y[1]` on. It
//! owns `y[3..6]`, whose `[3, 3, 2]` are complete, and hands `[1, 2]` back to tile 0. These three give `x`, from `x[2]` on, `[3, 6, 8, 5]`: its
//! own `[8, 5]` and, handed back, `[3, 6]`. Tile 0 then adds what its two outputs give, `[2, 2, 1]`, to `[0, 1, 2]`: `[2, 3, 3]`, and so on.
//! The weight of the middle tap of the second convolution gets `12 + 15 + 11 + 9` from tile 1 and `3 + 6` from tile 0: 56, the sum of `y`.
//!
//! ```
//! use stream_grad_tiling::{Span, Window};
//!
//! let window = Window::new(3, 1, 1, 1, 1)?;
//! let (size, cut) = (6_usize, 4_i64);
//! let x = [1, 2, 3, 4, 5, 6];
//! // The two rules are all that a sweep needs to know.
//! let cut_y = window.prefix(cut, 6);
//! let cut_z = window.prefix(cut_y, 6);
//! assert_eq!((cut_y, cut_z), (3, 2));
//! let keep = |outputs: i64| window.needed(Span::new(outputs, 6)).lo.max(0);
//! assert_eq!((keep(cut_y), keep(cut_z)), (2, 1));
//!
//! let at = |values: &[i32], place: i64| usize::try_from(place).ok().and_then(|place| values.get(place)).copied().unwrap_or(0);
//! let sum = |values: &[i32], o: i64| (o - 1..=o + 1).map(|place| at(values, place)).sum::<i32>();
//! let whole: Vec<i32> = (0..6).map(|o| sum(&x, o)).collect();
//! assert_eq!(whole, [3, 6, 9, 12, 15, 11]);
//!
//! // Backward, tile by tile: the last one first.
//! let (mut y_bar, mut x_bar, mut middle_tap) = (vec![0; size], vec![0; size], 0);
//! let spread = |bars: &mut Vec<i32>, o: i64, value: i32| {
//!     for place in o - 1..=o + 1 {
//!         if let Some(bar) = usize::try_from(place).ok().and_then(|place| bars.get_mut(place)) {
//!             *bar += value;
//!         }
//!     }
//! };
//! for (z_owned, y_owned) in [(cut_z..6, cut_y..6), (0..cut_z, 0..cut_y)] {
//!     for o in z_owned {
//!         spread(&mut y_bar, o, 1);
//!         middle_tap += at(&whole, o);
//!     }
//!     for o in y_owned {
//!         // Complete by now, though tile 0 has not been there.
//!         let complete = at(&y_bar, o);
//!         spread(&mut x_bar, o, complete);
//!     }
//! }
//! assert_eq!(y_bar, [2, 3, 3, 3, 3, 2]);
//! assert_eq!(x_bar, [5, 8, 9, 9, 8, 5]);
//! assert_eq!(middle_tap, 56);
//! # Ok::<(), stream_grad_tiling::TilingError>(())
//! ```

mod arena;
mod buffers;
mod bytes;
mod candidates;
mod cost;
mod error;
mod fraction;
mod geometry;
mod graph;
mod lifetimes;
mod memory;
mod overlap;
mod packed;
mod planner;
mod published;
mod receptive_field;
mod recipe;
#[cfg(feature = "serde")]
mod recipe_file;
mod rect;
mod rule;
mod saved;
mod schedule;
mod search;
mod span;
mod storing;
mod templates;
mod tile_classes;
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
pub use geometry::{Block, Geometry, MAX_BLOCKS, Tile};
pub use graph::{Edge, Graph, Node, NodeId, Shifts, SizedGraph, VjpReads};
pub use memory::{
    FixedBytes, HeldMemory, LayerScratch, Maps, MemoryRequest, PeakBytes, PhaseBytes, file_bytes,
    peak_bytes,
};
pub use overlap::BlockOverlap;
pub use packed::PackedWeights;
pub use planner::{FrontPoint, Planned, PlannerRequest, Store, pareto, plan};
pub use published::{PublishedBorders, PublishedCost};
pub use receptive_field::{LostBorder, ReceptiveField, strides};
pub use recipe::{Recipe, Reuse, Weights};
pub use rect::Rect;
pub use rule::{AlignCorners, AxisRule, LocalRule, bilinear_left_neighbour};
pub use saved::Storage;
pub use schedule::{AxisSchedule, MAX_BANDS};
pub use span::{Axis, PerAxis, Span};
pub use templates::{
    BackwardPieces, BackwardTemplate, ForwardPieces, ForwardTemplate, MOST_TEMPLATES, Piece,
    Templates,
};
pub use tile_classes::{TileClass, TileClasses};
pub use time::{NodeTime, Picoseconds, TileTime, TimeModel};
pub use transposed_window::TransposedWindow;
pub use window::{MAX_EXTENT, Window};
