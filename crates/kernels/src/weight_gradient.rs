//! Convolution: gradients by the weights and by the bias.
//!
//! A micro-kernel holds a block of gradients (a few kernel positions x input channels, times a panel of output channels) in
//! registers and runs over the positions of a chunk of the region; then it adds its registers to double-precision sums,
//! so that sums over thousands of tiles stay accurate. Tasks own blocks of the gradient, so no partial buffers are
//! needed and the order of every sum is fixed.

mod product;

use std::ops::Range;

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use product::{Dense, Inputs, PerChannel, Product};

use crate::convolution::signed;
use crate::element::sealed::{lanes, load_some, store};
use crate::image::check_length;
use crate::instructions::dispatch;
use crate::shared::Shared;
use crate::weights::widest_panel;
use crate::winograd::{self, check_scratch};
use crate::{Convolution, Element, Image, KernelError, Position, Region, Windows};

/// Positions whose products are summed in registers.
const CHUNK_PIXELS: usize = 128;

/// Blocks of gradients that one task may take: fewer read the region more often, more leave cores idle.
const BLOCKS_PER_TASK: [usize; 2] = [8, 16];

/// Positions that all tasks go through before any goes on: their inputs and cotangents stay in the caches.
const BAND_PIXELS: usize = 1024;

/// Tasks worth having.
const TASKS: usize = 64;

/// Adds the gradient by the weights to `weight_gradient`, laid out
/// `[kernel rows][kernel columns][in / groups][out]` (see [`weight_gradient_to_oihw`]).
///
/// `windows` says which outputs' cotangents, in `cotangent`, and where their windows lie in `input`. Only these and the
/// inputs under their windows count; padding contributes nothing. Images are height x width x channels. `scratch` is as
/// for [`conv_forward`](crate::conv_forward).
///
/// # Errors
/// [`KernelError`] where shapes do not match; nothing is written then.
pub fn conv_weight_gradient<T: Element>(
    convolution: &Convolution,
    input: Image<'_, T>,
    windows: Windows,
    cotangent: Image<'_, T>,
    weight_gradient: &mut [f64],
    scratch: &mut [T],
) -> Result<(), KernelError> {
    let Windows { region, first, .. } = windows;
    check_length(
        "weight gradient",
        convolution.weight_count()?,
        weight_gradient.len(),
    )?;
    input.check_channels("convolution input", convolution.in_channels)?;
    cotangent.check_channels("convolution cotangent", convolution.out_channels)?;
    cotangent.check_region("convolution cotangent", region)?;
    convolution.window.check(region, first)?;
    check_scratch(convolution, scratch)?;
    if region.is_empty() || input.data().is_empty() {
        return Ok(());
    }
    if convolution.is_winograd() {
        winograd::weight_gradient(
            convolution,
            input,
            windows,
            cotangent,
            weight_gradient,
            scratch,
        );
        return Ok(());
    }
    let job = Job::new(convolution, input, first, cotangent, region);
    let (lanes, widest) = dispatch(PanelShape {
        per_channel: job.per_channel,
        input,
    });
    let panels = job.width.div_ceil(lanes * widest);
    let [kernel_rows, kernel_columns] = convolution.window.kernel;
    let runs = if job.merged { 1 } else { kernel_columns };
    // Even panels: five registers are three and two.
    let vectors = job.width.div_ceil(lanes);
    let panel = |index: usize| {
        let first = index * vectors / panels * lanes;
        first..((index + 1) * vectors / panels * lanes).min(job.width)
    };
    // A block has at least this many rows; the micro-kernel may take more.
    let units = kernel_rows * runs;
    let rows_per_task = {
        let blocks = job.groups * panels * units * job.run_rows.div_ceil(6);
        6 * (blocks / TASKS).clamp(BLOCKS_PER_TASK[0], BLOCKS_PER_TASK[1])
    };
    // A task takes a piece of one run, or several short runs.
    let pieces = job.run_rows.div_ceil(rows_per_task);
    let bundles = units.div_ceil((rows_per_task / job.run_rows).max(1));
    let sums = Shared::new(weight_gradient);
    let (sums, job) = (&sums, &job);
    let band_rows = (BAND_PIXELS / region.columns).max(1);
    for band in (0..region.rows).step_by(band_rows) {
        (0..job.groups * panels * bundles * pieces)
            .into_par_iter()
            .for_each(|task| {
                let (piece, task) = (task % pieces, task / pieces);
                let (bundle, task) = (task % bundles, task / bundles);
                let (index, group) = (task % panels, task / panels);
                T::weight_gradient(Task {
                    job,
                    sums,
                    band: band..(band + band_rows).min(region.rows),
                    group,
                    units: bundle * units / bundles..(bundle + 1) * units / bundles,
                    columns: panel(index),
                    rows: piece * job.run_rows / pieces..(piece + 1) * job.run_rows / pieces,
                });
            });
    }
    Ok(())
}

