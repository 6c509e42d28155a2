//! Settings of layers.

use stream_grad_kernels::{Arithmetic, ConvTranspose, Convolution, Padding, Window};

/// Settings of a convolution; every per-axis pair is `[rows, columns]`.
///
/// ```
/// use stream_grad_engine::{Conv2d, Padding};
/// let stem = Conv2d::new(3, 64, 7).stride(2).padding(3).without_bias();
/// assert_eq!(stem.padding, Padding::all(3));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Conv2d {
    /// Channels of the input.
    pub in_channels: usize,
    /// Channels of the output.
    pub out_channels: usize,
    /// Taps.
    pub kernel: [usize; 2],
    /// Input pixels from one output to the next.
    pub stride: [usize; 2],
    /// Input pixels from one tap to the next.
    pub dilation: [usize; 2],
    /// Zeros around the image.
    pub padding: Padding,
    /// Groups that the channels are cut into.
    pub groups: usize,
    /// Whether there is a bias.
    pub bias: bool,
}

impl Conv2d {
    /// A `kernel` x `kernel` convolution with stride 1, no padding, one group and a bias.
    pub const fn new(in_channels: usize, out_channels: usize, kernel: usize) -> Self {
        Self {
            in_channels,
            out_channels,
            kernel: [kernel, kernel],
            stride: [1, 1],
            dilation: [1, 1],
            padding: Padding::all(0),
            groups: 1,
            bias: true,
        }
    }

    /// The same stride on both axes.
    #[must_use]
    pub const fn stride(mut self, stride: usize) -> Self {
        self.stride = [stride, stride];
        self
    }

    /// The same dilation on both axes.
    #[must_use]
    pub const fn dilation(mut self, dilation: usize) -> Self {
        self.dilation = [dilation, dilation];
        self
    }

    /// The same padding on all sides.
    #[must_use]
    pub const fn padding(mut self, pixels: usize) -> Self {
        self.padding = Padding::all(pixels);
        self
    }

    /// As much padding as keeps the size of the image at stride 1: PyTorch's `padding="same"`. Of an odd number the larger part
    /// comes after the image.
    ///
    /// ```
    /// use stream_grad_engine::{Conv2d, Padding};
    /// let even = Conv2d::new(8, 8, 4).padding_same();
    /// assert_eq!(even.padding, Padding { top: 1, bottom: 2, left: 1, right: 2 });
    /// ```
    #[must_use]
    pub const fn padding_same(mut self) -> Self {
        let rows = self.dilation[0].saturating_mul(self.kernel[0].saturating_sub(1));
        let columns = self.dilation[1].saturating_mul(self.kernel[1].saturating_sub(1));
        self.padding = Padding {
            top: rows / 2,
            bottom: rows - rows / 2,
            left: columns / 2,
            right: columns - columns / 2,
        };
        self
    }

    /// The number of groups.
    #[must_use]
    pub const fn groups(mut self, groups: usize) -> Self {
        self.groups = groups;
        self
    }

    /// No bias.
    #[must_use]
    pub const fn without_bias(mut self) -> Self {
        self.bias = false;
        self
    }

    pub(crate) const fn shape(&self) -> Convolution {
        Convolution {
            window: Window {
                kernel: self.kernel,
                stride: self.stride,
                dilation: self.dilation,
                padding: self.padding,
            },
            in_channels: self.in_channels,
            out_channels: self.out_channels,
            groups: self.groups,
            arithmetic: Arithmetic::Auto,
        }
    }
}

