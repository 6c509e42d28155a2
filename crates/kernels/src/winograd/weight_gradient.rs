//! The weight gradient by tiles, F(3 x 3, 2 x 2): `G^E [(A dY A^E) . (B^E d B)] G`, with the products summed over tiles.
//!
//! A task takes a block of input and output channels through the tiles of a strip: it transforms their patches and cotangents
//! for itself, a few tiles at a time, so that everything it multiplies and sums stays in its core's caches. Patches are
//! transformed once for each block of output channels, which costs less than fetching them from another core.

use std::ops::Range;

use pulp::Simd;

use super::patches::{Source, transform};
use super::{Grid, PATCH, PRODUCTS, TILE, TileAxis, Transformed};
use crate::bounds::holds;
use crate::element::sealed::{
    Family, Register, Stored, Vectors, for_each_number, lanes, load, load_some, zero,
};
use crate::integers::signed;
use crate::prefetch::Ahead;
use crate::stack::Stack;
use crate::weight_gradient::cut::{
    Blocked, COLUMNS, Cut, Destination, Place, Summed, Target, Task, columns, scratch_for, slots,
};
use crate::weight_gradient::operands::Operands;
use crate::weight_gradient::product::{Extent, Rows, Sums, multiply};
use crate::{Convolution, Element, Storage, View};

/// Bytes of a block's input channels: one value of each.
const ROW_BYTES: usize = 256;

/// Taps of the gradient.
const TAPS: usize = 9;

/// Bytes of a chunk's tiles: one value of each.
const CHUNK_BYTES: usize = 128;

/// Input channels that are multiplied between fetches of what the next chunk reads: a multiple of the micro-kernel's rows, and few
/// enough for the processor to have the lines under way.
const ROWS_BETWEEN_FETCHES: usize = 12;

/// Chunks of the longest sum in the element's own precision.
const STRIP_CHUNKS: usize = 32;

/// Input channels of a block.
const fn block_rows<E: Storage>() -> usize {
    ROW_BYTES / size_of::<E::Compute>()
}

/// Tiles that are transformed at a time.
const fn chunk_tiles<E: Storage>() -> usize {
    CHUNK_BYTES / size_of::<E>()
}

/// Sums of a block.
const fn block_values<E: Storage>() -> usize {
    TAPS * block_rows::<E>() * COLUMNS
}

/// Blocks along input and output channels.
fn blocks<E: Storage>(convolution: &Convolution) -> [usize; 2] {
    [
        convolution.in_channels.div_ceil(block_rows::<E>()),
        convolution.out_channels.div_ceil(COLUMNS),
    ]
}

/// Values of scratch that a weight gradient needs.
pub(crate) fn scratch_len<E: Storage>(convolution: &Convolution) -> usize {
    let [inputs, outputs] = blocks::<E>(convolution);
    scratch_for::<E>(slots(inputs.saturating_mul(outputs)).saturating_mul(block_values::<E>()))
}

/// Adds the weight gradient to `sums`, laid out `[kernel row][kernel column][in][out]`.
pub(crate) fn weight_gradient<E: Storage>(
    operands: Operands<'_, E>,
    sums: &mut [f64],
    scratch: &mut [E],
) {
    let Operands {
        convolution,
        input,
        cotangent,
        first,
    } = operands;
    // What no window reads is zero: it would meet zeros, but may be infinite.
    let axis = |positions: usize, source: isize, extent: usize| TileAxis {
        before: 0,
        positions,
        source,
        low: source.max(0),
        high: (source + signed(positions) + 2).min(signed(extent)),
    };
    let grid = Grid {
        rows: axis(cotangent.height(), first[0], input.height()),
        columns: axis(cotangent.width(), first[1], input.width()),
    };
    let [row_blocks, column_blocks] = blocks::<E>(convolution);
    let chunk = chunk_tiles::<E>();
    let job = Job {
        grid,
        input,
        cotangent,
        row_blocks,
        column_blocks,
    };
    let destination = Destination::new::<E>(sums, scratch, block_values::<E>());
    Cut::new(
        row_blocks * column_blocks,
        grid.tiles(),
        chunk,
        STRIP_CHUNKS * chunk,
    )
    .run(|part| {
        E::run::<WinogradWeightGradient>(Task {
            job: &job,
            destination: &destination,
            part,
        });
    });
}

