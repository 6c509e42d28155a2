//! The layout of what a block saves for its backward sweep: strips, left halos and kept activations.

use std::collections::BTreeMap;

use crate::arena::aligned;
use crate::recipe::{Block, Geometry, Tile};
use crate::span::{PerAxis, Span};

/// First elements of everything that one block saves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BlockBuffers {
    /// First element of the saved strips that band `i` reads.
    pub(crate) strips: Vec<u64>,
    /// First element of the saved left halos (then kept activations) of each band.
    pub(crate) bands: Vec<u64>,
    /// The same of each column of tiles, from the band's first, for the first of bands that are alike.
    pub(crate) columns: BTreeMap<usize, Vec<u64>>,
    pub(crate) saved_length: u64,
    /// First element of the border strips of each segment.
    pub(crate) borders: Vec<u64>,
    pub(crate) border_length: u64,
}

impl BlockBuffers {
    pub(crate) fn new(geometry: &Geometry, block: Block<'_>) -> Self {
        let nodes = geometry.sized().graph().nodes().len();
        let bands = block.rows.bands();
        let mut columns: BTreeMap<usize, Vec<u64>> = BTreeMap::new();
        let mut strips = vec![0; bands];
        let mut starts = vec![0; bands];
        let mut borders = vec![0; geometry.segments()];
        let mut saved_length: u64 = 0;
        let mut border_length: u64 = 0;
        for (segment, border) in borders.iter_mut().enumerate() {
            let mut end: u64 = 0;
            for band in geometry.segment_bands(bands, segment) {
                let strip = |node| aligned(elements(geometry, block.strip(band, node), node));
                if border_segment(geometry, block, band).is_some() {
                    *border = border_length;
                    border_length = (0..nodes).map(strip).fold(border_length, saturating);
                } else {
                    strips[band] = end;
                    end = (0..nodes)
                        .filter(|&node| !geometry.is_kept(node))
                        .map(strip)
                        .fold(end, saturating);
                }
                starts[band] = end;
                let ends = columns
                    .entry(block.rows.alike(band))
                    .or_insert_with_key(|&band| column_ends(geometry, block, band));
                end = saturating(end, ends.last().copied().unwrap_or(0));
            }
            saved_length = saved_length.max(end);
        }
        Self {
            strips,
            bands: starts,
            columns,
            saved_length,
            borders,
            border_length,
        }
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
                        let span = if geometry.is_kept(node) {
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

pub(crate) fn elements(geometry: &Geometry, region: PerAxis<Span>, node: usize) -> u64 {
    u64::try_from(
        region
            .area()
            .saturating_mul(u128::from(channels(geometry, node))),
    )
    .unwrap_or(u64::MAX)
}
