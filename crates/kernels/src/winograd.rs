//! Winograd's F(2 x 2, 3 x 3): 3 x 3 convolutions of stride 1 with 16 products for each 2 x 2 outputs instead of 36.
//!
//! An output tile `Y` is `A^E [(G g G^E) . (B^E d B)] A`, where `g` are the weights between two channels and `d` is the 4 x 4
//! patch of the input under the tile; the products `.` are summed over input channels, which makes 16 matrix products. An
//! output's value is one sum in one order of the values under its own window, for its place in its tile: `B^E` and `A^E` are
//! such that what else is in the patch never reaches it, NaN included. So results depend on where the tiles' grid lies, and
//! on nothing else of how the plane is cut.
//!
//! Lavin and Gray, "Fast algorithms for convolutional neural networks", CVPR 2016.

pub(crate) mod forward;
mod inverse;
pub(crate) mod patches;
mod patching;
mod products;
pub(crate) mod weight_gradient;

pub(crate) use forward::{Tiled, TiledGather};
pub(crate) use inverse::original_weights;
pub(crate) use weight_gradient::{scratch_len as weight_gradient_scratch_len, weight_gradient};

use std::ops::Range;

use crate::stack::ALIGNMENT;
use crate::{Arithmetic, Convolution, Storage};

/// Edge of a tile of outputs.
const TILE: usize = 2;

/// Edge of the patch of inputs under a tile.
const PATCH: usize = 4;

/// Products of a tile for each pair of channels.
const PRODUCTS: usize = PATCH * PATCH;

/// Rows and columns of a transformed kernel.
pub(crate) const WEIGHTS: [usize; 2] = [PATCH, PATCH];

impl Convolution {
    /// Whether Winograd's F(2 x 2, 3 x 3) computes it, by a rule on the shape alone: 3 x 3 taps, stride and dilation 1, one
    /// group, and enough channels on both sides.
    ///
    /// It does 16 products where the direct sum does 36, and rounds more: its error is up to three times that of direct
    /// arithmetic. Values so large that sums of four of them overflow become infinite or NaN earlier.
    #[must_use]
    pub fn is_winograd(&self) -> bool {
        self.arithmetic == Arithmetic::Auto && applies(self)
    }
}

/// One axis of a grid of tiles over a part of a plane.
#[derive(Debug, Clone, Copy)]
struct TileAxis {
    /// Positions of the first tile that lie before the part.
    before: usize,
    /// Positions of the part.
    positions: usize,
    /// Source position of the first tile's patch.
    source: isize,
    /// Source positions that exist; others are zero.
    low: isize,
    high: isize,
}

impl TileAxis {
    fn tiles(&self) -> usize {
        (self.before + self.positions).div_ceil(TILE)
    }

    /// The position of the part that has place `place` in a tile, if it has one.
    #[inline(always)]
    fn position(&self, tile: usize, place: usize) -> Option<usize> {
        (TILE * tile + place)
            .checked_sub(self.before)
            .filter(|&position| position < self.positions)
    }

    #[inline(always)]
    #[expect(clippy::cast_possible_wrap, reason = "a tile of a part of a buffer")]
    fn patch(&self, tile: usize) -> isize {
        self.source + (TILE * tile) as isize
    }

    #[inline(always)]
    fn holds(&self, position: isize) -> bool {
        position >= self.low && position < self.high
    }
}

/// A grid of tiles, counted in raster order.
#[derive(Debug, Clone, Copy)]
struct Grid {
    rows: TileAxis,
    columns: TileAxis,
}

impl Grid {
    fn tiles(&self) -> usize {
        self.rows.tiles() * self.columns.tiles()
    }

    /// The row of a tile and its place in it.
    #[inline(always)]
    fn place(&self, tile: usize) -> (usize, usize) {
        let width = self.columns.tiles();
        (tile / width, tile % width)
    }

    /// The row and column, and the length, of the first row of `count` tiles from `tile` on.
    #[inline(always)]
    fn first_run(&self, tile: usize, count: usize) -> ([usize; 2], usize) {
        let (row, column) = self.place(tile);
        ([row, column], count.min(self.columns.tiles() - column))
    }

    /// Where the patch of the tile in a row and column begins: at 0 where that is before the source.
    #[inline(always)]
    fn patch(&self, [row, column]: [usize; 2]) -> [usize; 2] {
        [self.rows.patch(row), self.columns.patch(column)].map(|at| at.max(0).unsigned_abs())
    }

