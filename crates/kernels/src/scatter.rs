//! Data gradients of convolutions of few input channels: every cotangent position scatters its products.
//!
//! A gather computes the input channels of a position side by side, so that three channels fill three of sixteen lanes.
//! Here a cotangent's products with the weights of all taps and channels are computed side by side, in registers that are
//! full but for the last, and added to the input cotangent. There the taps of a kernel row lie next to each other, if they are not
//! dilated.
//!
//! A task takes a band of rows of cotangents. The rows that it adds to reach into the next band's and no further, so even
//! bands run first and odd ones after: who adds to a value, and in which order, depends on the geometry alone.

use std::ops::Range;

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use crate::element::sealed::{Family, Stored, Vectors, for_each_number, lanes, load, store, zero};
use crate::gather::product::{Terms, accumulate};
use crate::integers::signed;
use crate::integers::steps_inside;
use crate::parallel::parallel_for;
use crate::shared::Shared;
use crate::stack::Stack;
use crate::weights::{PackedView, Panel};
use crate::{Convolution, Storage, View, ViewMut};

/// Most input channels.
const MOST_CHANNELS: usize = 8;

/// Most products of a position.
const MOST_PRODUCTS: usize = 512;

/// Values of the register that the rule goes by, whatever this machine has.
const REGISTER: usize = 16;

/// Longest sum held in registers.
const LONGEST_SUM: usize = 512;

/// Bytes of products that a task holds on the stack.
const PRODUCT_BYTES: usize = 32 << 10;

/// Positions whose products are computed at a time are a multiple of this, where so many fit: whole groups of any size.
const GROUPS: usize = 24;

/// A band has at least this many multiply-adds.
const TASK_PRODUCTS: usize = 1 << 21;

/// Whether a data gradient is scattered: a rule on the shape and the kind of number alone, so that the same network always does the
/// same arithmetic. It is where that at least halves the registers that are multiplied for each cotangent. A value that several windows
/// add to must not be rounded each time, so what is rounded when it is stored is gathered.
pub(crate) fn applies<E: Storage>(convolution: &Convolution) -> bool {
    let taps = convolution.window.taps();
    let products = taps.saturating_mul(convolution.in_channels);
    size_of::<E>() == size_of::<E::Compute>()
        && convolution.groups == 1
        && convolution.in_channels <= MOST_CHANNELS
        && products <= MOST_PRODUCTS
        && 2 * products.div_ceil(REGISTER) <= taps
}

/// Adds the data gradient to `target`, by weights packed as `[output][kernel row][kernel column][input]`. The first cotangent's
/// window has its first tap at `first` in the target.
pub(crate) fn run<E: Storage>(
    convolution: &Convolution,
    weights: PackedView<'_, E>,
    cotangent: View<'_, E>,
    first: [isize; 2],
    target: ViewMut<'_, E>,
) {
    let window = convolution.window;
    let axis = |axis: usize, first: isize, extent: usize, outputs: usize| {
        let axis = Axis {
            first,
            extent,
            taps: window.kernel[axis],
            stride: window.stride[axis],
            dilation: window.dilation[axis],
        };
        (axis, axis.meet(0..outputs))
    };
    let (rows, row_range) = axis(0, first[0], target.height(), cotangent.height());
    let (columns, column_range) = axis(1, first[1], target.width(), cotangent.width());
    if row_range.is_empty() || column_range.is_empty() {
        return;
    }
    let row = (column_range.len() * weights.layout.depth).saturating_mul(weights.layout.width);
    let band = TASK_PRODUCTS
        .div_ceil(row)
        .max(rows.reach() / rows.stride)
        .max(1);
    let scatter = Scatter {
        rows,
        columns,
        cotangent,
        channels: target.channels(),
        pitch: target.pitch(),
        weights,
        target: Shared::new(target.into_data()),
    };
    let bands = row_range.len().div_ceil(band);
    for parity in 0..2 {
        parallel_for((parity..bands).into_par_iter().step_by(2), |index| {
            let first = row_range.start + index * band;
            E::run::<Scattering>(ScatterTask {
                scatter: &scatter,
                rows: first..(first + band).min(row_range.end),
                columns: column_range.clone(),
            });
        });
    }
}

/// One axis of the windows over the input cotangent.
#[derive(Debug, Clone, Copy)]
struct Axis {
    /// Where the first window has its first tap.
    first: isize,
    /// Positions that exist.
    extent: usize,
    taps: usize,
    stride: usize,
    dilation: usize,
}

