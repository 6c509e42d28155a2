//! The layout of what a block saves for its backward sweep: strips, left halos and stored activations.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::arena::aligned;
use crate::geometry::{Block, Geometry, Tile};
use crate::rect::Rect;

/// Where saved halos and stored activations are until the backward sweep reads them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Storage {
    /// In memory, all of them.
    #[default]
    Memory,
    /// In a file, from which the backward sweep reads them in reverse. In memory are only those of the tile and of
    /// the band at hand, and of the next.
    File,
}

/// First elements of everything that one block saves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BlockBuffers {
    /// First element of the saved strips that band `i` reads, and their number.
    strips: Vec<(u64, u64)>,
    /// First element of the saved left halos (then stored activations) of each band.
    bands: Vec<u64>,
    /// The same of each column of tiles, from the band's first, for the first of bands that are alike.
    columns: BTreeMap<usize, Vec<u64>>,
    /// Where they lie while most are in a file.
    window: Option<Window>,
    /// Elements of the segment that saves most.
    saved_length: u64,
    /// Elements of all segments.
    pub(crate) total_length: u64,
    /// First element of the border strips of each segment.
    pub(crate) borders: Vec<u64>,
    pub(crate) border_length: u64,
}

/// Two places for strips and two for tiles: bands and columns take turns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Window {
    strip: u64,
    tile: u64,
}

impl BlockBuffers {
    pub(crate) fn new(geometry: &Geometry, block: Block<'_>, storage: Storage) -> Self {
        let nodes = geometry.sized().graph().nodes().len();
        let bands = block.rows.bands();
        let mut columns: BTreeMap<usize, Vec<u64>> = BTreeMap::new();
        let mut strips = vec![(0, 0); bands];
        let mut starts = vec![0; bands];
        let mut borders = vec![0; geometry.segments()];
        let mut saved_length: u64 = 0;
        let mut total_length: u64 = 0;
        let mut border_length: u64 = 0;
        for (segment, border) in borders.iter_mut().enumerate() {
            let mut end: u64 = 0;
            for band in geometry.segment_bands(bands, segment) {
                let strip = |node| aligned(elements(geometry, block.strip(band, node), node));
                if border_segment(geometry, block, band).is_some() {
                    *border = border_length;
                    border_length = (0..nodes).map(strip).fold(border_length, saturating);
                } else {
                    let length = (0..nodes)
                        .filter(|&node| !geometry.is_stored(node))
                        .map(strip)
                        .fold(0, saturating);
                    strips[band] = (end, length);
                    end = saturating(end, length);
                }
                starts[band] = end;
                let ends = columns
                    .entry(block.rows.alike(band))
                    .or_insert_with_key(|&band| column_ends(geometry, block, band));
                end = saturating(end, ends.last().copied().unwrap_or(0));
            }
            saved_length = saved_length.max(end);
            total_length = saturating(total_length, end);
        }
        let window = match storage {
            Storage::Memory => None,
            Storage::File => Some(Window {
                strip: strips.iter().map(|strip| strip.1).max().unwrap_or(0),
                tile: columns
                    .values()
                    .flat_map(|ends| ends.windows(2).map(|pair| pair[1].saturating_sub(pair[0])))
                    .max()
                    .unwrap_or(0),
            }),
        };
        Self {
            strips,
            bands: starts,
            columns,
            window,
            saved_length,
            total_length,
            borders,
            border_length,
        }
    }

    /// Elements in memory.
    pub(crate) fn memory_length(&self) -> u64 {
        match self.window {
            None => self.saved_length,
            Some(Window { strip, tile }) => {
                saturating(strip.saturating_mul(2), tile.saturating_mul(2))
            }
        }
    }

    /// Elements in a file at one time.
    pub(crate) fn file_length(&self) -> u64 {
        self.window.map_or(0, |_| self.saved_length)
    }

    /// The saved strips that a band reads.
    pub(crate) fn strip(&self, band: usize) -> Range<u64> {
        let (start, length) = self.strips[band];
        let start = match self.window {
            None => start,
            Some(window) => window.strip * (band % 2) as u64,
        };
        start..saturating(start, length)
    }

    /// The saved left halos and stored activations of a tile.
    pub(crate) fn tile(&self, block: Block<'_>, tile: Tile) -> Range<u64> {
        let ends = &self.columns[&block.rows.alike(tile.band)];
        let (begin, end) = (ends[tile.column], ends[tile.column + 1]);
        let start = match self.window {
            None => saturating(self.bands[tile.band], begin),
            Some(window) => window.strip * 2 + window.tile * (tile.column % 2) as u64,
        };
        start..saturating(start, end.saturating_sub(begin))
    }
}

/// Where the saved elements of each tile of a band begin, and where those of the last one end.
fn column_ends(geometry: &Geometry, block: Block<'_>, band: usize) -> Vec<u64> {
    let nodes = geometry.sized().graph().nodes().len();
    let mut lengths: BTreeMap<usize, u64> = BTreeMap::new();
    let mut end: u64 = 0;
    let mut ends = vec![end];
    for column in 0..block.columns.bands() {
        let length = lengths
            .entry(block.columns.alike(column))
            .or_insert_with_key(|&column| {
                let tile = Tile { band, column };
                (0..nodes)
                    .map(|node| {
                        let span = if geometry.is_stored(node) {
                            block.held(tile, node)
                        } else {
                            block.left(tile, node)
                        };
                        aligned(elements(geometry, span, node))
                    })
                    .fold(0, saturating)
            });
        end = saturating(end, *length);
        ends.push(end);
    }
    ends
}

/// A sum that stays at `u64::MAX`, which stands for more than can be addressed.
pub(crate) fn saturating(sum: u64, term: u64) -> u64 {
    sum.saturating_add(term)
}

/// The segment, beyond the first, that begins with `band`.
pub(crate) fn border_segment(geometry: &Geometry, block: Block<'_>, band: usize) -> Option<usize> {
    let bands = block.rows.bands();
    // The only segment that can begin there, by the formula of `segment_bands`.
    let segment = (band * geometry.segments()).div_ceil(bands);
    (segment > 0
        && segment < geometry.segments()
        && geometry.segment_bands(bands, segment).start == band)
        .then_some(segment)
}

pub(crate) fn channels(geometry: &Geometry, node: usize) -> u64 {
    geometry.sized().graph().nodes()[node].channels
}

pub(crate) fn elements(geometry: &Geometry, region: Rect, node: usize) -> u64 {
    u64::try_from(
        region
            .area()
            .saturating_mul(u128::from(channels(geometry, node))),
    )
    .unwrap_or(u64::MAX)
}
