//! Augmentations as functions of image coordinates and a seed, applied while a region is read.
//!
//! A streamed image is read region by region, some regions twice, so an augmentation may not be a pass over an image: it
//! maps the region that is asked for back to the region of the image that it shows.

mod labels;

use std::cell::RefCell;
use std::mem;
use std::ops::{Add, Mul};
use std::thread::LocalKey;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use stream_grad::tiling::PerAxis;
use stream_grad::{ExternalError, Rect, Span, StridedMut, TileMut, TileSource};

use crate::error::{Result, TrainError};
pub use labels::AugmentedLabels;

/// What may be done to images of the training split.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct AugmentationSettings {
    /// Which of the eight orientations of a square are drawn from: `one`, `flips` or `all` (turns, too). By default `flips`: in 12
    /// epochs on a few hundred pictures, turns and colours cost more than they gave.
    pub orientations: Orientations,
    /// Share of height and of width that a random crop keeps; above 0, and 1 for all.
    pub crop: f64,
    /// A channel is multiplied by a number drawn from `1 - contrast` to `1 + contrast`, in units of the normalised image, whose mean
    /// stays where it is about 0; 0 or more.
    pub contrast: f64,
    /// To a channel a number from `-brightness` to `brightness` is added, in units of the normalised image (1 is a standard deviation);
    /// 0 or more.
    pub brightness: f64,
}

impl Default for AugmentationSettings {
    /// Flips, which cost nothing on any pictures that were tried; what else helps depends on the pictures.
    fn default() -> Self {
        Self {
            orientations: Orientations::Flips,
            ..Self::none()
        }
    }
}

/// Which orientations an image may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Orientations {
    /// As it is.
    One,
    /// Mirrored or not along either axis.
    Flips,
    /// All quarter turns, mirrored or not.
    All,
}

/// Order of an axis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// As in the image.
    Forward,
    /// From the far end.
    Backward,
}

/// Which axis of the image runs down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Axes {
    /// Rows stay rows.
    Kept,
    /// Rows become columns.
    Swapped,
}

/// What is done to one image in one epoch.
#[derive(Debug, Clone, PartialEq)]
pub struct Augmentation {
    /// The part that is shown, in pixels of the image.
    pub crop: Rect,
    /// Whether rows and columns of that part change places.
    pub axes: Axes,
    /// Order of the rows that come out.
    pub rows: Order,
    /// Order of the columns that come out.
    pub columns: Order,
    /// Factor of each channel; beyond the third, 1.
    pub contrast: [f32; 3],
    /// Added to each channel after the factor; beyond the third, 0.
    pub brightness: [f32; 3],
}

impl Augmentation {
    /// Leaves an image of `extent` (height, width) as it is.
    #[must_use]
    pub const fn none(extent: (u64, u64)) -> Self {
        Self {
            crop: Rect::whole(extent.0, extent.1),
            axes: Axes::Kept,
            rows: Order::Forward,
            columns: Order::Forward,
            contrast: [1.0; 3],
            brightness: [0.0; 3],
        }
    }

    /// Height and width of what comes out.
    #[must_use]
    pub const fn extent(&self) -> (u64, u64) {
        let (height, width) = (self.crop.rows.len(), self.crop.columns.len());
        match self.axes {
            Axes::Kept => (height, width),
            Axes::Swapped => (width, height),
        }
    }

    /// The region of the image that `region` of the result shows.
    fn origin(&self, region: Rect) -> Rect {
        let (height, width) = self.extent();
        let rows = ordered(region.rows, height, self.rows);
        let columns = ordered(region.columns, width, self.columns);
        let (rows, columns) = match self.axes {
            Axes::Kept => (rows, columns),
            Axes::Swapped => (columns, rows),
        };
        // What overflows lies in no image: the source refuses it.
        let by = PerAxis::new(self.crop.rows.lo, self.crop.columns.lo);
        let part = Rect::new(rows, columns);
        part.translate(by).unwrap_or(part)
    }

    fn keeps_orientation(&self) -> bool {
        self.axes == Axes::Kept && self.rows == Order::Forward && self.columns == Order::Forward
    }

    fn keeps_colour(&self) -> bool {
        self.contrast == [1.0; 3] && self.brightness == [0.0; 3]
    }
}

fn ordered(span: Span, length: u64, order: Order) -> Span {
    match order {
        Order::Forward => span,
        Order::Backward => {
            let length = Span::first(length).hi;
            Span::new(
                length.saturating_sub(span.hi),
                length.saturating_sub(span.lo),
            )
        }
    }
}

