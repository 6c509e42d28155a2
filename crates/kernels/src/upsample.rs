//! Upsampling by whole factors, on rectangles of larger planes.

use std::ops::Range;

use pulp::Simd;
use stream_grad_tiling::{AlignCorners, PerAxis, Rect, Span};

use crate::element::sealed::{load_from, registers, store_to};
use crate::instructions::Work;
use crate::integers::bounded;
use crate::rows::{for_each_band, for_each_row};
use crate::stored;
use crate::{Element, KernelError, Storage, View, ViewMut};

/// Rows of output that one task makes: stencils along a row are computed once for all of them.
const BAND_ROWS: usize = 8;

/// Columns whose stencils a task holds.
const COLUMNS: usize = 64;

/// Values that a task of a VJP sums on its stack, down the output's rows.
const PART: usize = 1024;

/// Values that it sums there along them, too, where they are not stored as they are computed.
const SUMS: usize = 4096;

/// Rows of the output that it reads side by side, as many as there are for a factor of 2.
const ROWS: usize = 4;

/// How values between the input's are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Interpolation {
    /// Each input value is repeated.
    Nearest,
    /// Linear along rows and columns.
    Bilinear(AlignCorners),
}

/// An upsampling of a whole plane; `[rows, columns]` throughout.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Upsample {
    /// Output positions for each input position.
    pub factor: [usize; 2],
    /// How values in between are made.
    pub interpolation: Interpolation,
    /// Extent of the whole input plane: interpolation depends on where the image ends.
    pub plane: [usize; 2],
}

/// The input positions that one output position reads along one axis, and their weights.
#[derive(Debug, Clone, Copy)]
struct Stencil {
    positions: [usize; 2],
    weights: [f64; 2],
}

impl Stencil {
    /// The weight of an input position.
    fn weight(&self, position: usize) -> f64 {
        let mut weight = 0.0;
        for (&at, &share) in self.positions.iter().zip(&self.weights) {
            if at == position {
                weight += share;
            }
        }
        weight
    }
}

/// A stencil as positions of a buffer.
#[derive(Clone, Copy, Default)]
struct Taps<T> {
    positions: [usize; 2],
    weights: [T; 2],
    /// Whether only the first is read.
    single: bool,
}

impl<T: Element> Taps<T> {
    /// The stencil in a buffer that begins at `origin`.
    #[inline(always)]
    fn new(stencil: Stencil, origin: usize) -> Self {
        Self {
            positions: stencil.positions.map(|position| position - origin),
            weights: stencil.weights.map(T::from_f64),
            single: stencil.weights[1] == 0.0,
        }
    }

    /// The positions that are read and their weights.
    #[inline(always)]
    fn read(self) -> impl Iterator<Item = (usize, T)> {
        let count = if self.single { 1 } else { 2 };
        self.positions.into_iter().zip(self.weights).take(count)
    }
}

