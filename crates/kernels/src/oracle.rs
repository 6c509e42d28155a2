//! Plain double-precision loops of every operator and of its adjoint: the reference that tests compare the kernels with.
//!
//! Nothing here is fast, tiled or shared with the kernels. A [`Plane`] is one whole image; an operator takes whole planes
//! and returns whole planes. Where an operator slides a window, `first_window` is the position of tap (0, 0) of output
//! (0, 0), as for the kernels, and what lies outside a plane is padding. Shapes are the caller's duty: a plane of the
//! wrong shape gives a wrong result or an index out of bounds.

mod channel;
mod conv_transpose;
mod convolution;
mod pooling;
mod upsample;

pub use channel::{
    LayerNormCotangents, affine_forward, affine_vjp, layer_norm_forward, layer_norm_vjp,
    pointwise_derivative, pointwise_forward, pointwise_vjp,
};
pub use conv_transpose::{
    conv_transpose_data_gradient, conv_transpose_forward, conv_transpose_weight_gradient,
};
pub use convolution::{bias_gradient, conv_data_gradient, conv_forward, conv_weight_gradient};
pub use pooling::{avg_pool_forward, avg_pool_vjp, max_pool_forward, max_pool_vjp};
pub use upsample::{upsample_forward, upsample_vjp};

use crate::{Element, Image, Position, Region, Window};

/// One image in double precision, height x width x channels.
#[derive(Debug, Clone, PartialEq)]
pub struct Plane {
    /// Values, pixel by pixel in raster order.
    pub data: Vec<f64>,
    /// Height in pixels.
    pub height: usize,
    /// Width in pixels.
    pub width: usize,
    /// Values per pixel.
    pub channels: usize,
}

impl Plane {
    /// A plane of zeros.
    #[must_use]
    pub fn zeros(height: usize, width: usize, channels: usize) -> Self {
        Self {
            data: vec![0.0; height * width * channels],
            height,
            width,
            channels,
        }
    }

    /// A plane whose value at `(row, column, channel)` is `value(row, column, channel)`.
    #[must_use]
    pub fn from_fn(
        height: usize,
        width: usize,
        channels: usize,
        mut value: impl FnMut(usize, usize, usize) -> f64,
    ) -> Self {
        let mut plane = Self::zeros(height, width, channels);
        for row in 0..height {
            for column in 0..width {
                for channel in 0..channels {
                    *plane.at(row, column, channel) = value(row, column, channel);
                }
            }
        }
        plane
    }

    /// A region of an image.
    #[must_use]
    pub fn from_image<T: Element>(image: Image<'_, T>, region: Region) -> Self {
        Self::from_fn(
            region.rows,
            region.columns,
            image.channels(),
            |row, column, channel| {
                image.pixel(region.row + row, region.column + column)[channel].to_f64()
            },
        )
    }

    /// The place of one value.
    pub fn at(&mut self, row: usize, column: usize, channel: usize) -> &mut f64 {
        let index = (row * self.width + column) * self.channels + channel;
        &mut self.data[index]
    }

    /// One value.
    #[must_use]
    pub fn get(&self, row: usize, column: usize, channel: usize) -> f64 {
        self.data[(row * self.width + column) * self.channels + channel]
    }

    /// The inner product of two planes.
    #[must_use]
    pub fn dot(&self, other: &Self) -> f64 {
        self.data.iter().zip(&other.data).map(|(a, b)| a * b).sum()
    }
}

/// The row and column that tap `tap` of the window of output `(row, column)` reads, or `None` for padding.
fn tap(
    window: &Window,
    first_window: Position,
    output: [usize; 2],
    tap: [usize; 2],
    extent: [usize; 2],
) -> Option<[usize; 2]> {
    let first = [first_window.row, first_window.column];
    let mut position = [0; 2];
    for axis in 0..2 {
        let offset = output[axis] * window.stride[axis] + tap[axis] * window.dilation[axis];
        let at = isize::try_from(offset).ok()?.checked_add(first[axis])?;
        position[axis] = usize::try_from(at).ok().filter(|&at| at < extent[axis])?;
    }
    Some(position)
}