impl AugmentationSettings {
    /// Nothing is changed.
    #[must_use]
    pub const fn none() -> Self {
        Self {
            orientations: Orientations::One,
            crop: 1.0,
            contrast: 0.0,
            brightness: 0.0,
        }
    }

    /// All orientations, and colours that vary a little: for many epochs on stained tissue.
    #[must_use]
    pub const fn strong() -> Self {
        Self {
            orientations: Orientations::All,
            crop: 1.0,
            contrast: 0.1,
            brightness: 0.1,
        }
    }

    /// Checks the settings.
    ///
    /// # Errors
    /// [`TrainError::Setting`] for a crop outside 0 to 1, or a contrast or brightness that is negative or not finite.
    pub fn check(&self) -> Result<()> {
        if !(self.crop > 0.0 && self.crop <= 1.0) {
            return Err(TrainError::setting(
                "augmentation.crop",
                "a share above 0 and up to 1",
                self.crop,
            ));
        }
        for (name, value) in [("contrast", self.contrast), ("brightness", self.brightness)] {
            if !(value.is_finite() && value >= 0.0) {
                return Err(TrainError::setting(
                    format!("augmentation.{name}"),
                    "a finite number of 0 or more",
                    value,
                ));
            }
        }
        Ok(())
    }

    /// Draws what is done to image `index` of `extent` (height, width) in epoch `epoch`: a function of its arguments.
    #[must_use]
    pub fn draw(&self, extent: (u64, u64), seed: u64, epoch: u64, index: u64) -> Augmentation {
        let mut rng = ChaCha8Rng::seed_from_u64(seed ^ epoch.rotate_left(32));
        rng.set_stream(index);
        let orders = [Order::Forward, Order::Backward];
        let mut coin = || usize::from(rng.random::<bool>());
        let (rows, columns, swap) = (orders[coin()], orders[coin()], coin() == 1);
        let (rows, columns, axes) = match self.orientations {
            Orientations::One => (Order::Forward, Order::Forward, Axes::Kept),
            Orientations::Flips => (rows, columns, Axes::Kept),
            Orientations::All => (rows, columns, if swap { Axes::Swapped } else { Axes::Kept }),
        };
        let crop = Rect::new(
            part(extent.0, self.crop, rng.random()),
            part(extent.1, self.crop, rng.random()),
        );
        let mut spread = |reach: f64| single(reach * (2.0 * rng.random::<f64>() - 1.0));
        let contrast = [(); 3].map(|()| 1.0 + spread(self.contrast));
        let brightness = [(); 3].map(|()| spread(self.brightness));
        Augmentation {
            crop,
            axes,
            rows,
            columns,
            contrast,
            brightness,
        }
    }
}

/// A part of `length` with `share` of it, at the place that `at` (0 to 1) says.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "image sizes are below 2^53, shares are checked, and the result is kept inside the image"
)]
fn part(length: u64, share: f64, at: f64) -> Span {
    let kept = ((length as f64 * share).round() as u64).clamp(length.min(1), length);
    let start = (((length - kept + 1) as f64) * at) as u64;
    let start = start.min(length - kept);
    Span::new(start.cast_signed(), (start + kept).cast_signed())
}

#[expect(clippy::cast_possible_truncation, reason = "rounding to f32 is meant")]
fn single(value: f64) -> f32 {
    value as f32
}

/// An image seen through an augmentation.
#[derive(Debug)]
pub struct Augmented<S> {
    source: S,
    augmentation: Augmentation,
}

impl<S: TileSource> Augmented<S> {
    /// Shows `source` through `augmentation`.
    ///
    /// # Errors
    /// [`TrainError::Setting`] if the crop does not lie inside the image or is empty.
    pub fn new(source: S, augmentation: Augmentation) -> Result<Self> {
        let (height, width) = source.extent();
        let crop = augmentation.crop;
        if crop.is_empty() || !Rect::whole(height, width).covers(crop) {
            return Err(TrainError::setting(
                "augmentation's crop",
                format!("a part of an image of {height} x {width}"),
                crop.to_string(),
            ));
        }
        Ok(Self {
            source,
            augmentation,
        })
    }