impl Upsample {
    #[inline(always)]
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "positions in an image are far below 2^53, and the source position is not negative"
    )]
    fn stencil(&self, axis: usize, output: usize) -> Stencil {
        let (factor, extent) = (self.factor[axis], self.plane[axis]);
        let source = match self.interpolation {
            Interpolation::Nearest => {
                let at = output / factor;
                return Stencil {
                    positions: [at, at],
                    weights: [1.0, 0.0],
                };
            }
            Interpolation::Bilinear(AlignCorners::No) => {
                ((output as f64 + 0.5) / factor as f64 - 0.5).max(0.0)
            }
            Interpolation::Bilinear(AlignCorners::Yes) => {
                let last = (extent * factor - 1).max(1);
                output as f64 * (extent - 1) as f64 / last as f64
            }
        };
        let first = (source as usize).min(extent - 1);
        let second = (first + 1).min(extent - 1);
        let share = source - first as f64;
        if second == first || share == 0.0 {
            // A neighbour without weight is not read: it need not exist.
            Stencil {
                positions: [first, first],
                weights: [1.0, 0.0],
            }
        } else {
            Stencil {
                positions: [first, second],
                weights: [1.0 - share, share],
            }
        }
    }

    /// The whole input plane.
    fn input_plane(&self) -> Rect {
        let [height, width] = self
            .plane
            .map(|extent| u64::try_from(extent).unwrap_or(u64::MAX));
        Rect::whole(height, width)
    }

    /// Checks that `outputs` lie in their plane, and that `input`, which lies in its own, has all that they read.
    fn check(&self, outputs: Rect, input: Rect) -> Result<(), KernelError> {
        let extent = |axis: usize| {
            if self.factor[axis] == 0 {
                return Err(KernelError::Zero {
                    what: "upsampling factor",
                });
            }
            self.plane[axis]
                .checked_mul(self.factor[axis])
                .filter(|&extent| bounded(extent).is_some())
                .and_then(|extent| u64::try_from(extent).ok())
                .ok_or(KernelError::Overflow {
                    what: "upsampled plane",
                })
        };
        let held = Rect::whole(extent(0)?, extent(1)?);
        if !held.covers(outputs) {
            return Err(KernelError::Outside {
                what: "upsampled outputs in their plane",
                rect: outputs,
                held,
            });
        }
        if outputs.is_empty() {
            return Ok(());
        }
        // Stencils are monotone: the first and the last output position bound what is read.
        let read = |axis: usize, output: i64, pick: usize| {
            let output = usize::try_from(output).unwrap_or_default();
            i64::try_from(self.stencil(axis, output).positions[pick]).unwrap_or(i64::MAX)
        };
        let Rect { rows, columns } = outputs;
        for position in [
            PerAxis::new(read(0, rows.lo, 0), read(1, columns.lo, 0)),
            PerAxis::new(read(0, rows.hi - 1, 1), read(1, columns.hi - 1, 1)),
        ] {
            let pixel = position.map(|index| Span::new(index, index.saturating_add(1)));
            if !input.covers(pixel) {
                return Err(KernelError::PositionOutside {
                    what: "upsampling",
                    position,
                    held: input,
                });
            }
        }
        Ok(())
    }
}

/// Row and column of a view's first pixel, which is none of its plane's only where the view is empty.
fn origin(rect: Rect) -> [usize; 2] {
    [rect.rows, rect.columns].map(|span| usize::try_from(span.lo).unwrap_or_default())
}

/// Upsamples `input` to `output`.
///
/// # Errors
/// [`KernelError`] where shapes do not match or `input` lacks a position that `output` needs; nothing is written then.
pub fn upsample_forward<E: Storage>(
    upsample: &Upsample,
    input: View<'_, E>,
    output: ViewMut<'_, E>,
) -> Result<(), KernelError> {
    let channels = output.channels();
    let in_plane = input.rect().intersect(upsample.input_plane());
    let input = input.operand("upsampling input", channels, in_plane)?;
    upsample.check(output.rect(), in_plane)?;
    let work = Forward {
        upsample,
        input,
        input_origin: origin(in_plane),
        columns: output.width(),
        output_origin: origin(output.rect()),
        pitch: output.pitch() * channels,
    };
    for_each_band(output, BAND_ROWS, work);
    Ok(())
}

/// Adds the gradient of [`upsample_forward`] to `input_cotangent`.
///
/// # Errors
/// [`KernelError`] where shapes do not match or `input_cotangent` lacks a position that the cotangents' outputs read; nothing is
/// written then.
pub fn upsample_vjp<E: Storage>(
    upsample: &Upsample,
    cotangent: View<'_, E>,
    input_cotangent: ViewMut<'_, E>,
) -> Result<(), KernelError> {
    cotangent.check_channels("upsampling cotangent", input_cotangent.channels())?;
    let in_plane = input_cotangent.rect().intersect(upsample.input_plane());
    let input_cotangent = input_cotangent.part(in_plane)?;
    upsample.check(cotangent.rect(), in_plane)?;
    if cotangent.rect().is_empty() {
        return Ok(());
    }
    let work = Vjp {
        upsample,
        cotangent,
        output_origin: origin(cotangent.rect()),
        input_origin: origin(in_plane),
    };
    for_each_row(input_cotangent, work);
    Ok(())
}

struct Forward<'a, E> {
    upsample: &'a Upsample,
    input: View<'a, E>,
    input_origin: [usize; 2],
    /// Columns of the output.
    columns: usize,
    output_origin: [usize; 2],
    /// Values from one row of the output to the next.
    pitch: usize,
}