/// Copies a weight gradient from the layout of [`conv_weight_gradient`] to `[out][in / groups][kernel rows][kernel
/// columns]`, rounding to `T`.
///
/// # Errors
/// [`KernelError::Length`] where either slice does not hold the convolution's weights.
pub fn weight_gradient_to_oihw<T: Element>(
    convolution: &Convolution,
    weight_gradient: &[f64],
    oihw: &mut [T],
) -> Result<(), KernelError> {
    let count = convolution.weight_count()?;
    check_length("weight gradient", count, weight_gradient.len())?;
    check_length("weight gradient as OIHW", count, oihw.len())?;
    let taps = convolution.window.taps();
    let depth = convolution.in_channels / convolution.groups;
    oihw.par_chunks_mut(depth * taps)
        .enumerate()
        .for_each(|(output, values)| {
            for (input, values) in values.chunks_exact_mut(taps).enumerate() {
                for (tap, value) in values.iter_mut().enumerate() {
                    let from = (tap * depth + input) * convolution.out_channels + output;
                    *value = T::from_f64(weight_gradient[from]);
                }
            }
        });
    Ok(())
}

struct PanelShape<'a, T> {
    per_channel: bool,
    input: Image<'a, T>,
}

impl<T: Element> WithSimd for PanelShape<'_, T> {
    type Output = (usize, usize);

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> Self::Output {
        let _ = self.input;
        let widest = if self.per_channel {
            2
        } else {
            widest_panel::<S>()
        };
        (lanes::<S, T>(), widest)
    }
}

/// The whole gradient.
struct Job<'a, T> {
    input: Image<'a, T>,
    first: Position,
    cotangent: Image<'a, T>,
    region: Region,
    stride: [isize; 2],
    dilation: [isize; 2],
    kernel_columns: usize,
    groups: usize,
    /// Output channels of a group.
    width: usize,
    /// Input channels of a group.
    depth: usize,
    out_channels: usize,
    per_channel: bool,
    /// True where the taps of a kernel row follow each other in memory.
    merged: bool,
    /// Rows of the gradient that one run covers: they lie `row_step` input values apart, `rows_per_tap` for each tap.
    run_rows: usize,
    row_step: usize,
    rows_per_tap: usize,
}

impl<'a, T: Element> Job<'a, T> {
    fn new(
        convolution: &Convolution,
        input: Image<'a, T>,
        first: Position,
        cotangent: Image<'a, T>,
        region: Region,
    ) -> Self {
        let window = convolution.window;
        let per_channel = convolution.is_depthwise();
        let groups = if per_channel { 1 } else { convolution.groups };
        let depth = convolution.in_channels / convolution.groups;
        let merged = per_channel || (groups == 1 && window.dilation[1] == 1);
        Self {
            input,
            first,
            cotangent,
            region,
            stride: window.stride.map(signed),
            dilation: window.dilation.map(signed),
            kernel_columns: window.kernel[1],
            groups,
            width: convolution.out_channels / groups,
            depth,
            out_channels: convolution.out_channels,
            per_channel,
            merged,
            run_rows: if merged {
                window.kernel[1] * depth
            } else {
                depth
            },
            row_step: if per_channel {
                window.dilation[1].saturating_mul(input.channels())
            } else {
                1
            },
            rows_per_tap: depth,
        }
    }

    fn run(&self, unit: usize) -> Run {
        if self.merged {
            Run {
                kernel_row: unit,
                first_tap: 0,
            }
        } else {
            Run {
                kernel_row: unit / self.kernel_columns,
                first_tap: unit % self.kernel_columns,
            }
        }
    }
}

