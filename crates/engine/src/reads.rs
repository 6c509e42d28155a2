//! The order in which the sweeps read their images.

use std::ops::Range;

use stream_grad_tiling::{Block, Buffers, Geometry, Rect, Residual, Tile};

/// What the forward sweep over blocks, counted over all images, asks its source for: image and region.
pub(crate) fn forward_reads(
    geometry: &Geometry,
    range: Range<usize>,
) -> impl Iterator<Item = (usize, Rect)> + '_ {
    let blocks = geometry.blocks();
    range.flat_map(move |place| {
        let block = geometry.block(place % blocks);
        let tiles = raster(0..block.rows.bands(), block.columns.bands());
        owned(block, tiles).map(move |region| (place / blocks, region))
    })
}

/// What the backward sweep over blocks asks its source for.
pub(crate) fn backward_reads<'a>(
    geometry: &'a Geometry,
    buffers: &'a Buffers,
    range: Range<usize>,
) -> impl Iterator<Item = (usize, Rect)> + 'a {
    let blocks = geometry.blocks();
    let computed_again = buffers.residual(0) == Residual::Recomputed;
    range.rev().flat_map(move |place| {
        let block = geometry.block(place % blocks);
        let columns = block.columns.bands();
        (0..geometry.segments()).rev().flat_map(move |segment| {
            let bands = geometry.segment_bands(block.rows.bands(), segment);
            let swept_again = segment + 1 < geometry.segments();
            let again = raster(bands.clone(), columns).filter(move |_| swept_again);
            let back = raster(bands, columns).rev().filter(move |_| computed_again);
            owned(block, again.chain(back)).map(move |region| (place / blocks, region))
        })
    })
}

fn raster(bands: Range<usize>, columns: usize) -> impl DoubleEndedIterator<Item = Tile> {
    bands.flat_map(move |band| (0..columns).map(move |column| Tile { band, column }))
}

/// The parts of the image that tiles own, where there are any.
fn owned<'a>(
    block: Block<'a>,
    tiles: impl Iterator<Item = Tile> + 'a,
) -> impl Iterator<Item = Rect> + 'a {
    tiles
        .map(move |tile| block.owned(tile, 0))
        .filter(|region| !region.is_empty())
}