impl<T: Element, E: Storage<Compute = T>> Work<E> for Forward<'_, E> {
    #[inline(always)]
    fn run<S: Simd>(&self, simd: S, first_row: usize, output: &mut [E]) {
        let (channels, width) = (self.input.channels(), self.input.width());
        for first_column in (0..self.columns).step_by(COLUMNS) {
            let mut columns = [Taps::<T>::default(); COLUMNS];
            let count = COLUMNS.min(self.columns - first_column);
            for (column, taps) in columns[..count].iter_mut().enumerate() {
                let column = self.output_origin[1] + first_column + column;
                *taps = Taps::new(self.upsample.stencil(1, column), self.input_origin[1]);
            }
            for (row, output) in output.chunks_mut(self.pitch).enumerate() {
                let row = self.output_origin[0] + first_row + row;
                let rows = Taps::<T>::new(self.upsample.stencil(0, row), self.input_origin[0]);
                let [above, below] = rows.positions.map(|row| self.input.span(row, 0, width));
                let [top, bottom] = rows.weights;
                let start = first_column * channels;
                let pixels = output[start..][..count * channels].chunks_exact_mut(channels);
                for (output, columns) in pixels.zip(&columns) {
                    let [left, right] = columns.weights;
                    let [at_left, at_right] = columns.positions.map(|column| column * channels);
                    let (a, b) = (
                        (top * left, &above[at_left..][..channels]),
                        (top * right, &above[at_right..][..channels]),
                    );
                    let (c, d) = (
                        (bottom * left, &below[at_left..][..channels]),
                        (bottom * right, &below[at_right..][..channels]),
                    );
                    // What has no weight is not read.
                    match (rows.single, columns.single) {
                        (true, true) => blend(simd, output, [a]),
                        (true, false) => blend(simd, output, [a, b]),
                        (false, true) => blend(simd, output, [a, c]),
                        (false, false) => blend(simd, output, [a, b, c, d]),
                    }
                }
            }
        }
    }
}

/// Writes the weighted sum of several sources.
#[inline(always)]
fn blend<S: Simd, T: Element, E, To, const SOURCES: usize>(
    simd: S,
    output: &mut [To],
    mut sources: [(T, &[E]); SOURCES],
) where
    E: Storage<Compute = T>,
    To: Storage<Compute = T>,
{
    let length = output.len();
    for (_, from) in &mut sources {
        *from = &from[..length];
    }
    let (weight, first) = sources[0];
    for place in registers::<S, T>(length) {
        let (weight, first) = (T::splat(simd, weight), load_from(simd, first, place));
        let mut sum = T::vector_mul(simd, weight, first);
        for &(weight, from) in &sources[1..] {
            let weight = T::splat(simd, weight);
            sum = T::mul_add(simd, weight, load_from(simd, from, place), sum);
        }
        store_to(simd, output, place, sum);
    }
}

/// Adds `weight * from` to `to`.
#[inline(always)]
fn add_scaled<S: Simd, T: Element, E: Storage<Compute = T>>(
    simd: S,
    to: &mut [T],
    weight: T,
    from: &[E],
) {
    let (weight, from) = (T::splat(simd, weight), &from[..to.len()]);
    for place in registers::<S, T>(to.len()) {
        let more = load_from(simd, from, place);
        let sum = T::mul_add(simd, weight, more, load_from(simd, to, place));
        store_to(simd, to, place, sum);
    }
}

struct Vjp<'a, E> {
    upsample: &'a Upsample,
    cotangent: View<'a, E>,
    output_origin: [usize; 2],
    input_origin: [usize; 2],
}

/// A part of a row of the input's cotangent.
struct Part {
    /// The row, in the input's plane.
    position: usize,
    /// Rows of the output that give it something.
    rows: Range<usize>,
    columns: Range<usize>,
    channels: Range<usize>,
}

