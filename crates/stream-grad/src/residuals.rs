//! What the backward sweep needs from the forward sweep.

use std::fmt;
use std::sync::Arc;

use stream_grad_tiling::Geometry;

use crate::engine::Saved;
use crate::exchange::TileSource;
use crate::prepared::Prepared;

/// Saved halos, kept activations, and the weights as the forward computation read them.
///
/// Consumed by the backward sweep: running it twice, or with stale weights, does not compile.
pub struct Residuals<'a> {
    pub(crate) source: &'a dyn TileSource,
    pub(crate) stores: Stores,
    pub(crate) geometry: Arc<Geometry>,
}

pub(crate) enum Stores {
    F32(Kept<f32>),
    F64(Kept<f64>),
}

pub(crate) struct Kept<T> {
    pub(crate) prepared: Prepared<T>,
    pub(crate) saved: Saved<T>,
}

impl fmt::Debug for Residuals<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Residuals")
            .field("recipe", self.geometry.recipe())
            .finish_non_exhaustive()
    }
}
