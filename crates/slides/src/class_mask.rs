//! Classes of a slide's pixels, read from a picture of one channel.

use std::path::Path;
use std::sync::Arc;

use image::{ExtendedColorType, ImageDecoder, ImageReader};

use crate::bands::{BlockRow, Parallelism};
use crate::cache::{BLOCK_EDGE, BlockCache};
use crate::error::{Result, SlideError};
use crate::geometry::{Extent, Level, PixelScale, Region};
use crate::numbers::{centre, float, floor, to_usize};
use crate::options::OpenOptions;
use crate::slide::Slide;
use crate::tiff_pages::TiffPages;
use crate::view::SlideView;

/// Columns of the mask that are decoded at a time.
const CHUNK_COLUMNS: u64 = 16 * BLOCK_EDGE;

/// By how much the scale that a mask states may differ from what its size says, as a share.
const SCALE_TOLERANCE: f64 = 0.02;

/// Whether the scales that files state count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StatedScale {
    /// Where both state a scale, the mask's must agree with the slide's.
    Compared,
    /// The mask's is ignored: for slides that state a wrong scale, which their masks may have copied.
    PassedOver,
}

/// The class of each pixel of a slide's view, from a mask: a picture of one channel whose bytes are classes.
///
/// The mask covers the whole slide, at its resolution or at a coarser one. It is a PNG, which is decoded whole, or a TIFF, of which a
/// tiled one is decoded tile by tile, however large. A class is never interpolated: a pixel has the class of the mask's pixel that its
/// centre lies in. Of a pyramid the finest level alone is read, since programs make the others by means.
///
/// A class depends on the pixel's coordinates alone: any region equals the same part of any larger region.
///
/// # Examples
/// ```
/// use stream_grad_slides::{ClassMask, Extent, OpenOptions, Region, Slide, StatedScale, Target};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let folder = tempfile::tempdir()?;
/// let path = folder.path().join("mask.png");
/// image::GrayImage::from_raw(4, 2, vec![0, 0, 1, 2, 0, 0, 2, 2]).ok_or("a picture")?.save(&path)?;
/// // A pixel of the mask is 4 x 4 of the slide.
/// let extent = Extent { height: 8, width: 16 };
/// let slide = Slide::from_rgb("memory", extent, vec![200; 8 * 16 * 3], &OpenOptions::default())?;
/// let view = slide.view(Target::Downsample(2.0))?;
/// let mask = ClassMask::open(&path, &view, StatedScale::Compared)?;
/// let mut row = [9; 8];
/// mask.read(&Region::new(0..1, 0..8), &mut row)?;
/// assert_eq!(row, [0, 0, 0, 0, 1, 1, 2, 2]);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct ClassMask {
    picture: Slide,
    view: SlideView,
    /// Level-0 pixels of the slide per pixel of the mask, (vertical, horizontal).
    downsample: (f64, f64),
}

impl ClassMask {
    /// Opens the mask of the slide that `view` shows.
    ///
    /// # Errors
    /// As [`Slide::open`]; [`SlideError::Malformed`] for a file that is no picture of one channel of 8 bits, or stored with losses
    /// (JPEG), and for a mask of another shape or scale than the slide's, with both.
    pub fn open(path: impl AsRef<Path>, view: &SlideView, scales: StatedScale) -> Result<Self> {
        let path = path.as_ref();
        let options =
            OpenOptions::default().with_cache(Arc::<BlockCache>::clone(view.slide().cache()));
        let picture = Slide::open_with(path, &options)?;
        check_samples(path, &picture)?;
        let downsample = downsample(path, &picture, view.slide())?;
        if scales == StatedScale::Compared {
            check_scale(path, &picture, view.slide(), downsample)?;
        }
        Ok(Self {
            picture,
            view: view.clone(),
            downsample,
        })
    }

    /// Size of the view.
    #[must_use]
    pub fn extent(&self) -> Extent {
        self.view.extent()
    }

