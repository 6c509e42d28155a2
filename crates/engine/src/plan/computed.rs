//! How many tiles are computed, the others being as one of these.

use super::Plan;
use crate::error::Result;
use crate::exchange::{CotangentSource, TileSource};
use crate::sweep::roles::{BackwardRoles, Roles};

/// Of the tiles of all images, those that are computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ComputedTiles {
    /// By the forward sweep.
    pub forward: usize,
    /// By the backward sweep.
    pub backward: usize,
}

impl Plan {
    /// How many tiles each sweep computes of these images, with these cotangents; all of them, unless the plan
    /// [reuses](crate::PlanRequest::reuse) what it computed. Nothing is read.
    ///
    /// # Errors
    /// A source that does not fit the plan, or cannot tell colours.
    pub fn computed_tiles(
        &self,
        source: &dyn TileSource,
        cotangents: &dyn CotangentSource,
    ) -> Result<ComputedTiles> {
        self.check_source(source)?;
        let schedule = self.schedule();
        let blocks = 0..self.blocks();
        let forward = Roles::forward(&schedule, source, blocks.clone())?;
        let mut computed = ComputedTiles {
            forward: 0,
            backward: 0,
        };
        for number in blocks {
            let backward = BackwardRoles::of(&schedule, source, Some(cotangents), number)?.back;
            computed.forward += forward.computed(&self.geometry, number);
            computed.backward += backward.computed(&self.geometry, number);
        }
        Ok(computed)
    }
}
