//! A slide at a chosen scale, as one image.

use std::ops::Range;

use image::RgbImage;

use crate::bands::{BlockRow, Parallelism, fill_outside, for_each_band, placement, read_blocks};
use crate::cache::BLOCK_EDGE;
use crate::error::{Result, SlideError, check_rgb_length};
use crate::geometry::{Extent, Level, MicronsPerPixel, PixelScale, Region};
use crate::numbers::{float, floor, position, to_usize, whole};
use crate::resample::{Axis, Taps, add_weighted, filter_row};
use crate::slide::Slide;

/// Source columns that one thread filters at a time.
const CHUNK_COLUMNS: f64 = 4096.0;

/// Which scale a view has.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Target {
    /// A level as it is: nothing is resampled.
    Level(Level),
    /// Pixels of this edge. Levels of this scale are taken as they are; otherwise the nearest finer level is reduced.
    MicronsPerPixel(MicronsPerPixel),
    /// So many level-0 pixels per pixel, along either axis; works without a known scale. Below 1 enlarges.
    Downsample(f64),
}

/// A slide (or a part of it) at one scale: an image of known size from which regions are read.
///
/// A pixel depends on its coordinates alone: any region equals the same part of any larger region, bit for bit.
/// Pixel `(row, column)` is the average over `[row, row + 1) x [column, column + 1)` steps of the nearest finer level.
/// Cheap to clone, and safe to share between threads.
///
/// # Examples
/// ```
/// use stream_grad_slides::{Extent, OpenOptions, Region, Slide, Target};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let rgb: Vec<u8> = (0..8 * 8 * 3).map(|i| i as u8).collect();
/// let slide = Slide::from_rgb("memory", Extent { height: 8, width: 8 }, rgb, &OpenOptions::default())?;
/// let view = slide.view(Target::Downsample(2.0))?;
/// assert_eq!(view.extent(), Extent { height: 4, width: 4 });
/// let mut pixel = [0; 3];
/// view.read(&Region::new(0..1, 0..1), &mut pixel)?;
/// assert_eq!(pixel, [14, 15, 16]); // the mean of 0, 3, 24 and 27, rounded; and so on
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct SlideView {
    slide: Slide,
    level: Level,
    sampling: Sampling,
    /// The part that is shown, in pixels of the uncropped view; inside it.
    crop: Region,
    downsample: (f64, f64),
    /// The scale that was asked for, if it was a scale.
    asked: Option<MicronsPerPixel>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Sampling {
    Exact,
    Resampled { rows: Axis, columns: Axis },
}

impl SlideView {
    /// The whole slide at `target`.
    ///
    /// # Errors
    /// [`SlideError::NoScale`] for microns per pixel of a slide without a scale, [`SlideError::NoSuchLevel`],
    /// [`SlideError::InvalidScale`] for a downsample that is not a finite number above zero.
    pub fn new(slide: Slide, target: Target) -> Result<Self> {
        let (rows, columns) = match target {
            Target::Level(level) => {
                let geometry = slide.level(level)?;
                let downsample = (geometry.downsample, geometry.downsample);
                return Ok(Self {
                    crop: geometry.extent.region(),
                    slide,
                    level,
                    sampling: Sampling::Exact,
                    downsample,
                    asked: None,
                });
            }
            Target::MicronsPerPixel(edge) => {
                let scale = slide.scale()?;
                (edge.get() / scale.y.get(), edge.get() / scale.x.get())
            }
            Target::Downsample(downsample) => (downsample, downsample),
        };
        for downsample in [rows, columns] {
            if !downsample.is_finite() || downsample <= 0.0 {
                return Err(SlideError::InvalidScale {
                    quantity: "downsample",
                    found: downsample,
                });
            }
        }
        let asked = match target {
            Target::MicronsPerPixel(edge) => Some(edge),
            Target::Level(_) | Target::Downsample(_) => None,
        };
        Ok(Self {
            asked,
            ..Self::resampled(slide, rows, columns)
        })
    }

    /// Chooses the level that serves level-0 pixels per pixel `(rows, columns)`.
    fn resampled(slide: Slide, rows: f64, columns: f64) -> Self {
        let steps = |level: usize| {
            let geometry = slide.levels().get(level)?;
            let steps = (rows / geometry.downsample, columns / geometry.downsample);
            Some((geometry.extent, steps))
        };
        let mut chosen = None;
        for level in 0..slide.levels().len() {
            let Some((extent, (row_step, column_step))) = steps(level) else {
                continue;
            };
            let exact =
                same_scale(row_step, extent.height) && same_scale(column_step, extent.width);
            if exact || (row_step >= 1.0 && column_step >= 1.0) || chosen.is_none() {
                chosen = Some((level, extent, row_step, column_step, exact));
            }
        }
        let (level, extent, row_step, column_step, exact) =
            chosen.unwrap_or((0, slide.extent(), rows, columns, false));
        let (sampling, whole) = if exact {
            (Sampling::Exact, extent)
        } else {
            let rows = Axis::new(row_step, extent.height);
            let columns = Axis::new(column_step, extent.width);
            let whole = Extent {
                height: rows.length(),
                width: columns.length(),
            };
            (Sampling::Resampled { rows, columns }, whole)
        };
        Self {
            slide,
            level: Level(level),
            sampling,
            crop: whole.region(),
            downsample: (rows, columns),
            asked: None,
        }
    }

    /// Shows only `region` (pixels of this view), whose corner becomes the origin. What lies outside this view is cut off.
    ///
    /// # Errors
    /// [`SlideError::InvalidArgument`] if nothing is left.
    pub fn cropped(&self, region: &Region) -> Result<Self> {
        let crop = region
            .translated(self.crop.rows.start, self.crop.columns.start)
            .intersection(&self.crop);
        if crop.is_empty() {
            return Err(SlideError::InvalidArgument {
                what: "a crop",
                expected: "inside the view at least in part",
                found: format!("{region} of {}", self.extent()),
            });
        }
        Ok(Self {
            crop,
            ..self.clone()
        })
    }

    /// Shows only what was scanned: the slide's [`bounds`](crate::Properties::bounds), to whole pixels outwards. Slides without
    /// bounds are shown as they are.
    ///
    /// QuPath shows this part alone, so a picture that is to lie on QuPath's slide, such as a heat map, is written of this
    /// view: its corner is that of the bounds, within a pixel, or exactly where the bounds' corner is a multiple of
    /// [`downsample`](Self::downsample). ASAP shows all of level 0.
    ///
    /// # Errors
    /// [`SlideError::InvalidArgument`] if the bounds lie outside of this view.
    pub fn cropped_to_bounds(&self) -> Result<Self> {
        let Some(bounds) = &self.slide.properties().bounds else {
            return Ok(self.clone());
        };
        let within = |span: &Range<i64>, step: f64, start: i64| {
            let place = |pixel: i64| position(pixel) / step;
            floor(place(span.start)).saturating_sub(start)
                ..floor(place(span.end).ceil()).saturating_sub(start)
        };
        let (row_step, column_step) = self.downsample;
        self.cropped(&Region::new(
            within(&bounds.rows, row_step, self.crop.rows.start),
            within(&bounds.columns, column_step, self.crop.columns.start),
        ))
    }

    /// Size of this view.
    #[must_use]
    pub fn extent(&self) -> Extent {
        Extent {
            height: self.crop.height(),
            width: self.crop.width(),
        }
    }

    /// The slide behind the view.
    #[must_use]
    pub const fn slide(&self) -> &Slide {
        &self.slide
    }

    /// The level from which pixels are read.
    #[must_use]
    pub const fn level(&self) -> Level {
        self.level
    }

    /// Whether pixels are the level's own, without resampling.
    #[must_use]
    pub fn is_exact(&self) -> bool {
        self.sampling == Sampling::Exact
    }

    /// Level-0 pixels per pixel of this view, as (vertical, horizontal).
    #[must_use]
    pub const fn downsample(&self) -> (f64, f64) {
        self.downsample
    }

    /// Scale of this view: what was asked for, or that of the slide times [`downsample`](Self::downsample).
    ///
    /// # Errors
    /// [`SlideError::NoScale`] where neither the file nor the caller states the slide's.
    pub fn scale(&self) -> Result<PixelScale> {
        if let Some(edge) = self.asked {
            return Ok(PixelScale::square(edge));
        }
        let (finest, (rows, columns)) = (self.slide.scale()?, self.downsample);
        Ok(PixelScale {
            x: MicronsPerPixel::new(finest.x.get() * columns)?,
            y: MicronsPerPixel::new(finest.y.get() * rows)?,
        })
    }

    /// Where a position of this view lies on level 0, as (row, column), both counted from the corner of a pixel.
    #[must_use]
    pub fn to_level_0(&self, row: f64, column: f64) -> (f64, f64) {
        (
            (row + position(self.crop.rows.start)) * self.downsample.0,
            (column + position(self.crop.columns.start)) * self.downsample.1,
        )
    }

    /// Reads pixels, on as many threads as the caller's rayon pool has.
    ///
    /// # Shapes
    /// `region`: pixels of this view, may lie outside (background); `rgb`: `height x width x 3` of the region.
    ///
    /// # Errors
    /// [`SlideError::BufferLength`], [`SlideError::RegionFailed`].
    pub fn read(&self, region: &Region, rgb: &mut [u8]) -> Result<()> {
        self.read_with(region, rgb, Parallelism::Rayon)
    }

    pub(crate) fn read_with(
        &self,
        region: &Region,
        rgb: &mut [u8],
        parallelism: Parallelism,
    ) -> Result<()> {
        check_rgb_length(region.height(), region.width(), rgb.len())?;
        let region = region.translated(self.crop.rows.start, self.crop.columns.start);
        let inside = region.intersection(&self.crop);
        match self.sampling {
            Sampling::Exact => {
                read_blocks(&self.slide, self.level, &region, &inside, rgb, parallelism)
            }
            Sampling::Resampled { rows, columns } => {
                fill_outside(&region, &inside, self.slide.background().0, rgb);
                let filter = Filter {
                    view: self,
                    rows,
                    columns,
                    parallelism,
                };
                filter.read(&region, &inside, rgb)
            }
        }
    }

    /// The whole view as a picture in memory.
    ///
    /// # Errors
    /// [`SlideError::LimitExceeded`] beyond [`Limits::image_bytes`](crate::Limits::image_bytes),
    /// [`SlideError::RegionFailed`].
    pub fn to_image(&self) -> Result<RgbImage> {
        let extent = self.extent();
        let needed = extent.height.saturating_mul(extent.width).saturating_mul(3);
        self.slide.check_limit(
            "a picture of the whole view, in bytes,",
            needed,
            self.slide.limits().image_bytes,
        )?;
        let mut rgb = vec![0; to_usize(needed)];
        self.read(&extent.region(), &mut rgb)?;
        self.slide.image(extent, rgb)
    }
}

/// Whether a step is so near 1 that over the whole level it drifts by less than a quarter of a pixel.
fn same_scale(step: f64, length: u64) -> bool {
    (step - 1.0).abs() * float(length) < 0.25
}

/// One resampled read.
struct Filter<'a> {
    view: &'a SlideView,
    rows: Axis,
    columns: Axis,
    parallelism: Parallelism,
}

