//! One level of a pyramid that is being written.

use std::io::{Seek, Write};

use rayon::prelude::*;

use super::container::{StoredBlock, TiffFile};
use super::encode::{ColorModel, Compression};
use super::options::Reduction;
use super::sample::{Sample, every_second, halve};
use crate::error::{Result, SlideError};
use crate::geometry::Extent;
use crate::numbers::to_usize;

/// How the tiles of all levels are made.
#[derive(Clone, Copy, Debug)]
pub(super) struct TileFormat {
    pub(super) edge: u32,
    pub(super) color: ColorModel,
    pub(super) compression: Compression,
    pub(super) reduction: Reduction,
}

/// Collects rows into a row of tiles, and pairs of rows into rows of the next level.
#[derive(Debug)]
pub(super) struct LevelWriter<S> {
    extent: Extent,
    format: TileFormat,
    /// Up to a tile's edge of rows that are not written yet.
    band: Vec<S>,
    rows_taken: u64,
    tiles: Vec<StoredBlock>,
}

impl<S: Sample> LevelWriter<S> {
    pub(super) const fn new(extent: Extent, format: TileFormat) -> Self {
        Self {
            extent,
            format,
            band: Vec::new(),
            rows_taken: 0,
            tiles: Vec::new(),
        }
    }

    pub(super) const fn extent(&self) -> Extent {
        self.extent
    }

    /// Where the tiles went, in rows from the top left.
    pub(super) fn tiles(&self) -> &[StoredBlock] {
        &self.tiles
    }

    /// Takes the next row; returns a row of the next level once two have come (or the last one has).
    pub(super) fn push<W: Write + Seek>(
        &mut self,
        row: &[S],
        file: &mut TiffFile<W>,
    ) -> Result<Option<Vec<S>>> {
        let channels = self.format.color.channels();
        let halve = |upper: &[S], lower: &[S]| match self.format.reduction {
            Reduction::Mean => halve(upper, lower, channels),
            Reduction::Nearest => every_second(upper, channels),
        };
        let above = self
            .band
            .len()
            .checked_sub(row.len())
            .map(|start| start..start + row.len());
        let is_second = self.rows_taken % 2 == 1;
        self.rows_taken += 1;
        let is_last = self.rows_taken == self.extent.height;
        let halved = match above {
            // Tiles have an even edge, so the first of a pair is always in the band still.
            Some(above) if is_second => Some(halve(&self.band[above], row)),
            _ if is_last => Some(halve(row, row)),
            _ => None,
        };
        self.band.extend_from_slice(row);
        if is_last || self.rows_taken.is_multiple_of(u64::from(self.format.edge)) {
            self.write_band(file)?;
        }
        Ok(halved)
    }

    fn write_band<W: Write + Seek>(&mut self, file: &mut TiffFile<W>) -> Result<()> {
        let TileFormat {
            edge,
            color,
            compression,
            ..
        } = self.format;
        let columns = to_usize(self.extent.width.div_ceil(u64::from(edge)));
        let tiles: Vec<Vec<u8>> = (0..columns)
            .into_par_iter()
            .map(|column| {
                compression.encode(
                    &S::into_bytes(self.padded_tile(column)),
                    (edge, edge),
                    color,
                )
            })
            .collect::<Result<_, _>>()
            .map_err(|reason| SlideError::Encode {
                path: file.path().to_path_buf(),
                reason,
            })?;
        for tile in tiles {
            self.tiles.push(file.write_block(&tile)?);
        }
        self.band.clear();
        Ok(())
    }

    /// The samples of one tile; past the image's edge the last column and row are repeated, which compresses best.
    fn padded_tile(&self, column: usize) -> Vec<S> {
        let channels = self.format.color.channels();
        let row_length = to_usize(self.extent.width) * channels;
        let tile_row = to_usize(u64::from(self.format.edge)) * channels;
        let tile_length = to_usize(u64::from(self.format.edge)) * tile_row;
        let start = column * tile_row;
        let end = (start + tile_row).min(row_length);
        let mut tile = Vec::with_capacity(tile_length);
        for row in self.band.chunks_exact(row_length) {
            tile.extend_from_slice(&row[start..end]);
            for _ in end - start..tile_row {
                // Repeats the sample of the same channel one pixel before.
                tile.push(tile[tile.len() - channels]);
            }
        }
        while tile.len() < tile_length {
            tile.extend_from_within(tile.len() - tile_row..);
        }
        tile
    }
}
