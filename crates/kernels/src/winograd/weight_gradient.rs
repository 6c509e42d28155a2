//! The weight gradient by tiles, F(3 x 3, 2 x 2): `G^T [(A dY A^T) . (B^T d B)] G`, with the products summed over tiles.

use std::mem::MaybeUninit;
use std::ops::Range;

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use super::patches::{Source, transform};
use super::{Grid, PATCH, PRODUCTS, Registers, TILE, TileAxis, Transformed};
use crate::convolution::signed;
use crate::element::sealed::{lanes, load, load_some, store_some};
use crate::shared::Shared;
use crate::weight_gradient::add_to_sums;
use crate::weights::widest_panel;
use crate::{Convolution, Element, Image, Region, Windows};

/// Input channels whose transformed values lie next to each other, of one tile after another; those of one task, whose
/// products with a panel lie on the stack.
const ROWS: usize = 16;

/// Output channels whose transformed values lie next to each other: a multiple of a panel.
const COLUMNS: usize = 64;

/// Tiles summed in registers.
const SUMMED_TILES: usize = 64;

/// Fewest and most tiles that are transformed at a time, and the values of both sides that bound them between these.
const TILES: [usize; 2] = [128, 256];
const VALUES: usize = 1 << 20;

/// Values between one product's values and the next: without it, all would map to the same few sets of the caches.
const PADDING: usize = 16;

/// Tiles transformed by one task.
const TRANSFORMED_TILES: usize = 16;

/// Channels of both sides, filled up to whole blocks.
fn padded(convolution: &Convolution) -> [usize; 2] {
    [
        convolution.in_channels.next_multiple_of(ROWS),
        convolution.out_channels.next_multiple_of(COLUMNS),
    ]
}

fn tiles_at_once(convolution: &Convolution) -> usize {
    let [inputs, outputs] = padded(convolution);
    let tiles = VALUES / PRODUCTS / inputs.saturating_add(outputs);
    (tiles / SUMMED_TILES * SUMMED_TILES).clamp(TILES[0], TILES[1])
}

/// Values of scratch that a weight gradient needs.
pub(super) fn scratch_len(convolution: &Convolution) -> usize {
    let [inputs, outputs] = padded(convolution);
    inputs
        .saturating_add(outputs)
        .saturating_mul(tiles_at_once(convolution))
        .saturating_add(2 * PADDING)
        .saturating_mul(PRODUCTS)
}

fn layout(tiles: usize, channels: usize, block: usize) -> Transformed {
    Transformed {
        product_step: tiles * channels + PADDING,
        tile_step: block,
        block,
        block_step: tiles * block,
    }
}

/// Adds the weight gradient to `sums`, laid out `[kernel row][kernel column][in][out]`.
pub(crate) fn weight_gradient<T: Element>(
    convolution: &Convolution,
    input: Image<'_, T>,
    windows: Windows,
    cotangent: Image<'_, T>,
    sums: &mut [f64],
    scratch: &mut [T],
) {
    let Windows { region, first, .. } = windows;
    // What no window of the region reads is zero: it would meet zeros, but may be infinite.
    let axis = |positions: usize, source: isize, extent: usize| TileAxis {
        before: 0,
        positions,
        source,
        low: source.max(0),
        high: (source + signed(positions) + 2).min(signed(extent)),
    };
    let grid = Grid {
        rows: axis(region.rows, first.row, input.height()),
        columns: axis(region.columns, first.column, input.width()),
    };
    let tiles = grid.tiles();
    let batch = tiles_at_once(convolution);
    let (inputs, outputs) = (convolution.in_channels, convolution.out_channels);
    let [padded_inputs, padded_outputs] = padded(convolution);
    let from = layout(batch, padded_inputs, ROWS);
    let to = layout(batch, padded_outputs, COLUMNS);
    let (patches, cotangents) = scratch.split_at_mut(from.product_step * PRODUCTS);
    let (patches, cotangents) = (Shared::new(patches), Shared::new(cotangents));
    let job = Job {
        grid,
        source: Source {
            data: input.data(),
            width: input.width(),
            channels: inputs,
        },
        cotangent,
        region,
        from,
        to,
        patches,
        cotangents,
        sums: Shared::new(sums),
    };
    let job = &job;
    let panel = crate::instructions::dispatch(PanelWidth::<T>(std::marker::PhantomData));
    let panels = outputs.div_ceil(panel);
    let blocks = inputs.div_ceil(ROWS);
    for start in (0..tiles).step_by(batch) {
        let count = batch.min(tiles - start);
        (0..count.div_ceil(TRANSFORMED_TILES))
            .into_par_iter()
            .for_each(|task| {
                let first = task * TRANSFORMED_TILES;
                T::winograd_weight_gradient(WeightGradientTask {
                    job,
                    work: Work::Transform {
                        tiles: start + first..start + (first + TRANSFORMED_TILES).min(count),
                        first,
                    },
                });
            });
        (0..blocks * panels).into_par_iter().for_each(|task| {
            let (index, block) = (task / blocks, task % blocks);
            T::winograd_weight_gradient(WeightGradientTask {
                job,
                work: Work::Multiply {
                    tiles: count,
                    rows: block * ROWS..((block + 1) * ROWS).min(inputs),
                    columns: index * panel..((index + 1) * panel).min(outputs),
                },
            });
        });
    }
}

