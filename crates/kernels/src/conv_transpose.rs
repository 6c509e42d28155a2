//! Transposed convolutions: each input position is spread over a window of outputs.

mod forward;
mod gradients;

use stream_grad_tiling::{Rect, Span};

use crate::integers::signed;
use crate::view::{check_channels, check_length};
use crate::window::{OVERFLOW, extents, position};
use crate::{KernelError, Storage, Window};

pub use forward::{TransposedWeights, conv_transpose_forward};
pub use gradients::{conv_transpose_data_gradient, conv_transpose_weight_gradient};

/// The shape of a transposed convolution, `PyTorch`'s `ConvTranspose2d`: the adjoint of a convolution with this window.
///
/// Input position `i` is added, times the weights of tap `t`, to output `i * stride + t * dilation - padding`, in the planes' own
/// coordinates. What a buffer of the input does not hold adds nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ConvTranspose {
    /// Taps, outputs from one input's window to the next's, outputs from one tap to the next, and what is cut off each side of
    /// the output.
    pub window: Window,
    /// Channels of the input.
    pub in_channels: usize,
    /// Channels of the output.
    pub out_channels: usize,
    /// Groups that the channels are cut into.
    pub groups: usize,
}

impl ConvTranspose {
    /// A transposed convolution with one group.
    #[must_use]
    pub const fn new(window: Window, in_channels: usize, out_channels: usize) -> Self {
        Self {
            window,
            in_channels,
            out_channels,
            groups: 1,
        }
    }

    /// The same with more groups.
    #[must_use]
    pub const fn groups(self, groups: usize) -> Self {
        Self { groups, ..self }
    }

    /// Number of weights.
    ///
    /// # Errors
    /// [`KernelError`] where a number is zero, groups do not divide channels, or the product is too large.
    pub fn weight_count(&self) -> Result<usize, KernelError> {
        let Self {
            window,
            in_channels,
            out_channels,
            groups,
        } = *self;
        for (what, value) in [
            ("input channels", in_channels),
            ("output channels", out_channels),
            ("groups", groups),
        ] {
            if value == 0 {
                return Err(KernelError::Zero { what });
            }
        }
        window.check()?;
        if in_channels % groups != 0 || out_channels % groups != 0 {
            return Err(KernelError::Groups {
                groups,
                in_channels,
                out_channels,
            });
        }
        let count = window.taps().checked_mul(in_channels);
        count
            .and_then(|count| count.checked_mul(out_channels / groups))
            .filter(|&count| count <= isize::MAX.unsigned_abs())
            .ok_or(KernelError::Overflow {
                what: "weights of a transposed convolution",
            })
    }

    /// FLOPs of one output position, on average.
    #[must_use]
    pub const fn flops(&self) -> u64 {
        let products = (self.window.taps() as u64)
            .saturating_mul(self.in_channels as u64)
            .saturating_mul((self.out_channels / self.groups) as u64);
        let [rows, columns] = self.window.stride;
        products
            .saturating_mul(2)
            .div_ceil((rows as u64).saturating_mul(columns as u64))
    }

    /// Reorders weights from `PyTorch`'s `[in, out / groups, rows, columns]` to what [`conv_transpose_forward`] reads:
    /// `[rows, columns, in, out / groups]`.
    ///
    /// # Errors
    /// [`KernelError`] for settings that cannot be, and for another number of weights.
    pub fn forward_order<T: Copy + Default>(&self, weights: &[T]) -> Result<Vec<T>, KernelError> {
        self.reorder(weights, |place| place.forward, |place| place.given)
    }

    /// Reorders weights from `PyTorch`'s order to what [`conv_transpose_data_gradient`] reads: `[rows, columns, out, in / groups]`.
    ///
    /// # Errors
    /// As for [`Self::forward_order`].
    pub fn transposed_order<T: Copy + Default>(
        &self,
        weights: &[T],
    ) -> Result<Vec<T>, KernelError> {
        self.reorder(weights, |place| place.transposed, |place| place.given)
    }

    /// Reorders the sums of [`conv_transpose_weight_gradient`] to `PyTorch`'s order.
    ///
    /// # Errors
    /// As for [`Self::forward_order`].
    pub fn parameter_order<T: Copy + Default>(&self, sums: &[T]) -> Result<Vec<T>, KernelError> {
        self.reorder(sums, |place| place.given, |place| place.forward)
    }