    /// Reads classes.
    ///
    /// # Shapes
    /// `region`: pixels of the view, may lie outside (there, the nearest pixel counts); `classes`: `height x width` of it.
    ///
    /// # Errors
    /// [`SlideError::InvalidArgument`] if `classes` has another length, [`SlideError::RegionFailed`].
    pub fn read(&self, region: &Region, classes: &mut [u8]) -> Result<()> {
        let expected = region.height().saturating_mul(region.width());
        if u64::try_from(classes.len()) != Ok(expected) {
            return Err(SlideError::InvalidArgument {
                what: "the number of classes",
                expected: "height x width of the region",
                found: format!("{} for {expected}", classes.len()),
            });
        }
        let columns: Vec<u64> = region.columns.clone().map(|at| self.column(at)).collect();
        let mut start = 0;
        while let Some(&first) = columns.get(start) {
            let chunk = columns[start..]
                .iter()
                .take_while(|column| **column < first.saturating_add(CHUNK_COLUMNS));
            let end = start + chunk.count();
            self.read_columns(region, &columns[start..end], (start, classes))?;
            start = end;
        }
        Ok(())
    }

    /// Reads the columns of `region` from `start` on, which lie at `columns` of the mask.
    fn read_columns(
        &self,
        region: &Region,
        columns: &[u64],
        (start, classes): (usize, &mut [u8]),
    ) -> Result<()> {
        let (Some(&first), Some(&last)) = (columns.first(), columns.last()) else {
            return Ok(());
        };
        let span = first..last + 1;
        let mut held: Option<(u64, BlockRow)> = None;
        let mut line: Vec<u8> = Vec::new();
        let rows = classes.chunks_exact_mut(to_usize(region.width()).max(1));
        for (at, row) in region.rows.clone().zip(rows) {
            let source = self.row(at);
            let block_row = source / BLOCK_EDGE;
            let blocks = match held.take() {
                Some((row, blocks)) if row == block_row => blocks,
                _ => BlockRow::load(
                    &self.picture,
                    Level::FINEST,
                    block_row,
                    &span,
                    Parallelism::Rayon,
                )?,
            };
            line.clear();
            blocks.runs(to_usize(source % BLOCK_EDGE), &span, |run| {
                line.extend(run.iter().step_by(3));
            });
            for (class, column) in row[start..].iter_mut().zip(columns) {
                *class = line[to_usize(column - first)];
            }
            held = Some((block_row, blocks));
        }
        Ok(())
    }

    fn row(&self, at: i64) -> u64 {
        let (row, _) = self.view.to_level_0(centre(at), 0.0);
        pixel(row / self.downsample.0, self.picture.extent().height)
    }

    fn column(&self, at: i64) -> u64 {
        let (_, column) = self.view.to_level_0(0.0, centre(at));
        pixel(column / self.downsample.1, self.picture.extent().width)
    }
}

/// The pixel that a position lies in, or the nearest.
fn pixel(position: f64, length: u64) -> u64 {
    let last = length.saturating_sub(1);
    u64::try_from(floor(position)).unwrap_or(0).min(last)
}

fn malformed(path: &Path, place: &str, expected: String, found: String) -> SlideError {
    SlideError::Malformed {
        path: path.to_path_buf(),
        place: place.to_owned(),
        expected,
        found,
    }
}

/// Refuses pictures whose pixels are no numbers of one byte.
fn check_samples(path: &Path, picture: &Slide) -> Result<()> {
    let found = match TiffPages::open(path)? {
        Some(pages) => pages.is_no_number(picture.page()),
        None => {
            let reader = ImageReader::open(path).and_then(ImageReader::with_guessed_format);
            let reader = reader.map_err(|error| SlideError::io(path, error))?;
            let is_lossy = reader.format() == Some(image::ImageFormat::Jpeg);
            let decoder = reader
                .into_decoder()
                .map_err(|error| SlideError::cannot_open(path, error))?;
            match decoder.original_color_type() {
                ExtendedColorType::L8 if is_lossy => Some("JPEG, which changes them".to_owned()),
                ExtendedColorType::L8 => None,
                other => Some(format!("pixels of {other:?}")),
            }
        }
    };
    match found {
        None => Ok(()),
        Some(found) => Err(malformed(
            path,
            "pixels",
            "one channel of 8 bits, whose values are classes, stored without losses".to_owned(),
            found,
        )),
    }
}