struct PanelWidth<T>(std::marker::PhantomData<T>);

impl<T: Element> WithSimd for PanelWidth<T> {
    type Output = usize;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> usize {
        lanes::<S, T>() * widest_panel::<S>()
    }
}

struct Job<'a, T> {
    grid: Grid,
    source: Source<'a, T>,
    cotangent: Image<'a, T>,
    region: Region,
    /// Layouts of the transformed patches and cotangents.
    from: Transformed,
    to: Transformed,
    patches: Shared<'a, T>,
    cotangents: Shared<'a, T>,
    sums: Shared<'a, f64>,
}

enum Work {
    /// Transforms some tiles; the first of them has place `first`.
    Transform { tiles: Range<usize>, first: usize },
    /// Products of a block of input channels with a panel of output channels.
    Multiply {
        tiles: usize,
        rows: Range<usize>,
        columns: Range<usize>,
    },
}

/// A part of a weight gradient.
pub struct WeightGradientTask<'a, T> {
    job: &'a Job<'a, T>,
    work: Work,
}

impl<T: Element> WithSimd for WeightGradientTask<'_, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let job = self.job;
        match self.work {
            Work::Transform { tiles, first } => {
                #[expect(unsafe_code, reason = "transforms address memory by pointer")]
                // SAFETY: the scratch has room for a batch of tiles, and these belong to this task alone.
                unsafe {
                    let target = job.patches.pointer().add(first * job.from.tile_step);
                    transform(
                        simd,
                        &job.grid,
                        job.source,
                        tiles.clone(),
                        target,
                        &job.from,
                    );
                    let target = job.cotangents.pointer().add(first * job.to.tile_step);
                    job.transform_cotangents(simd, tiles, target);
                }
            }
            Work::Multiply {
                tiles,
                rows,
                columns,
            } => {
                let vectors = columns.len().div_ceil(lanes::<S, T>());
                if S::REGISTER_COUNT >= 32 {
                    match vectors {
                        1 => job.multiply::<S, 1>(simd, tiles, rows, columns),
                        2 => job.multiply::<S, 2>(simd, tiles, rows, columns),
                        3 => job.multiply::<S, 3>(simd, tiles, rows, columns),
                        _ => job.multiply::<S, 4>(simd, tiles, rows, columns),
                    }
                } else {
                    match vectors {
                        1 => job.multiply::<S, 1>(simd, tiles, rows, columns),
                        _ => job.multiply::<S, 2>(simd, tiles, rows, columns),
                    }
                }
            }
        }
    }
}

/// `A` times two values, except for the sign of the last.
#[inline(always)]
fn spread<S: Simd, T: Element>(simd: S, y: [T::Vector<S>; TILE]) -> [T::Vector<S>; PATCH] {
    [
        y[0],
        T::vector_add(simd, y[0], y[1]),
        T::vector_sub(simd, y[0], y[1]),
        y[1],
    ]
}

