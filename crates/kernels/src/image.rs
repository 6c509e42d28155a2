//! One image in height x width x channels order, and places in it.

use std::fmt;

use crate::KernelError;
use crate::blocks::block;
use crate::integers::bounded;

/// A pixel's place in a buffer: may be outside, where padding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Position {
    /// Row, counted from the buffer's first; negative above it.
    pub row: isize,
    /// Column, counted from the buffer's first; negative to its left.
    pub column: isize,
}

impl Position {
    /// The position (`row`, `column`).
    #[must_use]
    pub const fn new(row: isize, column: isize) -> Self {
        Self { row, column }
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "row {}, column {}", self.row, self.column)
    }
}

/// A rectangle of pixels inside a buffer; it may be empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Region {
    /// First row.
    pub row: usize,
    /// First column.
    pub column: usize,
    /// Number of rows.
    pub rows: usize,
    /// Number of columns.
    pub columns: usize,
}

impl Region {
    /// `rows` x `columns` pixels from (`row`, `column`) on.
    #[must_use]
    pub const fn new(row: usize, column: usize, rows: usize, columns: usize) -> Self {
        Self {
            row,
            column,
            rows,
            columns,
        }
    }

    /// All of a buffer of `height` x `width` pixels.
    #[must_use]
    pub const fn whole(height: usize, width: usize) -> Self {
        Self::new(0, 0, height, width)
    }

    /// True where no pixel is inside.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.rows == 0 || self.columns == 0
    }

    /// Number of pixels. Cannot overflow for a region that lies inside an [`Image`].
    #[must_use]
    pub const fn pixels(&self) -> usize {
        self.rows.saturating_mul(self.columns)
    }

    pub(crate) fn check_inside(
        &self,
        what: &'static str,
        height: usize,
        width: usize,
    ) -> Result<(), KernelError> {
        let inside = |first: usize, count: usize, extent: usize| {
            first.checked_add(count).is_some_and(|end| end <= extent)
        };
        if inside(self.row, self.rows, height) && inside(self.column, self.columns, width) {
            Ok(())
        } else {
            Err(KernelError::RegionOutside {
                what,
                region: *self,
                height,
                width,
            })
        }
    }
}

impl fmt::Display for Region {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} x {} pixels at row {}, column {}",
            self.rows, self.columns, self.row, self.column
        )
    }
}

fn value_count(height: usize, width: usize, channels: usize) -> Result<usize, KernelError> {
    let pixels = bounded(height)
        .zip(bounded(width))
        .and_then(|_| height.checked_mul(width));
    pixels
        .filter(|&pixels| bounded(pixels).is_some())
        .and_then(|pixels| pixels.checked_mul(channels))
        .filter(|&count| isize::try_from(count).is_ok())
        .ok_or(KernelError::Overflow { what: "image size" })
}

/// One image to read: contiguous, height x width x channels.
///
/// ```
/// use stream_grad_kernels::Image;
///
/// let image = Image::new(&[1.0_f32, 2.0, 3.0, 4.0, 5.0, 6.0], 1, 2, 3)?;
/// assert_eq!(image.pixel(0, 1), &[4.0, 5.0, 6.0]);
/// # Ok::<(), stream_grad_kernels::KernelError>(())
/// ```
#[derive(Debug)]
pub struct Image<'a, T> {
    data: &'a [T],
    height: usize,
    width: usize,
    channels: usize,
}

impl<T> Clone for Image<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Image<'_, T> {}

impl<'a, T> Image<'a, T> {
    /// Views `data` as `height` x `width` x `channels`.
    ///
    /// # Errors
    /// [`KernelError::Length`] unless `data` holds exactly that many values.
    pub fn new(
        data: &'a [T],
        height: usize,
        width: usize,
        channels: usize,
    ) -> Result<Self, KernelError> {
        let expected = value_count(height, width, channels)?;
        if data.len() != expected {
            return Err(KernelError::Length {
                what: "image",
                expected,
                found: data.len(),
            });
        }
        Ok(Self {
            data,
            height,
            width,
            channels,
        })
    }

    /// All values, pixel by pixel in raster order.
    #[must_use]
    pub fn data(&self) -> &'a [T] {
        self.data
    }

    /// Height in pixels.
    #[must_use]
    pub fn height(&self) -> usize {
        self.height
    }

    /// Width in pixels.
    #[must_use]
    pub fn width(&self) -> usize {
        self.width
    }

    /// Values per pixel.
    #[must_use]
    pub fn channels(&self) -> usize {
        self.channels
    }

    /// The region that covers the image.
    #[must_use]
    pub fn region(&self) -> Region {
        Region::whole(self.height, self.width)
    }

    /// The channels of one pixel; empty where the pixel does not exist.
    #[must_use]
    pub fn pixel(&self, row: usize, column: usize) -> &'a [T] {
        self.span(row, column, 1)
    }

    /// The channels of `columns` pixels of one row; empty where they do not all exist.
    #[must_use]
    pub fn span(&self, row: usize, column: usize, columns: usize) -> &'a [T] {
        if Region::new(row, column, 1, columns)
            .check_inside("span", self.height, self.width)
            .is_err()
        {
            return &[];
        }
        let start = (row * self.width + column) * self.channels;
        &self.data[start..start + columns * self.channels]
    }

    /// The `N` channels from `channel` on of a pixel, which all exist.
    #[inline(always)]
    pub(crate) fn block<const N: usize>(
        &self,
        row: usize,
        column: usize,
        channel: usize,
    ) -> &'a [T; N] {
        block(
            self.data,
            (row * self.width + column) * self.channels + channel,
        )
    }

    pub(crate) fn check_channels(
        &self,
        what: &'static str,
        expected: usize,
    ) -> Result<(), KernelError> {
        check_channels(what, expected, self.channels)
    }

    pub(crate) fn check_region(
        &self,
        what: &'static str,
        region: Region,
    ) -> Result<(), KernelError> {
        region.check_inside(what, self.height, self.width)
    }
}

