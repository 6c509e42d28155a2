//! What buffers hold of planes.

use std::ops::Range;

use stream_grad_tiling::Rect;

use crate::KernelError;
use crate::blocks::block;
use crate::integers::bounded;

/// Where the values of a rectangle of a plane lie in a slice: height x width x channels, with rows that may lie further apart than
/// they are long.
#[derive(Debug, Clone, Copy, Default)]
struct Layout {
    /// What is held of the plane.
    rect: Rect,
    /// Of the rectangle; zero where it is empty.
    height: usize,
    width: usize,
    channels: usize,
    /// Pixels from one row to the next.
    pitch: usize,
}

impl Layout {
    /// Rows one after another.
    fn new(rect: Rect, channels: usize) -> Result<Self, KernelError> {
        let extent = |length: u64| usize::try_from(length).ok();
        let extents = match (extent(rect.rows.len()), extent(rect.columns.len())) {
            _ if rect.is_empty() => Some((0, 0)),
            (Some(height), Some(width)) => height
                .checked_mul(width)
                .filter(|&pixels| bounded(pixels).is_some())
                .and_then(|pixels| pixels.checked_mul(channels))
                .filter(|&count| isize::try_from(count).is_ok())
                .map(|_| (height, width)),
            _ => None,
        };
        let (height, width) = extents.ok_or(KernelError::Overflow { what: "view" })?;
        Ok(Self {
            rect,
            height,
            width,
            channels,
            pitch: width,
        })
    }

    /// The same, if `found` values are what it takes.
    fn of(rect: Rect, channels: usize, found: usize) -> Result<Self, KernelError> {
        let layout = Self::new(rect, channels)?;
        check_length("view", layout.values(), found)?;
        Ok(layout)
    }

    /// From the first value to the last.
    fn values(&self) -> usize {
        match self.height.checked_sub(1) {
            Some(before) => (before * self.pitch + self.width) * self.channels,
            None => 0,
        }
    }

    /// How a part of it lies, and where.
    fn part(&self, what: &'static str, rect: Rect) -> Result<(Range<usize>, Self), KernelError> {
        if !self.rect.covers(rect) {
            return Err(KernelError::Outside {
                what,
                rect,
                held: self.rect,
            });
        }
        let part = Self {
            pitch: self.pitch,
            ..Self::new(rect, self.channels)?
        };
        if rect.is_empty() {
            return Ok((0..0, part));
        }
        let distance =
            |index: i64, origin: i64| usize::try_from(index.abs_diff(origin)).unwrap_or(usize::MAX);
        let row = distance(rect.rows.lo, self.rect.rows.lo);
        let column = distance(rect.columns.lo, self.rect.columns.lo);
        let first = (row * self.pitch + column) * self.channels;
        Ok((first..first + part.values(), part))
    }

    /// Where the channels of `columns` pixels of one row lie, counted from the first pixel that is held; `None` where they do not all
    /// exist.
    #[inline(always)]
    fn span(&self, row: usize, column: usize, columns: usize) -> Option<Range<usize>> {
        let end = column.checked_add(columns)?;
        if row >= self.height || end > self.width {
            return None;
        }
        let first = (row * self.pitch + column) * self.channels;
        Some(first..first + columns * self.channels)
    }
}

/// What a buffer holds of a plane: a rectangle, height x width x channels, with contiguous rows. To read it is a [`View`], to write a
/// [`ViewMut`].
///
/// Kernels place windows and pixels by the plane's own coordinates, so that buffers that hold different parts of planes line up.
/// [`View::part`] says what a kernel is to work on.
///
/// ```
/// use stream_grad_kernels::{Rect, Span, View};
///
/// // Rows 2 to 3 and column 5 of a plane of two channels.
/// let held = Rect::new(Span::new(2, 4), Span::new(5, 6));
/// let view = View::new(&[1.0_f32, 2.0, 3.0, 4.0], held, 2)?;
/// assert_eq!(view.pixel(3, 5), &[3.0, 4.0]);
/// assert!(view.pixel(0, 0).is_empty());
/// # Ok::<(), stream_grad_kernels::KernelError>(())
/// ```
#[derive(Debug, Clone, Copy, Default)]
pub struct PlaneView<D> {
    data: D,
    layout: Layout,
}

/// A [`PlaneView`] to read.
pub type View<'a, T> = PlaneView<&'a [T]>;

/// A [`PlaneView`] to write. By default it holds nothing.
pub type ViewMut<'a, T> = PlaneView<&'a mut [T]>;

impl<D> PlaneView<D> {
    /// What it holds of the plane.
    #[must_use]
    pub fn rect(&self) -> Rect {
        self.layout.rect
    }

    /// Values per pixel.
    #[must_use]
    pub fn channels(&self) -> usize {
        self.layout.channels
    }

    /// The same, of other data that lies as this does.
    #[cfg(target_arch = "x86_64")]
    pub(crate) fn map<Other>(self, data: impl FnOnce(D) -> Other) -> PlaneView<Other> {
        PlaneView {
            data: data(self.data),
            layout: self.layout,
        }
    }