/// Some rows of some runs, times one panel of output channels.
pub struct Task<'a, T> {
    job: &'a Job<'a, T>,
    sums: &'a Shared<'a, f64>,
    /// Rows of the region.
    band: Range<usize>,
    group: usize,
    /// Runs, counted over kernel rows and the runs of each.
    units: Range<usize>,
    columns: Range<usize>,
    rows: Range<usize>,
}

/// One run: the first tap of consecutive gradient rows.
#[derive(Clone, Copy)]
struct Run {
    kernel_row: usize,
    first_tap: usize,
}

impl<T: Element> WithSimd for Task<'_, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let vectors = self.columns.len().div_ceil(lanes::<S, T>());
        let rows = self.rows.len();
        if self.job.per_channel {
            match (vectors, rows) {
                (1, 1) => self.run::<S, PerChannel, 1, 1>(simd),
                (1, 2) => self.run::<S, PerChannel, 1, 2>(simd),
                (1, 3) => self.run::<S, PerChannel, 1, 3>(simd),
                (1, _) => self.run::<S, PerChannel, 1, 4>(simd),
                (_, 1) => self.run::<S, PerChannel, 2, 1>(simd),
                (_, 2) => self.run::<S, PerChannel, 2, 2>(simd),
                (_, 3) => self.run::<S, PerChannel, 2, 3>(simd),
                _ => self.run::<S, PerChannel, 2, 4>(simd),
            }
        } else if S::REGISTER_COUNT >= 32 {
            match (vectors, rows) {
                (1, 12..) => self.run::<S, Dense, 1, 12>(simd),
                (1, 4..) => self.run::<S, Dense, 1, 4>(simd),
                (1, _) => self.run::<S, Dense, 1, 1>(simd),
                (2, 10..) => self.run::<S, Dense, 2, 10>(simd),
                (2, 3..) => self.run::<S, Dense, 2, 3>(simd),
                (2, _) => self.run::<S, Dense, 2, 1>(simd),
                (3, 8..) => self.run::<S, Dense, 3, 8>(simd),
                (3, 3..) => self.run::<S, Dense, 3, 3>(simd),
                (3, _) => self.run::<S, Dense, 3, 1>(simd),
                (_, 6..) => self.run::<S, Dense, 4, 6>(simd),
                (_, 3..) => self.run::<S, Dense, 4, 3>(simd),
                _ => self.run::<S, Dense, 4, 1>(simd),
            }
        } else {
            match (vectors, rows) {
                (1, 12..) => self.run::<S, Dense, 1, 12>(simd),
                (1, 4..) => self.run::<S, Dense, 1, 4>(simd),
                (1, _) => self.run::<S, Dense, 1, 1>(simd),
                (_, 6..) => self.run::<S, Dense, 2, 6>(simd),
                (_, 3..) => self.run::<S, Dense, 2, 3>(simd),
                _ => self.run::<S, Dense, 2, 1>(simd),
            }
        }
    }
}

/// Positions `rows` x `columns` of the region.
#[derive(Clone)]
struct Chunk {
    rows: Range<usize>,
    columns: Range<usize>,
}

