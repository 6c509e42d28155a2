//! Forward pass and data gradient by tiles.

use std::ops::Range;

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use super::patches::{PatchTask, Source, transform};
use super::{Grid, PATCH, PRODUCTS, Registers, TILE, TileAxis, Transformed};
use crate::element::sealed::{lanes, load_some, store_some};
use crate::gather::product::{Terms, accumulate};
use crate::gather::{Axis, Gather};
use crate::prefetch::Ahead;
use crate::shared::Shared;
use crate::stack::Stack;
use crate::weights::Panel;
use crate::{Element, Existing};

/// Most tiles of one task: their products, for one panel, lie on the stack.
const TASK_TILES: usize = 72;

/// Tiles of a task that transforms its patches itself.
const PRIVATE_TILES: usize = 24;

/// Bytes of transformed patches that a task may hold on the stack.
const PRIVATE_BYTES: usize = 200_704;

/// Tasks worth having; fewer only where there is nothing to cut.
const TASKS: usize = 8;

/// Longest sum held in registers: its weights stay in the first-level cache while all tiles of a task pass.
const LONGEST_SUM: usize = 128;

/// A multiple of most micro-kernels' groups.
const GROUP: usize = 12;

fn tile_axis(axis: &Axis, before: usize) -> TileAxis {
    TileAxis {
        before,
        positions: axis.targets,
        source: axis.source_first - crate::convolution::signed(before),
        low: axis.low,
        high: axis.high,
    }
}

/// Channels filled up to whole registers of any width.
pub(super) fn padded(channels: usize) -> usize {
    channels.next_multiple_of(16)
}

/// Most values of patches that all tasks share at a time.
const SHARED_VALUES: usize = 1 << 20;

/// Whether tasks transform their own patches: there are few channels, and the products cost no more than that.
fn is_private<T>(channels: usize) -> bool {
    PRODUCTS * product_step(PRIVATE_TILES, channels) * size_of::<T>() <= PRIVATE_BYTES
}

/// Tiles whose patches are transformed at a time.
fn shared_tiles(channels: usize) -> usize {
    (SHARED_VALUES / (PRODUCTS * padded(channels)))
        .next_multiple_of(TASK_TILES)
        .max(TASK_TILES)
}

/// From one product's values to the next: not a multiple of a power of two, which would map them all to the same few sets of
/// the caches.
fn product_step(tiles: usize, channels: usize) -> usize {
    tiles.saturating_mul(padded(channels)).saturating_add(16)
}

/// Values of scratch that a convolution needs which reads `channels` channels.
pub(super) fn scratch_len<T>(channels: usize) -> usize {
    if is_private::<T>(channels) {
        0
    } else {
        PRODUCTS.saturating_mul(product_step(shared_tiles(channels), channels))
    }
}

