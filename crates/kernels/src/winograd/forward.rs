//! Forward pass and data gradient by tiles.

use std::ops::Range;

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use super::patches::{PatchFamily, PatchTask, Source, transform};
use super::patching::{Cut, FEW_BYTES, LONGEST_SUM, MANY_BYTES, Patching, shared_tiles};
use super::products::{PRODUCT_BYTES, Products};
use super::{Grid, PATCH, PRODUCTS, TILE, TileAxis, Transformed};
#[cfg(target_arch = "x86_64")]
use crate::bf16;
use crate::element::sealed::{
    Family, Operation, Register, Vectors, for_each_number, lanes, load_some, store_some, zero,
};
#[cfg(target_arch = "x86_64")]
use crate::element::storage::native::{NativeBf16, native_mut};
use crate::gather::product::{STEPS_BETWEEN_FETCHES, Terms, accumulate, accumulate_and_fetch};
use crate::gather::{Axis, Gather};
use crate::parallel::parallel_for;
use crate::prefetch::Ahead;
use crate::shared::Shared;
use crate::stack::Stack;
use crate::weights::Panel;
use crate::{Existing, Storage};

/// Most lines of weights that are fetched at a time: more than the processor can have under way only wait.
const MOST_LINES: usize = 16;

fn tile_axis(axis: &Axis, before: usize) -> TileAxis {
    TileAxis {
        before,
        positions: axis.targets,
        source: axis.source_first - crate::integers::signed(before),
        low: axis.low,
        high: axis.high,
    }
}

/// A gather of 3 x 3 taps that is computed by tiles.
pub(crate) struct TiledGather<'a, E: Storage> {
    pub(crate) gather: Gather<'a, E>,
    /// Places of the first tile that lie before the first target.
    pub(crate) before: [usize; 2],
    pub(crate) scratch: &'a mut [E],
}

/// Gathers by tiles.
pub(crate) struct Tiled;

impl Operation for Tiled {
    type Operands<'a, E: Storage> = TiledGather<'a, E>;

    fn run<E: Storage>(operands: TiledGather<'_, E>) {
        operands.run();
    }

    #[cfg(target_arch = "x86_64")]
    fn native<'a>(operands: Self::Operands<'a, bf16>) -> Self::Operands<'a, NativeBf16> {
        TiledGather {
            gather: operands.gather.native(),
            before: operands.before,
            scratch: native_mut(operands.scratch),
        }
    }
}