struct Job<'a, E: Storage> {
    grid: Grid,
    input: View<'a, E>,
    cotangent: View<'a, E>,
    row_blocks: usize,
    column_blocks: usize,
}

/// The family of this gradient's tasks.
struct WinogradWeightGradient;

impl Family for WinogradWeightGradient {
    type Task<'a, E: Storage> = Task<'a, E, Job<'a, E>>;

    for_each_number!(|task, Number| Number::dispatch(task));
}

impl<E: Storage> Blocked<E> for Job<'_, E> {
    type Block<'a>
        = Block<'a, E>
    where
        Self: 'a;

    fn block(&self, index: usize) -> Block<'_, E> {
        let (row, column) = (index / self.column_blocks, index % self.column_blocks);
        Block {
            job: self,
            inputs: columns(self.input.channels(), row, self.row_blocks),
            outputs: columns(self.cotangent.channels(), column, self.column_blocks),
        }
    }
}

/// Some input channels and some output channels.
struct Block<'a, E: Storage> {
    job: &'a Job<'a, E>,
    inputs: Range<usize>,
    outputs: Range<usize>,
}

/// Bytes of the transformed values of one side of a block, for a chunk of tiles.
const SIDE_BYTES: usize =
    PRODUCTS * (CHUNK_BYTES * COLUMNS + Transformed::PADDING * size_of::<f64>());

/// Bytes of the sums of a block's products.
const SUM_BYTES: usize = PRODUCTS * ROW_BYTES * COLUMNS;

const _: () = assert!(block_rows::<f32>() <= COLUMNS);

/// `A` times two values, except for the sign of the last.
#[inline(always)]
fn spread<S: Simd, E: Storage>(simd: S, y: [Register<E, S>; TILE]) -> [Register<E, S>; PATCH] {
    [
        y[0],
        E::Compute::vector_add(simd, y[0], y[1]),
        E::Compute::vector_sub(simd, y[0], y[1]),
        y[1],
    ]
}

/// `G^E` times four values, the sign of the last reversed.
#[inline(always)]
fn gather<S: Simd, E: Storage>(simd: S, p: [Register<E, S>; PATCH]) -> [Register<E, S>; 3] {
    let half = E::Compute::splat(simd, E::Compute::from_f64(0.5));
    let zero = zero::<S, E>(simd);
    let (sum, difference) = (
        E::Compute::vector_add(simd, p[1], p[2]),
        E::Compute::vector_sub(simd, p[1], p[2]),
    );
    [
        E::Compute::mul_add(simd, half, sum, p[0]),
        E::Compute::mul_add(simd, half, difference, zero),
        E::Compute::vector_sub(simd, E::Compute::mul_add(simd, half, sum, zero), p[3]),
    ]
}

