//! Recipes: blocks x segments x tiles and the stored nodes, as a value.

use std::fmt;

use crate::graph::{NodeId, SizedGraph};
#[cfg(feature = "serde")]
use crate::recipe_file::RecipeFile;
use crate::span::PerAxis;

/// Which tiles are not computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Reuse {
    /// None: every tile is computed.
    #[default]
    Nothing,
    /// Of tiles that [lie alike](crate::TileClasses), and depend on a part of the image that is of one colour, one is computed for all.
    OneColor,
}

/// When weights are packed: copied, in the order in which kernels read them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Weights {
    /// Once for each sweep, which holds them: no tile packs anything.
    #[default]
    Held,
    /// Whenever a node of a tile reads them, which then frees them: there is room for those of one node, and each tile packs them again.
    /// Parameters are held as they are from the start of the forward sweep to the last gradient.
    PackedOnUse,
}

impl Weights {
    /// Every way.
    pub const ALL: [Self; 2] = [Self::Held, Self::PackedOnUse];
}

/// How one image is cut: a value that can be printed, compared and stored, and says everything about the
/// order of the computation.
///
/// One block, one segment and one tile with every node stored is conventional training.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(try_from = "RecipeFile", into = "RecipeFile")
)]
pub struct Recipe {
    /// The image's size in pixels.
    pub image: PerAxis<u64>,
    /// Edge of a block, in positions of the output; the last block of an axis takes the remainder.
    pub output_block: PerAxis<u64>,
    /// Segments per block: runs of bands whose halos are held at the same time.
    pub segments: u64,
    /// Edge of a tile, in image pixels; the last tile of an axis takes the remainder.
    pub tile: PerAxis<u64>,
    /// Nodes whose activations are stored from the forward to the backward sweep, in rising order.
    pub stored: Vec<NodeId>,
    /// Which tiles are not computed, since others have the same values.
    pub reuse: Reuse,
    /// When weights are packed.
    pub weights: Weights,
}

impl Recipe {
    /// One block, one segment, one tile: the conventional computation.
    pub fn whole(sized: &SizedGraph) -> Self {
        let output = sized.graph().outputs()[0].0;
        Self {
            image: sized.image(),
            output_block: sized.size(output).map(i64::unsigned_abs),
            segments: 1,
            tile: sized.image(),
            stored: Vec::new(),
            reuse: Reuse::Nothing,
            weights: Weights::Held,
        }
    }
}

impl fmt::Display for Recipe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "image {}x{}, blocks of {}x{} output positions, {} segment(s), tiles of {}x{} pixels, {} stored node(s)",
            self.image.rows,
            self.image.columns,
            self.output_block.rows,
            self.output_block.columns,
            self.segments,
            self.tile.rows,
            self.tile.columns,
            self.stored.len()
        )?;
        match self.reuse {
            Reuse::Nothing => {}
            Reuse::OneColor => f.write_str(", tiles of one colour computed once")?,
        }
        match self.weights {
            Weights::Held => Ok(()),
            Weights::PackedOnUse => f.write_str(", weights packed on use"),
        }
    }
}
