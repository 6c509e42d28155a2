//! Writing Deep Zoom images, which viewers in web pages show.

mod level;

use std::path::{Path, PathBuf};

use stream_grad_files::NewFolder;

use crate::error::{Result, SlideError};
use crate::files::write_whole;
use crate::geometry::Extent;
use crate::numbers::{to_usize, wide};
use crate::write::check_quality;
use crate::written_rows::WrittenRows;

use level::ZoomLevel;

/// How to write a Deep Zoom image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeepZoomOptions {
    /// Edge of a tile without what it shares with its neighbours: 254 by default.
    pub tile_edge: u32,
    /// Pixels that a tile shares with each neighbour: 1 by default.
    pub overlap: u32,
    /// How tiles are stored: JPEG of quality 85 by default.
    pub format: DeepZoomFormat,
}

impl Default for DeepZoomOptions {
    fn default() -> Self {
        Self {
            tile_edge: 254,
            overlap: 1,
            format: DeepZoomFormat::Jpeg { quality: 85 },
        }
    }
}

/// How the tiles of a Deep Zoom image are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeepZoomFormat {
    /// JPEG, lossy.
    Jpeg {
        /// From 1 to 100.
        quality: u8,
    },
    /// PNG, lossless.
    Png,
}

impl DeepZoomFormat {
    const fn extension(self) -> &'static str {
        match self {
            Self::Jpeg { .. } => "jpeg",
            Self::Png => "png",
        }
    }
}

/// Writes an RGB image as Deep Zoom, without ever holding it: a `.dzi` file and a folder of tiles beside it.
///
/// Positions count from the corner of what is written. Of a whole view that is the corner of level 0, as with OpenSlide's
/// `DeepZoomGenerator`; with its `limit_bounds` they count from the bounds, as of
/// [`SlideView::cropped_to_bounds`](crate::SlideView::cropped_to_bounds).
///
/// Rows go in from top to bottom; each level is half of the one before (a 2 x 2 mean, sides rounded up), down to one
/// pixel. The folder is written under a temporary name and renamed by [`finish`](Self::finish), the `.dzi` file last;
/// dropped earlier, or after an error, nothing is left behind.
///
/// # Examples
/// ```
/// use stream_grad_slides::{DeepZoomOptions, DeepZoomWriter};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let folder = tempfile::tempdir()?;
/// let mut writer =
///     DeepZoomWriter::create(folder.path().join("slide.dzi"), 300, 500, &DeepZoomOptions::default())?;
/// writer.write_rows(&vec![200; 300 * 500 * 3])?;
/// writer.finish()?;
/// assert!(folder.path().join("slide_files/9/1_1.jpeg").exists());
/// assert!(folder.path().join("slide_files/0/0_0.jpeg").exists());
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct DeepZoomWriter {
    path: PathBuf,
    folder: NewFolder,
    options: DeepZoomOptions,
    extent: Extent,
    /// Finest first.
    levels: Vec<ZoomLevel>,
    rows: WrittenRows,
}

impl DeepZoomWriter {
    /// Begins an image of `height x width` pixels. `path` is that of the `.dzi` file; tiles go into the folder beside it
    /// that has `_files` in place of the extension, which must not exist.
    ///
    /// # Errors
    /// [`SlideError::InvalidArgument`] for an empty image, a tile edge or overlap out of range or a folder that exists;
    /// [`SlideError::Io`].
    pub fn create(
        path: impl AsRef<Path>,
        height: u64,
        width: u64,
        options: &DeepZoomOptions,
    ) -> Result<Self> {
        let path = path.as_ref().to_path_buf();
        let extent = Extent { height, width };
        check(extent, options)?;
        let mut name = path.file_stem().unwrap_or_default().to_owned();
        name.push("_files");
        let tiles = path.with_file_name(&name);
        if tiles.exists() {
            return Err(SlideError::InvalidArgument {
                what: "the folder for tiles",
                expected: "one that does not exist yet",
                found: tiles.display().to_string(),
            });
        }
        let folder = NewFolder::create(&tiles).map_err(SlideError::file)?;
        let mut sizes = vec![extent];
        let mut size = extent;
        while size.height.max(size.width) > 1 {
            size = size.halved();
            sizes.push(size);
        }
        let coarsest = sizes.len() - 1;
        let levels = sizes
            .into_iter()
            .enumerate()
            .map(|(index, size)| {
                let place = folder.partial().join((coarsest - index).to_string());
                std::fs::create_dir(&place).map_err(|error| SlideError::io(&place, error))?;
                Ok(ZoomLevel::new(size, place, *options))
            })
            .collect::<Result<_>>()?;
        Ok(Self {
            rows: WrittenRows::new(path.clone(), height),
            path,
            folder,
            options: *options,
            extent,
            levels,
        })
    }