impl<E: Storage> Summed<E> for Block<'_, E> {
    fn place(&self) -> Place {
        let row_step = self.job.cotangent.channels();
        Place {
            first: self.inputs.start * row_step + self.outputs.start,
            taps: Extent {
                rows: 1,
                columns: TAPS,
            },
            tap_steps: [0, self.job.input.channels() * row_step],
            rows: self.inputs.len(),
            row_step,
            columns: self.outputs.len(),
        }
    }

    /// Sums over some tiles.
    #[inline(always)]
    fn sum<S: Simd>(&self, simd: S, tiles: Range<usize>, target: &Target<'_, E::Compute>) {
        let job = self.job;
        let place = self.place();
        let chunk_tiles = chunk_tiles::<E>();
        let (from, to) = (
            Transformed::new(chunk_tiles, place.rows),
            Transformed::new(chunk_tiles, place.columns),
        );
        let mut patches = Stack::<SIDE_BYTES>::uninit();
        let mut cotangents = Stack::<SIDE_BYTES>::uninit();
        let mut products = Stack::<SUM_BYTES>::uninit();
        let patches = patches.as_mut_ptr().cast::<E>();
        let cotangents = cotangents.as_mut_ptr().cast::<E>();
        let products = products.as_mut_ptr().cast::<E::Compute>();
        let product_step = block_rows::<E>() * COLUMNS;
        let source = Source {
            data: &job.input.data()[self.inputs.start..],
            row_pitch: job.input.pitch() * job.input.channels(),
            pitch: job.input.channels(),
            channels: place.rows,
        };
        for start in tiles.clone().step_by(chunk_tiles) {
            let chunk = start..(start + chunk_tiles).min(tiles.end);
            let count = chunk.len();
            debug_assert!(place.rows <= block_rows::<E>() && place.columns <= COLUMNS);
            #[expect(unsafe_code, reason = "transforms address memory by pointer")]
            // SAFETY: the stack has room for a chunk of tiles of both sides; the first chunk writes all sums.
            unsafe {
                transform::<S, E, true>(simd, &job.grid, source, chunk.clone(), patches, &from);
                self.transform_cotangents(simd, chunk, cotangents, &to);
                let mut next = self.ahead(start + count);
                let pieces = PRODUCTS * place.rows.div_ceil(ROWS_BETWEEN_FETCHES);
                let lines = next.each_ref().map(|next| next.lines().div_ceil(pieces));
                for product in 0..PRODUCTS {
                    for row in (0..place.rows).step_by(ROWS_BETWEEN_FETCHES) {
                        for (next, &lines) in next.iter_mut().zip(&lines) {
                            next.fetch(lines);
                        }
                        multiply(
                            simd,
                            Rows {
                                first: patches.add(product * from.product_step + row * E::TERMS),
                                row_pitch: 0,
                                pitch: from.tile_step * E::TERMS,
                            },
                            Rows {
                                first: cotangents.add(product * to.product_step),
                                row_pitch: 0,
                                pitch: to.tile_step * E::TERMS,
                            },
                            Extent {
                                rows: 1,
                                columns: count,
                            },
                            Sums {
                                first: products.add(product * product_step + row * COLUMNS),
                                pitch: COLUMNS,
                                rows: ROWS_BETWEEN_FETCHES.min(place.rows - row),
                                columns: place.columns,
                                replace: start == tiles.start,
                            },
                        );
                    }
                }
            }
        }
        for row in 0..place.rows {
            for column in (0..place.columns).step_by(lanes::<S, E>()) {
                #[expect(unsafe_code, reason = "sums that were written")]
                // SAFETY: all products of the block's rows and columns were written; this task alone writes the block to the
                // target.
                unsafe {
                    let products = products.add(row * COLUMNS + column).cast_const();
                    self.take(simd, &place, row, column, products, target);
                }
            }
        }
    }
}