impl Axis {
    /// From the first tap to the last.
    fn reach(&self) -> usize {
        (self.taps - 1) * self.dilation
    }

    /// The windows of `range` that meet a position that exists, if any of a window's taps may.
    fn meet(&self, range: Range<usize>) -> Range<usize> {
        let reach = self.reach();
        steps_inside(
            self.first + signed(reach),
            signed(self.stride),
            self.extent + reach,
            range,
        )
    }

    /// The windows of `range` all of whose positions exist.
    fn whole(&self, range: Range<usize>) -> Range<usize> {
        let extent = self.extent.saturating_sub(self.reach());
        steps_inside(self.first, signed(self.stride), extent, range)
    }

    /// Where a window has its first tap.
    #[inline(always)]
    fn position(&self, window: usize) -> isize {
        self.first + signed(window * self.stride)
    }
}

/// The whole data gradient.
struct Scatter<'a, E: Storage> {
    rows: Axis,
    columns: Axis,
    cotangent: View<'a, E>,
    /// Channels of the input.
    channels: usize,
    /// Pixels from one row of the target to the next.
    pitch: usize,
    weights: PackedView<'a, E>,
    target: Shared<'a, E>,
}

/// Rows of cotangents, and the columns that count.
pub(crate) struct ScatterTask<'a, E: Storage> {
    scatter: &'a Scatter<'a, E>,
    rows: Range<usize>,
    columns: Range<usize>,
}

/// The family of [`ScatterTask`].
struct Scattering;

impl Family for Scattering {
    type Task<'a, E: Storage> = ScatterTask<'a, E>;

    for_each_number!(|task, Number| Number::dispatch(task));
}

impl<E: Storage> WithSimd for ScatterTask<'_, E> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let mut stack = Stack::<PRODUCT_BYTES>::uninit();
        let products = stack.as_mut_ptr().cast::<E::Compute>();
        let fit = PRODUCT_BYTES / (self.scatter.products::<S>() * size_of::<E::Compute>());
        let count = if fit >= GROUPS {
            fit / GROUPS * GROUPS
        } else {
            fit
        };
        debug_assert!(
            count > 0
                && count * self.scatter.products::<S>() * size_of::<E::Compute>() <= PRODUCT_BYTES
        );
        for row in self.rows {
            for first in self.columns.clone().step_by(count) {
                let columns = first..(first + count).min(self.columns.end);
                #[expect(unsafe_code, reason = "products lie on the stack")]
                // SAFETY: the stack has room for the products of `count` positions. No other task that runs at this time adds
                // to the rows under these windows.
                unsafe {
                    self.scatter.multiply(simd, row, columns.clone(), products);
                    self.scatter.add(simd, row, columns, products);
                }
            }
        }
    }
}

