//! What the backward sweep needs from the forward sweep.

use std::fmt;
use std::sync::Arc;

use stream_grad_kernels::bf16;
use stream_grad_tiling::Geometry;

use crate::backend::{Backend, Cpu};
use crate::exchange::TileSource;
use crate::prepared::Prepared;
use crate::sweep::Saved;

/// Saved halos, stored activations, and the weights as the forward computation read them.
///
/// Consumed by the backward sweep: running it twice, or with stale weights, does not compile.
pub struct Residuals<'a> {
    pub(crate) stores: Stores<'a>,
}

pub(crate) enum Stores<'a> {
    F32(BackendResiduals<'a, Cpu<f32>>),
    F64(BackendResiduals<'a, Cpu<f64>>),
    BF16(BackendResiduals<'a, Cpu<bf16>>),
}

/// [`Residuals`] on a backend of the caller's own.
pub struct BackendResiduals<'a, B: Backend> {
    pub(crate) source: &'a dyn TileSource,
    pub(crate) geometry: Arc<Geometry>,
    pub(crate) prepared: Prepared<B>,
    pub(crate) saved: Saved<B>,
}

impl fmt::Debug for Residuals<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.stores {
            Stores::F32(residuals) => residuals.fmt(f),
            Stores::F64(residuals) => residuals.fmt(f),
            Stores::BF16(residuals) => residuals.fmt(f),
        }
    }
}

impl<B: Backend> fmt::Debug for BackendResiduals<'_, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Residuals")
            .field("recipe", self.geometry.recipe())
            .finish_non_exhaustive()
    }
}
