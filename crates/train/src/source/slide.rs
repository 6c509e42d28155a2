//! A slide at one scale as an image to stream.

use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rayon::prelude::*;
use stream_grad::tiling::Fraction;
use stream_grad::{ExternalError, Rect, Stored, StridedMut, TileMut, TileSource, bf16};
use stream_grad_slides::{
    Mask, ReadAhead, ReadAheadOptions, Region, SlideError, SlideView, StainNormalizer,
    TissueOptions,
};

use super::background::Filling;
use super::{Background, ReadSettings};
use crate::error::Result as TrainResult;

/// Normalised values of the 256 grey levels of each channel.
#[derive(Debug)]
pub(super) struct Normalisation {
    single: [[f32; 256]; 3],
    double: [[f64; 256]; 3],
    half: [[bf16; 256]; 3],
}

impl Normalisation {
    pub(super) fn new(settings: &ReadSettings) -> Self {
        let value = |channel: usize, level: u8| {
            (f64::from(level) / 255.0 - settings.mean[channel]) / settings.deviation[channel]
        };
        let mut tables = Self {
            single: [[0.0; 256]; 3],
            double: [[0.0; 256]; 3],
            half: [[bf16::ZERO; 256]; 3],
        };
        for channel in 0..3 {
            for level in 0..=u8::MAX {
                let value = value(channel, level);
                tables.double[channel][usize::from(level)] = value;
                tables.single[channel][usize::from(level)] = f32::rounded(value);
                tables.half[channel][usize::from(level)] = bf16::rounded(value);
            }
        }
        tables
    }
}

/// A slide at one scale as an image of three normalised channels.
#[derive(Debug, Clone)]
pub struct SlideSource {
    pub(super) pixels: Pixels,
    /// Applied to what is read; pixels that are held have it applied already.
    pub(super) stain: Option<StainNormalizer>,
    pub(super) normalisation: Arc<Normalisation>,
}

#[derive(Debug, Clone)]
pub(super) enum Pixels {
    /// All of it, decoded: height, width, RGB.
    Held {
        extent: (u64, u64),
        rgb: Arc<Vec<u8>>,
    },
    /// Read as it is asked for, or ahead of that.
    Read(ViewPixels),
}

/// A slide that is decoded while it is streamed, but for what is filled.
#[derive(Debug, Clone)]
pub(super) struct ViewPixels {
    view: SlideView,
    filling: Option<Filling>,
    ahead: Ahead,
}

impl ViewPixels {
    pub(super) fn new(view: SlideView, filling: Option<Filling>) -> Self {
        Self {
            view,
            filling,
            ahead: Ahead::default(),
        }
    }

    /// The part of a region that is decoded; none if nothing of it is.
    fn decoded(&self, region: Region) -> Option<Region> {
        match &self.filling {
            Some(filling) => filling.decoded(&self.view, &region),
            None => Some(region),
        }
    }

    fn expect(&self, regions: impl Iterator<Item = Region>) {
        let decoded = regions.filter_map(|region| self.decoded(region));
        self.ahead.begin(&self.view, decoded.collect());
    }

    /// The region's pixels, row by row.
    pub(super) fn read(&self, region: &Region, rgb: &mut [u8]) -> Result<(), SlideError> {
        let ahead = self.ahead.current();
        let read = |region: &Region, rgb: &mut [u8]| match &ahead {
            Some(ahead) => ahead.read(region, rgb),
            None => self.view.read(region, rgb),
        };
        match &self.filling {
            Some(filling) => filling.read(&self.view, region, rgb, read),
            None => read(region, rgb),
        }
    }

    /// The colour of a region of which nothing is decoded.
    fn color(&self, region: &Region) -> Option<[u8; 3]> {
        let filling = self.filling.as_ref()?;
        let is_filled = filling.decoded(&self.view, region).is_none();
        is_filled.then(|| filling.color().0)
    }
}

/// A thread that decodes what the sweep at hand will ask for. Of one source: a clone has its own.
#[derive(Debug, Default)]
pub(super) struct Ahead(Mutex<Option<Arc<ReadAhead>>>);

impl Clone for Ahead {
    fn clone(&self) -> Self {
        Self::default()
    }
}

