//! Writing pyramidal tiled TIFF from a stream of rows or tiles.

mod container;
mod description;
mod encode;
mod layout;
mod level;
mod options;
mod pages;
mod sample;

use std::io::BufWriter;
use std::path::{Path, PathBuf};

use stream_grad_files::NewFile;

use crate::error::{Result, SlideError};
use crate::geometry::Extent;
use crate::numbers::{to_usize, wide};
use crate::written_rows::WrittenRows;

use container::{Container, StoredBlock, TiffFile};
pub use encode::{ColorModel, Compression};
pub(crate) use encode::{check_quality, jpeg};
pub use layout::PyramidLayout;
use level::{LevelWriter, TileFormat};
use options::check_options;
pub use options::{PyramidOptions, Reduction, TiffKind};
use pages::Pages;
pub use sample::Sample;
pub(crate) use sample::halve;

/// Writes a pyramid as tiled TIFF, without ever holding the image: RGB or grey, of bytes, `u16` or `f32`.
///
/// Rows go in from top to bottom; each overview is half of the level before (a 2 x 2 mean, or with
/// [`Reduction::Nearest`] one of the four; sides rounded up; of `f32`, NaN does not count), computed on the way, until one fits into a
/// tile. [`PyramidLayout`] says which programs see all of them,
/// and the scale. Memory is about two rows of tiles of the finest level, twice over.
///
/// The file states no bounds: what is written is the whole slide, and coordinates on it count from its corner. Outlines of a
/// slide with bounds lie right on a copy of all of it in level-0 pixels only, on a copy of
/// [`SlideView::cropped_to_bounds`](crate::SlideView::cropped_to_bounds) in those of
/// [`GeoJsonFrame::Bounds`](crate::GeoJsonFrame::Bounds).
///
/// The file is written beside its destination under a temporary name, and renamed by [`finish`](Self::finish). Dropped
/// earlier, or after an error such as a full disk, it leaves nothing behind and whatever stood there before stays. It does not
/// know what is read: [`Slide::check_output`](crate::Slide::check_output) keeps a slide from being written over.
///
/// # Examples
/// ```
/// use stream_grad_slides::{Compression, Level, PyramidOptions, PyramidWriter, Region, Slide};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let folder = tempfile::tempdir()?;
/// let path = folder.path().join("gradient.tiff");
/// let options = PyramidOptions::default().with_compression(Compression::Deflate);
/// let mut writer = PyramidWriter::create(&path, 300, 500, &options)?;
/// for row in 0..300_u32 {
///     let grey = u8::try_from(row % 256)?;
///     writer.write_rows(&[grey; 500 * 3])?;
/// }
/// writer.finish()?;
///
/// let slide = Slide::open(&path)?;
/// assert_eq!(slide.levels().len(), 2);
/// let mut pixel = [0; 3];
/// slide.read_level(Level(0), &Region::new(7..8, 0..1), &mut pixel)?;
/// assert_eq!(pixel, [7, 7, 7]);
///
/// // A map of predictions.
/// let options = options.with_color(stream_grad_slides::ColorModel::Gray);
/// let path = folder.path().join("predictions.tiff");
/// let mut writer = PyramidWriter::<f32>::create_of_samples(&path, 30, 50, &options)?;
/// writer.write_rows(&[0.75; 30 * 50])?;
/// writer.finish()?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct PyramidWriter<S = u8> {
    path: PathBuf,
    file: TiffFile<BufWriter<NewFile>>,
    options: PyramidOptions,
    extent: Extent,
    levels: Vec<LevelWriter<S>>,
    /// What is halved out of the coarsest level.
    thumbnail: Vec<S>,
    tiles: Option<TileBand<S>>,
    rows: WrittenRows,
}

/// Tiles that were given but do not make up a whole row of tiles yet.
#[derive(Debug)]
struct TileBand<S> {
    next_column: u64,
    samples: Vec<S>,
}

