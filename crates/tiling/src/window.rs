//! Windows of convolutions and pooling along one axis.

use crate::error::TilingError;
use crate::span::Span;

/// The largest size of an axis, and the largest parameter of a window: 2^31.
///
/// With this limit no index computation in `i64` can overflow.
pub const MAX_EXTENT: u64 = 1 << 31;

/// A convolution or pooling window along one axis.
///
/// Output index `o` reads the input indices `o * stride - pad_lo + dilation * t` for `t` in
/// `0..kernel`; indices outside the image are padding.
///
/// ```
/// use stream_grad_tiling::{Span, Window};
/// let stem = Window::new(7, 2, 1, 3, 3)?;
/// assert_eq!(stem.output_size(224), Some(112));
/// assert_eq!(stem.prefix(100, 224), 49);            // outputs that the first 100 inputs allow
/// assert_eq!(stem.needed(Span::new(0, 49)), Span::new(-3, 100));
/// # Ok::<(), stream_grad_tiling::TilingError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct Window {
    kernel: i64,
    stride: i64,
    dilation: i64,
    pad_lo: i64,
    pad_hi: i64,
    ceil: bool,
}

impl Window {
    /// A window of `kernel` taps, `dilation` apart, moved by `stride`, with padding before and after the image.
    ///
    /// # Errors
    /// [`TilingError::Window`] if kernel, stride or dilation is zero, or any value is above [`MAX_EXTENT`].
    pub fn new(
        kernel: u64,
        stride: u64,
        dilation: u64,
        pad_lo: u64,
        pad_hi: u64,
    ) -> Result<Self, TilingError> {
        let checked = |parameter, found: u64, minimum| {
            i64::try_from(found)
                .ok()
                .filter(|_| (minimum..=MAX_EXTENT).contains(&found))
                .ok_or(TilingError::Window {
                    parameter,
                    found,
                    minimum,
                    maximum: MAX_EXTENT,
                })
        };
        Ok(Self {
            kernel: checked("kernel", kernel, 1)?,
            stride: checked("stride", stride, 1)?,
            dilation: checked("dilation", dilation, 1)?,
            pad_lo: checked("padding before", pad_lo, 0)?,
            pad_hi: checked("padding after", pad_hi, 0)?,
            ceil: false,
        })
    }

    /// The same window with PyTorch's `ceil_mode`: the last window may reach beyond the padded image, if it begins in the image or in
    /// the padding before it.
    #[must_use]
    pub const fn ceil_mode(mut self) -> Self {
        self.ceil = true;
        self
    }

    /// The number of taps.
    pub const fn kernel(self) -> i64 {
        self.kernel
    }

    /// The stride in input indices.
    pub const fn stride(self) -> i64 {
        self.stride
    }

    /// The padding before index 0.
    pub const fn pad_lo(self) -> i64 {
        self.pad_lo
    }

    /// Distance from a window's first tap to one past its last: `dilation * (kernel - 1) + 1`.
    pub const fn extent(self) -> i64 {
        self.dilation * (self.kernel - 1) + 1
    }

    /// Size of an axis of `size` indices with its padding.
    pub const fn padded_size(self, size: i64) -> i64 {
        size + self.pad_lo + self.pad_hi
    }

    /// Number of outputs of an axis of `size` inputs; `None` if the padded axis is shorter than the window. Source of `ceil_mode`:
    /// PyTorch, `pooling_output_shape`.
    pub const fn output_size(self, size: i64) -> Option<i64> {
        let padded = self.padded_size(size);
        if size < 1 || padded < self.extent() {
            None
        } else {
            let room = padded - self.extent();
            let whole = room / self.stride;
            // One more, if what is left over begins before the padding at the end.
            let more = self.ceil
                && room % self.stride != 0
                && (whole + 1) * self.stride < size + self.pad_lo;
            Some(if more { whole + 2 } else { whole + 1 })
        }
    }

    /// Number of leading outputs that can be computed from the first `available` of `size` inputs.
    ///
    /// The last inputs complete the axis: `prefix(size, size)` is the whole output.
    pub const fn prefix(self, available: i64, size: i64) -> i64 {
        let Some(outputs) = self.output_size(size) else {
            return 0;
        };
        if available >= size {
            return outputs;
        }
        let count = (available - self.extent() + self.pad_lo).div_euclid(self.stride) + 1;
        if count < 0 {
            0
        } else if count > outputs {
            outputs
        } else {
            count
        }
    }

    /// The input span that the non-empty output span reads, padding included (it may leave the image).
    pub const fn needed(self, outputs: Span) -> Span {
        Span::new(
            outputs.lo * self.stride - self.pad_lo,
            (outputs.hi - 1) * self.stride - self.pad_lo + self.extent(),
        )
    }
}