impl Ahead {
    /// One thread keeps ahead of a network that computes on all cores; two regions are decoded while one is used.
    const OPTIONS: ReadAheadOptions = ReadAheadOptions {
        threads: NonZeroUsize::MIN,
        depth: NonZeroUsize::MIN.saturating_add(1),
    };

    fn begin(&self, view: &SlideView, schedule: Vec<Region>) {
        // Without a thread, regions are decoded as they are asked for.
        let begun = ReadAhead::new(view.clone(), schedule, Self::OPTIONS).ok();
        let before = std::mem::replace(&mut *self.lock(), begun.map(Arc::new));
        // Waits for its thread, not for the lock.
        drop(before);
    }

    fn current(&self) -> Option<Arc<ReadAhead>> {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Option<Arc<ReadAhead>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl SlideSource {
    /// Reads `view` as it is asked for; within a sweep, a thread of its own decodes the next regions ahead.
    ///
    /// Of the settings, `mean`, `deviation`, `stain`, `background` and `background_color` count: where stains are to be made alike, that
    /// of the whole slide is estimated here, and where what has no tissue is filled, tissue is found here.
    ///
    /// # Errors
    /// [`TrainError::Slide`](crate::TrainError::Slide) for a slide whose stain cannot be estimated, or in which tissue cannot be looked
    /// for.
    pub fn new(view: SlideView, settings: &ReadSettings) -> TrainResult<Self> {
        let slide = view.slide();
        let filling = match settings.background {
            Background::AsRead => None,
            Background::Fill => {
                let tissue = Mask::of_tissue(slide, &TissueOptions::default())?;
                settings.filling(slide, &tissue)
            }
        };
        Ok(Self {
            stain: settings.stain.normalizer(slide, None)?,
            pixels: Pixels::Read(ViewPixels::new(view, filling)),
            normalisation: Arc::new(Normalisation::new(settings)),
        })
    }

    /// The share of the image that may be of more than one colour: what is not filled.
    #[must_use]
    pub fn texture(&self) -> Fraction {
        self.filling()
            .map_or(Fraction::new(1, 1), |(view, filling)| filling.texture(view))
    }

    /// Heap bytes of the mask of what is filled; 0 if nothing is.
    #[must_use]
    pub fn filling_bytes(&self) -> u64 {
        self.filling().map_or(0, |(_, filling)| filling.bytes())
    }

    /// Heap bytes of what is decoded ahead of a sweep whose regions have at most so many pixels; 0 if all is decoded.
    #[must_use]
    pub fn ahead_bytes(&self, pixels: u64) -> u64 {
        match &self.pixels {
            Pixels::Held { .. } => 0,
            Pixels::Read(_) => {
                let regions = Ahead::OPTIONS.most_regions() as u64;
                pixels.saturating_mul(3).saturating_mul(regions)
            }
        }
    }

    /// Whether all of it is in memory, decoded.
    pub(super) fn is_held(&self) -> bool {
        matches!(self.pixels, Pixels::Held { .. })
    }

    fn filling(&self) -> Option<(&SlideView, &Filling)> {
        match &self.pixels {
            Pixels::Held { .. } => None,
            Pixels::Read(pixels) => Some((&pixels.view, pixels.filling.as_ref()?)),
        }
    }

    /// The region's pixels, row by row, with stains made alike.
    fn decode(&self, pixels: &ViewPixels, region: Rect) -> Result<Vec<u8>, ExternalError> {
        let mut rgb = vec![0; region.height() * region.width() * 3];
        pixels.read(&of_slide(region), &mut rgb)?;
        if let Some(stain) = &self.stain {
            stain.apply(&mut rgb)?;
        }
        Ok(rgb)
    }

    /// Refuses what lies outside.
    fn check(&self, region: Rect) -> Result<(), ExternalError> {
        let (height, width) = self.extent();
        if Rect::whole(height, width).covers(region) {
            return Ok(());
        }
        Err(format!("{region} lies outside a slide of {height} x {width}").into())
    }

    fn normalise(&self, rgb: Rows<'_>, out: TileMut<'_>) {
        match out {
            TileMut::F32(tile) => normalise(rgb, &self.normalisation.single, tile),
            TileMut::F64(tile) => normalise(rgb, &self.normalisation.double, tile),
            TileMut::BF16(tile) => normalise(rgb, &self.normalisation.half, tile),
        }
    }
}

/// Rows of RGB values in memory.
#[derive(Clone, Copy)]
struct Rows<'a> {
    values: &'a [u8],
    /// Where the first begins, and how far apart they are.
    first: usize,
    pitch: usize,
}

impl<'a> Rows<'a> {
    /// Those of a region that lies inside an image of `width` columns.
    fn of(values: &'a [u8], width: u64, region: Rect) -> Result<Self, ExternalError> {
        let pitch = usize::try_from(width)? * 3;
        let (top, left) = (region.rows.lo, region.columns.lo);
        Ok(Self {
            values,
            first: usize::try_from(top)? * pitch + usize::try_from(left)? * 3,
            pitch,
        })
    }

