//! Cuts a read into bands of rows that threads can fill at once, block row by block row.

use std::ops::Range;
use std::sync::Arc;

use rayon::prelude::*;

use crate::cache::{BLOCK_EDGE, Block};
use crate::error::Result;
use crate::geometry::{Level, Region};
use crate::numbers::to_usize;
use crate::slide::Slide;

/// Who decodes the blocks of one read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Parallelism {
    /// The rayon pool of the caller.
    Rayon,
    /// The calling thread alone, so that reading ahead never waits for a pool that computes.
    Calling,
}

/// A run of rows of the caller's buffer.
pub(crate) struct Band<'a> {
    /// Rows, in the frame of the region that is read.
    pub(crate) rows: Range<i64>,
    /// Their bytes, whole rows of the region.
    pub(crate) rgb: &'a mut [u8],
}

/// Cuts the buffer of `region` after every row that is a multiple of `height` and runs `fill` on each piece.
pub(crate) fn for_each_band(
    region: &Region,
    height: u64,
    rgb: &mut [u8],
    parallelism: Parallelism,
    fill: impl Fn(Band<'_>) -> Result<()> + Sync + Send,
) -> Result<()> {
    let row_bytes = to_usize(region.width()).saturating_mul(3);
    let height = i64::try_from(height).unwrap_or(i64::MAX).max(1);
    let mut bands = Vec::new();
    let mut rest = rgb;
    let mut start = region.rows.start;
    while start < region.rows.end {
        let end = start
            .div_euclid(height)
            .saturating_add(1)
            .saturating_mul(height)
            .min(region.rows.end);
        let bytes = to_usize(end.abs_diff(start))
            .saturating_mul(row_bytes)
            .min(rest.len());
        let (band, after) = rest.split_at_mut(bytes);
        rest = after;
        bands.push(Band {
            rows: start..end,
            rgb: band,
        });
        start = end;
    }
    match parallelism {
        Parallelism::Rayon => bands.into_par_iter().try_for_each(fill),
        Parallelism::Calling => bands.into_iter().try_for_each(fill),
    }
}

/// Blocks side by side that cover a span of columns in one row of blocks.
pub(crate) struct BlockRow {
    first_column: u64,
    blocks: Vec<Arc<Block>>,
}

impl BlockRow {
    /// Decodes the blocks that cover `columns` (inside the level, not empty) in block row `row`.
    pub(crate) fn load(
        slide: &Slide,
        level: Level,
        row: u64,
        columns: &Range<u64>,
        parallelism: Parallelism,
    ) -> Result<Self> {
        let first = columns.start / BLOCK_EDGE;
        let last = columns.end.div_ceil(BLOCK_EDGE);
        let load = |column| slide.block(level, row, column);
        let blocks = match parallelism {
            Parallelism::Rayon => (first..last)
                .into_par_iter()
                .map(load)
                .collect::<Result<_>>()?,
            Parallelism::Calling => (first..last).map(load).collect::<Result<_>>()?,
        };
        Ok(Self {
            first_column: first * BLOCK_EDGE,
            blocks,
        })
    }

    /// Calls `take` with each run of RGB bytes that makes up `columns` of row `row` within the block row, left to right.
    pub(crate) fn runs(&self, row: usize, columns: &Range<u64>, mut take: impl FnMut(&[u8])) {
        let mut left = self.first_column;
        for block in &self.blocks {
            let right = left + BLOCK_EDGE;
            let start = columns.start.max(left);
            let end = columns.end.min(right);
            if start < end {
                take(block.row(row, to_usize(start - left)..to_usize(end - left)));
            }
            left = right;
        }
    }
}

/// Copies the level pixels `inside` (part of the level and of `region`), background elsewhere. `rgb` is as long as `region`.
pub(crate) fn read_blocks(
    slide: &Slide,
    level: Level,
    region: &Region,
    inside: &Region,
    rgb: &mut [u8],
    parallelism: Parallelism,
) -> Result<()> {
    fill_outside(region, inside, slide.background().0, rgb);
    if inside.is_empty() {
        return Ok(());
    }
    let columns = inside.columns.start.unsigned_abs()..inside.columns.end.unsigned_abs();
    let place = placement(region, inside);
    for_each_band(region, BLOCK_EDGE, rgb, parallelism, |mut band| {
        let rows = band.rows.start.max(inside.rows.start)..band.rows.end.min(inside.rows.end);
        if rows.is_empty() {
            return Ok(());
        }
        let block_row = rows.start.unsigned_abs() / BLOCK_EDGE;
        let blocks = BlockRow::load(slide, level, block_row, &columns, parallelism)?;
        for row in rows {
            let target = place.row(&mut band, row);
            let mut filled = 0;
            blocks.runs(to_usize(row.unsigned_abs() % BLOCK_EDGE), &columns, |run| {
                target[filled..filled + run.len()].copy_from_slice(run);
                filled += run.len();
            });
        }
        Ok(())
    })
}

/// Where the pixels that exist lie within a row of the caller's buffer.
pub(crate) struct Placement {
    row_bytes: usize,
    bytes: Range<usize>,
}

impl Placement {
    /// The bytes of `row` (same frame as the band's) that exist.
    pub(crate) fn row<'a>(&self, band: &'a mut Band<'_>, row: i64) -> &'a mut [u8] {
        let start = to_usize(row.abs_diff(band.rows.start)) * self.row_bytes;
        &mut band.rgb[start + self.bytes.start..start + self.bytes.end]
    }
}

/// How `inside` (part of `region`) lies in each row of the region's buffer.
pub(crate) fn placement(region: &Region, inside: &Region) -> Placement {
    let before = to_usize(inside.columns.start.abs_diff(region.columns.start)) * 3;
    Placement {
        row_bytes: to_usize(region.width()) * 3,
        bytes: before..before + to_usize(inside.width()) * 3,
    }
}

/// Fills the buffer with the background unless the whole region exists.
pub(crate) fn fill_outside(region: &Region, inside: &Region, background: [u8; 3], rgb: &mut [u8]) {
    if region != inside {
        for pixel in rgb.chunks_exact_mut(3) {
            pixel.copy_from_slice(&background);
        }
    }
}
