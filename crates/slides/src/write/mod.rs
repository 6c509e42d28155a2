//! Writing pyramidal tiled TIFF from a stream of rows or tiles.

mod container;
mod encode;
mod level;

use std::fs::File;
use std::io::BufWriter;
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use crate::error::{Result, SlideError};
use crate::geometry::{Extent, MicronsPerPixel};
use crate::resample::float;

use container::{Container, Directory, TiffFile};
pub use encode::Compression;
use level::LevelWriter;

/// Which kind of TIFF file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TiffKind {
    /// BigTIFF where the pixels, uncompressed, could pass 4 GiB; else classic.
    #[default]
    Automatic,
    /// 32-bit offsets: at most 4 GiB.
    Classic,
    /// 64-bit offsets.
    Big,
}

/// How to write a pyramid.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct PyramidOptions {
    /// How tiles are compressed: JPEG of quality 90 by default.
    pub compression: Compression,
    /// Edge of the tiles, a multiple of 16: 256 by default.
    pub tile_edge: u32,
    /// Which kind of TIFF file.
    pub kind: TiffKind,
    /// Edge of a pixel of the finest level.
    pub microns_per_pixel: Option<MicronsPerPixel>,
    /// Magnification of the objective.
    pub objective_power: Option<f64>,
}

impl Default for PyramidOptions {
    fn default() -> Self {
        Self {
            compression: Compression::Jpeg { quality: 90 },
            tile_edge: 256,
            kind: TiffKind::Automatic,
            microns_per_pixel: None,
            objective_power: None,
        }
    }
}

impl PyramidOptions {
    /// Sets the compression of the tiles.
    #[must_use]
    pub const fn with_compression(mut self, compression: Compression) -> Self {
        self.compression = compression;
        self
    }

    /// Sets the edge of the tiles.
    #[must_use]
    pub const fn with_tile_edge(mut self, tile_edge: u32) -> Self {
        self.tile_edge = tile_edge;
        self
    }

    /// Sets the kind of TIFF file.
    #[must_use]
    pub const fn with_kind(mut self, kind: TiffKind) -> Self {
        self.kind = kind;
        self
    }

    /// Sets the scale.
    #[must_use]
    pub const fn with_microns_per_pixel(mut self, edge: MicronsPerPixel) -> Self {
        self.microns_per_pixel = Some(edge);
        self
    }

    /// Sets the magnification of the objective.
    #[must_use]
    pub const fn with_objective_power(mut self, power: f64) -> Self {
        self.objective_power = Some(power);
        self
    }
}

/// Writes an 8-bit RGB pyramid as tiled TIFF, without ever holding the image.
///
/// Rows go in from top to bottom; each overview is half of the level before (a 2 x 2 mean, sides rounded up), computed on
/// the way, until one fits into a tile. With a scale or an objective power the file carries an Aperio description, from
/// which OpenSlide and the viewers built on it read both. Memory is about two rows of tiles of the finest level, twice over.
///
/// The file is written beside its destination under a temporary name, and renamed by [`finish`](Self::finish). Dropped
/// earlier, or after an error such as a full disk, it leaves nothing behind and whatever stood there before stays.
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
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct PyramidWriter {
    path: PathBuf,
    file: TiffFile<BufWriter<NamedTempFile<File>>>,
    options: PyramidOptions,
    extent: Extent,
    levels: Vec<LevelWriter>,
    tiles: Option<TileBand>,
    rows_given: u64,
    failed: bool,
}

/// Tiles that were given but do not make up a whole row of tiles yet.
#[derive(Debug)]
struct TileBand {
    next_column: u64,
    rgb: Vec<u8>,
}