impl<E: Storage> Block<'_, E> {
    /// What the chunk from tile `tile` on will read: inputs and cotangents.
    #[inline(always)]
    fn ahead(&self, tile: usize) -> [Ahead<E>; 2] {
        let job = self.job;
        let ([row, column], width) = job.grid.first_run(tile, chunk_tiles::<E>());
        let cotangent = [TILE * row, TILE * column];
        let patch = job.grid.patch([row, column]);
        [
            Ahead::of(job.input, patch, [PATCH, TILE * width + 2], &self.inputs),
            Ahead::of(
                job.cotangent,
                cotangent,
                [TILE, TILE * width],
                &self.outputs,
            ),
        ]
    }

    /// Hands on the gradients by nine taps that one register of all products makes.
    ///
    /// # Safety
    /// `products` must point to a register of the first product; as for [`Target::take`].
    #[inline(always)]
    #[expect(unsafe_code, reason = "sums that were written")]
    unsafe fn take<S: Simd>(
        &self,
        simd: S,
        place: &Place,
        row: usize,
        column: usize,
        products: *const E::Compute,
        target: &Target<'_, E::Compute>,
    ) {
        let mut by_row = [[zero::<S, E>(simd); 3]; PATCH];
        for (across, by_row) in by_row.iter_mut().enumerate() {
            let mut values = [zero::<S, E>(simd); PATCH];
            for (down, value) in values.iter_mut().enumerate() {
                let product = (down * PATCH + across) * block_rows::<E>() * COLUMNS;
                // SAFETY: as the caller vouches.
                *value = unsafe { load::<S, E::Compute>(simd, products.add(product)) };
            }
            *by_row = gather::<S, E>(simd, values);
        }
        let [a, b, c, d] = by_row;
        for tap_row in 0..3 {
            let values = [a[tap_row], b[tap_row], c[tap_row], d[tap_row]];
            let taps = gather::<S, E>(simd, values);
            for (tap_column, &value) in taps.iter().enumerate() {
                let row = (tap_row * 3 + tap_column) * place.rows + row;
                // SAFETY: as the caller vouches.
                unsafe { target.take(simd, place, row, column, value) };
            }
        }
    }

    /// # Safety
    /// `target` must be valid for writing all tiles in the layout.
    #[inline(always)]
    #[expect(unsafe_code, reason = "transforms address memory by pointer")]
    unsafe fn transform_cotangents<S: Simd>(
        &self,
        simd: S,
        tiles: Range<usize>,
        target: *mut E,
        layout: &Transformed,
    ) {
        let job = self.job;
        let lanes = lanes::<S, E>();
        let channels = job.cotangent.channels();
        let width = self.outputs.len();
        let data = job.cotangent.data()[self.outputs.start..].as_ptr();
        for (index, tile) in tiles.enumerate() {
            let (row, column) = job.grid.place(tile);
            let mut places = [[None; TILE]; TILE];
            for (down, places) in places.iter_mut().enumerate() {
                for (right, place) in places.iter_mut().enumerate() {
                    let position = job.grid.rows.position(row, down);
                    let position = position.zip(job.grid.columns.position(column, right));
                    *place = position
                        .map(|(row, column)| (row * job.cotangent.pitch() + column) * channels);
                }
            }
            for channel in (0..width).step_by(lanes) {
                let count = lanes.min(width - channel);
                let mut tile = [[zero::<S, E>(simd); TILE]; TILE];
                for (values, places) in tile.iter_mut().zip(&places) {
                    for (value, place) in values.iter_mut().zip(places) {
                        if let Some(place) = place {
                            debug_assert!(holds(
                                job.cotangent.data(),
                                data.wrapping_add(place + channel),
                                count
                            ));
                            // SAFETY: the position lies inside the cotangent.
                            *value = unsafe {
                                load_some::<S, E>(simd, data.add(place + channel), count)
                            };
                        }
                    }
                }
                let left = spread::<S, E>(simd, [tile[0][0], tile[1][0]]);
                let right = spread::<S, E>(simd, [tile[0][1], tile[1][1]]);
                let (to, term) = layout.place::<E>(index, channel, true);
                for (row, (&left, &right)) in left.iter().zip(&right).enumerate() {
                    let values = spread::<S, E>(simd, [left, right]);
                    for (column, &value) in values.iter().enumerate() {
                        let to = to + (row * PATCH + column) * layout.product_step;
                        // SAFETY: as the caller vouches; rows hold whole registers.
                        unsafe { E::store_term(simd, target.add(to), term, value) };
                    }
                }
            }
        }
    }
}