/// One image to write: contiguous, height x width x channels.
#[derive(Debug)]
pub struct ImageMut<'a, T> {
    data: &'a mut [T],
    height: usize,
    width: usize,
    channels: usize,
}

impl<'a, T> ImageMut<'a, T> {
    /// Views `data` as `height` x `width` x `channels`.
    ///
    /// # Errors
    /// [`KernelError::Length`] unless `data` holds exactly that many values.
    pub fn new(
        data: &'a mut [T],
        height: usize,
        width: usize,
        channels: usize,
    ) -> Result<Self, KernelError> {
        let expected = value_count(height, width, channels)?;
        if data.len() != expected {
            return Err(KernelError::Length {
                what: "image",
                expected,
                found: data.len(),
            });
        }
        Ok(Self {
            data,
            height,
            width,
            channels,
        })
    }

    /// The same image for the length of a shorter borrow.
    pub fn reborrow(&mut self) -> ImageMut<'_, T> {
        ImageMut {
            data: self.data,
            height: self.height,
            width: self.width,
            channels: self.channels,
        }
    }

    /// The same image, to read.
    #[must_use]
    pub fn as_image(&self) -> Image<'_, T> {
        Image {
            data: self.data,
            height: self.height,
            width: self.width,
            channels: self.channels,
        }
    }

    /// All values, pixel by pixel in raster order.
    pub fn data_mut(&mut self) -> &mut [T] {
        self.data
    }

    /// Height in pixels.
    #[must_use]
    pub fn height(&self) -> usize {
        self.height
    }

    /// Width in pixels.
    #[must_use]
    pub fn width(&self) -> usize {
        self.width
    }

    /// Values per pixel.
    #[must_use]
    pub fn channels(&self) -> usize {
        self.channels
    }

    /// The region that covers the image.
    #[must_use]
    pub fn region(&self) -> Region {
        Region::whole(self.height, self.width)
    }

    pub(crate) fn into_data(self) -> &'a mut [T] {
        self.data
    }

    pub(crate) fn check_channels(
        &self,
        what: &'static str,
        expected: usize,
    ) -> Result<(), KernelError> {
        check_channels(what, expected, self.channels)
    }

    pub(crate) fn check_region(
        &self,
        what: &'static str,
        region: Region,
    ) -> Result<(), KernelError> {
        region.check_inside(what, self.height, self.width)
    }
}

/// An image, and the pixel of it that belongs to the first pixel of the region an operator works on.
///
/// Buffers of different nodes hold different rectangles of their planes; this says how they line up.
#[derive(Debug)]
pub struct Located<'a, T> {
    /// The image.
    pub image: Image<'a, T>,
    /// Row of the pixel that belongs to the region's first.
    pub row: usize,
    /// Column of that pixel.
    pub column: usize,
}

impl<T> Clone for Located<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Located<'_, T> {}

impl<'a, T> Located<'a, T> {
    /// `image`, whose pixel (`row`, `column`) belongs to the region's first.
    #[must_use]
    pub const fn new(image: Image<'a, T>, row: usize, column: usize) -> Self {
        Self { image, row, column }
    }

    /// The values that belong to row `row` of a region of `columns` columns.
    #[inline(always)]
    pub(crate) fn row(&self, row: usize, columns: usize) -> &'a [T] {
        let start = ((self.row + row) * self.image.width + self.column) * self.image.channels;
        &self.image.data[start..start + columns * self.image.channels]
    }

    /// Checks the channels, and that a pixel belongs to each of the region's.
    pub(crate) fn check(
        &self,
        what: &'static str,
        channels: usize,
        region: Region,
    ) -> Result<(), KernelError> {
        self.image.check_channels(what, channels)?;
        let read = Region::new(self.row, self.column, region.rows, region.columns);
        self.image.check_region(what, read)
    }
}

fn check_channels(what: &'static str, expected: usize, found: usize) -> Result<(), KernelError> {
    if expected == found {
        Ok(())
    } else {
        Err(KernelError::Channels {
            what,
            expected,
            found,
        })
    }
}

pub(crate) fn check_length(
    what: &'static str,
    expected: usize,
    found: usize,
) -> Result<(), KernelError> {
    if expected == found {
        Ok(())
    } else {
        Err(KernelError::Length {
            what,
            expected,
            found,
        })
    }
}

pub(crate) fn check_scratch<T>(expected: usize, scratch: &[T]) -> Result<(), KernelError> {
    if scratch.len() < expected {
        return Err(KernelError::Length {
            what: "convolution scratch",
            expected,
            found: scratch.len(),
        });
    }
    Ok(())
}

/// What becomes of the values that a gradient's destination holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Existing {
    /// The gradient replaces them: it is added to zeros.
    Replace,
    /// The gradient is added to them.
    Add,
}
