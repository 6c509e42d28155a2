//! Where the tissue is.

mod colour;

use std::path::Path;

use image::RgbImage;
use serde::{Deserialize, Serialize};

use crate::error::{Result, SlideError};
use crate::geometry::MicronsPerPixel;
use crate::mask::{Mask, MaskFile};
use crate::numbers::{float, to_usize};
use crate::origin::Origin;
use crate::slide::Slide;
use crate::view::{SlideView, Target};

/// Counted up when the way in which tissue is found changes.
const VERSION: u32 = 1;

/// Longest side of the mask of a slide without a scale.
const UNSCALED_SIDE: u64 = 2048;

/// How tissue is found. The defaults suit H&E sections.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TissueOptions {
    /// Scale of the mask: 8 microns per pixel by default. A slide without a scale is reduced to 2048 pixels.
    pub microns_per_pixel: MicronsPerPixel,
    /// Gaps up to twice so many mask pixels are closed, and specks thinner than that removed: 1 by default.
    pub smoothing: usize,
    /// Pieces of tissue with fewer mask pixels are dropped: 256 by default, 0.016 square millimetres at 8 microns.
    pub minimum_area: usize,
    /// Holes with fewer mask pixels are filled: 256 by default.
    pub filled_holes: usize,
    /// What to do about marks of pens.
    pub pens: PenMarks,
}

impl Default for TissueOptions {
    fn default() -> Self {
        Self {
            microns_per_pixel: MicronsPerPixel::EIGHT,
            smoothing: 1,
            minimum_area: 256,
            filled_holes: 256,
            pens: PenMarks::Exclude,
        }
    }
}

/// What to do about blue, green and black marks of pens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PenMarks {
    /// They are no tissue, nor is what lies within a pixel of them.
    #[default]
    Exclude,
    /// They count as what their saturation makes them.
    Ignore,
}

impl Mask {
    /// Finds the tissue of a whole slide.
    ///
    /// A pixel is tissue where its saturation (of HSV, after a 3 x 3 mean) is above Otsu's threshold (Otsu 1979), which is
    /// kept between 0.05 and 0.16 so that neither bare glass nor a slide full of tissue is split in two. The map is then
    /// cleaned: opened and closed by a square, small holes filled, small pieces dropped, marks of pens left out.
    ///
    /// # Errors
    /// [`SlideError::RegionFailed`], [`SlideError::LimitExceeded`] for a picture of the slide beyond the limits.
    ///
    /// # Examples
    /// ```
    /// use stream_grad_slides::{Extent, Mask, OpenOptions, Slide, TissueOptions};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// // A pink square on glass.
    /// let mut rgb = vec![245; 200 * 200 * 3];
    /// for row in 50..150 {
    ///     for column in 60..160 {
    ///         let start = (row * 200 + column) * 3;
    ///         rgb[start..start + 3].copy_from_slice(&[220, 130, 180]);
    ///     }
    /// }
    /// let slide = Slide::from_rgb("memory", Extent { height: 200, width: 200 }, rgb, &OpenOptions::default())?;
    /// let mask = Mask::of_tissue(&slide, &TissueOptions::default())?;
    /// assert!((mask.share() - 0.25).abs() < 0.01);
    /// # Ok(())
    /// # }
    /// ```
    pub fn of_tissue(slide: &Slide, options: &TissueOptions) -> Result<Self> {
        let view = tissue_view(slide, options)?;
        let picture = view.to_image()?;
        Ok(Self::of_tissue_in(&picture, view.downsample(), options))
    }

    /// Finds the tissue of a whole slide, or reads it from `folder`, where it is kept as a PNG under the slide's name.
    ///
    /// The picture says which file (path, size, time of change) and which options it was made of; if any of these
    /// differ, or the picture is damaged, the tissue is found anew. Slides in memory are not kept.
    ///
    /// # Errors
    /// As [`of_tissue`](Self::of_tissue); [`SlideError::Io`] where the mask cannot be written.
    pub fn of_tissue_cached(
        slide: &Slide,
        options: &TissueOptions,
        folder: impl AsRef<Path>,
    ) -> Result<Self> {
        let Some(origin) = Origin::of(slide, VERSION, options) else {
            return Self::of_tissue(slide, options);
        };
        let path = origin.file_in(folder.as_ref(), "png");
        let text =
            serde_json::to_string(&origin).map_err(|error| SlideError::io(&path, error.into()))?;
        let file = MaskFile {
            path: &path,
            origin: &text,
        };
        let view = tissue_view(slide, options)?;
        let extent = view.extent();
        if let Some(bits) = file.read(to_usize(extent.height), to_usize(extent.width)) {
            return Ok(Self::of_view(&view, bits));
        }
        let mask = Self::of_tissue_in(&view.to_image()?, view.downsample(), options);
        std::fs::create_dir_all(folder.as_ref())
            .map_err(|error| SlideError::io(folder.as_ref(), error))?;
        file.write(mask.bitmap())?;
        Ok(mask)
    }

    /// Finds the tissue in a picture of which each pixel stands for `downsample` (vertical, horizontal) level-0 pixels.
    #[must_use]
    pub fn of_tissue_in(
        picture: &RgbImage,
        downsample: (f64, f64),
        options: &TissueOptions,
    ) -> Self {
        let mut tissue = colour::saturated(picture, options.pens);
        tissue.open(options.smoothing);
        tissue.close(options.smoothing);
        tissue.fill_holes(options.filled_holes);
        tissue.drop_pieces(options.minimum_area);
        if options.pens == PenMarks::Exclude {
            // Closing and filling may have grown back over a mark.
            tissue.subtract(&colour::pen_marks(picture));
        }
        Self::new(tissue, downsample, (0.0, 0.0))
    }
}

/// The slide at the scale at which its tissue is found.
fn tissue_view(slide: &Slide, options: &TissueOptions) -> Result<SlideView> {
    let longest = slide.extent().height.max(slide.extent().width);
    slide.view(match slide.scale() {
        Ok(_) => Target::MicronsPerPixel(options.microns_per_pixel),
        Err(_) => Target::Downsample((float(longest) / float(UNSCALED_SIDE)).max(1.0)),
    })
}

#[cfg(test)]
mod tests;