impl<E: Storage> Scatter<'_, E> {
    /// From the products of one position to those of the next: whole registers.
    #[inline(always)]
    fn products<S: Simd>(&self) -> usize {
        self.weights.layout.width.next_multiple_of(lanes::<S, E>())
    }

    /// Computes the products of some positions of a row.
    ///
    /// # Safety
    /// There must be room for them.
    #[inline(always)]
    #[expect(unsafe_code, reason = "products lie on the stack")]
    unsafe fn multiply<S: Simd>(
        &self,
        simd: S,
        row: usize,
        columns: Range<usize>,
        products: *mut E::Compute,
    ) {
        let pixel = row * self.cotangent.pitch();
        let channels = self.cotangent.channels();
        let values = &self.cotangent.data()[(pixel + columns.start) * channels..];
        let values = &values[..columns.len() * channels];
        for index in 0..self.weights.layout.panels {
            let panel = self.weights.layout.panel(index);
            // SAFETY: as the caller vouches. As many sums as the registers hold.
            unsafe {
                if S::REGISTER_COUNT >= 32 {
                    match panel.vectors {
                        1 => self.panel::<S, 1, 12>(simd, panel, values, products),
                        2 => self.panel::<S, 2, 12>(simd, panel, values, products),
                        3 => self.panel::<S, 3, 8>(simd, panel, values, products),
                        _ => self.panel::<S, 4, 6>(simd, panel, values, products),
                    }
                } else {
                    match panel.vectors {
                        1 => self.panel::<S, 1, 12>(simd, panel, values, products),
                        _ => self.panel::<S, 2, 6>(simd, panel, values, products),
                    }
                }
            }
        }
    }

    /// Computes a panel of the products of the positions whose cotangents are `values`.
    ///
    /// # Safety
    /// There must be room for them.
    #[inline(always)]
    #[expect(unsafe_code, reason = "products lie on the stack")]
    unsafe fn panel<S: Simd, const VECTORS: usize, const PIXELS: usize>(
        &self,
        simd: S,
        panel: Panel,
        values: &[E],
        products: *mut E::Compute,
    ) {
        let lanes = lanes::<S, E>();
        let row = VECTORS * lanes * E::TERMS;
        let (depth, pitch) = (self.weights.layout.depth, self.products::<S>());
        let weights = &self.weights.values[panel.offset..][..self.weights.layout.steps() * row];
        let positions = values.len() / depth;
        for first in (0..depth).step_by(LONGEST_SUM) {
            let weights = weights[first / E::TERMS * row..].as_ptr();
            let terms = Terms::of_tap(weights, LONGEST_SUM.min(depth - first));
            for group in (0..positions).step_by(PIXELS) {
                let count = PIXELS.min(positions - group);
                let mut places = [values.as_ptr(); PIXELS];
                for (index, place) in places.iter_mut().enumerate() {
                    // The places after `count` repeat the last one.
                    let position = group + index.min(count - 1);
                    *place = values[position * depth + first..].as_ptr();
                }
                let mut sums = [[zero::<S, E>(simd); VECTORS]; PIXELS];
                // SAFETY: the cotangents have `depth` channels, and the weights as many rows. As the caller vouches, the products
                // have room; those of the first terms are written before they are read.
                unsafe {
                    accumulate(simd, &mut sums, &places, &terms);
                    for (index, sums) in sums.iter().enumerate().take(count) {
                        let to = products.add((group + index) * pitch + panel.first);
                        for (vector, &sum) in sums.iter().enumerate() {
                            let to = to.add(vector * lanes);
                            let sum = if first == 0 {
                                sum
                            } else {
                                E::Compute::vector_add(simd, load::<S, E::Compute>(simd, to), sum)
                            };
                            store::<S, E::Compute>(simd, to, sum);
                        }
                    }
                }
            }
        }
    }

    /// Adds the products of some positions of a row to the target.
    ///
    /// # Safety
    /// They must have been computed, and no other task may touch the target's rows under these windows.
    #[inline(always)]
    #[expect(unsafe_code, reason = "tasks add to disjoint parts of one slice")]
    unsafe fn add<S: Simd>(
        &self,
        simd: S,
        row: usize,
        columns: Range<usize>,
        products: *const E::Compute,
    ) {
        let axis = &self.columns;
        // Taps that lie next to each other in the target.
        let together = if axis.dilation == 1 { axis.taps } else { 1 };
        // Neighbours' windows overlap. What was just stored is slow to load again, so they wait for their turn.
        let turns = (axis.reach() + 1).div_ceil(axis.stride);
        let whole = axis.whole(columns.clone());
        let (channels, pitch) = (self.channels, self.products::<S>());
        for turn in 0..turns.min(columns.len()) {
            let of_turn = columns.start + turn;
            let skipped = whole.start.saturating_sub(of_turn).div_ceil(turns);
            let first_whole = of_turn + skipped * turns;
            let run = Run {
                count: whole.end.saturating_sub(first_whole).div_ceil(turns),
                to_step: turns * axis.stride * channels,
                from_step: turns * pitch,
                length: together * channels,
            };
            for tap_row in 0..self.rows.taps {
                let row = self.rows.position(row) + signed(tap_row * self.rows.dilation);
                let Some(row) = inside(row, self.rows.extent) else {
                    continue;
                };
                for tap in (0..axis.taps).step_by(together) {
                    let place = |column: usize, skipped: usize, run: &Run| {
                        let to = axis.position(column) + signed(tap * axis.dilation + skipped);
                        let to = (row * self.pitch + to.unsigned_abs()) * channels;
                        let from = (tap_row * axis.taps + tap + skipped) * channels;
                        let from = (column - columns.start) * pitch + from;
                        debug_assert!(from + run.reach(run.from_step) <= columns.len() * pitch);
                        (
                            self.target.place(to, run.reach(run.to_step)),
                            products.wrapping_add(from),
                        )
                    };
                    // SAFETY: as the caller vouches; positions and products exist.
                    unsafe {
                        if run.count > 0 {
                            let (to, from) = place(first_whole, 0, &run);
                            run.add(simd, to, from);
                        }
                        if whole.len() < columns.len() {
                            for column in (of_turn..columns.end).step_by(turns) {
                                if whole.contains(&column) {
                                    continue;
                                }
                                let left = axis.position(column) + signed(tap * axis.dilation);
                                let exist = exist(left, axis.extent, together);
                                let run = Run {
                                    count: 1,
                                    length: exist.len() * channels,
                                    ..run
                                };
                                let (to, from) = place(column, exist.start, &run);
                                run.add(simd, to, from);
                            }
                        }
                    }
                }
            }
        }
    }
}