impl PyramidWriter<u8> {
    /// Begins a file of `height x width` pixels of bytes that will stand at `path`.
    ///
    /// # Errors
    /// As [`create_of_samples`](Self::create_of_samples).
    pub fn create(
        path: impl AsRef<Path>,
        height: u64,
        width: u64,
        options: &PyramidOptions,
    ) -> Result<Self> {
        Self::create_of_samples(path, height, width, options)
    }
}

impl<S: Sample> PyramidWriter<S> {
    /// Begins a file of `height x width` pixels of any kind of samples that will stand at `path`.
    ///
    /// # Errors
    /// [`SlideError::InvalidArgument`] for an empty image, a tile edge that is no multiple of 16, or JPEG of samples that
    /// are no bytes; [`SlideError::LimitExceeded`] for sides beyond what TIFF holds, [`SlideError::Io`].
    pub fn create_of_samples(
        path: impl AsRef<Path>,
        height: u64,
        width: u64,
        options: &PyramidOptions,
    ) -> Result<Self> {
        let path = path.as_ref().to_path_buf();
        let extent = Extent { height, width };
        check_options(&path, extent, options)?;
        if S::BITS != 8 && matches!(options.compression, Compression::Jpeg { .. }) {
            return Err(SlideError::InvalidArgument {
                what: "samples compressed as JPEG",
                expected: "bytes",
                found: format!("{} bits", S::BITS),
            });
        }
        let format = tile_format(options);
        let pixel_bytes = u64::from(S::BITS / 8) * wide(options.color.channels());
        let container = match options.kind {
            TiffKind::Classic => Container::Classic,
            TiffKind::Big => Container::Big,
            TiffKind::Automatic => Container::for_pixels(extent, pixel_bytes),
        };
        let file = BufWriter::new(NewFile::create(&path).map_err(SlideError::file)?);
        let file = TiffFile::begin(file, container, &path)?;
        let mut levels = vec![LevelWriter::new(extent, format)];
        let mut size = extent;
        while size.height.max(size.width) > u64::from(options.tile_edge) {
            size = size.halved();
            levels.push(LevelWriter::new(size, format));
        }
        Ok(Self {
            rows: WrittenRows::new(path.clone(), height),
            path,
            file,
            options: options.clone(),
            extent,
            levels,
            thumbnail: Vec::new(),
            tiles: None,
        })
    }

    /// Size of the finest level.
    #[must_use]
    pub const fn extent(&self) -> Extent {
        self.extent
    }

    /// Adds whole rows below those that were written before.
    ///
    /// # Shapes
    /// `samples`: `rows x width x channels` (3 or, of grey, 1), any number of rows.
    ///
    /// # Errors
    /// [`SlideError::BufferLength`] unless it is whole rows, [`SlideError::RowCount`] beyond the declared height,
    /// [`SlideError::Encode`], [`SlideError::Io`]. After the last three nothing more can be written:
    /// [`SlideError::AfterFailure`].
    pub fn write_rows(&mut self, samples: &[S]) -> Result<()> {
        let row = self.samples_of(self.extent.width);
        if !samples.len().is_multiple_of(row) {
            return Err(SlideError::BufferLength {
                what: "whole rows, in samples (width x channels each),",
                expected: wide(samples.len().div_ceil(row).saturating_mul(row)),
                found: wide(samples.len()),
            });
        }
        if self.tiles.is_some() {
            return Err(SlideError::InvalidArgument {
                what: "rows after an incomplete row of tiles",
                expected: "given only where a row of tiles ends",
                found: format!("row {}", self.rows.given()),
            });
        }
        self.rows.check_usable()?;
        let written = samples
            .chunks_exact(row)
            .try_for_each(|row| self.push_row(row));
        self.rows.note(written)
    }