impl PyramidWriter {
    /// Begins a file of `height x width` pixels that will stand at `path`.
    ///
    /// # Errors
    /// [`SlideError::InvalidArgument`] for an empty image or a tile edge that is no multiple of 16,
    /// [`SlideError::LimitExceeded`] for sides beyond what TIFF holds, [`SlideError::Io`].
    pub fn create(
        path: impl AsRef<Path>,
        height: u64,
        width: u64,
        options: &PyramidOptions,
    ) -> Result<Self> {
        let path = path.as_ref().to_path_buf();
        let extent = Extent { height, width };
        check_options(&path, extent, options)?;
        let container = match options.kind {
            TiffKind::Classic => Container::Classic,
            TiffKind::Big => Container::Big,
            TiffKind::Automatic => Container::for_pixels(extent),
        };
        let file = temporary_file(&path).map_err(|error| SlideError::io(&path, error))?;
        let file = TiffFile::begin(BufWriter::new(file), container, &path)?;
        let mut levels = vec![LevelWriter::new(extent, options.tile_edge)];
        let mut size = extent;
        while size.height.max(size.width) > u64::from(options.tile_edge) {
            size = Extent {
                height: size.height.div_ceil(2),
                width: size.width.div_ceil(2),
            };
            levels.push(LevelWriter::new(size, options.tile_edge));
        }
        Ok(Self {
            path,
            file,
            options: options.clone(),
            extent,
            levels,
            tiles: None,
            rows_given: 0,
            failed: false,
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
    /// `rgb`: `rows x width x 3`, any number of rows.
    ///
    /// # Errors
    /// [`SlideError::BufferLength`] unless it is whole rows, [`SlideError::RowCount`] beyond the declared height,
    /// [`SlideError::Encode`], [`SlideError::Io`]. After the last three nothing more can be written.
    pub fn write_rows(&mut self, rgb: &[u8]) -> Result<()> {
        let row_bytes = usize::try_from(self.extent.width * 3).unwrap_or(usize::MAX);
        if !rgb.len().is_multiple_of(row_bytes) {
            return Err(SlideError::BufferLength {
                what: "whole rows",
                expected: whole_rows(rgb.len(), row_bytes),
                found: u64::try_from(rgb.len()).unwrap_or(u64::MAX),
            });
        }
        if self.tiles.is_some() {
            return Err(SlideError::InvalidArgument {
                what: "rows after an incomplete row of tiles",
                expected: "given only where a row of tiles ends",
                found: format!("row {}", self.rows_given),
            });
        }
        self.guarded(|writer| {
            rgb.chunks_exact(row_bytes)
                .try_for_each(|row| writer.push_row(row))
        })
    }

    /// Adds the next tile, in rows of tiles from the top left.
    ///
    /// # Shapes
    /// `rgb`: `tile height x tile width x 3`; tiles at the right and bottom edge have only the pixels of the image.
    ///
    /// # Errors
    /// As [`write_rows`](Self::write_rows); the length must be that of the next tile.
    pub fn write_tile(&mut self, rgb: &[u8]) -> Result<()> {
        let edge = u64::from(self.options.tile_edge);
        let rows = edge.min(self.extent.height - self.rows_given);
        let width = self.extent.width;
        let band = self.tiles.get_or_insert_with(|| TileBand {
            next_column: 0,
            rgb: vec![0; to_usize(rows * width * 3)],
        });
        let columns = edge.min(width - band.next_column);
        if let Err(error) =
            crate::error::check_rgb_length("the next tile", rows, columns, rgb.len())
        {
            if band.next_column == 0 {
                self.tiles = None;
            }
            return Err(error);
        }
        let left = to_usize(band.next_column * 3);
        let run = to_usize(columns * 3);
        for (source, target) in rgb
            .chunks_exact(run)
            .zip(band.rgb.chunks_exact_mut(to_usize(width * 3)))
        {
            target[left..left + run].copy_from_slice(source);
        }
        band.next_column += columns;
        if band.next_column < width {
            return Ok(());
        }
        match self.tiles.take() {
            Some(full) => self.write_rows(&full.rgb),
            None => Ok(()),
        }
    }

    /// Writes what is left, and puts the file in its place.
    ///
    /// # Errors
    /// [`SlideError::RowCount`] if rows are missing or an earlier write failed; [`SlideError::Encode`],
    /// [`SlideError::Io`]. The destination is then as it was before.
    pub fn finish(mut self) -> Result<()> {
        if self.failed || self.rows_given != self.extent.height {
            return Err(self.row_count(self.rows_given));
        }
        let description = self.description();
        for (index, level) in self.levels.iter().enumerate() {
            let directory = Directory {
                extent: level.extent(),
                tile_edge: self.options.tile_edge,
                compression: self.options.compression,
                is_overview: index > 0,
                description: (index == 0).then_some(description.as_deref()).flatten(),
                microns_per_pixel: self
                    .options
                    .microns_per_pixel
                    .map(|edge| edge.get() * float(1 << index)),
                tiles: level.tiles(),
            };
            self.file.write_directory(&directory)?;
        }
        let temporary = self
            .file
            .finish()?
            .into_inner()
            .map_err(|error| SlideError::io(&self.path, error.into_error()))?;
        temporary
            .as_file()
            .sync_all()
            .map_err(|error| SlideError::io(&self.path, error))?;
        temporary
            .persist(&self.path)
            .map_err(|error| SlideError::io(&self.path, error.error))?;
        Ok(())
    }

    /// Adds one row to the finest level and what follows from it to the overviews.
    fn push_row(&mut self, row: &[u8]) -> Result<()> {
        if self.rows_given == self.extent.height {
            return Err(self.row_count(self.rows_given + 1));
        }
        self.rows_given += 1;
        let Some((finest, mut coarser)) = self.levels.split_first_mut() else {
            return Ok(());
        };
        let mut halved = finest.push(row, self.options.compression, &mut self.file)?;
        while let Some((level, rest)) = coarser.split_first_mut() {
            let Some(row) = halved.take() else { break };
            halved = level.push(&row, self.options.compression, &mut self.file)?;
            coarser = rest;
        }
        Ok(())
    }

    /// Runs `write` unless an earlier one failed, and remembers whether it did.
    fn guarded(&mut self, write: impl FnOnce(&mut Self) -> Result<()>) -> Result<()> {
        if self.failed {
            return Err(self.row_count(self.rows_given));
        }
        let result = write(self);
        self.failed = result.is_err();
        result
    }

    fn row_count(&self, found: u64) -> SlideError {
        SlideError::RowCount {
            path: self.path.clone(),
            expected: self.extent.height,
            found,
        }
    }

    /// What Aperio's scanners write, as far as readers look at it.
    fn description(&self) -> Option<String> {
        let PyramidOptions {
            microns_per_pixel,
            objective_power,
            ..
        } = self.options;
        if microns_per_pixel.is_none() && objective_power.is_none() {
            return None;
        }
        let mut text = format!(
            "Aperio Image\r\n{}x{}",
            self.extent.width, self.extent.height
        );
        if let Some(power) = objective_power {
            text.push_str(&format!("|AppMag = {power}"));
        }
        if let Some(edge) = microns_per_pixel {
            text.push_str(&format!("|MPP = {}", edge.get()));
        }
        Some(text)
    }
}

fn to_usize(value: u64) -> usize {
    usize::try_from(value).unwrap_or(usize::MAX)
}

fn whole_rows(bytes: usize, row_bytes: usize) -> u64 {
    u64::try_from(bytes.div_ceil(row_bytes).saturating_mul(row_bytes)).unwrap_or(u64::MAX)
}

fn check_options(path: &Path, extent: Extent, options: &PyramidOptions) -> Result<()> {
    if extent.region().is_empty() {
        return Err(SlideError::InvalidArgument {
            what: "the image's extent",
            expected: "at least one pixel",
            found: extent.to_string(),
        });
    }
    let longest = extent.height.max(extent.width);
    let limit = u64::from(u32::MAX >> 1);
    if longest > limit {
        return Err(SlideError::LimitExceeded {
            path: path.to_path_buf(),
            what: "the longest side, in pixels,",
            needed: longest,
            limit,
        });
    }
    if options.tile_edge == 0 || !options.tile_edge.is_multiple_of(16) || options.tile_edge > 32_768
    {
        return Err(SlideError::InvalidArgument {
            what: "the edge of tiles",
            expected: "a multiple of 16 from 16 to 32768",
            found: options.tile_edge.to_string(),
        });
    }
    if let Some(power) = options
        .objective_power
        .filter(|power| !power.is_finite() || *power <= 0.0)
    {
        return Err(SlideError::InvalidScale {
            quantity: "objective power",
            found: power,
        });
    }
    if let Compression::Jpeg { quality } = options.compression
        && !(1..=100).contains(&quality)
    {
        return Err(SlideError::InvalidArgument {
            what: "JPEG quality",
            expected: "from 1 to 100",
            found: quality.to_string(),
        });
    }
    Ok(())
}

/// A file beside `path` that goes away unless it is persisted, with the permissions of any new file.
fn temporary_file(path: &Path) -> std::io::Result<NamedTempFile<File>> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let mut prefix = std::ffi::OsString::from(".");
    prefix.push(path.file_name().unwrap_or_default());
    tempfile::Builder::new()
        .prefix(&prefix)
        .suffix(".partial")
        .make_in(folder, |path| {
            File::options().write(true).create_new(true).open(path)
        })
}

#[cfg(test)]
mod tests;
