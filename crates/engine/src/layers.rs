//! Settings of layers.

use stream_grad_kernels::{Arithmetic, Convolution, Window};

/// Padding on each side of an image, in pixels.
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
    pub const fn all(pixels: usize) -> Self {
        Self {
            top: pixels,
            bottom: pixels,
            left: pixels,
            right: pixels,
        }
    }
}

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
            },
            in_channels: self.in_channels,
            out_channels: self.out_channels,
            groups: self.groups,
            arithmetic: Arithmetic::Auto,
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
}

impl Pool2d {
    /// Pools `kernel` x `kernel` pixels with the same stride and no padding.
    pub const fn new(kernel: usize) -> Self {
        Self {
            kernel: [kernel, kernel],
            stride: [kernel, kernel],
            dilation: [1, 1],
            padding: Padding::all(0),
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

    pub(crate) const fn window(&self) -> Window {
        Window {
            kernel: self.kernel,
            stride: self.stride,
            dilation: self.dilation,
        }
    }
}
