//! Upsampling by whole factors, on rectangles of larger planes.

use crate::convolution::signed;
use crate::rows::for_each_row;
use crate::window::bounded;
use crate::{Element, Image, ImageMut, KernelError, Position, Region};

/// Where bilinear interpolation places the samples, as PyTorch's `align_corners` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum AlignCorners {
    /// Pixels are squares and their centres are interpolated (`align_corners=False`).
    #[default]
    No,
    /// The centres of the corner pixels of input and output coincide (`align_corners=True`).
    Yes,
}

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

impl Upsample {
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

    fn check(
        &self,
        buffer: [usize; 2],
        input_origin: [usize; 2],
        region: Region,
        output_origin: [usize; 2],
    ) -> Result<(), KernelError> {
        let overflow = KernelError::Overflow {
            what: "upsampled plane",
        };
        for axis in 0..2 {
            if self.factor[axis] == 0 {
                return Err(KernelError::Zero {
                    what: "upsampling factor",
                });
            }
            let output = self.plane[axis]
                .checked_mul(self.factor[axis])
                .filter(|&extent| bounded(extent).is_some())
                .ok_or_else(|| overflow.clone())?;
            bounded(input_origin[axis]).ok_or_else(|| overflow.clone())?;
            let count = [region.rows, region.columns][axis];
            let end = output_origin[axis]
                .checked_add(count)
                .ok_or_else(|| overflow.clone())?;
            if end > output {
                return Err(KernelError::RegionOutside {
                    what: "upsampled region in its plane",
                    region: Region {
                        row: output_origin[0],
                        column: output_origin[1],
                        ..region
                    },
                    height: self.plane[0].saturating_mul(self.factor[0]),
                    width: self.plane[1].saturating_mul(self.factor[1]),
                });
            }
        }
        if region.is_empty() {
            return Ok(());
        }
        // Stencils are monotone: the first and the last output position bound what is read.
        let last = [region.rows - 1, region.columns - 1];
        let corner = |pick: usize, offset: [usize; 2]| {
            let place = |axis: usize| {
                let stencil = self.stencil(axis, output_origin[axis] + offset[axis]);
                signed(stencil.positions[pick]) - signed(input_origin[axis])
            };
            Position::new(place(0), place(1))
        };
        for position in [corner(0, [0, 0]), corner(1, last)] {
            let inside = |at: isize, extent: usize| at >= 0 && at < signed(extent);
            if !inside(position.row, buffer[0]) || !inside(position.column, buffer[1]) {
                return Err(KernelError::PositionOutside {
                    what: "upsampling",
                    position,
                    height: buffer[0],
                    width: buffer[1],
                });
            }
        }
        Ok(())
    }
}

/// Upsamples `input` into `region` of `output`.
///
/// `input` holds a rectangle of the input plane whose first pixel is at `input_origin` (`[row, column]`) of that plane; the
/// first pixel of `region` is at `output_origin` of the output plane.
///
/// # Errors
/// [`KernelError`] where shapes do not match or `input` lacks a position that `region` needs; nothing is written then.
pub fn upsample_forward<T: Element>(
    upsample: &Upsample,
    input: Image<'_, T>,
    input_origin: [usize; 2],
    output: ImageMut<'_, T>,
    region: Region,
    output_origin: [usize; 2],
) -> Result<(), KernelError> {
    let channels = output.channels();
    input.check_channels("upsampling input", channels)?;
    output.check_region("upsampling output", region)?;
    upsample.check(
        [input.height(), input.width()],
        input_origin,
        region,
        output_origin,
    )?;
    for_each_row(output, region, |row, output| {
        let rows = upsample.stencil(0, output_origin[0] + row);
        for (column, values) in output.chunks_exact_mut(channels).enumerate() {
            let columns = upsample.stencil(1, output_origin[1] + column);
            let pixel = |row: usize, column: usize| {
                input.pixel(
                    rows.positions[row] - input_origin[0],
                    columns.positions[column] - input_origin[1],
                )
            };
            if rows.weights[1] == 0.0 && columns.weights[1] == 0.0 {
                values.copy_from_slice(pixel(0, 0));
                continue;
            }
            let weights = [
                rows.weights.map(T::from_f64),
                columns.weights.map(T::from_f64),
            ];
            values.fill(T::ZERO);
            for row in 0..2 {
                for column in 0..2 {
                    let weight = weights[0][row] * weights[1][column];
                    if weight == T::ZERO {
                        continue;
                    }
                    for (value, &input) in values.iter_mut().zip(pixel(row, column)) {
                        *value += weight * input;
                    }
                }
            }
        }
    });
    Ok(())
}

/// Adds the gradient of [`upsample_forward`] to `input_cotangent`, for the cotangents in `region`.
///
/// `input_cotangent` holds a rectangle of the input plane whose first pixel is at `input_origin`.
///
/// # Errors
/// [`KernelError`] where shapes do not match or `input_cotangent` lacks a position that `region` needs; nothing is written
/// then.
pub fn upsample_vjp<T: Element>(
    upsample: &Upsample,
    cotangent: Image<'_, T>,
    region: Region,
    output_origin: [usize; 2],
    input_cotangent: ImageMut<'_, T>,
    input_origin: [usize; 2],
) -> Result<(), KernelError> {
    let channels = input_cotangent.channels();
    cotangent.check_channels("upsampling cotangent", channels)?;
    cotangent.check_region("upsampling cotangent", region)?;
    let buffer = [input_cotangent.height(), input_cotangent.width()];
    upsample.check(buffer, input_origin, region, output_origin)?;
    if region.is_empty() {
        return Ok(());
    }
    let whole = input_cotangent.region();
    for_each_row(input_cotangent, whole, |input_row, sums| {
        let position = input_origin[0] + input_row;
        let stencil = |row: usize| upsample.stencil(0, output_origin[0] + row);
        let start = first_row(region.rows, |row| stencil(row).positions[1] >= position);
        let end = first_row(region.rows, |row| stencil(row).positions[0] > position);
        for row in start..end {
            let row_weight = stencil(row).weight(position);
            if row_weight == 0.0 {
                continue;
            }
            for column in 0..region.columns {
                let columns = upsample.stencil(1, output_origin[1] + column);
                let cotangent = cotangent.pixel(region.row + row, region.column + column);
                for (&at, &column_weight) in columns.positions.iter().zip(&columns.weights) {
                    if column_weight == 0.0 {
                        continue;
                    }
                    let weight = T::from_f64(row_weight * column_weight);
                    let to = (at - input_origin[1]) * channels;
                    for (sum, &value) in sums[to..][..channels].iter_mut().zip(cotangent) {
                        *sum += weight * value;
                    }
                }
            }
        }
    });
    Ok(())
}

/// The first row below `rows` for which a monotone condition holds, or `rows`.
fn first_row(rows: usize, holds: impl Fn(usize) -> bool) -> usize {
    let (mut low, mut high) = (0, rows);
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