/// A position as an index, if it exists.
#[inline(always)]
fn inside(position: isize, extent: usize) -> Option<usize> {
    usize::try_from(position)
        .ok()
        .filter(|&position| position < extent)
}

/// Those of `count` positions from `first` on that exist.
#[inline(always)]
fn exist(first: isize, extent: usize, count: usize) -> Range<usize> {
    let end = (signed(extent) - first)
        .clamp(0, signed(count))
        .unsigned_abs();
    let start = (-first).clamp(0, signed(end)).unsigned_abs();
    start..end
}

/// Values of several positions that are added to as many places.
#[derive(Clone, Copy)]
struct Run {
    count: usize,
    /// From one place to the next.
    to_step: usize,
    /// From one position's values to the next's.
    from_step: usize,
    /// Values of each.
    length: usize,
}

impl Run {
    /// Values from the first position's first to the last one's last, where positions lie `step` apart.
    #[inline(always)]
    fn reach(&self, step: usize) -> usize {
        (self.count - 1) * step + self.length
    }

    /// Adds the values at `from` to those at `to`.
    ///
    /// # Safety
    /// All of them must exist. Those at `to` must not overlap, and belong to this task alone.
    #[inline(always)]
    #[expect(unsafe_code, reason = "tasks add to disjoint parts of one slice")]
    unsafe fn add<S: Simd, E: Storage>(&self, simd: S, to: *mut E, from: *const E::Compute) {
        let lanes = lanes::<S, E>();
        let mut done = 0;
        let next = |done| (to.wrapping_add(done), from.wrapping_add(done));
        // SAFETY: as the caller vouches.
        unsafe {
            while done + lanes <= self.length {
                let (mut to, mut from) = next(done);
                for _ in 0..self.count {
                    let (value, more) = (load(simd, to), load(simd, from));
                    store::<S, E>(simd, to, E::Compute::vector_add(simd, value, more));
                    (to, from) = (
                        to.wrapping_add(self.to_step),
                        from.wrapping_add(self.from_step),
                    );
                }
                done += lanes;
            }
            // What is left, in ever shorter vectors: masked ones are slower.
            while done + 8 <= self.length {
                let (to, from) = next(done);
                self.add_arrays::<E, 8>(to, from);
                done += 8;
            }
            if done + 4 <= self.length {
                let (to, from) = next(done);
                self.add_arrays::<E, 4>(to, from);
                done += 4;
            }
            while done < self.length {
                let (to, from) = next(done);
                self.add_arrays::<E, 1>(to, from);
                done += 1;
            }
        }
    }

    /// Adds `COUNT` values of each.
    ///
    /// # Safety
    /// As for [`Run::add`].
    #[inline(always)]
    #[expect(unsafe_code, reason = "tasks add to disjoint parts of one slice")]
    unsafe fn add_arrays<E: Storage, const COUNT: usize>(
        &self,
        to: *mut E,
        from: *const E::Compute,
    ) {
        let (mut to, mut from) = (to, from);
        for _ in 0..self.count {
            // SAFETY: as the caller vouches; arrays are aligned as their values are.
            unsafe {
                let mut values = to.cast::<[E; COUNT]>().read();
                let more = from.cast::<[E::Compute; COUNT]>().read();
                for (value, more) in values.iter_mut().zip(more) {
                    *value = E::narrow(value.widen() + more);
                }
                to.cast::<[E; COUNT]>().write(values);
            }
            (to, from) = (
                to.wrapping_add(self.to_step),
                from.wrapping_add(self.from_step),
            );
        }
    }
}