    fn read_as<T>(
        &self,
        image: usize,
        region: Rect,
        mut out: StridedMut<'_, T>,
        wrap: for<'a> fn(StridedMut<'a, T>) -> TileMut<'a>,
        scratch: &'static LocalKey<RefCell<Vec<T>>>,
    ) -> Result<(), ExternalError>
    where
        T: Copy + Default + From<f32> + Add<Output = T> + Mul<Output = T> + Send + Sync,
    {
        let channels = self.source.channels();
        let origin = self.augmentation.origin(region);
        let length = origin.width() * channels;
        // The buffer is taken out while it is used: reading may run other tasks on this thread.
        let mut buffer = scratch.with(|cell| mem::take(&mut *cell.borrow_mut()));
        buffer.resize(origin.height() * length, T::default());
        let tile = StridedMut::new(&mut buffer, origin.height(), length, length)
            .ok_or("region without columns")?;
        let read = self.source.read(image, origin, wrap(tile));
        if read.is_ok() {
            self.arrange(&buffer, origin, channels, region, &mut out);
        }
        scratch.with(|cell| *cell.borrow_mut() = buffer);
        read
    }

    fn arrange<T>(
        &self,
        buffer: &[T],
        origin: Rect,
        channels: usize,
        region: Rect,
        out: &mut StridedMut<'_, T>,
    ) where
        T: Copy + From<f32> + Add<Output = T> + Mul<Output = T> + Send + Sync,
    {
        let (height, width) = (region.height(), region.width());
        let augmentation = &self.augmentation;
        out.par_rows().enumerate().for_each(|(row, line)| {
            let source_row = place(row, height, augmentation.rows);
            for column in 0..width {
                let source_column = place(column, width, augmentation.columns);
                let pixel = match augmentation.axes {
                    Axes::Kept => source_row * origin.width() + source_column,
                    Axes::Swapped => source_column * origin.width() + source_row,
                };
                let pixel = &buffer[pixel * channels..(pixel + 1) * channels];
                let values = &mut line[column * channels..(column + 1) * channels];
                for (channel, (value, source)) in values.iter_mut().zip(pixel).enumerate() {
                    let contrast = augmentation.contrast.get(channel).copied().unwrap_or(1.0);
                    let brightness = augmentation.brightness.get(channel).copied().unwrap_or(0.0);
                    *value = *source * T::from(contrast) + T::from(brightness);
                }
            }
        });
    }
}

fn place(index: usize, length: usize, order: Order) -> usize {
    match order {
        Order::Forward => index,
        Order::Backward => length - 1 - index,
    }
}

thread_local! {
    static SINGLE: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
    static DOUBLE: RefCell<Vec<f64>> = const { RefCell::new(Vec::new()) };
}

impl<S: TileSource> TileSource for Augmented<S> {
    fn batch(&self) -> usize {
        self.source.batch()
    }

    fn channels(&self) -> usize {
        self.source.channels()
    }

    fn extent(&self) -> (u64, u64) {
        self.augmentation.extent()
    }

    fn expect_reads(&self, reads: &mut dyn Iterator<Item = (usize, Rect)>) {
        let origins = reads.map(|(image, region)| (image, self.augmentation.origin(region)));
        self.source.expect_reads(&mut { origins });
    }