    fn reorder<T: Copy + Default>(
        &self,
        from: &[T],
        to_place: impl Fn(&WeightPlace) -> usize,
        from_place: impl Fn(&WeightPlace) -> usize,
    ) -> Result<Vec<T>, KernelError> {
        let count = self.weight_count()?;
        check_length("weights of a transposed convolution", count, from.len())?;
        let mut to = vec![T::default(); count];
        let (inputs, outputs) = (self.in_channels, self.out_channels / self.groups);
        let own_inputs = self.in_channels / self.groups;
        for tap in 0..self.window.taps() {
            for input in 0..inputs {
                for output in 0..outputs {
                    let global = input / own_inputs * outputs + output;
                    let place = WeightPlace {
                        given: (input * outputs + output) * self.window.taps() + tap,
                        forward: (tap * inputs + input) * outputs + output,
                        transposed: (tap * self.out_channels + global) * own_inputs
                            + input % own_inputs,
                    };
                    to[to_place(&place)] = from[from_place(&place)];
                }
            }
        }
        Ok(to)
    }

    /// Checks that so many weights, and views of the input and of the output or of their cotangents, fit: rectangles and channels.
    /// Returns where the first output lies, along rows and columns, on the grid on which the first position of the input's view
    /// begins its window at 0; no position of that grid overflows.
    fn check(
        &self,
        weights: usize,
        (input, inputs): (Rect, usize),
        (output, outputs): (Rect, usize),
    ) -> Result<[isize; 2], KernelError> {
        let count = self.weight_count()?;
        check_length("weights of a transposed convolution", count, weights)?;
        for (what, expected, found) in [
            (
                "input of a transposed convolution",
                self.in_channels,
                inputs,
            ),
            (
                "output of a transposed convolution",
                self.out_channels,
                outputs,
            ),
        ] {
            check_channels(what, expected, found)?;
        }
        self.place(output, input)
    }

    fn place(&self, outputs: Rect, input: Rect) -> Result<[isize; 2], KernelError> {
        let window = &self.window;
        window.check_reach(extents(outputs)?)?;
        window.check_reach(extents(input)?)?;
        let [top, left] = window.padding.before();
        let place = |axis: usize, output: Span, padding: usize, input: Span| {
            let stride = i64::try_from(window.stride[axis]).ok()?;
            let place = output.lo.checked_add(i64::try_from(padding).ok()?)?;
            position(place.checked_sub(input.lo.checked_mul(stride)?)?)
        };
        let row = place(0, outputs.rows, top, input.rows);
        let column = place(1, outputs.columns, left, input.columns);
        row.zip(column)
            .map(|(row, column)| [row, column])
            .ok_or(OVERFLOW)
    }
}

/// Where one weight lies in each order.
struct WeightPlace {
    given: usize,
    forward: usize,
    transposed: usize,
}

/// The input position that tap `tap` takes to `place` on the grid, if there is one of `extent`.
#[inline(always)]
fn source(window: &Window, axis: usize, place: isize, tap: usize, extent: usize) -> Option<usize> {
    let from = place - signed(tap * window.dilation[axis]);
    let stride = signed(window.stride[axis]);
    if from < 0 || from % stride != 0 {
        return None;
    }
    let position = (from / stride).unsigned_abs();
    (position < extent).then_some(position)
}

/// The place, from the first output on, to which tap `tap` takes input position `position`, if it is one of `extent`.
#[inline(always)]
fn target(
    window: &Window,
    axis: usize,
    origin: isize,
    (position, tap): (usize, usize),
    extent: usize,
) -> Option<usize> {
    let place = signed(position * window.stride[axis] + tap * window.dilation[axis]) - origin;
    usize::try_from(place).ok().filter(|&place| place < extent)
}

/// Positions whose sums are made at once, so that each weight that is loaded is used for all.
const POSITIONS: usize = 4;

/// Adds to the `N` sums of each position `source[c] * weights[c]`, channel by channel, where the position has a source. What one
/// position's sums become does not depend on the others.
#[inline(always)]
fn add_products<E: Storage, const N: usize>(
    sums: &mut [[E::Compute; N]; POSITIONS],
    sources: [Option<&[E]>; POSITIONS],
    weights: &[E::Compute],
    pitch: usize,
) {
    if let [Some(a), Some(b), Some(c), Some(d)] = sources {
        let values = a.iter().zip(b).zip(c.iter().zip(d));
        for (((&a, &b), (&c, &d)), weights) in values.zip(weights.chunks(pitch)) {
            let weights: &[E::Compute; N] = crate::blocks::block(weights, 0);
            for (sums, value) in sums.iter_mut().zip([a, b, c, d]) {
                let value = value.widen();
                for lane in 0..N {
                    sums[lane] += value * weights[lane];
                }
            }
        }
        return;
    }
    for (sums, source) in sums.iter_mut().zip(sources) {
        for (&value, weights) in source.unwrap_or_default().iter().zip(weights.chunks(pitch)) {
            let weights: &[E::Compute; N] = crate::blocks::block(weights, 0);
            let value = value.widen();
            for lane in 0..N {
                sums[lane] += value * weights[lane];
            }
        }
    }
}