impl<T: Element> Task<'_, T> {
    #[inline(always)]
    fn run<S: Simd, P: Product, const VECTORS: usize, const ROWS: usize>(&self, simd: S) {
        let region = self.job.region;
        let columns_at_once = region.columns.min(CHUNK_PIXELS);
        let rows_at_once = (CHUNK_PIXELS / columns_at_once).max(1);
        // The chunk's cotangents, next to each other: in place they may all fall on a few sets of the cache.
        let mut panel = [[T::splat(simd, T::ZERO); VECTORS]; CHUNK_PIXELS];
        for row in self.band.clone().step_by(rows_at_once) {
            for column in (0..region.columns).step_by(columns_at_once) {
                let chunk = Chunk {
                    rows: row..(row + rows_at_once).min(self.band.end),
                    columns: column..(column + columns_at_once).min(region.columns),
                };
                self.pack::<S, VECTORS>(simd, &chunk, &mut panel);
                for unit in self.units.clone() {
                    let run = self.job.run(unit);
                    let mut done = self.rows.start;
                    while done < self.rows.end {
                        // The last block reaches back over rows that are done, rather than beyond the end.
                        let first = done.min(self.rows.end - ROWS);
                        let skip = done - first;
                        self.block::<S, P, VECTORS, ROWS>(simd, &chunk, &panel, run, first, skip);
                        done = first + ROWS;
                    }
                }
            }
        }
    }

    /// Copies the chunk's cotangents to `panels`, in raster order.
    #[inline(always)]
    fn pack<S: Simd, const VECTORS: usize>(
        &self,
        simd: S,
        chunk: &Chunk,
        panels: &mut [[T::Vector<S>; VECTORS]; CHUNK_PIXELS],
    ) {
        let job = self.job;
        let lanes = lanes::<S, T>();
        let mut panels = panels.iter_mut();
        for row in chunk.rows.clone() {
            let first = (job.region.row + row) * job.cotangent.width()
                + job.region.column
                + chunk.columns.start;
            let pixels = job.cotangent.data()[first * job.out_channels..]
                .chunks_exact(job.out_channels)
                .take(chunk.columns.len());
            for (pixel, panel) in pixels.zip(&mut panels) {
                let from = self.group * job.width;
                let pixel = &pixel[from + self.columns.start..from + self.columns.end];
                for (vector, values) in panel.iter_mut().enumerate() {
                    let first = vector * lanes;
                    let values_here = &pixel[first..];
                    #[expect(unsafe_code, reason = "vectors are loaded by pointer")]
                    // SAFETY: the slice holds as many values as are loaded.
                    unsafe {
                        let count = lanes.min(values_here.len());
                        *values = load_some::<S, T>(simd, values_here.as_ptr(), count);
                    }
                }
            }
        }
    }

    /// Adds a chunk's products to gradient rows `first..first + ROWS`, leaving out the first `skip`.
    #[inline(always)]
    fn block<S: Simd, P: Product, const VECTORS: usize, const ROWS: usize>(
        &self,
        simd: S,
        chunk: &Chunk,
        panels: &[[T::Vector<S>; VECTORS]; CHUNK_PIXELS],
        run: Run,
        first: usize,
        skip: usize,
    ) {
        let job = self.job;
        let tap_of = |row: usize| run.first_tap + row / job.rows_per_tap;
        let column_of = |tap: usize| job.first.column + signed(tap) * job.dilation[1];
        let inside = |tap: usize| {
            steps_inside(
                column_of(tap),
                job.stride[1],
                job.input.width(),
                chunk.columns.clone(),
            )
        };
        let (low, high) = (inside(tap_of(first)), inside(tap_of(first + ROWS - 1)));
        // Columns where all taps exist, and, around them, where some do.
        let all = high.start.max(low.start)..low.end.min(high.end);
        let all = if all.start < all.end {
            all
        } else {
            low.start..low.start
        };

        let mut sums = [[T::splat(simd, T::ZERO); VECTORS]; ROWS];
        let first_row = job.first.row + signed(run.kernel_row) * job.dilation[0];
        let (row_stride, height) = (job.stride[0], job.input.height());
        for row in steps_inside(first_row, row_stride, height, chunk.rows.clone()) {
            let columns = chunk.columns.len();
            let panels = &panels[(row - chunk.rows.start) * columns..][..columns];
            let input_row = first_row + signed(row) * row_stride;
            // In a merged run the offset of the first tap is added to that of the row; both may be outside together.
            let channel = if job.per_channel {
                self.columns.start
            } else {
                self.group * job.depth
            };
            let input = job.input.data().as_ptr();
            let at = |column: usize, row: usize| {
                let from = column_of(run.first_tap) + signed(column) * job.stride[1];
                let pixel = input_row * signed(job.input.width()) + from;
                pixel * signed(job.input.channels())
                    + signed(channel)
                    + signed(row) * signed(job.row_step)
            };
            let inputs = |column: usize, row: usize| Inputs {
                first: input.wrapping_offset(at(column, row)),
                step: job.stride[1] * signed(job.input.channels()),
                row_step: job.row_step,
                width: self.columns.len(),
            };
            let panels = |columns: Range<usize>| {
                &panels[columns.start - chunk.columns.start..columns.end - chunk.columns.start]
            };
            // From left to right, so that every sum has the order of its columns whatever its block.
            let edges = [
                chunk.columns.start..all.start,
                all.end.max(all.start)..chunk.columns.end,
            ];
            for (side, edge) in edges.into_iter().enumerate() {
                if side == 1 {
                    #[expect(unsafe_code, reason = "the micro-kernel addresses memory by pointer")]
                    // SAFETY: every tap of every column in `all` exists.
                    unsafe {
                        let (inputs, panels) = (inputs(all.start, first), panels(all.clone()));
                        P::accumulate::<S, T, VECTORS, ROWS>(simd, &mut sums, inputs, panels);
                    }
                }
                for column in edge {
                    for (place, sums) in sums.iter_mut().enumerate() {
                        let tap = tap_of(first + place);
                        let position = column_of(tap) + signed(column) * job.stride[1];
                        if position < 0 || position >= signed(job.input.width()) {
                            continue;
                        }
                        #[expect(
                            unsafe_code,
                            reason = "the micro-kernel addresses memory by pointer"
                        )]
                        // SAFETY: the tap exists.
                        unsafe {
                            let inputs = inputs(column, first + place);
                            let sums = std::array::from_mut(sums);
                            let panels = panels(column..column + 1);
                            P::accumulate::<S, T, VECTORS, 1>(simd, sums, inputs, panels);
                        }
                    }
                }
            }
        }
        for (place, sums) in sums.iter().enumerate().skip(skip) {
            self.add::<S, VECTORS>(simd, run, first + place, sums);
        }
    }

    /// Adds one row of registers to the double-precision sums.
    #[inline(always)]
    fn add<S: Simd, const VECTORS: usize>(
        &self,
        simd: S,
        run: Run,
        row: usize,
        values: &[T::Vector<S>; VECTORS],
    ) {
        let job = self.job;
        let lanes = lanes::<S, T>();
        let tap = run.kernel_row * job.kernel_columns + run.first_tap + row / job.rows_per_tap;
        let to = (tap * job.depth + row % job.rows_per_tap) * job.out_channels
            + self.group * job.width
            + self.columns.start;
        for (vector, &value) in values.iter().enumerate() {
            let first = vector * lanes;
            let count = lanes.min(self.columns.len().saturating_sub(first));
            #[expect(unsafe_code, reason = "tasks write disjoint parts of one slice")]
            // SAFETY: the row and the columns belong to this task alone.
            unsafe {
                add_to_sums::<S, T>(simd, self.sums.pointer().add(to + first), count, value);
            }
        }
    }
}

