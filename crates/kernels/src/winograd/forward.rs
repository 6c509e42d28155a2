//! Forward pass and data gradient by tiles.

use std::ops::Range;

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use super::patches::{PatchFamily, PatchTask, Source, transform};
use super::patching::{Cut, FEW_BYTES, LONGEST_SUM, MANY_BYTES, Patching, shared_tiles};
use super::products::{PRODUCT_BYTES, Products};
use super::{Grid, PATCH, PRODUCTS, TILE, TileAxis, Transformed};
use crate::element::sealed::{Family, lanes, load_some, store_some};
use crate::gather::product::{TERMS_BETWEEN_FETCHES, Terms, accumulate, accumulate_and_fetch};
use crate::gather::{Axis, Gather};
use crate::instructions::dispatch;
use crate::prefetch::Ahead;
use crate::shared::Shared;
use crate::stack::Stack;
use crate::weights::Panel;
use crate::{Element, Existing};

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
        row_pitch: gather.source_pitch * channels,
        pitch: channels,
        channels,
    };
    let patching = Patching::new::<T>(channels);
    let Cut { step, parts } = Cut::new(patching, tiles, panels);
    if patching != Patching::Shared {
        let chunks = tiles.div_ceil(step);
        (0..chunks * parts).into_par_iter().for_each(|task| {
            let (chunk, part) = (task / parts, task % parts);
            T::run::<Winograd>(Task {
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
        (0..(end - start).div_ceil(chunk))
            .into_par_iter()
            .for_each(|task| {
                let first = start + task * chunk;
                T::run::<PatchFamily>(PatchTask {
                    grid: &grid,
                    source,
                    tiles: first..(first + chunk).min(end),
                    target: shared,
                    first: task * chunk * layout.tile_step,
                    layout,
                });
            });
        (0..(end - start).div_ceil(step) * panels)
            .into_par_iter()
            .for_each(|task| {
                let (chunk, panel) = (task / panels, task % panels);
                let first = start + chunk * step;
                T::run::<Winograd>(Task {
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

/// Where a task's transformed patches come from.
enum Patches<'a, T> {
    /// The task itself, which has room for `FEW_BYTES` of them.
    Few(Source<'a, T>),
    /// The task itself, which has room for `MANY_BYTES` of them.
    Many(Source<'a, T>),
    /// All tasks.
    Shared {
        values: &'a Shared<'a, T>,
        first: usize,
        layout: Transformed,
    },
}

/// Some tiles times some panels: no two tasks share both.
pub(crate) struct Task<'a, T> {
    gather: &'a Gather<'a, T>,
    grid: &'a Grid,
    target: &'a Shared<'a, T>,
    tiles: Range<usize>,
    panels: Range<usize>,
    patches: Patches<'a, T>,
}

/// The family of [`Task`].
struct Winograd;

impl Family for Winograd {
    type Task<'a, T: Element> = Task<'a, T>;

    fn single(task: Task<'_, f32>) {
        task.run();
    }

    fn double(task: Task<'_, f64>) {
        task.run();
    }
}

impl<T: Element> Task<'_, T> {
    /// Does the task, with no more stack than it needs: each page of it costs time.
    #[inline(always)]
    pub(crate) fn run(&self) {
        let task = self;
        match self.patches {
            Patches::Few(source) => dispatch(OwnPatches::<T, FEW_BYTES> { task, source }),
            Patches::Many(source) => dispatch(OwnPatches::<T, MANY_BYTES> { task, source }),
            Patches::Shared {
                values,
                first,
                layout,
            } => dispatch(SharedPatches {
                task,
                first: values.place(first, layout.reach(self.tiles.len())),
                layout,
            }),
        }
    }
}

/// A task that transforms its patches, `BYTES` of them.
struct OwnPatches<'a, T, const BYTES: usize> {
    task: &'a Task<'a, T>,
    source: Source<'a, T>,
}

impl<T: Element, const BYTES: usize> WithSimd for OwnPatches<'_, T, BYTES> {
    type Output = ();

    #[inline(always)]
    #[expect(unsafe_code, reason = "the micro-kernel addresses memory by pointer")]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { task, source } = self;
        let mut patches = Stack::<BYTES>::uninit();
        let mut products = Stack::<PRODUCT_BYTES>::uninit();
        let patches = patches.as_mut_ptr().cast::<T>();
        let layout = Transformed::new(task.tiles.len(), source.channels);
        // Other tasks that multiply the same tiles go on with other panels of them.
        let mut next = if task.panels.end == task.gather.weights.layout.panel_count() {
            task.ahead_of_patches(source)
        } else {
            Ahead::nothing()
        };
        debug_assert!(
            Transformed::values(task.tiles.len(), source.channels) * size_of::<T>() <= BYTES
        );
        // SAFETY: that, since `Patching` holds, and a task has at most its tiles.
        unsafe {
            transform(
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
struct SharedPatches<'a, T> {
    task: &'a Task<'a, T>,
    first: *const T,
    layout: Transformed,
}

impl<T: Element> WithSimd for SharedPatches<'_, T> {
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
        stack: &mut Stack<PRODUCT_BYTES>,
        next: &mut Ahead<T>,
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
        patches: *const T,
        layout: &Transformed,
        stack: &mut Stack<PRODUCT_BYTES>,
        next: &mut Ahead<T>,
    ) {
        let [mut residuals, mut targets] = self.ahead_of_stores(panel);
        let groups = PRODUCTS * self.tiles.len().div_ceil(GROUP).max(1);
        let [lines, residual_lines, target_lines] =
            [next.lines(), residuals.lines(), targets.lines()].map(|lines| lines.div_ceil(groups));
        let depth = self.gather.source_channels;
        let width = VECTORS * lanes::<S, T>();
        let weights = &self.gather.weights.values()[panel.offset..][..PRODUCTS * depth * width];
        let products = Products::<T, VECTORS>::new(stack);
        let tiles = self.tiles.len();
        let blocks = depth.div_ceil(LONGEST_SUM);
        for product in 0..PRODUCTS {
            for block in 0..blocks {
                let terms = block * depth / blocks..(block + 1) * depth / blocks;
                let patches = patches.wrapping_add(product * layout.product_step + terms.start);
                let weights = &weights[(product * depth + terms.start) * width..];
                let terms = Terms {
                    weights: weights.as_ptr(),
                    count: terms.len(),
                };
                let following = terms.weights.wrapping_add(terms.count * width);
                let mut weights_ahead = Ahead::values(following, terms.count * width);
                let fetches = tiles.div_ceil(GROUP) * terms.count.div_ceil(TERMS_BETWEEN_FETCHES);
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
                    let mut sums = [[T::splat(simd, T::ZERO); VECTORS]; GROUP];
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
    fn ahead_of_patches(&self, source: Source<'_, T>) -> Ahead<T> {
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
    fn ahead_of_stores(&self, panel: Panel) -> [Ahead<T>; 2] {
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
                    let place = gather.target_offset(target) + channel;
                    let to = self.target.place(place, count);
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
