//! Sliding windows and convolutions: their shapes, without weights.

use stream_grad_tiling::{Rect, Span};

use crate::KernelError;
use crate::integers::bounded;

/// Padding on each side of a plane, in pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Padding {
    /// Rows above the first.
    pub top: usize,
    /// Rows below the last.
    pub bottom: usize,
    /// Columns before the first.
    pub left: usize,
    /// Columns after the last.
    pub right: usize,
}

impl Padding {
    /// The same padding on all sides.
    #[must_use]
    pub const fn all(pixels: usize) -> Self {
        Self {
            top: pixels,
            bottom: pixels,
            left: pixels,
            right: pixels,
        }
    }

    /// Padding before the first row and before the first column.
    #[must_use]
    pub const fn before(&self) -> [usize; 2] {
        [self.top, self.left]
    }
}

/// The window that a convolution or pooling slides over its input; `[rows, columns]` throughout.
///
/// Along each axis output `i` reads the input positions `i * stride - padding + t * dilation` for each tap `t`, in the planes' own
/// coordinates. Of those that a buffer of the input does not hold nothing is known: they count as padding.
///
/// Padding after the last row and column is for whoever works out how large the output is; kernels are told what to compute.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Window {
    /// Taps along rows and columns.
    pub kernel: [usize; 2],
    /// Input positions from one output position to the next.
    pub stride: [usize; 2],
    /// Input positions from one tap to the next.
    pub dilation: [usize; 2],
    /// Around the input.
    pub padding: Padding,
}

impl Window {
    /// A window of `kernel` taps with stride 1, dilation 1 and no padding.
    #[must_use]
    pub const fn new(kernel: [usize; 2]) -> Self {
        Self {
            kernel,
            stride: [1, 1],
            dilation: [1, 1],
            padding: Padding::all(0),
        }
    }

    /// The same window with another stride.
    #[must_use]
    pub const fn stride(self, stride: [usize; 2]) -> Self {
        Self { stride, ..self }
    }

    /// The same window with another dilation.
    #[must_use]
    pub const fn dilation(self, dilation: [usize; 2]) -> Self {
        Self { dilation, ..self }
    }

    /// The same window over a plane with padding.
    #[must_use]
    pub const fn padding(self, padding: Padding) -> Self {
        Self { padding, ..self }
    }

    /// Number of taps; saturates.
    #[must_use]
    pub const fn taps(&self) -> usize {
        self.kernel[0].saturating_mul(self.kernel[1])
    }

    /// Checks that no extent is zero and that the taps of a window do not overflow.
    pub(crate) fn check(&self) -> Result<(), KernelError> {
        for axis in 0..2 {
            for (what, value) in [
                ("window kernel", self.kernel[axis]),
                ("window stride", self.stride[axis]),
                ("window dilation", self.dilation[axis]),
            ] {
                if value == 0 {
                    return Err(KernelError::Zero { what });
                }
            }
        }
        self.check_reach([0, 0])
    }

    /// Checks that so many windows along each axis, one after another, overflow nothing.
    pub(crate) fn check_reach(&self, windows: [usize; 2]) -> Result<(), KernelError> {
        let reach = |axis: usize| {
            let steps = bounded(windows[axis])?.checked_mul(bounded(self.stride[axis])?)?;
            let taps = bounded(self.kernel[axis])?.checked_mul(bounded(self.dilation[axis])?)?;
            bounded(usize::try_from(steps.checked_add(taps)?).ok()?)
        };
        reach(0).zip(reach(1)).map(|_| ()).ok_or(OVERFLOW)
    }

    /// Where the window of the first of `outputs` has its first tap, counted from the first position of `input`, along rows and
    /// columns: it may be before it. Checks the window, and that every position that the windows touch is an `isize`.
    pub(crate) fn place(&self, outputs: Rect, input: Rect) -> Result<[isize; 2], KernelError> {
        self.check()?;
        self.check_reach(extents(outputs)?)?;
        let [top, left] = self.padding.before();
        let first = |axis: usize, output: Span, padding: usize, input: Span| {
            let stride = i64::try_from(self.stride[axis]).ok()?;
            let first = output.lo.checked_mul(stride)?;
            let first = first.checked_sub(i64::try_from(padding).ok()?)?;
            position(first.checked_sub(input.lo)?)
        };
        let row = first(0, outputs.rows, top, input.rows);
        let column = first(1, outputs.columns, left, input.columns);
        row.zip(column)
            .map(|(row, column)| [row, column])
            .ok_or(OVERFLOW)
    }
}