/// Settings of a transposed convolution, as PyTorch's `ConvTranspose2d`; every per-axis pair is `[rows, columns]`.
///
/// An axis of `size` pixels becomes one of `(size - 1) stride - padding + dilation (kernel - 1) + 1 + output_padding`, with the
/// padding of both sides.
///
/// ```
/// use stream_grad_engine::ConvTranspose2d;
/// let up = ConvTranspose2d::new(64, 32, 2).stride(2);
/// assert_eq!(up.stride, [2, 2]);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConvTranspose2d {
    /// Channels of the input.
    pub in_channels: usize,
    /// Channels of the output.
    pub out_channels: usize,
    /// Taps.
    pub kernel: [usize; 2],
    /// Output pixels from one input pixel's window to the next's.
    pub stride: [usize; 2],
    /// Output pixels from one tap to the next.
    pub dilation: [usize; 2],
    /// Pixels that are cut off each side of the output.
    pub padding: Padding,
    /// Pixels that are added at the end of each axis of the output.
    pub output_padding: [usize; 2],
    /// Groups that the channels are cut into.
    pub groups: usize,
    /// Whether there is a bias.
    pub bias: bool,
}

impl ConvTranspose2d {
    /// A `kernel` x `kernel` transposed convolution with stride 1, no padding, one group and a bias.
    pub const fn new(in_channels: usize, out_channels: usize, kernel: usize) -> Self {
        Self {
            in_channels,
            out_channels,
            kernel: [kernel, kernel],
            stride: [1, 1],
            dilation: [1, 1],
            padding: Padding::all(0),
            output_padding: [0, 0],
            groups: 1,
            bias: true,
        }
    }

    /// The same stride on both axes.
    #[must_use]
    pub const fn stride(mut self, stride: usize) -> Self {
        self.stride = [stride, stride];
        self
    }

    /// The same dilation on both axes.
    #[must_use]
    pub const fn dilation(mut self, dilation: usize) -> Self {
        self.dilation = [dilation, dilation];
        self
    }

    /// The same padding on all sides.
    #[must_use]
    pub const fn padding(mut self, pixels: usize) -> Self {
        self.padding = Padding::all(pixels);
        self
    }

    /// The same padding of the output on both axes.
    #[must_use]
    pub const fn output_padding(mut self, pixels: usize) -> Self {
        self.output_padding = [pixels, pixels];
        self
    }

    /// The number of groups.
    #[must_use]
    pub const fn groups(mut self, groups: usize) -> Self {
        self.groups = groups;
        self
    }

    /// No bias.
    #[must_use]
    pub const fn without_bias(mut self) -> Self {
        self.bias = false;
        self
    }

    pub(crate) const fn shape(&self) -> ConvTranspose {
        ConvTranspose {
            window: Window {
                kernel: self.kernel,
                stride: self.stride,
                dilation: self.dilation,
                padding: self.padding,
            },
            in_channels: self.in_channels,
            out_channels: self.out_channels,
            groups: self.groups,
        }
    }
}

/// Settings of a pooling layer; every per-axis pair is `[rows, columns]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pool2d {
    /// Taps.
    pub kernel: [usize; 2],
    /// Input pixels from one output to the next.
    pub stride: [usize; 2],
    /// Input pixels from one tap to the next.
    pub dilation: [usize; 2],
    /// Padding around the image: minus infinity for the maximum, zero for the average.
    pub padding: Padding,
    /// Whether the last window may reach beyond the padded image, so that no pixel is left over. What lies beyond is not there:
    /// averages do not count it.
    pub ceil_mode: bool,
}

impl Pool2d {
    /// Pools `kernel` x `kernel` pixels with the same stride and no padding.
    pub const fn new(kernel: usize) -> Self {
        Self {
            kernel: [kernel, kernel],
            stride: [kernel, kernel],
            dilation: [1, 1],
            padding: Padding::all(0),
            ceil_mode: false,
        }
    }

    /// The same stride on both axes.
    #[must_use]
    pub const fn stride(mut self, stride: usize) -> Self {
        self.stride = [stride, stride];
        self
    }

    /// The same padding on all sides.
    #[must_use]
    pub const fn padding(mut self, pixels: usize) -> Self {
        self.padding = Padding::all(pixels);
        self
    }

    /// PyTorch's `ceil_mode=True`.
    #[must_use]
    pub const fn ceil_mode(mut self) -> Self {
        self.ceil_mode = true;
        self
    }

    pub(crate) const fn window(&self) -> Window {
        Window {
            kernel: self.kernel,
            stride: self.stride,
            dilation: self.dilation,
            padding: self.padding,
        }
    }
}