    pub(crate) fn height(&self) -> usize {
        self.layout.height
    }

    pub(crate) fn width(&self) -> usize {
        self.layout.width
    }

    /// Pixels from one row to the next.
    pub(crate) fn pitch(&self) -> usize {
        self.layout.pitch
    }

    pub(crate) fn check_channels(
        &self,
        what: &'static str,
        expected: usize,
    ) -> Result<(), KernelError> {
        check_channels(what, expected, self.layout.channels)
    }
}

impl<'a, T> View<'a, T> {
    /// `rect` of a plane, in `data` row after row.
    ///
    /// # Errors
    /// [`KernelError::Length`] unless `data` holds exactly as many values.
    pub fn new(data: &'a [T], rect: Rect, channels: usize) -> Result<Self, KernelError> {
        let layout = Layout::of(rect, channels, data.len())?;
        Ok(Self { data, layout })
    }

    /// A part of it.
    ///
    /// # Errors
    /// [`KernelError::Outside`] where it does not hold all of `rect`.
    pub fn part(&self, rect: Rect) -> Result<Self, KernelError> {
        self.part_of("part of a view", rect)
    }

    /// The channels of the pixel at (`row`, `column`) of the plane; empty where it does not hold that pixel.
    #[must_use]
    pub fn pixel(&self, row: i64, column: i64) -> &'a [T] {
        let distance = |index: i64, origin: i64| {
            let distance = index.checked_sub(origin)?;
            usize::try_from(distance).ok()
        };
        let Rect { rows, columns } = self.layout.rect;
        match (distance(row, rows.lo), distance(column, columns.lo)) {
            (Some(row), Some(column)) => self.span(row, column, 1),
            _ => &[],
        }
    }

    /// All values from the first to the last, with what lies between rows.
    pub(crate) fn data(&self) -> &'a [T] {
        self.data
    }

    /// [`Self::part`], with a name for what is refused.
    pub(crate) fn part_of(&self, what: &'static str, rect: Rect) -> Result<Self, KernelError> {
        let (range, layout) = self.layout.part(what, rect)?;
        let data = &self.data[range];
        Ok(Self { data, layout })
    }

    /// [`Self::part_of`], of a view that must have so many channels.
    pub(crate) fn operand(
        &self,
        what: &'static str,
        channels: usize,
        rect: Rect,
    ) -> Result<Self, KernelError> {
        self.check_channels(what, channels)?;
        self.part_of(what, rect)
    }

    /// The channels of `columns` pixels of one row, counted from the first pixel that is held; empty where they do not all exist.
    #[inline(always)]
    pub(crate) fn span(&self, row: usize, column: usize, columns: usize) -> &'a [T] {
        match self.layout.span(row, column, columns) {
            Some(range) => &self.data[range],
            None => &[],
        }
    }

    /// The values of one row, counted from the first that is held, which exists.
    #[inline(always)]
    pub(crate) fn row(&self, row: usize) -> &'a [T] {
        let start = row * self.layout.pitch * self.layout.channels;
        &self.data[start..start + self.layout.width * self.layout.channels]
    }

    /// The `N` channels from `channel` on of a pixel, counted from the first that is held, which all exist.
    #[inline(always)]
    pub(crate) fn block<const N: usize>(
        &self,
        row: usize,
        column: usize,
        channel: usize,
    ) -> &'a [T; N] {
        block(
            self.data,
            (row * self.layout.pitch + column) * self.layout.channels + channel,
        )
    }
}

impl<'a, T> ViewMut<'a, T> {
    /// `rect` of a plane, in `data` row after row.
    ///
    /// # Errors
    /// [`KernelError::Length`] unless `data` holds exactly as many values.
    pub fn new(data: &'a mut [T], rect: Rect, channels: usize) -> Result<Self, KernelError> {
        let layout = Layout::of(rect, channels, data.len())?;
        Ok(Self { data, layout })
    }

    /// The same view for the length of a shorter borrow.
    pub fn reborrow(&mut self) -> ViewMut<'_, T> {
        ViewMut {
            data: self.data,
            layout: self.layout,
        }
    }

    /// The same view, to read.
    #[must_use]
    pub fn into_view(self) -> View<'a, T> {
        View {
            data: self.data,
            layout: self.layout,
        }
    }

    /// A part of it; to go on with the whole, take the part of a [`Self::reborrow`].
    ///
    /// # Errors
    /// [`KernelError::Outside`] where it does not hold all of `rect`.
    pub fn part(self, rect: Rect) -> Result<Self, KernelError> {
        let (range, layout) = self.layout.part("part of a view", rect)?;
        let data = &mut self.data[range];
        Ok(Self { data, layout })
    }

    /// All values from the first to the last, with what lies between rows.
    pub(crate) fn data_mut(&mut self) -> &mut [T] {
        self.data
    }

    pub(crate) fn into_data(self) -> &'a mut [T] {
        self.data
    }
}

pub(crate) fn check_channels(
    what: &'static str,
    expected: usize,
    found: usize,
) -> Result<(), KernelError> {
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
