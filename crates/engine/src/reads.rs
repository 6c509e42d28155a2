//! The order in which the sweeps read their images.

use std::ops::Range;

use stream_grad_tiling::{Block, Buffers, Geometry, Rect, Residual, Tile};

use crate::sweep::TilePlace;
use crate::sweep::roles::{BackwardRoles, Role, Roles};

/// What the forward sweep over blocks, counted over all images, asks its source for: image and region.
pub(crate) fn forward_reads<'a>(
    geometry: &'a Geometry,
    range: Range<usize>,
    roles: &'a Roles,
) -> impl Iterator<Item = (usize, Rect)> + 'a {
    let blocks = geometry.blocks();
    range.flat_map(move |number| {
        let (image, index) = (number / blocks, number % blocks);
        let block = geometry.block(index);
        let tiles = block
            .raster(0..block.rows.bands())
            .filter(move |tile| is_computed(geometry, roles, (image, index), *tile));
        owned(block, tiles).map(move |region| (image, region))
    })
}

/// What the backward sweep over blocks, each with its roles, asks its source for.
pub(crate) fn backward_reads<'a>(
    geometry: &'a Geometry,
    buffers: &'a Buffers,
    range: Range<usize>,
    roles: &'a [BackwardRoles],
) -> impl Iterator<Item = (usize, Rect)> + 'a {
    let blocks = geometry.blocks();
    let computed_again = buffers.residual(0) == Residual::Recomputed;
    range.zip(roles).rev().flat_map(move |(number, roles)| {
        let (image, index) = (number / blocks, number % blocks);
        let block = geometry.block(index);
        (0..geometry.segments()).rev().flat_map(move |segment| {
            let bands = geometry.segment_bands(block.rows.bands(), segment);
            let is_computed =
                move |roles, tile: &Tile| is_computed(geometry, roles, (image, index), *tile);
            // The last one is not swept again.
            let swept_again = roles.again.get(segment);
            let again = block
                .raster(bands.clone())
                .filter(move |tile| swept_again.is_some_and(|roles| is_computed(roles, tile)));
            let back = block
                .raster(bands)
                .rev()
                .filter(move |tile| computed_again && is_computed(&roles.back, tile));
            owned(block, again.chain(back)).map(move |region| (image, region))
        })
    })
}

/// Whether a tile is computed, so that its part of the image is read.
fn is_computed(
    geometry: &Geometry,
    roles: &Roles,
    (image, block): (usize, usize),
    tile: Tile,
) -> bool {
    let place = TilePlace { image, block, tile };
    !matches!(roles.of(geometry, place), Role::Repeated(_))
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