    /// Adds whole rows below those that were written before.
    ///
    /// # Shapes
    /// `rgb`: `rows x width x 3`, any number of rows.
    ///
    /// # Errors
    /// [`SlideError::BufferLength`] unless it is whole rows, [`SlideError::RowCount`] beyond the declared height,
    /// [`SlideError::Encode`], [`SlideError::Io`]. After the last three nothing more can be written:
    /// [`SlideError::AfterFailure`].
    pub fn write_rows(&mut self, rgb: &[u8]) -> Result<()> {
        let row = to_usize(self.extent.width).saturating_mul(3);
        if !rgb.len().is_multiple_of(row) {
            return Err(SlideError::BufferLength {
                what: "whole rows, in bytes (width x 3 each),",
                expected: wide(rgb.len().div_ceil(row).saturating_mul(row)),
                found: wide(rgb.len()),
            });
        }
        self.rows.check_usable()?;
        let written = rgb.chunks_exact(row).try_for_each(|row| self.push(row));
        self.rows.note(written)
    }

    /// Puts the tiles and the `.dzi` file in their places.
    ///
    /// # Errors
    /// [`SlideError::RowCount`] if rows are missing, [`SlideError::AfterFailure`] if an earlier write failed;
    /// [`SlideError::Io`].
    pub fn finish(self) -> Result<()> {
        self.rows.check_complete()?;
        self.folder.commit().map_err(SlideError::file)?;
        let DeepZoomOptions {
            tile_edge,
            overlap,
            format,
        } = self.options;
        let Extent { height, width } = self.extent;
        let format = format.extension();
        let description = format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
             <Image xmlns=\"http://schemas.microsoft.com/deepzoom/2008\" Format=\"{format}\" \
             Overlap=\"{overlap}\" TileSize=\"{tile_edge}\"><Size Height=\"{height}\" Width=\"{width}\"/></Image>\n"
        );
        write_whole(&self.path, description.as_bytes())
    }

    fn push(&mut self, row: &[u8]) -> Result<()> {
        self.rows.add()?;
        let mut next = Some(row.to_vec());
        for level in &mut self.levels {
            let Some(row) = next.take() else { break };
            next = level.push(row)?;
        }
        Ok(())
    }
}

fn check(extent: Extent, options: &DeepZoomOptions) -> Result<()> {
    let refuse = |what, expected, found| {
        Err(SlideError::InvalidArgument {
            what,
            expected,
            found,
        })
    };
    let longest = extent.height.max(extent.width);
    if extent.region().is_empty() || longest > u64::from(u32::MAX >> 1) {
        return refuse(
            "the image's extent",
            "at least one pixel and sides below 2^31",
            extent.to_string(),
        );
    }
    let DeepZoomOptions {
        tile_edge,
        overlap,
        format,
    } = *options;
    if !(1..=16_384).contains(&tile_edge) || overlap > tile_edge {
        return refuse(
            "tile edge and overlap",
            "1 to 16384, and an overlap of no more than the edge",
            format!("{tile_edge} and {overlap}"),
        );
    }
    match format {
        DeepZoomFormat::Jpeg { quality } => check_quality(quality),
        DeepZoomFormat::Png => Ok(()),
    }
}

#[cfg(test)]
mod tests;