/// Level-0 pixels per pixel of the mask, (vertical, horizontal). It is a whole number if one explains both sides of the mask, rounded up
/// or down; otherwise the mask is spread over the slide.
fn downsample(path: &Path, picture: &Slide, slide: &Slide) -> Result<(f64, f64)> {
    let (mask, whole) = (picture.extent(), slide.extent());
    let sides = [(mask.height, whole.height), (mask.width, whole.width)];
    let least = |(mask, whole): (u64, u64)| float(whole) / float(mask.saturating_add(1));
    let most = |(mask, whole): (u64, u64)| float(whole) / float(mask.saturating_sub(1));
    let low = least(sides[0]).max(least(sides[1]));
    let high = most(sides[0]).min(most(sides[1]));
    // Written so that an empty side is refused.
    if low < high {
        let ratio = |(mask, whole): (u64, u64)| float(whole) / float(mask);
        let spread = (ratio(sides[0]), ratio(sides[1]));
        let longest = if whole.height > whole.width {
            spread.0
        } else {
            spread.1
        };
        let round = longest.round();
        return Ok(if round >= 1.0 && low < round && round < high {
            (round, round)
        } else {
            spread
        });
    }
    Err(malformed(
        path,
        "size",
        format!(
            "the shape of slide {}, {whole}, or a reduction of it",
            slide.path().display()
        ),
        mask.to_string(),
    ))
}

/// Refuses a mask that states another scale than follows from the slide's and its size.
fn check_scale(
    path: &Path,
    picture: &Slide,
    slide: &Slide,
    (rows, columns): (f64, f64),
) -> Result<()> {
    let (Some(stated), Some(finest)) = (picture.properties().scale, slide.properties().scale)
    else {
        return Ok(());
    };
    let expected = (finest.y.get() * rows, finest.x.get() * columns);
    let differs = |stated: f64, expected: f64| (stated / expected - 1.0).abs() > SCALE_TOLERANCE;
    if !differs(stated.y.get(), expected.0) && !differs(stated.x.get(), expected.1) {
        return Ok(());
    }
    let text = |PixelScale { x, y }: PixelScale| format!("{} x {} um/px", y.get(), x.get());
    Err(malformed(
        path,
        "scale",
        format!(
            "{} x {} um/px, since slide {} has {} and a pixel of the mask is {rows} x {columns} of its own",
            expected.0,
            expected.1,
            slide.path().display(),
            text(finest)
        ),
        text(stated),
    ))
}

#[cfg(test)]
mod tests {
    use image::GrayImage;

    use super::*;
    use crate::geometry::MicronsPerPixel;
    use crate::view::Target;
    use crate::write::{ColorModel, Compression, PyramidOptions, PyramidWriter, Reduction};

    fn slide(height: u64, width: u64) -> Slide {
        let options =
            OpenOptions::default().with_microns_per_pixel(MicronsPerPixel::new(0.5).unwrap());
        let rgb = vec![128; to_usize(height * width * 3)];
        Slide::from_rgb("memory", Extent { height, width }, rgb, &options).unwrap()
    }

    fn class(row: u64, column: u64) -> u8 {
        u8::try_from((row * 7 + column * 3) % 5).unwrap()
    }

    /// A pyramid of classes with levels by the nearest pixel.
    fn write_pyramid(path: &Path, (height, width): (u64, u64), scale: f64) {
        let options = PyramidOptions::default()
            .with_color(ColorModel::Gray)
            .with_compression(Compression::Deflate)
            .with_reduction(Reduction::Nearest)
            .with_tile_edge(64)
            .with_microns_per_pixel(MicronsPerPixel::new(scale).unwrap());
        let mut writer = PyramidWriter::create(path, height, width, &options).unwrap();
        for row in 0..height {
            let row: Vec<u8> = (0..width).map(|column| class(row, column)).collect();
            writer.write_rows(&row).unwrap();
        }
        writer.finish().unwrap();
    }

