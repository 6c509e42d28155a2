//! Positions, extents, levels and scales.

use std::fmt;
use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::error::{Result, SlideError};

/// A pyramid level of a slide; 0 is the finest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Level(pub usize);

impl Level {
    /// The finest level.
    pub const FINEST: Self = Self(0);
}

/// Edge of a pixel in microns: the smaller, the finer. Always finite and above zero.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(try_from = "f64", into = "f64")]
pub struct MicronsPerPixel(f64);

impl TryFrom<f64> for MicronsPerPixel {
    type Error = SlideError;

    fn try_from(microns: f64) -> Result<Self> {
        Self::new(microns)
    }
}

impl From<MicronsPerPixel> for f64 {
    fn from(edge: MicronsPerPixel) -> Self {
        edge.0
    }
}

impl MicronsPerPixel {
    /// The scale at which tissue is looked for.
    pub(crate) const EIGHT: Self = Self(8.0);

    /// The scale at which stains are estimated.
    pub(crate) const TWO: Self = Self(2.0);

    /// Takes a number of microns.
    ///
    /// # Errors
    /// [`SlideError::InvalidScale`] unless `microns` is finite and above zero.
    pub fn new(microns: f64) -> Result<Self> {
        if microns.is_finite() && microns > 0.0 {
            Ok(Self(microns))
        } else {
            Err(SlideError::InvalidScale {
                quantity: "microns per pixel",
                found: microns,
            })
        }
    }

    /// The number of microns.
    #[must_use]
    pub const fn get(self) -> f64 {
        self.0
    }
}

impl fmt::Display for MicronsPerPixel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} um/px", self.0)
    }
}

/// Scale of the finest level, which scanners may report apart for the two axes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PixelScale {
    /// Width of a pixel.
    pub x: MicronsPerPixel,
    /// Height of a pixel.
    pub y: MicronsPerPixel,
}

impl PixelScale {
    /// The scale of a picture turned by a right angle.
    pub(crate) const fn transposed(self) -> Self {
        Self {
            x: self.y,
            y: self.x,
        }
    }

    /// Square pixels.
    #[must_use]
    pub const fn square(edge: MicronsPerPixel) -> Self {
        Self { x: edge, y: edge }
    }
}

/// Size of an image in pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Extent {
    /// Rows.
    pub height: u64,
    /// Columns.
    pub width: u64,
}

impl Extent {
    /// The size of the next level of a pyramid: half of each side, rounded up.
    pub(crate) const fn halved(self) -> Self {
        Self {
            height: self.height.div_ceil(2),
            width: self.width.div_ceil(2),
        }
    }

    /// The region that covers the whole image; sides above `i64::MAX` are cut there.
    #[must_use]
    pub fn region(self) -> Region {
        Region::new(
            0..i64::try_from(self.height).unwrap_or(i64::MAX),
            0..i64::try_from(self.width).unwrap_or(i64::MAX),
        )
    }
}

impl fmt::Display for Extent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} x {} (height x width)", self.height, self.width)
    }
}

/// A rectangle of pixels as half-open spans; the frame (level or view) is said where it is used.
///
/// It may lie partly or wholly outside the image: what is outside reads as background.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Region {
    /// First row to one past the last.
    pub rows: Range<i64>,
    /// First column to one past the last.
    pub columns: Range<i64>,
}

impl Region {
    /// From spans of rows and columns. A span whose end is not above its start is empty.
    #[must_use]
    pub const fn new(rows: Range<i64>, columns: Range<i64>) -> Self {
        Self { rows, columns }
    }

    /// Number of rows.
    #[must_use]
    pub fn height(&self) -> u64 {
        span_length(&self.rows)
    }

    /// Number of columns.
    #[must_use]
    pub fn width(&self) -> u64 {
        span_length(&self.columns)
    }

    /// Whether there is no pixel in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.height() == 0 || self.width() == 0
    }

    /// The pixels that lie in both regions; empty (but placed inside `other`) where they do not meet.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Self {
        Self {
            rows: intersect(&self.rows, &other.rows),
            columns: intersect(&self.columns, &other.columns),
        }
    }

    /// The same rectangle moved by whole pixels; saturates at the ends of `i64`.
    #[must_use]
    pub fn translated(&self, rows: i64, columns: i64) -> Self {
        Self {
            rows: self.rows.start.saturating_add(rows)..self.rows.end.saturating_add(rows),
            columns: self.columns.start.saturating_add(columns)
                ..self.columns.end.saturating_add(columns),
        }
    }
}

impl fmt::Display for Region {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "rows {}..{}, columns {}..{}",
            self.rows.start, self.rows.end, self.columns.start, self.columns.end
        )
    }
}

fn span_length(span: &Range<i64>) -> u64 {
    if span.end > span.start {
        span.end.abs_diff(span.start)
    } else {
        0
    }
}

fn intersect(a: &Range<i64>, b: &Range<i64>) -> Range<i64> {
    let start = a.start.max(b.start);
    start..a.end.min(b.end).max(start)
}

/// An 8-bit colour: red, green, blue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Rgb(pub [u8; 3]);

impl Rgb {
    /// What a slide shows where there is nothing.
    pub const WHITE: Self = Self([255; 3]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scales_must_be_positive_and_finite() {
        for bad in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            assert_eq!(
                MicronsPerPixel::new(bad).unwrap_err().to_string(),
                format!("microns per pixel must be a finite number above zero, found {bad}")
            );
        }
        assert_eq!(MicronsPerPixel::new(0.25).unwrap().get(), 0.25);
    }

    #[test]
    fn regions_meet_and_miss() {
        let image = Extent {
            height: 10,
            width: 20,
        }
        .region();
        let over_the_edge = Region::new(-3..4, 15..25);
        assert_eq!(
            over_the_edge.intersection(&image),
            Region::new(0..4, 15..20)
        );
        assert!(Region::new(10..12, 0..5).intersection(&image).is_empty());
        assert_eq!(Region::new(i64::MIN..i64::MAX, 0..1).height(), u64::MAX);
        #[expect(
            clippy::reversed_empty_ranges,
            reason = "a reversed span must count as empty"
        )]
        let reversed = Region::new(5..3, 0..1);
        assert!(reversed.is_empty());
    }
}