impl Filter<'_> {
    fn read(&self, region: &Region, inside: &Region, rgb: &mut [u8]) -> Result<()> {
        if inside.is_empty() {
            return Ok(());
        }
        let (row_step, column_step) = (self.rows.step(), self.columns.step());
        let place = placement(region, inside);
        let band_rows = whole_steps(float(BLOCK_EDGE), row_step);
        let chunk = whole_steps(CHUNK_COLUMNS, column_step);
        for_each_band(region, band_rows, rgb, self.parallelism, |mut band| {
            let rows = band.rows.start.max(inside.rows.start)..band.rows.end.min(inside.rows.end);
            let mut scratch = Scratch::default();
            let mut start = inside.columns.start.unsigned_abs();
            let end = inside.columns.end.unsigned_abs();
            while start < end {
                let columns = start..end.min(start.saturating_add(chunk));
                self.taps_of(&columns, &mut scratch.column_taps);
                let offset = to_usize(start - inside.columns.start.unsigned_abs()) * 3;
                let bytes = to_usize(columns.end - columns.start) * 3;
                let mut blocks = None;
                for row in rows.clone() {
                    let target = place.row(&mut band, row);
                    self.filter_row(
                        row.unsigned_abs(),
                        &mut scratch,
                        &mut blocks,
                        &mut target[offset..offset + bytes],
                    )?;
                }
                start = columns.end;
            }
            Ok(())
        })
    }

    fn taps_of(&self, columns: &Range<u64>, taps: &mut Vec<Taps>) {
        taps.resize_with(to_usize(columns.end - columns.start), Taps::default);
        for (column, taps) in columns.clone().zip(taps) {
            self.columns.taps(column, taps);
        }
    }

    /// One output row of one chunk of columns. `held` keeps the row of blocks that was used last.
    fn filter_row(
        &self,
        row: u64,
        scratch: &mut Scratch,
        held: &mut Option<(u64, BlockRow)>,
        rgb: &mut [u8],
    ) -> Result<()> {
        let Scratch {
            column_taps,
            row_taps,
            sums,
        } = scratch;
        let (Some(first), Some(last)) = (column_taps.first(), column_taps.last()) else {
            return Ok(());
        };
        let source_columns = first.first..last.end();
        self.rows.taps(row, row_taps);
        sums.clear();
        sums.resize(to_usize(source_columns.end - source_columns.start) * 3, 0.0);
        for (source_row, &weight) in (row_taps.first..).zip(&row_taps.weights) {
            let block_row = source_row / BLOCK_EDGE;
            let blocks = match held.take() {
                Some((row, blocks)) if row == block_row => blocks,
                _ => BlockRow::load(
                    &self.view.slide,
                    self.view.level,
                    block_row,
                    &source_columns,
                    self.parallelism,
                )?,
            };
            let mut done = 0;
            blocks.runs(to_usize(source_row % BLOCK_EDGE), &source_columns, |run| {
                if let Some(sums) = sums.get_mut(done..done + run.len()) {
                    add_weighted(sums, run, weight);
                }
                done += run.len();
            });
            *held = Some((block_row, blocks));
        }
        filter_row(sums, source_columns.start, column_taps, rgb);
        Ok(())
    }
}

#[derive(Default)]
struct Scratch {
    column_taps: Vec<Taps>,
    row_taps: Taps,
    sums: Vec<f32>,
}

/// How many output pixels of `step` source pixels make up about `length` source pixels; at least one.
fn whole_steps(length: f64, step: f64) -> u64 {
    // Saturating only makes bands larger.
    whole(length / step).max(1)
}