    /// Any region of any view has the classes that lie under its centres, and so do cropped views.
    #[test]
    fn classes_are_those_under_the_centres_of_pixels() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("mask.tif");
        // Rounded down from 701 x 903.
        write_pyramid(&path, (350, 451), 1.0);
        let slide = slide(701, 903);
        for (target, step) in [
            (Target::Level(Level::FINEST), 1.0),
            (Target::Downsample(3.0), 3.0),
            (Target::Downsample(5.5), 5.5),
        ] {
            let whole = slide.view(target).unwrap();
            let part = whole.cropped(&Region::new(10..60, 20..101)).unwrap();
            for (view, top, left) in [(&whole, 0, 0), (&part, 10, 20)] {
                let mask = ClassMask::open(&path, view, StatedScale::Compared).unwrap();
                let region = Region::new(7..41, 3..80);
                let mut found = vec![u8::MAX; 34 * 77];
                mask.read(&region, &mut found).unwrap();
                let mut found = found.into_iter();
                for row in region.rows.clone() {
                    for column in region.columns.clone() {
                        let place = |at: i64, last: u64| pixel((centre(at) * step) / 2.0, last);
                        let expected = class(place(row + top, 350), place(column + left, 451));
                        assert_eq!(found.next(), Some(expected), "{row}, {column}, {step}");
                    }
                }
            }
        }
    }

    #[test]
    fn overviews_of_classes_are_classes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("mask.tif");
        write_pyramid(&path, (150, 130), 1.0);
        let picture = Slide::open(&path).unwrap();
        assert!(picture.levels().len() > 1);
        let extent = picture.levels()[1].extent;
        let mut rgb = vec![0; to_usize(extent.height * extent.width * 3)];
        picture
            .read_level(Level(1), &extent.region(), &mut rgb)
            .unwrap();
        for (place, pixel) in rgb.chunks_exact(3).enumerate() {
            let place = u64::try_from(place).unwrap();
            let (row, column) = (place / extent.width, place % extent.width);
            assert_eq!(pixel[0], class(2 * row, 2 * column));
        }
    }

    fn message(path: &Path, slide: &Slide) -> String {
        let view = slide.view(Target::Downsample(2.0)).unwrap();
        ClassMask::open(path, &view, StatedScale::Compared)
            .unwrap_err()
            .to_string()
    }

    #[test]
    fn masks_of_other_slides_are_refused_with_both_sizes_and_scales() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("mask.tif");
        write_pyramid(&path, (350, 451), 1.0);
        let said = message(&path, &slide(701, 1203));
        for part in ["mask.tif", "memory", "701 x 1203", "350 x 451", "size"] {
            assert!(said.contains(part), "{part} in {said}");
        }
        write_pyramid(&path, (350, 451), 0.5);
        let right = slide(701, 903);
        let said = message(&path, &right);
        for part in ["scale", "1 x 1 um/px", "0.5 x 0.5 um/px", "memory"] {
            assert!(said.contains(part), "{part} in {said}");
        }
        // Where the slide's scale is given by hand.
        let view = right.view(Target::Downsample(2.0)).unwrap();
        assert!(ClassMask::open(&path, &view, StatedScale::PassedOver).is_ok());
    }

    #[test]
    fn pictures_of_anything_but_classes_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let slide = slide(8, 8);
        let gray = GrayImage::from_raw(8, 8, vec![1; 64]).unwrap();
        let gray = image::DynamicImage::from(gray);
        for (name, picture, part) in [
            ("rgb.png", gray.to_rgb8().into(), "Rgb8"),
            (
                "wide.png",
                image::DynamicImage::from(gray.to_luma16()),
                "L16",
            ),
            ("alpha.png", gray.to_luma_alpha8().into(), "La8"),
            ("lossy.jpg", gray.clone(), "JPEG"),
            ("rgb.tif", gray.to_rgb8().into(), "3 samples of 8 bits"),
            ("wide.tif", gray.to_luma16().into(), "16 bits"),
        ] {
            let path = folder.path().join(name);
            picture.save(&path).unwrap();
            let said = message(&path, &slide);
            for part in [name, part, "one channel of 8 bits"] {
                assert!(said.contains(part), "{part} in {said}");
            }
        }
        for name in ["right.png", "right.tif"] {
            let path = folder.path().join(name);
            gray.save(&path).unwrap();
            let view = slide.view(Target::Downsample(2.0)).unwrap();
            let mask = ClassMask::open(&path, &view, StatedScale::Compared).unwrap();
            let mut classes = [0; 4];
            mask.read(&Region::new(0..2, 1..3), &mut classes).unwrap();
            assert_eq!(classes, [1; 4]);
            assert!(mask.read(&Region::new(0..2, 1..3), &mut [0; 3]).is_err());
        }
    }
}