    /// Rows of tiles, and the tiles of each, that make up `tiles`.
    #[inline(always)]
    fn runs(&self, tiles: Range<usize>) -> impl Iterator<Item = (usize, Range<usize>)> + use<> {
        let grid = *self;
        let mut next = tiles.start;
        std::iter::from_fn(move || {
            let ([row, column], count) = grid.first_run(next, tiles.end - next);
            next += count;
            (count > 0).then_some((row, column..column + count))
        })
    }
}

/// How transformed values lie in memory: `[product][tile][channel]`, with channels filled up to whole registers; or, where tiles are
/// summed over, `[product][step][channel][tile of the step]`.
#[derive(Debug, Clone, Copy)]
struct Transformed {
    /// From one product to the next.
    product_step: usize,
    /// From one tile to the next.
    tile_step: usize,
}

impl Transformed {
    /// Values that keep products from lying a multiple of a power of two apart, which would map them all to the same few sets
    /// of the caches.
    const PADDING: usize = 16;

    const fn new(tiles: usize, channels: usize) -> Self {
        let tile_step = channels.div_ceil(ALIGNMENT).saturating_mul(ALIGNMENT);
        let product_step = tiles.saturating_mul(tile_step);
        Self {
            product_step: product_step.saturating_add(Self::PADDING),
            tile_step,
        }
    }

    /// Where the values of a tile from a channel on begin, and as which term of a step, if tiles lie in `steps`.
    #[inline(always)]
    fn place<E: Storage>(&self, tile: usize, channel: usize, steps: bool) -> (usize, usize) {
        if steps && E::TERMS > 1 {
            let first = tile / E::TERMS * E::TERMS * self.tile_step;
            (first + channel * E::TERMS, tile % E::TERMS)
        } else {
            (tile * self.tile_step + channel, 0)
        }
    }

    /// Values from the first tile's first product to the last tile's last, in this layout.
    const fn reach(&self, tiles: usize) -> usize {
        (PRODUCTS - 1) * self.product_step + tiles * self.tile_step
    }

    /// Values of all products of some tiles.
    const fn values(tiles: usize, channels: usize) -> usize {
        PRODUCTS.saturating_mul(Self::new(tiles, channels).product_step)
    }
}

/// Fewest channels, in and out, from which on Winograd's convolution is chosen.
const FEWEST_CHANNELS: usize = 32;

/// Whether a convolution is computed by tiles: a rule on its shape alone, so that the same network always does the same
/// arithmetic.
pub(crate) fn applies(convolution: &Convolution) -> bool {
    let window = convolution.window;
    window.kernel == [3, 3]
        && window.stride == [1, 1]
        && window.dilation == [1, 1]
        && convolution.groups == 1
        && convolution.in_channels.min(convolution.out_channels) >= FEWEST_CHANNELS
}

/// `G g G^E` of kernels that lie side by side, in double precision: their taps, and their products.
#[inline(always)]
pub(crate) fn transform_weights<const LANES: usize>(
    taps: &[[[f64; LANES]; 3]; 3],
) -> [[[f64; LANES]; PATCH]; PATCH] {
    // `G` times three values. Arrays are borrowed: `map` copies such large ones, each time.
    #[inline(always)]
    fn spread<const LANES: usize>([a, b, c]: [&[f64; LANES]; 3]) -> [[f64; LANES]; PATCH] {
        let mut values = [*a, [0.0; LANES], [0.0; LANES], *c];
        for lane in 0..LANES {
            let (outer, middle) = (a[lane] + c[lane], b[lane]);
            values[1][lane] = 0.5 * (outer + middle);
            values[2][lane] = 0.5 * (outer - middle);
        }
        values
    }

    let mut by_column = [[[0.0; LANES]; PATCH]; 3];
    for (values, [a, b, c]) in by_column.iter_mut().zip(taps) {
        *values = spread([a, b, c]);
    }
    let [first, second, third] = &by_column;
    let mut products = [[[0.0; LANES]; PATCH]; PATCH];
    for column in 0..PATCH {
        let values = spread([&first[column], &second[column], &third[column]]);
        for (row, values) in values.into_iter().enumerate() {
            products[row][column] = values;
        }
    }
    products
}

/// Values of scratch that forward pass and data gradient need.
pub(crate) fn scratch_len<E: Storage>(convolution: &Convolution) -> usize {
    if convolution.is_winograd() {
        patching::scratch_len::<E>(convolution.in_channels)
            .max(patching::scratch_len::<E>(convolution.out_channels))
    } else {
        0
    }
}
