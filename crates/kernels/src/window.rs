//! Sliding windows and convolutions: their shapes, without weights.

use crate::integers::bounded;
use crate::{KernelError, Position, Region};

/// The window that a convolution or pooling slides over its input; `[rows, columns]` throughout.
///
/// The window of an output position `(r, c)` of a region starts at `first_window + (r * stride, c * stride)` in the
/// input buffer and reads `kernel` positions `dilation` apart along each axis. Padding is no part of it: what lies
/// outside the input buffer is padding, and `first_window` may be negative.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Window {
    /// Taps along rows and columns.
    pub kernel: [usize; 2],
    /// Input positions from one output position to the next.
    pub stride: [usize; 2],
    /// Input positions from one tap to the next.
    pub dilation: [usize; 2],
}

impl Window {
    /// A window of `kernel` taps with stride 1 and dilation 1.
    #[must_use]
    pub const fn new(kernel: [usize; 2]) -> Self {
        Self {
            kernel,
            stride: [1, 1],
            dilation: [1, 1],
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

    /// Number of taps; saturates.
    #[must_use]
    pub const fn taps(&self) -> usize {
        self.kernel[0].saturating_mul(self.kernel[1])
    }

    /// Checks that no extent is zero and that every position the windows of `region` touch is an `isize`.
    pub(crate) fn check(&self, region: Region, first: Position) -> Result<(), KernelError> {
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
        let reach = |first: isize, count: usize, axis: usize| {
            let steps = bounded(count)?.checked_mul(bounded(self.stride[axis])?)?;
            let taps = bounded(self.kernel[axis])?.checked_mul(bounded(self.dilation[axis])?)?;
            bounded(first.unsigned_abs())?;
            bounded(usize::try_from(steps.checked_add(taps)?).ok()?)
        };
        match (
            reach(first.row, region.rows, 0),
            reach(first.column, region.columns, 1),
        ) {
            (Some(_), Some(_)) => Ok(()),
            _ => Err(KernelError::Overflow {
                what: "window position",
            }),
        }
    }
}

/// Outputs of a convolution, and where their windows lie.
///
/// ```
/// use stream_grad_kernels::{Position, Region, Windows};
///
/// // All outputs of a layer with padding 1, and those from its row 32 on, from an input buffer that begins at row 30.
/// let whole = Windows::new(Region::whole(64, 64), Position::new(-1, -1));
/// let below = Windows::new(Region::whole(32, 64), Position::new(1, -1)).in_plane(32, 0);
/// assert_eq!(whole.plane, [0, 0]);
/// assert_eq!(below.plane, [32, 0]);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Windows {
    /// The outputs, in the buffer of the layer's output or of its cotangent.
    pub region: Region,
    /// Where the window of the region's first output has its first tap, in the buffer of the layer's input; that of
    /// `(region.row + r, region.column + c)` has it `(r * stride, c * stride)` further on.
    pub first: Position,
    /// Row and column of the region's first output in the whole of the layer's output. A forward pass that says them is
    /// bitwise independent of how the whole is cut: the tiles of [`Arithmetic::Auto`] begin at even ones.
    pub plane: [usize; 2],
}

impl Windows {
    /// The windows of `region`, whose first output is the first of the whole.
    #[must_use]
    pub const fn new(region: Region, first: Position) -> Self {
        Self {
            region,
            first,
            plane: [0, 0],
        }
    }

    /// The same windows, of outputs that begin at (`row`, `column`) of the whole.
    #[must_use]
    pub const fn in_plane(self, row: usize, column: usize) -> Self {
        Self {
            plane: [row, column],
            ..self
        }
    }
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