impl<T: Element, E: Storage<Compute = T>> Work<E> for Vjp<'_, E> {
    #[inline(always)]
    fn run<S: Simd>(&self, simd: S, row: usize, values: &mut [E]) {
        let channels = self.cotangent.channels();
        let position = self.input_origin[0] + row;
        let part = |columns: Range<usize>, channels: Range<usize>| Part {
            position,
            rows: self.touching(0, position..position + 1),
            columns,
            channels,
        };
        let width = values.len() / channels;
        if let Some(sums) = E::as_computed_mut(values) {
            self.add(simd, &part(0..width, 0..channels), sums);
            return;
        }
        // What is stored is rounded once, when all is added.
        let mut room = [T::ZERO; SUMS];
        let (columns, some) = ((SUMS / channels).max(1), channels.min(SUMS));
        for channel in (0..channels).step_by(some) {
            let some = some.min(channels - channel);
            for column in (0..width).step_by(columns) {
                let columns = columns.min(width - column);
                let sums = &mut room[..columns * some];
                let values = &mut values[column * channels + channel..];
                let values = &mut values[..(columns - 1) * channels + some];
                for (sums, values) in sums.chunks_mut(some).zip(values.chunks(channels)) {
                    stored::widen(values, sums);
                }
                let part = part(column..column + columns, channel..channel + some);
                self.add(simd, &part, sums);
                for (sums, values) in sums.chunks(some).zip(values.chunks_mut(channels)) {
                    stored::narrow(sums, values);
                }
            }
        }
    }
}

impl<T: Element, E: Storage<Compute = T>> Vjp<'_, E> {
    /// The stencil of a row or column of the output that is held.
    #[inline(always)]
    fn stencil(&self, axis: usize, output: usize) -> Stencil {
        self.upsample
            .stencil(axis, self.output_origin[axis] + output)
    }

    /// The rows or columns of the output that read some of the input's plane.
    #[inline(always)]
    fn touching(&self, axis: usize, positions: Range<usize>) -> Range<usize> {
        let count = [self.cotangent.height(), self.cotangent.width()][axis];
        let last = |output: usize| self.stencil(axis, output).positions[1];
        let first = |output: usize| self.stencil(axis, output).positions[0];
        let start = first_that(count, |output| last(output) >= positions.start);
        start..first_that(count, |output| first(output) >= positions.end)
    }

    /// Adds to the sums of a part.
    #[inline(always)]
    fn add<S: Simd>(&self, simd: S, to: &Part, sums: &mut [T]) {
        let (channels, pitch) = (self.cotangent.channels(), self.cotangent.pitch());
        let origin = self.input_origin[1];
        let columns = origin + to.columns.start..origin + to.columns.end;
        let Range { start, end } = self.touching(1, columns);
        // A part of the output's rows is summed down, and the sums are spread along the input's row.
        let mut room = [T::ZERO; PART];
        let (columns, part) = ((PART / channels).max(1), channels.min(PART));
        for first_column in (start..end).step_by(columns) {
            let columns = columns.min(end - first_column);
            for channel in to.channels.clone().step_by(part) {
                let part = part.min(to.channels.end - channel);
                let room = &mut room[..(columns - 1) * channels + part];
                let mut rows = (to.rows.clone())
                    .map(|row| (row, self.stencil(0, row).weight(to.position)))
                    .filter(|&(_, weight)| weight != 0.0)
                    .map(|(row, weight)| {
                        let from = (row * pitch + first_column) * channels + channel;
                        (T::from_f64(weight), &self.cotangent.data()[from..])
                    });
                let mut first = [(T::ZERO, &[][..]); ROWS];
                let count = first
                    .iter_mut()
                    .zip(&mut rows)
                    .map(|(to, row)| *to = row)
                    .count();
                let [a, b, c, _] = first;
                match count {
                    0 => room.fill(T::ZERO),
                    1 => blend(simd, room, [a]),
                    2 => blend(simd, room, [a, b]),
                    3 => blend(simd, room, [a, b, c]),
                    _ => blend(simd, room, first),
                }
                for (weight, from) in rows {
                    add_scaled(simd, room, weight, from);
                }
                for (column, from) in room.chunks(channels).enumerate() {
                    let stencil = self.stencil(1, first_column + column);
                    for (column, weight) in Taps::<T>::new(stencil, origin).read() {
                        if to.columns.contains(&column) {
                            let pixel = (column - to.columns.start) * to.channels.len();
                            let sums = &mut sums[pixel + channel - to.channels.start..][..part];
                            add_scaled(simd, sums, weight, from);
                        }
                    }
                }
            }
        }
    }
}

/// The first index below `count` for which a monotone condition holds, or `count`.
fn first_that(count: usize, holds: impl Fn(usize) -> bool) -> usize {
    let (mut low, mut high) = (0, count);
    while low < high {
        let middle = low + (high - low) / 2;
        if holds(middle) {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    low
}
