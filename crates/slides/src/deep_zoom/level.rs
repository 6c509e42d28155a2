//! One level of a Deep Zoom image that is being written.

use std::collections::VecDeque;
use std::path::PathBuf;

use rayon::prelude::*;

use super::{DeepZoomFormat, DeepZoomOptions};
use crate::error::{Result, SlideError};
use crate::geometry::Extent;
use crate::numbers::{to_usize, wide};
use crate::write::{ColorModel, halve, jpeg};

/// Keeps the rows that tiles still need.
#[derive(Debug)]
pub(super) struct ZoomLevel {
    extent: Extent,
    folder: PathBuf,
    options: DeepZoomOptions,
    /// The rows from `first_row` on.
    rows: VecDeque<Vec<u8>>,
    first_row: u64,
    next_tile_row: u64,
}

impl ZoomLevel {
    pub(super) const fn new(extent: Extent, folder: PathBuf, options: DeepZoomOptions) -> Self {
        Self {
            extent,
            folder,
            options,
            rows: VecDeque::new(),
            first_row: 0,
            next_tile_row: 0,
        }
    }

    /// Takes the next row; returns a row of the next level once two have come (or the last one has).
    pub(super) fn push(&mut self, row: Vec<u8>) -> Result<Option<Vec<u8>>> {
        let taken = self.first_row + wide(self.rows.len()) + 1;
        let is_last = taken == self.extent.height;
        let halved = match self.rows.back() {
            Some(above) if taken.is_multiple_of(2) => Some(halve(above, &row, 3)),
            _ if is_last => Some(halve(&row, &row, 3)),
            _ => None,
        };
        self.rows.push_back(row);
        while let Some((start, end)) = self.complete_tiles(taken) {
            self.write_tiles(start, end)?;
            self.next_tile_row += 1;
        }
        // The last row stays for the next one to be halved with.
        let (next_start, _) = self.rows_of(self.next_tile_row);
        while self.first_row < next_start && self.rows.len() > 1 {
            self.rows.pop_front();
            self.first_row += 1;
        }
        Ok(halved)
    }

    /// Rows of the next row of tiles, if they have all come.
    fn complete_tiles(&self, taken: u64) -> Option<(u64, u64)> {
        let (start, end) = self.rows_of(self.next_tile_row);
        let exists = self.next_tile_row * u64::from(self.options.tile_edge) < self.extent.height;
        (exists && end <= taken).then_some((start, end))
    }

    fn rows_of(&self, tile: u64) -> (u64, u64) {
        span(tile, &self.options, self.extent.height)
    }

    fn write_tiles(&self, start: u64, end: u64) -> Result<()> {
        let columns = self
            .extent
            .width
            .div_ceil(u64::from(self.options.tile_edge));
        let rows: Vec<&[u8]> = self
            .rows
            .iter()
            .skip(to_usize(start - self.first_row))
            .take(to_usize(end - start))
            .map(Vec::as_slice)
            .collect();
        (0..columns)
            .into_par_iter()
            .try_for_each(|column| self.write_tile(column, &rows))
    }

    fn write_tile(&self, column: u64, rows: &[&[u8]]) -> Result<()> {
        let (left, right) = span(column, &self.options, self.extent.width);
        let rgb: Vec<u8> = rows
            .iter()
            .flat_map(|row| &row[to_usize(left * 3)..to_usize(right * 3)])
            .copied()
            .collect();
        let format = self.options.format;
        let name = format!("{column}_{}.{}", self.next_tile_row, format.extension());
        let path = self.folder.join(name);
        let failed = |reason: String| SlideError::Encode {
            path: path.clone(),
            reason,
        };
        let (width, height) = (to_usize(right - left), rows.len());
        let bytes = match format {
            DeepZoomFormat::Jpeg { quality } => {
                let side = |value: usize| u16::try_from(value).unwrap_or(u16::MAX);
                jpeg(&rgb, (side(width), side(height)), ColorModel::Rgb, quality).map_err(failed)?
            }
            DeepZoomFormat::Png => {
                let side = |value: usize| u32::try_from(value).unwrap_or(u32::MAX);
                png(&rgb, side(width), side(height)).map_err(|error| failed(error.to_string()))?
            }
        };
        std::fs::write(&path, bytes).map_err(|error| SlideError::io(&path, error))
    }
}

/// First and one past the last pixel of a tile along an axis of `length` pixels.
fn span(tile: u64, options: &DeepZoomOptions, length: u64) -> (u64, u64) {
    let (edge, overlap) = (u64::from(options.tile_edge), u64::from(options.overlap));
    let start = tile * edge;
    (
        start.saturating_sub(overlap).min(length),
        (start + edge + overlap).min(length),
    )
}

fn png(rgb: &[u8], width: u32, height: u32) -> Result<Vec<u8>, png::EncodingError> {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, width, height);
    encoder.set_color(png::ColorType::Rgb);
    let mut writer = encoder.write_header()?;
    writer.write_image_data(rgb)?;
    writer.finish()?;
    Ok(bytes)
}