/// Adds the first `count` lanes to double-precision sums.
///
/// # Safety
/// `sums` must be valid for reading and writing `count` numbers.
#[inline(always)]
#[expect(unsafe_code, reason = "tasks write disjoint parts of one slice")]
pub(crate) unsafe fn add_to_sums<S: Simd, T: Element>(
    simd: S,
    sums: *mut f64,
    count: usize,
    value: T::Vector<S>,
) {
    let lanes = lanes::<S, T>();
    let mut buffer = [T::ZERO; 16];
    // SAFETY: a register has at most 16 lanes; the caller vouches for the sums.
    unsafe {
        store::<S, T>(simd, buffer.as_mut_ptr(), value);
        // A known number of lanes is what vectorises.
        if count == lanes {
            for (lane, value) in buffer.iter().enumerate().take(lanes) {
                *sums.add(lane) += value.to_f64();
            }
        } else {
            for (lane, value) in buffer.iter().enumerate().take(count) {
                *sums.add(lane) += value.to_f64();
            }
        }
    }
}

/// The steps `i` of `range` for which `first + i * step` is in `0..extent`.
fn steps_inside(first: isize, step: isize, extent: usize, range: Range<usize>) -> Range<usize> {
    let at_least = |bound: isize| {
        // The first step at or beyond `bound`.
        let distance = bound - first;
        usize::try_from(distance.div_euclid(step) + isize::from(distance.rem_euclid(step) != 0))
            .unwrap_or_default()
    };
    let start = at_least(0).clamp(range.start, range.end);
    let end = at_least(signed(extent)).clamp(start, range.end);
    start..end
}