/// `G^T` times four values, the sign of the last reversed.
#[inline(always)]
fn gather<S: Simd, T: Element>(simd: S, p: [T::Vector<S>; PATCH]) -> [T::Vector<S>; 3] {
    let half = T::splat(simd, T::from_f64(0.5));
    let zero = T::splat(simd, T::ZERO);
    let (sum, difference) = (
        T::vector_add(simd, p[1], p[2]),
        T::vector_sub(simd, p[1], p[2]),
    );
    [
        T::mul_add(simd, half, sum, p[0]),
        T::mul_add(simd, half, difference, zero),
        T::vector_sub(simd, T::mul_add(simd, half, sum, zero), p[3]),
    ]
}

/// Adds, over `count` tiles, each of `HEIGHT` values of a patch times a panel of cotangents.
///
/// # Safety
/// The values and the panels of all tiles must exist, [`ROWS`] and [`COLUMNS`] values apart.
#[inline(always)]
#[expect(unsafe_code, reason = "the micro-kernel addresses memory by pointer")]
unsafe fn accumulate<S: Simd, T: Element, const VECTORS: usize, const HEIGHT: usize>(
    simd: S,
    patches: *const T,
    panels: *const T,
    count: usize,
) -> [[T::Vector<S>; VECTORS]; HEIGHT] {
    let lanes = lanes::<S, T>();
    let mut sums = [[T::splat(simd, T::ZERO); VECTORS]; HEIGHT];
    for tile in 0..count {
        // SAFETY: the caller vouches for every tile.
        unsafe {
            let (patch, from) = (patches.add(tile * ROWS), panels.add(tile * COLUMNS));
            let mut panel = [T::splat(simd, T::ZERO); VECTORS];
            for (vector, slot) in panel.iter_mut().enumerate() {
                *slot = load::<S, T>(simd, from.add(vector * lanes));
            }
            for (row, sums) in sums.iter_mut().enumerate() {
                let value = T::splat(simd, *patch.add(row));
                for (sum, &cotangent) in sums.iter_mut().zip(&panel) {
                    *sum = T::mul_add(simd, value, cotangent, *sum);
                }
            }
        }
    }
    sums
}

/// Stores sums, or adds them to those that are there.
///
/// # Safety
/// If they are added, the slots must have been written.
#[inline(always)]
#[expect(unsafe_code, reason = "registers that are written first")]
unsafe fn keep<S: Simd, T: Element, const VECTORS: usize>(
    simd: S,
    slots: &mut [[MaybeUninit<T::Vector<S>>; VECTORS]],
    sums: &[[T::Vector<S>; VECTORS]],
    add: bool,
) {
    for (slots, sums) in slots.iter_mut().zip(sums) {
        for (slot, &sum) in slots.iter_mut().zip(sums) {
            if add {
                // SAFETY: as the caller vouches.
                let before = unsafe { slot.assume_init() };
                slot.write(T::vector_add(simd, before, sum));
            } else {
                slot.write(sum);
            }
        }
    }
}

/// Products of a block of input channels with a panel.
type Block<V, const VECTORS: usize> = Registers<V, VECTORS, ROWS>;