impl<E: Storage> TiledGather<'_, E> {
    fn run(self) {
        let Self {
            mut gather,
            before,
            scratch,
        } = self;
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
            row_pitch: gather.source_pitch * channels,
            pitch: channels,
            channels,
        };
        let patching = Patching::new::<E>(channels);
        let Cut { step, parts } = Cut::new(patching, tiles, panels);
        if patching != Patching::Shared {
            let chunks = tiles.div_ceil(step);
            parallel_for((0..chunks * parts).into_par_iter(), |task| {
                let (chunk, part) = (task / parts, task % parts);
                E::run::<Winograd>(Task {
                    gather,
                    grid: &grid,
                    target: &target,
                    tiles: chunk * step..((chunk + 1) * step).min(tiles),
                    panels: part * panels / parts..(part + 1) * panels / parts,
                    patches: if patching == Patching::Few {
                        Patches::Few(source)
                    } else {
                        Patches::Many(source)
                    },
                });
            });
            return;
        }
        let batch = shared_tiles(channels);
        let layout = Transformed::new(batch, channels);
        let shared = Shared::new(scratch);
        let shared = &shared;
        for start in (0..tiles).step_by(batch) {
            let end = (start + batch).min(tiles);
            let chunk = 8;
            parallel_for((0..(end - start).div_ceil(chunk)).into_par_iter(), |task| {
                let first = start + task * chunk;
                E::run::<PatchFamily>(PatchTask {
                    grid: &grid,
                    source,
                    tiles: first..(first + chunk).min(end),
                    target: shared,
                    first: task * chunk * layout.tile_step,
                    layout,
                });
            });
            let products = (end - start).div_ceil(step) * panels;
            parallel_for((0..products).into_par_iter(), |task| {
                let (chunk, panel) = (task / panels, task % panels);
                let first = start + chunk * step;
                E::run::<Winograd>(Task {
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
}

/// Where a task's transformed patches come from.
enum Patches<'a, E: Storage> {
    /// The task itself, which has room for `FEW_BYTES` of them.
    Few(Source<'a, E>),
    /// The task itself, which has room for `MANY_BYTES` of them.
    Many(Source<'a, E>),
    /// All tasks.
    Shared {
        values: &'a Shared<'a, E>,
        first: usize,
        layout: Transformed,
    },
}

/// Some tiles times some panels: no two tasks share both.
pub(crate) struct Task<'a, E: Storage> {
    gather: &'a Gather<'a, E>,
    grid: &'a Grid,
    target: &'a Shared<'a, E>,
    tiles: Range<usize>,
    panels: Range<usize>,
    patches: Patches<'a, E>,
}

/// The family of [`Task`].
struct Winograd;

impl Family for Winograd {
    type Task<'a, E: Storage> = Task<'a, E>;

    for_each_number!(|task, Number| Task::<'_, Number>::run(&task));
}

impl<E: Storage> Task<'_, E> {
    /// Does the task, with no more stack than it needs: each page of it costs time.
    #[inline(always)]
    fn run(&self) {
        let task = self;
        match self.patches {
            Patches::Few(source) => E::dispatch(OwnPatches::<E, FEW_BYTES> { task, source }),
            Patches::Many(source) => E::dispatch(OwnPatches::<E, MANY_BYTES> { task, source }),
            Patches::Shared {
                values,
                first,
                layout,
            } => E::dispatch(SharedPatches {
                task,
                first: values.place(first, layout.reach(self.tiles.len())),
                layout,
            }),
        }
    }
}

/// A task that transforms its patches, `BYTES` of them.
struct OwnPatches<'a, E: Storage, const BYTES: usize> {
    task: &'a Task<'a, E>,
    source: Source<'a, E>,
}

impl<E: Storage, const BYTES: usize> WithSimd for OwnPatches<'_, E, BYTES> {
    type Output = ();

    #[inline(always)]
    #[expect(unsafe_code, reason = "the micro-kernel addresses memory by pointer")]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { task, source } = self;
        let mut patches = Stack::<BYTES>::uninit();
        let mut products = Stack::<PRODUCT_BYTES>::uninit();
        let patches = patches.as_mut_ptr().cast::<E>();
        let layout = Transformed::new(task.tiles.len(), source.channels);
        // Other tasks that multiply the same tiles go on with other panels of them.
        let mut next = if task.panels.end == task.gather.weights.layout.panel_count() {
            task.ahead_of_patches(source)
        } else {
            Ahead::nothing()
        };
        debug_assert!(
            Transformed::values(task.tiles.len(), source.channels) * size_of::<E>() <= BYTES
        );
        // SAFETY: that, since `Patching` holds, and a task has at most its tiles.
        unsafe {
            transform::<S, E, false>(
                simd,
                task.grid,
                source,
                task.tiles.clone(),
                patches,
                &layout,
            );
            task.multiply(simd, patches, &layout, &mut products, &mut next);
        }
    }
}

/// A task whose patches lie at `first`.
struct SharedPatches<'a, E: Storage> {
    task: &'a Task<'a, E>,
    first: *const E,
    layout: Transformed,
}

impl<E: Storage> WithSimd for SharedPatches<'_, E> {
    type Output = ();

    #[inline(always)]
    #[expect(unsafe_code, reason = "the micro-kernel addresses memory by pointer")]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self {
            task,
            first,
            layout,
        } = self;
        let mut products = Stack::<PRODUCT_BYTES>::uninit();
        // SAFETY: the tiles' patches were transformed to there.
        unsafe { task.multiply(simd, first, &layout, &mut products, &mut Ahead::nothing()) };
    }
}