    /// The first `length` values of a row.
    fn row(&self, row: usize, length: usize) -> &'a [u8] {
        &self.values[self.first + row * self.pitch..][..length]
    }

    /// The colour of `height x width` pixels, if they have one.
    fn color(&self, height: usize, width: usize) -> Option<[u8; 3]> {
        let color = *self.row(0, (height * width).min(1) * 3).first_chunk()?;
        let mut rows = (0..height).map(|row| self.row(row, width * 3));
        let same = rows.all(|row| row.as_chunks().0.iter().all(|pixel| *pixel == color));
        same.then_some(color)
    }
}

/// The same rectangle as slides have it.
pub(super) fn of_slide(region: Rect) -> Region {
    let Rect { rows, columns } = region;
    Region::new(rows.lo..rows.hi, columns.lo..columns.hi)
}

impl TileSource for SlideSource {
    fn batch(&self) -> usize {
        1
    }

    fn channels(&self) -> usize {
        3
    }

    fn extent(&self) -> (u64, u64) {
        match &self.pixels {
            Pixels::Held { extent, .. } => *extent,
            Pixels::Read(pixels) => {
                let extent = pixels.view.extent();
                (extent.height, extent.width)
            }
        }
    }

    fn expect_reads(&self, reads: &mut dyn Iterator<Item = (usize, Rect)>) {
        if let Pixels::Read(pixels) = &self.pixels {
            pixels.expect(reads.map(|(_, region)| of_slide(region)));
        }
    }

    fn one_color(&self, _image: usize, region: Rect) -> Result<Option<Vec<f64>>, ExternalError> {
        self.check(region)?;
        let color = match &self.pixels {
            Pixels::Held { extent, rgb } => {
                Rows::of(rgb, extent.1, region)?.color(region.height(), region.width())
            }
            Pixels::Read(pixels) => {
                let mut color = pixels.color(&of_slide(region));
                if let (Some(color), Some(stain)) = (&mut color, &self.stain) {
                    stain.apply(color)?;
                }
                color
            }
        };
        let normalised = |(channel, level): (&[f64; 256], u8)| channel[usize::from(level)];
        Ok(color.map(|color| {
            let channels = self.normalisation.double.iter().zip(color);
            channels.map(normalised).collect()
        }))
    }

    fn read(&self, _image: usize, region: Rect, out: TileMut<'_>) -> Result<(), ExternalError> {
        self.check(region)?;
        match &self.pixels {
            Pixels::Held { extent, rgb } => {
                self.normalise(Rows::of(rgb, extent.1, region)?, out);
            }
            Pixels::Read(pixels) => {
                let rows = Rows {
                    values: &self.decode(pixels, region)?,
                    first: 0,
                    pitch: region.width() * 3,
                };
                self.normalise(rows, out);
            }
        }
        Ok(())
    }
}

fn normalise<T: Copy + Send + Sync>(
    rgb: Rows<'_>,
    tables: &[[T; 256]; 3],
    mut tile: StridedMut<'_, T>,
) {
    tile.par_rows().enumerate().for_each(|(row, values)| {
        let line = rgb.row(row, values.len());
        for (pixel, values) in line.chunks_exact(3).zip(values.chunks_exact_mut(3)) {
            for channel in 0..3 {
                values[channel] = tables[channel][usize::from(pixel[channel])];
            }
        }
    });
}
