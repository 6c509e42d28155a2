//! One level of a pyramid that is being written.

use std::io::{Seek, Write};

use rayon::prelude::*;

use super::container::{StoredTile, TiffFile};
use super::encode::Compression;
use crate::error::{Result, SlideError};
use crate::geometry::Extent;

/// Collects rows into a row of tiles, and pairs of rows into rows of the next level.
#[derive(Debug)]
pub(super) struct LevelWriter {
    extent: Extent,
    tile_edge: usize,
    width: usize,
    /// Up to `tile_edge` rows that are not written yet.
    band: Vec<u8>,
    rows_taken: u64,
    tiles: Vec<StoredTile>,
}

impl LevelWriter {
    pub(super) fn new(extent: Extent, tile_edge: u32) -> Self {
        Self {
            extent,
            tile_edge: usize::try_from(tile_edge).unwrap_or(usize::MAX),
            width: super::to_usize(extent.width),
            band: Vec::new(),
            rows_taken: 0,
            tiles: Vec::new(),
        }
    }

    pub(super) const fn extent(&self) -> Extent {
        self.extent
    }

    /// Where the tiles went, in rows from the top left.
    pub(super) fn tiles(&self) -> &[StoredTile] {
        &self.tiles
    }

    /// Takes the next row; returns a row of the next level once two have come (or the last one has).
    pub(super) fn push<W: Write + Seek>(
        &mut self,
        row: &[u8],
        compression: Compression,
        file: &mut TiffFile<W>,
    ) -> Result<Option<Vec<u8>>> {
        let row_bytes = self.width * 3;
        let above = self
            .band
            .len()
            .checked_sub(row_bytes)
            .map(|start| start..start + row_bytes);
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
        if is_last || self.band.len() == row_bytes * self.tile_edge {
            self.write_band(compression, file)?;
        }
        Ok(halved)
    }

    fn write_band<W: Write + Seek>(
        &mut self,
        compression: Compression,
        file: &mut TiffFile<W>,
    ) -> Result<()> {
        let columns = self.width.div_ceil(self.tile_edge);
        let edge = u32::try_from(self.tile_edge).unwrap_or(u32::MAX);
        let tiles: Vec<Vec<u8>> = (0..columns)
            .into_par_iter()
            .map(|column| compression.encode(&self.padded_tile(column), edge))
            .collect::<Result<_, _>>()
            .map_err(|reason| SlideError::Encode {
                path: file.path().to_path_buf(),
                reason,
            })?;
        for tile in tiles {
            self.tiles.push(file.write_tile(&tile)?);
        }
        self.band.clear();
        Ok(())
    }

    /// The pixels of one tile; past the image's edge the last column and row are repeated, which compresses best.
    fn padded_tile(&self, column: usize) -> Vec<u8> {
        let row_bytes = self.width * 3;
        let start = column * self.tile_edge * 3;
        let end = (start + self.tile_edge * 3).min(row_bytes);
        let mut tile = Vec::with_capacity(self.tile_edge * self.tile_edge * 3);
        for row in self.band.chunks_exact(row_bytes) {
            tile.extend_from_slice(&row[start..end]);
            let last = [row[end - 3], row[end - 2], row[end - 1]];
            for _ in (end - start) / 3..self.tile_edge {
                tile.extend_from_slice(&last);
            }
        }
        let tile_row = self.tile_edge * 3;
        while tile.len() < self.tile_edge * tile_row {
            tile.extend_from_within(tile.len() - tile_row..);
        }
        tile
    }
}

/// Means of 2 x 2 pixels, rounded to nearest; an odd last column is averaged with itself.
fn halve(upper: &[u8], lower: &[u8]) -> Vec<u8> {
    let mut halved = Vec::with_capacity(upper.len().div_ceil(6) * 3);
    for (upper, lower) in upper.chunks(6).zip(lower.chunks(6)) {
        for channel in 0..3 {
            let right = if upper.len() == 6 {
                channel + 3
            } else {
                channel
            };
            let sum = [upper[channel], upper[right], lower[channel], lower[right]]
                .into_iter()
                .map(u16::from)
                .sum::<u16>();
            halved.push(u8::try_from((sum + 2) / 4).unwrap_or(u8::MAX));
        }
    }
    halved
}
