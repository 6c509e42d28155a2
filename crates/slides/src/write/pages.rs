//! The directories of a file: what each page says.

use std::io::{Seek, Write};

use super::container::{Blocks, Directory, StoredBlock, TiffFile};
use super::description::{aperio, ome_xml};
use super::layout::PyramidLayout;
use super::level::TileFormat;
use super::options::PyramidOptions;
use crate::error::Result;
use crate::geometry::Extent;
use crate::numbers::float;

/// All that the directories of a file say.
pub(super) struct Pages<'a> {
    pub(super) options: &'a PyramidOptions,
    pub(super) format: TileFormat,
    /// Bits and TIFF's SampleFormat of each sample.
    pub(super) sample: (u16, u16),
    /// Size and tiles of each level, finest first.
    pub(super) levels: Vec<(Extent, &'a [StoredBlock])>,
    /// A picture smaller than the coarsest level, in one strip.
    pub(super) thumbnail: Option<(Extent, StoredBlock)>,
}

impl Pages<'_> {
    /// Writes the directories.
    pub(super) fn write<W: Write + Seek>(&self, file: &mut TiffFile<W>) -> Result<()> {
        let Some(&(finest, _)) = self.levels.first() else {
            return Ok(());
        };
        let overviews = || 1..self.levels.len();
        match self.options.page_layout() {
            PyramidLayout::Aperio => {
                let copies = self.write_sub_directories(file)?;
                file.write_directory(&Directory {
                    description: Some(&aperio(self.options, finest, None)),
                    sub_directories: &copies,
                    ..self.level(0)
                })?;
                if let Some((extent, strip)) = self.thumbnail {
                    file.write_directory(&Directory {
                        description: Some(&aperio(self.options, finest, Some(extent))),
                        ..self.page(self.levels.len(), extent, Blocks::Strip(strip))
                    })?;
                }
                overviews().try_for_each(|index| {
                    let level = self.level(index);
                    file.write_directory(&Directory {
                        description: Some(&aperio(self.options, finest, Some(level.extent))),
                        ..level
                    })
                })
            }
            PyramidLayout::Plain => {
                file.write_directory(&self.level(0))?;
                overviews().try_for_each(|index| file.write_directory(&self.overview(index)))
            }
            PyramidLayout::OmeTiff => {
                let overviews = self.write_sub_directories(file)?;
                file.write_directory(&Directory {
                    description: Some(&ome_xml(self.options, finest, self.sample)),
                    sub_directories: &overviews,
                    ..self.level(0)
                })
            }
        }
    }

    /// Writes all overviews outside the chain of pages, and returns where.
    fn write_sub_directories<W: Write + Seek>(&self, file: &mut TiffFile<W>) -> Result<Vec<u64>> {
        (1..self.levels.len())
            .map(|index| file.write_sub_directory(&self.overview(index)))
            .collect()
    }

    /// A level that is flagged as an overview.
    fn overview(&self, index: usize) -> Directory<'_> {
        Directory {
            is_overview: true,
            ..self.level(index)
        }
    }

    fn level(&self, index: usize) -> Directory<'_> {
        let (extent, tiles) = self.levels[index];
        self.page(index, extent, Blocks::Tiles(tiles))
    }

    /// A page of pixels that are halved so many times.
    fn page<'a>(&'a self, halvings: usize, extent: Extent, blocks: Blocks<'a>) -> Directory<'a> {
        let scale = self.options.microns_per_pixel;
        Directory {
            extent,
            format: self.format,
            sample: self.sample,
            blocks,
            is_overview: false,
            description: None,
            microns_per_pixel: scale.map(|edge| edge.get() * float(1 << halvings)),
            icc_profile: self.options.icc_profile.as_deref(),
            sub_directories: &[],
        }
    }
}
