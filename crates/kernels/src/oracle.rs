//! Plain double-precision loops of every operator and of its adjoint: the reference that tests compare the kernels with.
//!
//! Nothing here is fast, tiled or shared with the kernels. A [`Plane`] is one whole image, or a rectangle of one; an operator takes
//! planes and returns planes. What lies outside a plane is padding. Shapes are the caller's duty: a plane of the wrong shape gives
//! a wrong result or an index out of bounds.

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

use crate::{Element, PerAxis, Rect, Span, Storage, View, Window};

/// One image in double precision, height x width x channels, or a rectangle of one.
#[derive(Debug, Clone, PartialEq)]
pub struct Plane {
    /// Values, pixel by pixel in raster order.
    pub data: Vec<f64>,
    /// Row and column of the first pixel in the whole image.
    pub origin: PerAxis<i64>,
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
            origin: PerAxis::both(0),
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

    /// What a view holds.
    #[must_use]
    pub fn from_view<E: Storage>(view: View<'_, E>) -> Self {
        let mut plane = Self::zeros_of(view.rect(), view.channels());
        let Rect { rows, columns } = view.rect();
        let pixels = (rows.lo..rows.hi)
            .flat_map(|row| (columns.lo..columns.hi).map(move |column| (row, column)));
        let values = pixels.flat_map(|(row, column)| view.pixel(row, column));
        for (to, value) in plane.data.iter_mut().zip(values) {
            *to = value.widen().to_f64();
        }
        plane
    }

    /// A plane of zeros that is a rectangle of an image.
    #[must_use]
    pub fn zeros_of(rect: Rect, channels: usize) -> Self {
        let [height, width] =
            [rect.rows, rect.columns].map(|span| usize::try_from(span.len()).unwrap_or(usize::MAX));
        Self::zeros(height, width, channels).moved(rect.rows.lo, rect.columns.lo)
    }

    /// The same values, the first of them at (`row`, `column`).
    #[must_use]
    pub fn moved(self, row: i64, column: i64) -> Self {
        Self {
            origin: PerAxis::new(row, column),
            ..self
        }
    }

    /// The rectangle that it is of its image.
    #[must_use]
    pub fn rect(&self) -> Rect {
        let span = |first: i64, length: usize| {
            let length = i64::try_from(length).unwrap_or(i64::MAX);
            Span::new(first, first.saturating_add(length))
        };
        PerAxis::new(
            span(self.origin.rows, self.height),
            span(self.origin.columns, self.width),
        )
    }

    /// A part of it; its values are counted from the first one of the part.
    #[must_use]
    pub fn part(&self, rect: Rect) -> Self {
        let mut part = Self::zeros_of(rect, self.channels);
        let distance = |index: i64, origin: i64| usize::try_from(index - origin).ok();
        let (Some(first_row), Some(first_column)) = (
            distance(rect.rows.lo, self.origin.rows),
            distance(rect.columns.lo, self.origin.columns),
        ) else {
            return part;
        };
        for row in 0..part.height {
            for column in 0..part.width {
                for channel in 0..part.channels {
                    *part.at(row, column, channel) =
                        self.get(first_row + row, first_column + column, channel);
                }
            }
        }
        part
    }

    /// The place of one value, counted from the first pixel of the plane.
    pub fn at(&mut self, row: usize, column: usize, channel: usize) -> &mut f64 {
        let index = (row * self.width + column) * self.channels + channel;
        &mut self.data[index]
    }

    /// One value, counted likewise.
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

/// The place in the input that tap `tap` of the window of an output reads, or `None` for padding. Both are counted from the first
/// pixels of their rectangles.
fn tap(
    window: &Window,
    output: (Rect, [usize; 2]),
    tap: [usize; 2],
    input: Rect,
) -> Option<[usize; 2]> {
    let (outputs, output) = output;
    let place = |axis: usize, outputs: Span, padding: usize, input: Span| {
        let signed = |value: usize| i64::try_from(value).ok();
        let output = outputs.lo + signed(output[axis])?;
        let position = output * signed(window.stride[axis])?
            + signed(tap[axis] * window.dilation[axis])?
            - signed(padding)?;
        let inside = (input.lo..input.hi).contains(&position);
        inside.then(|| usize::try_from(position - input.lo).ok())?
    };
    Some([
        place(0, outputs.rows, window.padding.top, input.rows)?,
        place(1, outputs.columns, window.padding.left, input.columns)?,
    ])
}
