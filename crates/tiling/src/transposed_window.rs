//! Windows of transposed convolutions along one axis.

use crate::error::TilingError;
use crate::span::Span;
use crate::window::{MAX_EXTENT, Window};

/// The window of a transposed convolution along one axis: the adjoint of a [`Window`].
///
/// Input index `i` is spread over the output indices `i * stride - pad_lo + dilation * t` for `t` in `0..kernel`, so output `o` reads
/// the inputs from `ceil((o + pad_lo - dilation * (kernel - 1)) / stride)` to `floor((o + pad_lo) / stride)`. An output that
/// lies between the taps reads nothing; it counts as reading the last of these, so that what outputs read rises with them.
///
/// ```
/// use stream_grad_tiling::{Span, TransposedWindow, Window};
/// let up = TransposedWindow::new(Window::new(4, 2, 1, 1, 1)?, 0)?;
/// assert_eq!(up.output_size(112), Some(224));
/// assert_eq!(up.prefix(50, 112), 99); // outputs that the first 50 inputs allow
/// assert_eq!(up.needed(Span::new(0, 99)), Span::new(-1, 50));
/// # Ok::<(), stream_grad_tiling::TilingError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct TransposedWindow {
    window: Window,
    output_padding: i64,
}

impl TransposedWindow {
    /// The adjoint of `window`, with `output_padding` more outputs at the end, as PyTorch's `ConvTranspose2d` calls it: of the sizes
    /// that the window brings to one, it chooses one.
    ///
    /// # Errors
    /// [`TilingError::Window`] if the padding of the output is above [`MAX_EXTENT`].
    pub fn new(window: Window, output_padding: u64) -> Result<Self, TilingError> {
        match i64::try_from(output_padding) {
            Ok(padding) if output_padding <= MAX_EXTENT => Ok(Self {
                window,
                output_padding: padding,
            }),
            _ => Err(TilingError::Window {
                parameter: "output padding",
                found: output_padding,
                minimum: 0,
                maximum: MAX_EXTENT,
            }),
        }
    }

    /// The stride in output indices.
    pub const fn stride(self) -> i64 {
        self.window.stride()
    }

    /// Number of outputs of an axis of `size` inputs; `None` if the padding cuts all of them off, or there are too many.
    pub fn output_size(self, size: i64) -> Option<i64> {
        let spread = (size - 1)
            .checked_mul(self.stride())?
            .checked_add(self.window.extent())?;
        let outputs = spread + self.output_padding - self.window.padded_size(0);
        (size >= 1 && outputs >= 1).then_some(outputs)
    }

    /// Number of leading outputs that can be computed from the first `available` of `size` inputs.
    pub fn prefix(self, available: i64, size: i64) -> i64 {
        let Some(outputs) = self.output_size(size) else {
            return 0;
        };
        if available >= size {
            return outputs;
        }
        (available * self.stride() - self.window.pad_lo()).clamp(0, outputs)
    }

    /// The input span that the non-empty output span reads; it may leave the input.
    pub const fn needed(self, outputs: Span) -> Span {
        let (stride, pad) = (self.stride(), self.window.pad_lo());
        let last = (outputs.hi - 1 + pad).div_euclid(stride);
        let first = (outputs.lo + pad - self.window.extent() + stride).div_euclid(stride);
        let between = (outputs.lo + pad).div_euclid(stride);
        Span::new(if first < between { first } else { between }, last + 1)
    }
}