impl<E: Storage> Task<'_, E> {
    /// # Safety
    /// The transformed patches of all tiles must lie at `patches`.
    #[inline(always)]
    #[expect(unsafe_code, reason = "the micro-kernel addresses memory by pointer")]
    unsafe fn multiply<S: Simd>(
        &self,
        simd: S,
        patches: *const E,
        layout: &Transformed,
        stack: &mut Stack<PRODUCT_BYTES>,
        next: &mut Ahead<E>,
    ) {
        for index in self.panels.clone() {
            let panel = self.gather.weights.layout.panel(index);
            // SAFETY: as the caller vouches.
            unsafe {
                if S::REGISTER_COUNT >= 32 {
                    match panel.vectors {
                        1 => self.panel::<S, 1, 12>(simd, panel, patches, layout, stack, next),
                        2 => self.panel::<S, 2, 12>(simd, panel, patches, layout, stack, next),
                        3 => self.panel::<S, 3, 8>(simd, panel, patches, layout, stack, next),
                        _ => self.panel::<S, 4, 6>(simd, panel, patches, layout, stack, next),
                    }
                } else {
                    match panel.vectors {
                        1 => self.panel::<S, 1, 12>(simd, panel, patches, layout, stack, next),
                        _ => self.panel::<S, 2, 6>(simd, panel, patches, layout, stack, next),
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
        patches: *const E,
        layout: &Transformed,
        stack: &mut Stack<PRODUCT_BYTES>,
        next: &mut Ahead<E>,
    ) {
        let [mut residuals, mut targets] = self.ahead_of_stores(panel);
        let groups = PRODUCTS * self.tiles.len().div_ceil(GROUP).max(1);
        let [lines, residual_lines, target_lines] =
            [next.lines(), residuals.lines(), targets.lines()].map(|lines| lines.div_ceil(groups));
        let depth = self.gather.source_channels;
        let steps = self.gather.weights.layout.steps();
        let width = VECTORS * lanes::<S, E>() * E::TERMS;
        let weights = &self.gather.weights.values[panel.offset..][..PRODUCTS * steps * width];
        let products = Products::<E::Compute, VECTORS>::new(stack);
        let tiles = self.tiles.len();
        let blocks = steps.div_ceil(LONGEST_SUM);
        for product in 0..PRODUCTS {
            for block in 0..blocks {
                let steps_here = block * steps / blocks..(block + 1) * steps / blocks;
                let first = steps_here.start * E::TERMS;
                let patches = patches.wrapping_add(product * layout.product_step + first);
                let weights = &weights[(product * steps + steps_here.start) * width..];
                let count = depth.min(steps_here.end * E::TERMS) - first;
                let terms = Terms::of_tap(weights.as_ptr(), count);
                let length = steps_here.len() * width;
                let following = terms.weights.wrapping_add(length);
                let mut weights_ahead = Ahead::values(following, length);
                let fetches = tiles.div_ceil(GROUP) * terms.steps.div_ceil(STEPS_BETWEEN_FETCHES);
                let weight_lines = weights_ahead
                    .lines()
                    .div_ceil(fetches.max(1))
                    .min(MOST_LINES);
                let existing = if block > 0 {
                    Existing::Add
                } else {
                    Existing::Replace
                };
                for first in (0..tiles).step_by(GROUP) {
                    if block == 0 {
                        next.fetch(lines);
                        residuals.fetch(residual_lines);
                        targets.fetch(target_lines);
                    }
                    let mut places = [patches; GROUP];
                    for (tile, place) in places.iter_mut().enumerate() {
                        let tile = (first + tile).min(tiles - 1);
                        *place = patches.wrapping_add(tile * layout.tile_step);
                    }
                    let mut sums = [[zero::<S, E>(simd); VECTORS]; GROUP];
                    // SAFETY: patches and weights have all these terms; the block before put what is added to.
                    unsafe {
                        if blocks > 1 {
                            let (ahead, lines) = (&mut weights_ahead, weight_lines);
                            accumulate_and_fetch(simd, &mut sums, &places, &terms, ahead, lines);
                        } else {
                            accumulate(simd, &mut sums, &places, &terms);
                        }
                        products.put(simd, product, first..tiles, &sums, existing);
                    }
                }
            }
        }
        for tile in 0..tiles {
            for vector in 0..VECTORS {
                // SAFETY: all products of all tiles were put there.
                let values = unsafe { products.of_tile(simd, tile, vector) };
                self.store(simd, panel, self.tiles.start + tile, vector, &values);
            }
        }
    }

    /// What the next task will transform of its first row of tiles, but for the rows that this one has read.
    #[inline(always)]
    fn ahead_of_patches(&self, source: Source<'_, E>) -> Ahead<E> {
        let (tile, tiles) = self.grid.first_run(self.tiles.end, self.tiles.len());
        let shared = PATCH - TILE;
        let [row, column] = self.grid.patch(tile);
        let pitches = [source.row_pitch, source.pitch];
        let first = (row + shared) * pitches[0] + column * pitches[1];
        let first = source.data.as_ptr().wrapping_add(first);
        let extent = [TILE, TILE * tiles + shared];
        Ahead::new(first, pitches, extent, source.channels)
    }

    /// What the task will read and write when it stores its first row of tiles: residuals and targets of a panel.
    #[inline(always)]
    fn ahead_of_stores(&self, panel: Panel) -> [Ahead<E>; 2] {
        let gather = self.gather;
        let ([row, column], width) = self.grid.first_run(self.tiles.start, self.tiles.len());
        let (row, column) = (
            (TILE * row).saturating_sub(self.grid.rows.before),
            (TILE * column).saturating_sub(self.grid.columns.before),
        );
        let extent = [TILE, TILE * width];
        // Fetched, not read.
        let first = gather.target_offset([row, column]) + panel.first;
        let target = self.target.place(first, 0).cast_const();
        let pitches = [
            gather.rows.target_step * gather.target_pitch * gather.target_channels,
            gather.columns.target_step * gather.target_channels,
        ];
        let targets = Ahead::new(target, pitches, extent, panel.width);
        let residuals = match &gather.residual {
            Some(residual) => {
                let first = row * residual.row_pitch + column * residual.pixel_pitch;
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

    /// Stores `A^E m A` of one register of products.
    #[inline(always)]
    fn store<S: Simd>(
        &self,
        simd: S,
        panel: Panel,
        tile: usize,
        vector: usize,
        products: &[Register<E, S>; PRODUCTS],
    ) {
        let mut rows = [[zero::<S, E>(simd); PATCH]; TILE];
        for column in 0..PATCH {
            let products = [
                products[column],
                products[PATCH + column],
                products[2 * PATCH + column],
                products[3 * PATCH + column],
            ];
            [rows[0][column], rows[1][column]] = reduce::<S, E>(simd, products);
        }
        let (tile_row, tile_column) = self.grid.place(tile);
        let gather = self.gather;
        let lanes = lanes::<S, E>();
        let count = lanes.min(panel.width.saturating_sub(vector * lanes));
        let channel = panel.first + vector * lanes;
        for (place, values) in rows.iter().enumerate() {
            let Some(row) = self.grid.rows.position(tile_row, place) else {
                continue;
            };
            let values = reduce::<S, E>(simd, *values);
            for (place, &value) in values.iter().enumerate() {
                let mut value = value;
                let Some(column) = self.grid.columns.position(tile_column, place) else {
                    continue;
                };
                let target = [row, column];
                #[expect(unsafe_code, reason = "tasks write disjoint parts of one slice")]
                // SAFETY: the target's channels of the panel lie inside the target image, and belong to this task alone.
                unsafe {
                    let place = gather.target_offset(target) + channel;
                    let to = self.target.place(place, count);
                    if gather.existing == Existing::Add {
                        value =
                            E::Compute::vector_add(simd, load_some::<S, E>(simd, to, count), value);
                    }
                    value = gather.finish(simd, target, channel, count, value);
                    store_some::<S, E>(simd, to, count, value);
                }
            }
        }
    }
}

/// `A^E` times four values.
#[inline(always)]
fn reduce<S: Simd, E: Storage>(simd: S, m: [Register<E, S>; PATCH]) -> [Register<E, S>; TILE] {
    [
        E::Compute::vector_add(simd, E::Compute::vector_add(simd, m[0], m[1]), m[2]),
        E::Compute::vector_sub(simd, E::Compute::vector_sub(simd, m[1], m[2]), m[3]),
    ]
}