impl<T: Element> Job<'_, T> {
    /// # Safety
    /// `target` must be valid for writing all tiles in the layout of the cotangents.
    #[inline(always)]
    #[expect(unsafe_code, reason = "transforms address memory by pointer")]
    unsafe fn transform_cotangents<S: Simd>(&self, simd: S, tiles: Range<usize>, target: *mut T) {
        let lanes = lanes::<S, T>();
        let channels = self.cotangent.channels();
        let data = self.cotangent.data().as_ptr();
        for (index, tile) in tiles.enumerate() {
            let (row, column) = self.grid.place(tile);
            let mut places = [[None; TILE]; TILE];
            for (down, places) in places.iter_mut().enumerate() {
                for (right, place) in places.iter_mut().enumerate() {
                    let position = self.grid.rows.position(row, down);
                    let position = position.zip(self.grid.columns.position(column, right));
                    *place = position.map(|(row, column)| {
                        ((self.region.row + row) * self.cotangent.width()
                            + self.region.column
                            + column)
                            * channels
                    });
                }
            }
            for channel in (0..channels).step_by(lanes) {
                let count = lanes.min(channels - channel);
                let mut tile = [[T::splat(simd, T::ZERO); TILE]; TILE];
                for (values, places) in tile.iter_mut().zip(&places) {
                    for (value, place) in values.iter_mut().zip(places) {
                        if let Some(place) = place {
                            // SAFETY: the position lies inside the region.
                            *value = unsafe {
                                load_some::<S, T>(simd, data.add(place + channel), count)
                            };
                        }
                    }
                }
                let left = spread::<S, T>(simd, [tile[0][0], tile[1][0]]);
                let right = spread::<S, T>(simd, [tile[0][1], tile[1][1]]);
                let to = index * self.to.tile_step + self.to.channel(channel);
                for (row, (left, right)) in left.into_iter().zip(right).enumerate() {
                    let values = spread::<S, T>(simd, [left, right]);
                    for (column, value) in values.into_iter().enumerate() {
                        let to = to + (row * PATCH + column) * self.to.product_step;
                        // SAFETY: as the caller vouches; blocks hold whole registers.
                        unsafe { store_some::<S, T>(simd, target.add(to), lanes, value) };
                    }
                }
            }
        }
    }

    #[inline(always)]
    fn multiply<S: Simd, const VECTORS: usize>(
        &self,
        simd: S,
        tiles: usize,
        rows: Range<usize>,
        columns: Range<usize>,
    ) {
        let lanes = lanes::<S, T>();
        let mut products = Block::<T::Vector<S>, VECTORS>::uninit();
        for summed in (0..tiles).step_by(SUMMED_TILES) {
            let count = SUMMED_TILES.min(tiles - summed);
            for (product, products) in products.0.iter_mut().enumerate() {
                let cotangents = product * self.to.product_step
                    + self.to.channel(columns.start)
                    + summed * self.to.tile_step;
                let patches = product * self.from.product_step
                    + self.from.channel(rows.start)
                    + summed * self.from.tile_step;
                #[expect(unsafe_code, reason = "the micro-kernel addresses memory by pointer")]
                // SAFETY: the scratch holds a batch of tiles in whole blocks; every slot is written for the first tiles.
                unsafe {
                    let panels = self.cotangents.pointer().add(cotangents).cast_const();
                    let patches = self.patches.pointer().add(patches).cast_const();
                    let add = summed > 0;
                    // As many sums as the registers hold.
                    let sums = accumulate::<S, T, VECTORS, 6>(simd, patches, panels, count);
                    keep::<S, T, VECTORS>(simd, &mut products[..6], &sums, add);
                    let sums = accumulate::<S, T, VECTORS, 6>(simd, patches.add(6), panels, count);
                    keep::<S, T, VECTORS>(simd, &mut products[6..12], &sums, add);
                    let sums = accumulate::<S, T, VECTORS, 4>(simd, patches.add(12), panels, count);
                    keep::<S, T, VECTORS>(simd, &mut products[12..], &sums, add);
                }
            }
        }
        for row in rows.clone() {
            for vector in 0..VECTORS {
                let mut by_row = [[T::splat(simd, T::ZERO); 3]; PATCH];
                for (column, by_row) in by_row.iter_mut().enumerate() {
                    let mut values = [T::splat(simd, T::ZERO); PATCH];
                    for (row_of_products, value) in values.iter_mut().enumerate() {
                        let product = &products.0[row_of_products * PATCH + column];
                        #[expect(unsafe_code, reason = "written above")]
                        // SAFETY: all products of the task's rows were written.
                        unsafe {
                            *value = product[row - rows.start][vector].assume_init();
                        }
                    }
                    *by_row = gather::<S, T>(simd, values);
                }
                let count = lanes.min(columns.len().saturating_sub(vector * lanes));
                for tap_row in 0..3 {
                    let [a, b, c, d] = &by_row;
                    let values = [a[tap_row], b[tap_row], c[tap_row], d[tap_row]];
                    let taps = gather::<S, T>(simd, values);
                    for (tap_column, value) in taps.into_iter().enumerate() {
                        let tap = tap_row * 3 + tap_column;
                        let to = (tap * self.source.channels + row) * self.cotangent.channels()
                            + columns.start
                            + vector * lanes;
                        #[expect(unsafe_code, reason = "tasks write disjoint parts of one slice")]
                        // SAFETY: the row and the columns belong to this task alone.
                        unsafe {
                            add_to_sums::<S, T>(simd, self.sums.pointer().add(to), count, value);
                        }
                    }
                }
            }
        }
    }
}
