//! The cost of the published method, for comparison only.
//!
//! Pinckaers, van Ginneken and Litjens, "Streaming convolutional neural networks for end-to-end learning with
//! multi-megapixel images", TPAMI 2022 (10.1109/TPAMI.2020.3019563): overlapping tiles; outputs that padding spoils are
//! dropped, and in the backward pass so is every gradient within the border of a tile that lost outputs reach.

use crate::cost::{conventional_activation_bytes, conventional_flops};
use crate::error::TilingError;
use crate::fraction::Fraction;
use crate::graph::{Graph, NodeId, SizedGraph};
use crate::receptive_field::{LostBorder, tile_granule};
use crate::span::{Axis, PerAxis};

/// The borders that tiles of the published method lose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PublishedBorders {
    /// Output positions lost on each side of a tile.
    pub output: PerAxis<LostBorder>,
    /// Image pixels whose gradient is lost on each side of a tile.
    pub gradient: PerAxis<LostBorder>,
}

impl PublishedBorders {
    /// The exact borders of a graph's first output. An implementation that finds its gradient border by a probe
    /// may lose more: lightstream 1.0.7 loses 490/490/487/487 pixels for ResNet-18.
    ///
    /// The size of `sized` should be a typical tile's, large enough that outputs in its middle are not lost.
    pub fn exact(sized: &SizedGraph) -> Self {
        let output = sized.graph().outputs()[0];
        let of = |border: fn(&SizedGraph, Axis, NodeId) -> LostBorder| {
            PerAxis::new(
                border(sized, Axis::Rows, output),
                border(sized, Axis::Columns, output),
            )
        };
        Self {
            output: of(LostBorder::of_output),
            gradient: of(LostBorder::of_gradient),
        }
    }
}

/// What the published method costs on one image with square tiles.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublishedCost {
    /// Edge of a tile in pixels.
    pub tile: u64,
    /// Pixels that a tile of the forward pass contributes along each axis, whole total strides.
    pub kept_forward: PerAxis<u64>,
    /// Pixels whose gradient a tile of the backward pass contributes along each axis, whole total strides.
    pub kept_backward: PerAxis<u64>,
    /// Tile area over the area whose gradient is kept: how often a backward tile's work is done.
    pub compute_factor: Fraction,
    /// Tiles of the forward pass over the image.
    pub forward_tiles: u128,
    /// Tiles of the backward pass over the image, each computed forward again.
    pub backward_tiles: u128,
    /// FLOPs of both passes.
    pub flops: u128,
    /// Those FLOPs over the conventional ones.
    pub compute_ratio: Fraction,
    /// Edge of the smallest tile that keeps any gradient, in whole total strides.
    pub smallest_tile: u64,
    /// Bytes of the activations of one tile.
    pub tile_bytes: u128,
}

impl PublishedCost {
    /// Works out the cost of tiles of `tile` pixels on an image of `image` pixels.
    ///
    /// # Errors
    /// [`TilingError::PublishedTile`] for a tile that keeps no gradient, and whatever [`SizedGraph::new`] refuses of the tile.
    pub fn new(
        graph: &Graph,
        image: PerAxis<u64>,
        tile: u64,
        borders: &PublishedBorders,
        element_bytes: u64,
    ) -> Result<Self, TilingError> {
        let whole = SizedGraph::new(graph.clone(), image)?;
        let tiled = SizedGraph::new(graph.clone(), PerAxis::both(tile))?;
        let stride = PerAxis::new(
            tile_granule(&whole, Axis::Rows),
            tile_granule(&whole, Axis::Columns),
        );
        let smallest_tile = Axis::BOTH
            .into_iter()
            .map(|axis| {
                let smallest = borders.gradient[axis].total() + stride[axis];
                smallest.div_ceil(stride[axis]) * stride[axis]
            })
            .fold(1, u64::max);
        if tile < smallest_tile {
            return Err(TilingError::PublishedTile {
                found: tile,
                minimum: smallest_tile,
            });
        }
        let mut kept_forward = PerAxis::both(0);
        let mut kept_backward = PerAxis::both(0);
        for axis in Axis::BOTH {
            let floor = |lost: u64| tile.saturating_sub(lost) / stride[axis] * stride[axis];
            let lost_outputs = borders.output[axis].total();
            kept_forward[axis] = floor(lost_outputs.saturating_mul(stride[axis]));
            kept_backward[axis] = floor(borders.gradient[axis].total());
        }
        let tiles = |kept: PerAxis<u64>| {
            Axis::BOTH.into_iter().fold(1_u128, |product, axis| {
                let beyond_first = image[axis].saturating_sub(tile);
                product * u128::from(1 + beyond_first.div_ceil(kept[axis].max(1)))
            })
        };
        let (forward_tiles, backward_tiles) = (tiles(kept_forward), tiles(kept_backward));
        let forward_flops = forward_flops(&tiled);
        let flops = forward_tiles
            .saturating_mul(forward_flops)
            .saturating_add(backward_tiles.saturating_mul(conventional_flops(&tiled)));
        let kept_area = u128::from(kept_backward.rows) * u128::from(kept_backward.columns);
        Ok(Self {
            tile,
            kept_forward,
            kept_backward,
            compute_factor: Fraction::new(u128::from(tile) * u128::from(tile), kept_area),
            forward_tiles,
            backward_tiles,
            flops,
            compute_ratio: Fraction::new(flops, conventional_flops(&whole)),
            smallest_tile,
            tile_bytes: conventional_activation_bytes(&tiled, element_bytes),
        })
    }
}

fn forward_flops(sized: &SizedGraph) -> u128 {
    let nodes = sized.graph().nodes().iter().enumerate();
    nodes.fold(0, |sum, (index, node)| {
        let area = sized.plane(index).area();
        sum.saturating_add(area.saturating_mul(u128::from(node.forward_flops)))
    })
}