/// What is refused where a window would leave the machine's integers.
pub(crate) const OVERFLOW: KernelError = KernelError::Overflow {
    what: "window position",
};

/// A distance between two positions, if it leaves room for a few of its kind.
pub(crate) fn position(distance: i64) -> Option<isize> {
    let distance = isize::try_from(distance).ok()?;
    bounded(distance.unsigned_abs()).map(|_| distance)
}

/// Rows and columns of a rectangle.
pub(crate) fn extents(rect: Rect) -> Result<[usize; 2], KernelError> {
    let extent = |span: Span| usize::try_from(span.len()).map_err(|_| OVERFLOW);
    Ok([extent(rect.rows)?, extent(rect.columns)?])
}

/// How convolutions are computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Arithmetic {
    /// As it is fastest: Winograd's F(2 x 2, 3 x 3) where it gains, which [`Convolution::is_winograd`] decides by the shape
    /// alone, and direct otherwise.
    #[default]
    Auto,
    /// The sum of products by which a convolution is defined.
    Direct,
}

/// The shape of a two-dimensional convolution.
///
/// Weights come in the order of PyTorch and candle: output channel, input channel within the group, kernel row,
/// kernel column ("OIHW").
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Convolution {
    /// The sliding window.
    pub window: Window,
    /// Channels of the input.
    pub in_channels: usize,
    /// Channels of the output.
    pub out_channels: usize,
    /// Groups that the channels are cut into; `in_channels` of them make a depthwise convolution.
    pub groups: usize,
    /// How it is computed.
    pub arithmetic: Arithmetic,
}

impl Convolution {
    /// A dense convolution (one group).
    #[must_use]
    pub const fn new(window: Window, in_channels: usize, out_channels: usize) -> Self {
        Self {
            window,
            in_channels,
            out_channels,
            groups: 1,
            arithmetic: Arithmetic::Auto,
        }
    }

    /// The same convolution, computed by `arithmetic`.
    #[must_use]
    pub const fn arithmetic(self, arithmetic: Arithmetic) -> Self {
        Self { arithmetic, ..self }
    }

    /// The same convolution in `groups` groups.
    #[must_use]
    pub const fn groups(self, groups: usize) -> Self {
        Self { groups, ..self }
    }

    /// Number of weights: `out_channels * in_channels / groups * kernel rows * kernel columns`.
    ///
    /// # Errors
    /// [`KernelError`] where an extent is zero, the groups do not divide the channels or the product overflows.
    pub fn weight_count(&self) -> Result<usize, KernelError> {
        self.check()?;
        (self.in_channels / self.groups)
            .checked_mul(self.out_channels)
            .and_then(|count| count.checked_mul(self.window.kernel[0]))
            .and_then(|count| count.checked_mul(self.window.kernel[1]))
            .filter(|&count| isize::try_from(count).is_ok())
            .ok_or(KernelError::Overflow {
                what: "convolution weights",
            })
    }

    /// Floating-point operations of the forward pass over `pixels` output pixels, two for each multiply-add; saturates.
    #[must_use]
    pub fn flops(&self, pixels: usize) -> u64 {
        let weights = self.weight_count().unwrap_or_default();
        u64::try_from(weights)
            .ok()
            .zip(u64::try_from(pixels).ok())
            .and_then(|(weights, pixels)| weights.checked_mul(pixels)?.checked_mul(2))
            .unwrap_or(u64::MAX)
    }

    pub(crate) fn check(&self) -> Result<(), KernelError> {
        for (what, value) in [
            ("convolution groups", self.groups),
            ("convolution input channels", self.in_channels),
            ("convolution output channels", self.out_channels),
            ("window kernel", self.window.kernel[0]),
            ("window kernel", self.window.kernel[1]),
            ("window stride", self.window.stride[0]),
            ("window stride", self.window.stride[1]),
            ("window dilation", self.window.dilation[0]),
            ("window dilation", self.window.dilation[1]),
        ] {
            if value == 0 {
                return Err(KernelError::Zero { what });
            }
        }
        if !self.in_channels.is_multiple_of(self.groups)
            || !self.out_channels.is_multiple_of(self.groups)
        {
            return Err(KernelError::Groups {
                groups: self.groups,
                in_channels: self.in_channels,
                out_channels: self.out_channels,
            });
        }
        Ok(())
    }

    /// True where each output channel has one input channel of its own.
    pub(crate) fn is_depthwise(&self) -> bool {
        self.groups > 1 && self.groups == self.in_channels && self.groups == self.out_channels
    }
}
