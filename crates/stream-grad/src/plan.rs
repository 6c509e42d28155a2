//! Plans on candle tensors: features are leaves of candle's autograd, gradients a `GradStore`.

mod blocks;
mod tapped;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use candle_core::backprop::GradStore;
use candle_core::{Device, Tensor, Var, WithDType};
use stream_grad_engine::{self as engine, DType, Exchange, Model, Stored, WholeMaps};
use stream_grad_kernels::bf16;
use stream_grad_tiling::{ByteCount, Cost, Geometry, Maps, PeakBytes, Recipe};

use crate::net::Net;
use crate::parameter::Store;
use crate::tensors::TensorCotangents;
use crate::{
    ComputedTiles, CotangentSource, FeatureSink, InputGradientSink, Observer, PlanRequest,
    Residuals, Result, StreamError, TileSource,
};

/// A recipe with its geometry, its buffers and its peak, ready to run on any image of its size.
///
/// `{plan}` prints blocks, segments, tiles, stored nodes, peak bytes, predicted time and compute ratio.
#[derive(Clone)]
pub struct Plan {
    net: Net,
    plan: engine::Plan,
}

impl Plan {
    pub(crate) fn new(net: &Net, request: PlanRequest) -> Result<Self> {
        Ok(Self {
            plan: engine::Plan::new(net.network(), request)?,
            net: net.clone(),
        })
    }

    /// The same plan, watched by `observer`.
    #[must_use]
    pub fn observed_by(mut self, observer: Arc<dyn Observer>) -> Self {
        self.plan = self.plan.observed_by(observer);
        self
    }

    /// Frees what the plan, and those that share its [`Workspace`](crate::Workspace), hold for the next step.
    pub fn release_memory(&self) {
        self.plan.release_memory();
    }

    /// How the image is cut.
    pub fn recipe(&self) -> &Recipe {
        self.plan.recipe()
    }

    /// Spans of every tile.
    pub fn geometry(&self) -> &Geometry {
        self.plan.geometry()
    }

    /// FLOPs and compute ratio.
    pub fn cost(&self) -> &Cost {
        self.plan.cost()
    }

    /// How long forward and backward of all images are predicted to take the first time, with the images in memory: by the
    /// request's [cost model](PlanRequest::cost_model). What a source, a sink or a head takes comes on top.
    pub fn predicted_time(&self) -> Duration {
        self.plan.predicted_time()
    }

    /// Names of the nodes whose activations are stored.
    pub fn stored_names(&self) -> impl Iterator<Item = &str> {
        self.plan.stored_names()
    }

    /// A promise: no more heap bytes than this are held at any moment from the start of `forward` to the end
    /// of `backward`, gradients included, and features and cotangents unless they are
    /// [streamed](PlanRequest::features). Part of them stays with the plan's [`Workspace`](crate::Workspace) for the next step.
    pub fn peak_bytes(&self) -> ByteCount {
        self.plan.peak_bytes()
    }

    /// The peak by class of buffer.
    pub fn peak_classes(&self) -> &PeakBytes {
        self.plan.peak_classes()
    }

    /// The most bytes that wait in a file for the backward sweep; 0 if all is in memory.
    pub fn file_bytes(&self) -> ByteCount {
        self.plan.file_bytes()
    }

    /// Whether any convolution is computed by Winograd's F(2 x 2, 3 x 3): `Convolution::is_winograd` of the kernels.
    pub fn is_winograd(&self) -> bool {
        self.plan.is_winograd()
    }

    /// Number of tiles of one image, over all blocks.
    pub fn tiles(&self) -> usize {
        self.plan.tiles()
    }

    /// How many tiles each sweep computes of these images, with these cotangents; all of them, unless the plan
    /// [reuses](PlanRequest::reuse) what it computed. Nothing is read.
    ///
    /// # Errors
    /// A source that does not fit the plan, or cannot tell colours.
    pub fn computed_tiles(
        &self,
        source: &dyn TileSource,
        cotangents: &dyn CotangentSource,
    ) -> Result<ComputedTiles> {
        self.plan.computed_tiles(source, cotangents)
    }

    /// Shape `[N, C, H, W]` of each output.
    pub fn output_shapes(&self) -> Vec<[usize; 4]> {
        self.plan.output_shapes()
    }

