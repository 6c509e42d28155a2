//! Augmentations as functions of image coordinates and a seed, applied while a region is read.
//!
//! A streamed image is read region by region, some regions twice, so an augmentation may not be a pass over an image: it
//! maps the region that is asked for back to the region of the image that it shows.

mod image;
mod labels;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use stream_grad::tiling::PerAxis;
use stream_grad::{Rect, Span};

use crate::error::{Result, TrainError};
pub use image::Augmented;
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

fn place(index: usize, length: usize, order: Order) -> usize {
    match order {
        Order::Forward => index,
        Order::Backward => length - 1 - index,
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Tensor};

    use super::*;

    const EXTENT: (u64, u64) = (5, 7);

    fn image() -> Tensor {
        let values: Vec<f64> = (0..3 * 35).map(f64::from).collect();
        Tensor::from_vec(values, (1, 3, 5, 7), &Device::Cpu).unwrap()
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