/// Runs a gather of 3 x 3 taps by tiles; `before` places of the first tile lie before the first target.
pub(crate) fn run<T: Element>(mut gather: Gather<'_, T>, before: [usize; 2], scratch: &mut [T]) {
    let grid = Grid {
        rows: tile_axis(&gather.rows, before[0]),
        columns: tile_axis(&gather.columns, before[1]),
    };
    if gather.rows.targets == 0 || gather.columns.targets == 0 {
        return;
    }
    let target = Shared::new(std::mem::take(&mut gather.target));
    let gather = &gather;
    let channels = gather.source_channels;
    let panels = gather.weights.layout.panel_count();
    let tiles = grid.tiles();
    let source = Source {
        data: gather.source,
        width: gather.source_width,
        pitch: channels,
        channels,
    };
    let per_task = |most: usize, tasks: usize| {
        tiles
            .div_ceil(tasks.max(1))
            .next_multiple_of(GROUP)
            .min(most)
    };
    if is_private::<T>(channels) {
        let step = per_task(PRIVATE_TILES, TASKS);
        (0..tiles.div_ceil(step)).into_par_iter().for_each(|task| {
            T::winograd(Task {
                gather,
                grid: &grid,
                target: &target,
                tiles: task * step..((task + 1) * step).min(tiles),
                panels: 0..panels,
                patches: Patches::Own(source),
            });
        });
        return;
    }
    let batch = shared_tiles(channels);
    let layout = layout(batch, channels);
    let shared = Shared::new(scratch);
    let shared = &shared;
    for start in (0..tiles).step_by(batch) {
        let end = (start + batch).min(tiles);
        let chunk = 8;
        (0..(end - start).div_ceil(chunk))
            .into_par_iter()
            .for_each(|task| {
                let first = start + task * chunk;
                T::winograd_patches(PatchTask {
                    grid: &grid,
                    source,
                    tiles: first..(first + chunk).min(end),
                    target: shared,
                    first: task * chunk * layout.tile_step,
                    layout,
                });
            });
        let step = per_task(TASK_TILES, TASKS.div_ceil(panels));
        (0..(end - start).div_ceil(step) * panels)
            .into_par_iter()
            .for_each(|task| {
                let (chunk, panel) = (task / panels, task % panels);
                let first = start + chunk * step;
                T::winograd(Task {
                    gather,
                    grid: &grid,
                    target: &target,
                    tiles: first..(first + step).min(end),
                    panels: panel..panel + 1,
                    patches: Patches::Shared {
                        values: shared,
                        first: chunk * step * layout.tile_step,
                        layout,
                    },
                });
            });
    }
}

fn layout(tiles: usize, channels: usize) -> Transformed {
    Transformed {
        product_step: product_step(tiles, channels),
        tile_step: padded(channels),
    }
}

/// Where a task's transformed patches come from.
enum Patches<'a, T> {
    Own(Source<'a, T>),
    Shared {
        values: &'a Shared<'a, T>,
        first: usize,
        layout: Transformed,
    },
}

/// Some tiles times some panels: no two tasks share both.
pub struct Task<'a, T> {
    gather: &'a Gather<'a, T>,
    grid: &'a Grid,
    target: &'a Shared<'a, T>,
    tiles: Range<usize>,
    panels: Range<usize>,
    patches: Patches<'a, T>,
}

impl<T: Element> WithSimd for Task<'_, T> {
    type Output = ();

    #[inline(always)]
    #[expect(unsafe_code, reason = "the micro-kernel addresses memory by pointer")]
    fn with_simd<S: Simd>(self, simd: S) {
        match &self.patches {
            Patches::Own(source) => {
                let mut stack = Stack::<PRIVATE_BYTES>::uninit();
                let layout = layout(PRIVATE_TILES, source.channels);
                let values = stack.as_mut_ptr().cast::<T>();
                // SAFETY: `is_private` holds: the stack has room for all tiles of a task.
                unsafe {
                    transform(
                        simd,
                        self.grid,
                        *source,
                        self.tiles.clone(),
                        values,
                        &layout,
                    );
                    let mut next = self.ahead_of_patches(*source);
                    self.multiply(simd, values, &layout, &mut next);
                }
            }
            Patches::Shared {
                values,
                first,
                layout,
            } => {
                // SAFETY: the tiles' patches were transformed to there.
                unsafe {
                    let first = values.pointer().add(*first);
                    self.multiply(simd, first, layout, &mut Ahead::nothing());
                }
            }
        }
    }
}