    /// Runs the forward sweep of a network with one output; of several this gives the first alone, and [`Plan::forward_all`] all. The
    /// features `[N, C, H, W]` are a leaf that candle tracks, so a head can be put on them and [`Plan::backward`] finds their gradient.
    ///
    /// They are of the dtype that the plan computes in. Those of a plan in bf16 are F32, so that a head, whose parameters are, computes
    /// and is differentiated in that; what it reads are the stored values, and cotangents are rounded once, as they enter.
    ///
    /// # Errors
    /// A source that does not fit the plan, or fails to deliver a region; [`StreamError::PlanMismatch`] if the plan is for
    /// streamed features.
    pub fn forward<'a>(&self, source: &'a dyn TileSource) -> Result<(Tensor, Residuals<'a>)> {
        let (mut features, residuals) = self.forward_all(source)?;
        Ok((features.swap_remove(0), residuals))
    }

    /// Runs the forward sweep and returns every output, in the order of [`Net::output_names`].
    ///
    /// # Errors
    /// As for [`Plan::forward`].
    pub fn forward_all<'a>(
        &self,
        source: &'a dyn TileSource,
    ) -> Result<(Vec<Tensor>, Residuals<'a>)> {
        self.check_whole("feature maps", self.plan.features())?;
        match self.plan.dtype() {
            DType::F32 => self.forward_collected::<f32>(source),
            DType::F64 => self.forward_collected::<f64>(source),
            DType::BF16 => self.forward_collected::<bf16>(source),
        }
    }

    fn forward_collected<'a, E: Stored<Compute: WithDType>>(
        &self,
        source: &'a dyn TileSource,
    ) -> Result<(Vec<Tensor>, Residuals<'a>)> {
        let mut sink = WholeMaps::<E>::zeros(&self.output_shapes());
        let residuals = self.forward_to(source, &mut sink)?;
        Ok((into_leaves(sink)?, residuals))
    }

    /// Runs the forward sweep; features leave tile by tile, so that they never have to exist as a whole.
    ///
    /// # Errors
    /// As for [`Plan::forward`], or a sink that fails.
    pub fn forward_to<'a>(
        &self,
        source: &'a dyn TileSource,
        sink: &mut dyn FeatureSink,
    ) -> Result<Residuals<'a>> {
        self.plan.forward_to(self.net.values(), source, sink)
    }

    /// Gradients of `loss` with respect to everything: candle's autograd through the head, then the backward
    /// sweep, in one store.
    ///
    /// # Errors
    /// Residuals of another plan, a plan for streamed features, a loss that does not depend on `features`, or a source that
    /// fails.
    pub fn backward(
        &self,
        residuals: Residuals<'_>,
        features: &Tensor,
        loss: &Tensor,
    ) -> Result<GradStore> {
        self.backward_all(residuals, std::slice::from_ref(features), loss)
    }

    /// As [`Plan::backward`], for all outputs of a network, in the order of [`Net::output_names`]. One that the loss does not depend on
    /// has a cotangent of zero.
    ///
    /// # Errors
    /// As for [`Plan::backward`].
    pub fn backward_all(
        &self,
        residuals: Residuals<'_>,
        features: &[Tensor],
        loss: &Tensor,
    ) -> Result<GradStore> {
        self.check_whole("cotangents", self.plan.features())?;
        let mut gradients = loss.backward()?;
        let mut cotangents = Vec::with_capacity(features.len());
        let mut reached = false;
        for feature in features {
            cotangents.push(match gradients.remove(feature) {
                Some(cotangent) => {
                    reached = true;
                    cotangent.detach()
                }
                None => feature.zeros_like()?,
            });
        }
        if !reached {
            return Err(StreamError::NoCotangent);
        }
        self.check_cotangents(&cotangents)?;
        let features = features.iter().map(Tensor::detach).collect();
        let mut cotangents = TensorCotangents::of_features(cotangents, features);
        let streamed = self.vjp_from(residuals, &mut cotangents, None)?;
        gradients.extend(streamed)?;
        Ok(gradients)
    }

    /// The VJP for whole cotangents `[N, C, H, W]`, one for each output. With an input gradient asked for, use
    /// [`Plan::vjp_with_input`].
    ///
    /// # Errors
    /// Cotangents or residuals that do not fit the plan, a plan for streamed features, or a source that fails.
    pub fn vjp(&self, residuals: Residuals<'_>, cotangents: &[Tensor]) -> Result<GradStore> {
        self.check_cotangents(cotangents)?;
        self.vjp_from(
            residuals,
            &mut TensorCotangents::new(cotangents.to_vec()),
            None,
        )
    }

    /// The VJP for whole cotangents, with the gradient of the images `[N, C, H, W]`.
    ///
    /// # Errors
    /// As for [`Plan::vjp`]; [`StreamError::PlanMismatch`] if the plan was made without an input gradient, or for a streamed one.
    pub fn vjp_with_input(
        &self,
        residuals: Residuals<'_>,
        cotangents: &[Tensor],
    ) -> Result<(GradStore, Tensor)> {
        self.check_cotangents(cotangents)?;
        self.check_whole("input gradient", self.plan.input_gradient().maps())?;
        let mut source = TensorCotangents::new(cotangents.to_vec());
        match self.plan.dtype() {
            DType::F32 => self.vjp_collected::<f32>(residuals, &mut source),
            DType::F64 => self.vjp_collected::<f64>(residuals, &mut source),
            DType::BF16 => self.vjp_collected::<bf16>(residuals, &mut source),
        }
    }

    fn vjp_collected<E: Stored<Compute: WithDType>>(
        &self,
        residuals: Residuals<'_>,
        cotangents: &mut dyn CotangentSource,
    ) -> Result<(GradStore, Tensor)> {
        let mut sink = WholeMaps::<E>::zeros(&[self.plan.input_shape()]);
        let gradients = self.vjp_from(residuals, cotangents, Some(&mut sink))?;
        let gradient = into_leaves(sink)?.swap_remove(0).detach();
        Ok((gradients, gradient))
    }

    /// The VJP with cotangents asked for region by region, and the input gradient, if there is a sink for it,
    /// handed out the same way.
    ///
    /// # Errors
    /// Residuals of another plan, a sink on a plan without input gradient, or a source or sink that fails.
    pub fn vjp_from<'a>(
        &self,
        residuals: Residuals<'_>,
        cotangents: &'a mut dyn CotangentSource,
        input_gradient: Option<&'a mut dyn InputGradientSink>,
    ) -> Result<GradStore> {
        self.vjp_exchanging(
            residuals,
            Exchange {
                cotangents,
                input_gradient,
                taps: None,
            },
        )
    }

    fn vjp_exchanging(
        &self,
        residuals: Residuals<'_>,
        exchange: Exchange<'_>,
    ) -> Result<GradStore> {
        let mut store = Store::new(self.net.all_parameters());
        self.plan.vjp(residuals, exchange, &mut store)?;
        Ok(store.into_gradients())
    }

    /// Refuses a whole tensor where the peak has no room for one.
    fn check_whole(&self, what: &'static str, maps: Maps) -> Result<()> {
        match maps {
            Maps::Whole => Ok(()),
            Maps::Streamed => Err(StreamError::PlanMismatch {
                what,
                expected: "what is streamed, by `forward_to` and `vjp_from`".into(),
                found: "whole tensors".into(),
            }),
        }
    }

    fn check_cotangents(&self, cotangents: &[Tensor]) -> Result<()> {
        self.check_whole("cotangents", self.plan.features())?;
        let expected = self.output_shapes();
        let fits = cotangents.len() == expected.len()
            && cotangents
                .iter()
                .zip(&expected)
                .all(|(cotangent, shape)| cotangent.dims() == shape);
        if fits {
            return Ok(());
        }
        Err(StreamError::PlanMismatch {
            what: "cotangents",
            expected: format!("shapes {expected:?}"),
            found: format!(
                "shapes {:?}",
                cotangents.iter().map(Tensor::dims).collect::<Vec<_>>()
            ),
        })
    }
}

/// The plan without tensors.
impl AsRef<engine::Plan> for Plan {
    fn as_ref(&self) -> &engine::Plan {
        &self.plan
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.plan.fmt(f)
    }
}

impl fmt::Debug for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.plan.fmt(f)
    }
}

/// Maps as tensors on the CPU that candle tracks: leaves of its autograd. Nothing is copied.
fn into_leaves<E: Stored<Compute: WithDType>>(maps: WholeMaps<E>) -> Result<Vec<Tensor>> {
    let maps = maps.into_maps().into_iter();
    maps.map(|map| Ok(Var::from_vec(map.data, &map.shape, &Device::Cpu)?.into_inner()))
        .collect()
}