    #[expect(
        clippy::redundant_closure,
        reason = "the bare variant is not general over the view's lifetime"
    )]
    fn read(&self, image: usize, region: Rect, out: TileMut<'_>) -> Result<(), ExternalError> {
        if self.augmentation.keeps_orientation() && self.augmentation.keeps_colour() {
            return self
                .source
                .read(image, self.augmentation.origin(region), out);
        }
        match out {
            TileMut::F32(tile) => {
                self.read_as(image, region, tile, |tile| TileMut::F32(tile), &SINGLE)
            }
            TileMut::F64(tile) => {
                self.read_as(image, region, tile, |tile| TileMut::F64(tile), &DOUBLE)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Tensor};

    use super::*;

    const HEIGHT: i64 = 5;
    const WIDTH: i64 = 7;

    const EXTENT: (u64, u64) = (HEIGHT.cast_unsigned(), WIDTH.cast_unsigned());

    fn image() -> Tensor {
        let values: Vec<f64> = (0..3 * 35).map(f64::from).collect();
        Tensor::from_vec(values, (1, 3, 5, 7), &Device::Cpu).unwrap()
    }

    /// The value of channel `channel` at (row, column) of the image.
    fn value(row: i64, column: i64, channel: i64) -> f64 {
        (channel * 35 + row * WIDTH + column) as f64
    }

    fn read(source: &dyn TileSource, region: Rect) -> Vec<f64> {
        let length = region.width() * 3;
        let mut out = vec![f64::NAN; region.height() * length];
        let tile = StridedMut::new(&mut out, region.height(), length, length).unwrap();
        source.read(0, region, TileMut::F64(tile)).unwrap();
        out
    }

    /// Where the pixel at (row, column) of the result lies in the image, written out for each case.
    fn expected(augmentation: &Augmentation, row: i64, column: i64) -> (i64, i64) {
        let (height, width) = augmentation.extent();
        let (height, width) = (height.cast_signed(), width.cast_signed());
        let row = if augmentation.rows == Order::Backward {
            height - 1 - row
        } else {
            row
        };
        let column = if augmentation.columns == Order::Backward {
            width - 1 - column
        } else {
            column
        };
        let (row, column) = if augmentation.axes == Axes::Swapped {
            (column, row)
        } else {
            (row, column)
        };
        (
            row + augmentation.crop.rows.lo,
            column + augmentation.crop.columns.lo,
        )
    }

    #[test]
    fn every_region_shows_the_pixels_of_its_coordinates() {
        for case in 0..16_u32 {
            let order = |bit: u32| {
                if case >> bit & 1 == 1 {
                    Order::Backward
                } else {
                    Order::Forward
                }
            };
            let crop = if case >> 3 == 1 {
                Rect::new(Span::new(1, 4), Span::new(2, 7))
            } else {
                Rect::whole(EXTENT.0, EXTENT.1)
            };
            let axes = if case >> 2 & 1 == 1 {
                Axes::Swapped
            } else {
                Axes::Kept
            };
            let augmentation = Augmentation {
                crop,
                axes,
                rows: order(0),
                columns: order(1),
                contrast: [1.0, 2.0, 0.5],
                brightness: [0.0, -1.0, 0.25],
            };
            let source = Augmented::new(image(), augmentation.clone()).unwrap();
            let whole = Rect::whole(source.extent().0, source.extent().1);
            let (height, width) = (whole.rows.hi, whole.columns.hi);
            for region in [
                whole,
                Rect::new(Span::new(1, 3), Span::new(2, 3)),
                Rect::new(Span::new(height - 1, height), Span::new(0, width - 1)),
            ] {
                let found = read(&source, region);
                let mut values = found.iter();
                for row in region.rows.lo..region.rows.hi {
                    for column in region.columns.lo..region.columns.hi {
                        let (from_row, from_column) = expected(&augmentation, row, column);
                        for channel in 0..3_i64 {
                            let index = usize::try_from(channel).unwrap();
                            let contrast = f64::from(augmentation.contrast[index]);
                            let brightness = f64::from(augmentation.brightness[index]);
                            assert_eq!(
                                *values.next().unwrap(),
                                value(from_row, from_column, channel) * contrast + brightness
                            );
                        }
                    }
                }
                assert!(values.next().is_none());
            }
        }
    }

    #[test]
    fn draws_are_functions_of_their_arguments_and_stay_inside() {
        let settings = AugmentationSettings {
            crop: 0.6,
            ..AugmentationSettings::strong()
        };
        let draw = |epoch, index| settings.draw(EXTENT, 1, epoch, index);
        assert_eq!(draw(3, 4), draw(3, 4));
        assert_ne!(draw(3, 4), draw(4, 3));
        let mut turned = 0;
        for index in 0..200 {
            let augmentation = draw(0, index);
            turned += u32::from(augmentation.axes == Axes::Swapped);
            assert!(
                augmentation
                    .contrast
                    .iter()
                    .all(|contrast| (0.9..=1.1).contains(contrast))
            );
            Augmented::new(image(), augmentation).unwrap();
        }
        assert!((60..140).contains(&turned), "{turned}");
        let none = AugmentationSettings::none().draw(EXTENT, 1, 2, 3);
        assert_eq!(none, Augmentation::none(EXTENT));
    }

    #[test]
    fn bad_settings_are_refused() {
        for crop in [0.0, -1.0, 1.5, f64::NAN] {
            let settings = AugmentationSettings {
                crop,
                ..AugmentationSettings::none()
            };
            assert_eq!(
                settings.check().unwrap_err().to_string(),
                format!(
                    "setting `augmentation.crop`: expected a share above 0 and up to 1, found {crop}"
                )
            );
        }
        let settings = AugmentationSettings {
            contrast: f64::INFINITY,
            ..AugmentationSettings::none()
        };
        assert_eq!(
            settings.check().unwrap_err().to_string(),
            "setting `augmentation.contrast`: expected a finite number of 0 or more, found inf"
        );
        let outside = Augmentation {
            crop: Rect::whole(6, 7),
            ..Augmentation::none((5, 7))
        };
        let refused = Augmented::new(image(), outside).err().unwrap();
        assert_eq!(
            refused.to_string(),
            "setting `augmentation's crop`: expected a part of an image of 5 x 7, found rows [0, 6), columns [0, 7)"
        );
    }
}