impl<T: Element> Task<'_, T> {
    /// # Safety
    /// The transformed patches of all tiles must lie at `patches`.
    #[inline(always)]
    #[expect(unsafe_code, reason = "the micro-kernel addresses memory by pointer")]
    unsafe fn multiply<S: Simd>(
        &self,
        simd: S,
        patches: *const T,
        layout: &Transformed,
        next: &mut Ahead<T>,
    ) {
        for index in self.panels.clone() {
            let panel = self.gather.weights.layout.panel(index);
            // SAFETY: as the caller vouches.
            unsafe {
                if S::REGISTER_COUNT >= 32 {
                    match panel.vectors {
                        1 => self.panel::<S, 1, 12>(simd, panel, patches, layout, next),
                        2 => self.panel::<S, 2, 12>(simd, panel, patches, layout, next),
                        3 => self.panel::<S, 3, 8>(simd, panel, patches, layout, next),
                        _ => self.panel::<S, 4, 6>(simd, panel, patches, layout, next),
                    }
                } else {
                    match panel.vectors {
                        1 => self.panel::<S, 1, 12>(simd, panel, patches, layout, next),
                        _ => self.panel::<S, 2, 6>(simd, panel, patches, layout, next),
                    }
                }
            }
        }
    }

    /// # Safety
    /// As for `multiply`.
    #[inline(always)]
    #[expect(unsafe_code, reason = "the micro-kernel addresses memory by pointer")]
    unsafe fn panel<S: Simd, const VECTORS: usize, const GROUP: usize>(
        &self,
        simd: S,
        panel: Panel,
        patches: *const T,
        layout: &Transformed,
        next: &mut Ahead<T>,
    ) {
        let [mut residuals, mut targets] = self.ahead_of_stores(panel);
        let groups = PRODUCTS * self.tiles.len().div_ceil(GROUP).max(1);
        let [lines, residual_lines, target_lines] =
            [next.lines(), residuals.lines(), targets.lines()].map(|lines| lines.div_ceil(groups));
        let depth = self.gather.source_channels;
        let width = VECTORS * lanes::<S, T>();
        let weights = &self.gather.weights.values()[panel.offset..][..PRODUCTS * depth * width];
        let mut products = Registers::<T::Vector<S>, VECTORS, TASK_TILES>::uninit();
        let tiles = self.tiles.len();
        let blocks = depth.div_ceil(LONGEST_SUM);
        for (product, products) in products.0.iter_mut().enumerate() {
            for block in 0..blocks {
                let terms = block * depth / blocks..(block + 1) * depth / blocks;
                let weights = &weights[(product * depth + terms.start) * width..];
                for first in (0..tiles).step_by(GROUP) {
                    if block == 0 {
                        next.fetch(lines);
                        residuals.fetch(residual_lines);
                        targets.fetch(target_lines);
                    }
                    let mut places = [patches; GROUP];
                    for (tile, place) in places.iter_mut().enumerate() {
                        let tile = (first + tile).min(tiles - 1);
                        let offset =
                            product * layout.product_step + tile * layout.tile_step + terms.start;
                        *place = patches.wrapping_add(offset);
                    }
                    let mut sums = [[T::splat(simd, T::ZERO); VECTORS]; GROUP];
                    let terms = Terms {
                        weights: weights.as_ptr(),
                        count: terms.len(),
                    };
                    // SAFETY: patches and weights have all these terms.
                    unsafe { accumulate(simd, &mut sums, &places, &terms) };
                    let slots = products[first..].iter_mut().take(tiles - first);
                    for (slots, sums) in slots.zip(&sums) {
                        for (slot, &sum) in slots.iter_mut().zip(sums) {
                            if block > 0 {
                                // SAFETY: the block before wrote it.
                                let before = unsafe { slot.assume_init() };
                                slot.write(T::vector_add(simd, before, sum));
                            } else {
                                slot.write(sum);
                            }
                        }
                    }
                }
            }
        }
        for tile in 0..tiles {
            for vector in 0..VECTORS {
                let mut values = [T::splat(simd, T::ZERO); PRODUCTS];
                for (value, products) in values.iter_mut().zip(&products.0) {
                    // SAFETY: all products of the tile were written.
                    *value = unsafe { products[tile][vector].assume_init() };
                }
                self.store(simd, panel, self.tiles.start + tile, vector, &values);
            }
        }
    }

    /// What the next task will transform, but for the rows that this one has read.
    #[inline(always)]
    fn ahead_of_patches(&self, source: Source<'_, T>) -> Ahead<T> {
        let (row, column) = self.grid.place(self.tiles.end);
        let tiles = PRIVATE_TILES.min(self.grid.columns.tiles() - column);
        let shared = PATCH - TILE;
        let row = self.grid.rows.patch(row).max(0).unsigned_abs() + shared;
        let column = self.grid.columns.patch(column).max(0).unsigned_abs();
        let pitches = [source.width * source.pitch, source.pitch];
        let first = row * pitches[0] + column * pitches[1];
        let first = source.data.as_ptr().wrapping_add(first);
        let extent = [TILE, TILE * tiles + shared];
        Ahead::new(first, pitches, extent, source.channels)
    }

    /// What the task will read and write when it stores: residuals and targets of a panel.
    #[inline(always)]
    fn ahead_of_stores(&self, panel: Panel) -> [Ahead<T>; 2] {
        let gather = self.gather;
        let (row, column) = self.grid.place(self.tiles.start);
        let width = self.tiles.len().min(self.grid.columns.tiles() - column);
        let (row, column) = (
            (TILE * row).saturating_sub(self.grid.rows.before),
            (TILE * column).saturating_sub(self.grid.columns.before),
        );
        let extent = [TILE, TILE * width];
        let target = self
            .target
            .pointer()
            .wrapping_add(gather.target_offset([row, column]) + panel.first)
            .cast_const();
        let pitches = [
            gather.rows.target_step * gather.target_width * gather.target_channels,
            gather.columns.target_step * gather.target_channels,
        ];
        let targets = Ahead::new(target, pitches, extent, panel.width);
        let residuals = match &gather.residual {
            Some(residual) => {
                let first =
                    residual.first + row * residual.row_pitch + column * residual.pixel_pitch;
                Ahead::new(
                    residual.data.as_ptr().wrapping_add(first + panel.first),
                    [residual.row_pitch, residual.pixel_pitch],
                    extent,
                    panel.width,
                )
            }
            None => Ahead::nothing(),
        };
        [residuals, targets]
    }

    /// Stores `A^T m A` of one register of products.
    #[inline(always)]
    fn store<S: Simd>(
        &self,
        simd: S,
        panel: Panel,
        tile: usize,
        vector: usize,
        products: &[T::Vector<S>; PRODUCTS],
    ) {
        let mut rows = [[T::splat(simd, T::ZERO); PATCH]; TILE];
        for column in 0..PATCH {
            let products = [
                products[column],
                products[PATCH + column],
                products[2 * PATCH + column],
                products[3 * PATCH + column],
            ];
            [rows[0][column], rows[1][column]] = reduce::<S, T>(simd, products);
        }
        let (tile_row, tile_column) = self.grid.place(tile);
        let gather = self.gather;
        let lanes = lanes::<S, T>();
        let count = lanes.min(panel.width.saturating_sub(vector * lanes));
        let channel = panel.first + vector * lanes;
        for (place, values) in rows.iter().enumerate() {
            let Some(row) = self.grid.rows.position(tile_row, place) else {
                continue;
            };
            let values = reduce::<S, T>(simd, *values);
            for (place, &value) in values.iter().enumerate() {
                let mut value = value;
                let Some(column) = self.grid.columns.position(tile_column, place) else {
                    continue;
                };
                let target = [row, column];
                #[expect(unsafe_code, reason = "tasks write disjoint parts of one slice")]
                // SAFETY: the target's channels of the panel lie inside the target image, and belong to this task alone.
                unsafe {
                    let to = self
                        .target
                        .pointer()
                        .add(gather.target_offset(target) + channel);
                    if gather.existing == Existing::Add {
                        value = T::vector_add(simd, load_some::<S, T>(simd, to, count), value);
                    }
                    value = gather.finish(simd, target, channel, count, value);
                    store_some::<S, T>(simd, to, count, value);
                }
            }
        }
    }
}

/// `A^T` times four values.
#[inline(always)]
fn reduce<S: Simd, T: Element>(simd: S, m: [T::Vector<S>; PATCH]) -> [T::Vector<S>; TILE] {
    [
        T::vector_add(simd, T::vector_add(simd, m[0], m[1]), m[2]),
        T::vector_sub(simd, T::vector_sub(simd, m[1], m[2]), m[3]),
    ]
}