    /// Adds the next tile, in rows of tiles from the top left.
    ///
    /// # Shapes
    /// `samples`: `tile height x tile width x channels`; tiles at the right and bottom edge have only the pixels of the image.
    ///
    /// # Errors
    /// As [`write_rows`](Self::write_rows); the length must be that of the next tile.
    pub fn write_tile(&mut self, samples: &[S]) -> Result<()> {
        let edge = u64::from(self.options.tile_edge);
        let rows = edge.min(self.extent.height - self.rows.given());
        let width = self.extent.width;
        let row = self.samples_of(width);
        let next_column = self.tiles.as_ref().map_or(0, |band| band.next_column);
        let columns = edge.min(width - next_column);
        let run = self.samples_of(columns);
        let expected = rows.saturating_mul(wide(run));
        if wide(samples.len()) != expected {
            return Err(SlideError::BufferLength {
                what: "the next tile, in samples (height x width x channels),",
                expected,
                found: wide(samples.len()),
            });
        }
        let left = self.samples_of(next_column);
        let band = self.tiles.get_or_insert_with(|| TileBand {
            next_column: 0,
            samples: vec![S::default(); to_usize(rows).saturating_mul(row)],
        });
        for (source, target) in samples
            .chunks_exact(run.max(1))
            .zip(band.samples.chunks_exact_mut(row))
        {
            target[left..left + run].copy_from_slice(source);
        }
        band.next_column += columns;
        if band.next_column < width {
            return Ok(());
        }
        match self.tiles.take() {
            Some(full) => self.write_rows(&full.samples),
            None => Ok(()),
        }
    }

    /// Writes what is left, and puts the file in its place.
    ///
    /// # Errors
    /// [`SlideError::RowCount`] if rows are missing, [`SlideError::AfterFailure`] if an earlier write failed;
    /// [`SlideError::Encode`], [`SlideError::Io`]. The destination is then as it was before.
    pub fn finish(mut self) -> Result<()> {
        self.rows.check_complete()?;
        let thumbnail = self.write_thumbnail()?;
        let pages = Pages {
            options: &self.options,
            format: tile_format(&self.options),
            sample: (S::BITS, S::FORMAT),
            levels: self
                .levels
                .iter()
                .map(|level| (level.extent(), level.tiles()))
                .collect(),
            thumbnail,
        };
        pages.write(&mut self.file)?;
        let file = self
            .file
            .finish()?
            .into_inner()
            .map_err(|error| SlideError::io(&self.path, error.into_error()))?;
        file.commit().map_err(SlideError::file)
    }

    /// Writes the thumbnail's pixels, if the file is to have one.
    fn write_thumbnail(&mut self) -> Result<Option<(Extent, StoredBlock)>> {
        // Programs that take the second page for a thumbnail do so where there is a second page.
        let [_, .., coarsest] = self.levels.as_slice() else {
            return Ok(None);
        };
        if self.options.page_layout() != PyramidLayout::Aperio {
            return Ok(None);
        }
        let extent = coarsest.extent().halved();
        let side = |pixels: u64| u32::try_from(pixels).unwrap_or(u32::MAX);
        let samples = S::into_bytes(std::mem::take(&mut self.thumbnail));
        let PyramidOptions {
            compression, color, ..
        } = self.options;
        let strip = compression
            .encode(&samples, (side(extent.width), side(extent.height)), color)
            .map_err(|reason| SlideError::Encode {
                path: self.path.clone(),
                reason,
            })?;
        Ok(Some((extent, self.file.write_block(&strip)?)))
    }

    /// Adds one row to the finest level and what follows from it to the overviews.
    fn push_row(&mut self, row: &[S]) -> Result<()> {
        self.rows.add()?;
        let Some((finest, mut coarser)) = self.levels.split_first_mut() else {
            return Ok(());
        };
        let mut halved = finest.push(row, &mut self.file)?;
        while let Some((level, rest)) = coarser.split_first_mut() {
            let Some(row) = halved.take() else { break };
            halved = level.push(&row, &mut self.file)?;
            coarser = rest;
        }
        self.thumbnail.extend(halved.unwrap_or_default());
        Ok(())
    }

    /// Samples in a run of so many pixels.
    fn samples_of(&self, pixels: u64) -> usize {
        to_usize(pixels).saturating_mul(self.options.color.channels())
    }
}

const fn tile_format(options: &PyramidOptions) -> TileFormat {
    TileFormat {
        edge: options.tile_edge,
        color: options.color,
        compression: options.compression,
        reduction: options.reduction,
    }
}

#[cfg(test)]
mod tests;
