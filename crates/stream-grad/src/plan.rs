//! Plans: everything decided before a pixel is touched, and the entry points that run them.

mod display;
mod tapped;
pub(crate) mod timing;

use std::sync::Arc;
use std::time::Duration;

use candle_core::backprop::GradStore;
use candle_core::{DType, Tensor};
use stream_grad_tiling::{
    Buffers, ByteCount, Cost, FrontPoint, Geometry, HeldMemory, Maps, PeakBytes, Picoseconds,
    Recipe,
};

use crate::engine::backward::{Exchange, backward};
use crate::engine::forward::forward;
use crate::engine::{Schedule, operations::Gradients};
use crate::error::{Result, StreamError};
use crate::exchange::{
    CotangentSource, FeatureSink, InputGradientSink, MapCollector, TensorCotangents, TileSource,
};
use crate::gradients::ParameterGradients;
use crate::net::Net;
use crate::observer::{NoObserver, Observer};
use crate::operation::{Kind, trainable_flags};
use crate::planning;
use crate::prepared::Prepared;
use crate::reads::{backward_reads, forward_reads};
use crate::request::PlanRequest;
use crate::residuals::{Residuals, Stores};
use crate::scalar::Scalar;
use crate::threads::check_threads;
use crate::weights::backward_weights;
use crate::workspace::{Held, Workspace};

/// A recipe with its geometry, its buffers and its peak, ready to run on any image of its size.
///
/// `{plan}` prints blocks, segments, tiles, kept nodes, peak bytes, predicted time and compute ratio.
#[derive(Clone)]
pub struct Plan {
    net: Net,
    request: PlanRequest,
    trainable: Vec<bool>,
    taps: Vec<usize>,
    geometry: Arc<Geometry>,
    buffers: Arc<Buffers>,
    peak: PeakBytes,
    file_bytes: u128,
    cost: Cost,
    time: Picoseconds,
    pool: Option<Arc<rayon::ThreadPool>>,
    workspace: Workspace,
    held: HeldMemory,
    observer: Arc<dyn Observer>,
}

impl Plan {
    pub(crate) fn new(net: &Net, request: PlanRequest) -> Result<Self> {
        if !matches!(request.dtype, DType::F32 | DType::F64) {
            return Err(StreamError::DType {
                found: request.dtype,
            });
        }
        if request.batch == 0 {
            return Err(StreamError::Setting {
                layer: "plan".into(),
                setting: "batch",
                found: "0".into(),
                expected: "at least 1 image",
            });
        }
        check_threads(request.threads.unwrap_or(0))?;
        let net = net.computed_by(request.arithmetic);
        let planned = planning::plan(&net, &request)?;
        let file_bytes = planning::bytes_in_file(&planned, &net, &request)?;
        let pool = request.threads.map(thread_pool).transpose()?;
        let (peak, held) = planned.peak.holding(request.memory);
        Ok(Self {
            trainable: trainable_flags(&net.parameters, &request.trainable),
            taps: planning::tapped_nodes(&net, &request)?,
            net,
            geometry: Arc::new(planned.geometry),
            buffers: Arc::new(planned.buffers),
            peak,
            file_bytes,
            cost: planned.cost,
            time: planned.time,
            workspace: request.workspace.clone().unwrap_or_default(),
            held,
            request,
            pool,
            observer: Arc::new(NoObserver),
        })
    }

    /// The same plan, watched by `observer`.
    #[must_use]
    pub fn observed_by(mut self, observer: Arc<dyn Observer>) -> Self {
        self.observer = observer;
        self
    }

    /// Frees what the plan, and those that share its [`Workspace`], hold for the next step.
    pub fn release_memory(&self) {
        self.workspace.release();
    }

    /// How the image is cut.
    pub fn recipe(&self) -> &Recipe {
        self.geometry.recipe()
    }

    /// Spans of every tile.
    pub fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    /// FLOPs and compute ratio.
    pub fn cost(&self) -> &Cost {
        &self.cost
    }

    /// How long forward and backward of all images are predicted to take the first time, with the images in memory: by the
    /// request's [cost model](PlanRequest::cost_model). What a source, a sink or a head takes comes on top.
    pub fn predicted_time(&self) -> Duration {
        // A thousand picoseconds are a nanosecond.
        Duration::from_nanos(u64::try_from(self.time.0 / 1000).unwrap_or(u64::MAX))
    }

    /// The plan as a point of the [front](Net::front).
    pub(crate) fn front_point(&self) -> FrontPoint {
        FrontPoint {
            recipe: self.recipe().clone(),
            storage: self.buffers.storage(),
            peak: self.peak,
            cost: self.cost,
            time: self.time,
        }
    }

    /// Names of the nodes whose activations are kept.
    pub fn kept_names(&self) -> impl Iterator<Item = &str> {
        let operations = &self.net.operations;
        let kept = self.recipe().kept.iter();
        kept.filter_map(|node| operations.get(node.0))
            .map(|operation| operation.name.as_str())
    }

    /// A promise: no more heap bytes than this are held at any moment from the start of `forward` to the end
    /// of `backward`, gradients included, and features and cotangents unless they are
    /// [streamed](PlanRequest::features). Part of them stays with the plan's [`Workspace`] for the next step.
    pub fn peak_bytes(&self) -> ByteCount {
        ByteCount::saturating(self.peak.peak())
    }

    /// The peak by class of buffer.
    pub fn peak_classes(&self) -> &PeakBytes {
        &self.peak
    }

    /// The most bytes that wait in a file for the backward sweep; 0 if all is in memory.
    pub fn file_bytes(&self) -> ByteCount {
        ByteCount::saturating(self.file_bytes)
    }

    /// Whether any convolution is computed by Winograd's F(2 x 2, 3 x 3): `Convolution::is_winograd` of the kernels.
    pub fn is_winograd(&self) -> bool {
        let mut operations = self.net.operations.iter();
        operations.any(|operation| match &operation.kind {
            Kind::Convolution(convolution) => convolution.shape.is_winograd(),
            _ => false,
        })
    }

    /// Number of tiles of one image, over all blocks.
    pub fn tiles(&self) -> usize {
        self.geometry.iter_blocks().map(|block| block.tiles()).sum()
    }

    /// Shape `[N, C, H, W]` of each output.
    pub fn output_shapes(&self) -> Vec<[usize; 4]> {
        let outputs = self.net.outputs.iter();
        outputs.map(|&(_, node)| self.shape_of(node)).collect()
    }

    /// Shape `[N, C, H, W]` of the images.
    fn input_shape(&self) -> [usize; 4] {
        self.shape_of(0)
    }

    /// Runs the forward sweep. The features `[N, C, H, W]` of the (first) output are a leaf that candle tracks, so a head can
    /// be put on them and [`Plan::backward`] finds their gradient.
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
        self.check_whole("feature maps", self.request.features)?;
        match self.request.dtype {
            DType::F64 => self.forward_collected::<f64>(source),
            _ => self.forward_collected::<f32>(source),
        }
    }

    fn forward_collected<'a, T: Scalar>(
        &self,
        source: &'a dyn TileSource,
    ) -> Result<(Vec<Tensor>, Residuals<'a>)> {
        let mut sink = MapCollector::<T>::new(&self.output_shapes());
        let residuals = self.forward_to(source, &mut sink)?;
        Ok((sink.into_leaves()?, residuals))
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
        self.check_source(source)?;
        let stores = match self.request.dtype {
            DType::F64 => Stores::F64(self.sweep_forward::<f64>(source, sink)?),
            _ => Stores::F32(self.sweep_forward::<f32>(source, sink)?),
        };
        Ok(Residuals {
            source,
            stores,
            geometry: Arc::clone(&self.geometry),
        })
    }

    fn sweep_forward<T: Scalar>(
        &self,
        source: &dyn TileSource,
        sink: &mut dyn FeatureSink,
    ) -> Result<crate::residuals::Kept<T>> {
        source.expect_reads(&mut forward_reads(&self.geometry, self.request.batch));
        let images = self.request.batch;
        self.install(|| {
            let mut held = self.workspace.take();
            self.schedule().fit_forward(&mut held, images);
            let mut prepared = Prepared::<T>::new(&self.net.operations, &self.net.parameters)?;
            let saved = forward(self.schedule(), &prepared, source, images, sink, &mut held)?;
            self.workspace.put(held);
            prepared.keep_packed(|node| self.buffers.computes_again(&self.geometry, node));
            Ok(crate::residuals::Kept { prepared, saved })
        })
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

    /// As [`Plan::backward`], for a network with several outputs, in the order of [`Net::output_names`].
    ///
    /// # Errors
    /// As for [`Plan::backward`].
    pub fn backward_all(
        &self,
        residuals: Residuals<'_>,
        features: &[Tensor],
        loss: &Tensor,
    ) -> Result<GradStore> {
        self.check_whole("cotangents", self.request.features)?;
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
        let streamed = self.vjp(residuals, &cotangents)?;
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
        self.vjp_from(residuals, &mut TensorCotangents(cotangents.to_vec()), None)
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
        self.check_whole("input gradient", self.request.input_gradient.maps())?;
        let mut source = TensorCotangents(cotangents.to_vec());
        match self.request.dtype {
            DType::F64 => self.vjp_collected::<f64>(residuals, &mut source),
            _ => self.vjp_collected::<f32>(residuals, &mut source),
        }
    }

    fn vjp_collected<T: Scalar>(
        &self,
        residuals: Residuals<'_>,
        cotangents: &mut dyn CotangentSource,
    ) -> Result<(GradStore, Tensor)> {
        let mut sink = MapCollector::<T>::new(&[self.input_shape()]);
        let gradients = self.vjp_from(residuals, cotangents, Some(&mut sink))?;
        let gradient = sink.into_leaves()?.swap_remove(0).detach();
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
        if input_gradient.is_some() && !self.request.input_gradient.is_computed() {
            return Err(StreamError::PlanMismatch {
                what: "input gradient",
                expected: "a run without it: ask for it in the request".into(),
                found: "a sink for it".into(),
            });
        }
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
        if !Arc::ptr_eq(&residuals.geometry, &self.geometry) {
            return Err(StreamError::PlanMismatch {
                what: "residuals",
                expected: self.recipe().to_string(),
                found: residuals.geometry.recipe().to_string(),
            });
        }
        match residuals.stores {
            Stores::F32(kept) => self.sweep_backward(residuals.source, kept, exchange),
            Stores::F64(kept) => self.sweep_backward(residuals.source, kept, exchange),
        }
    }

    fn sweep_backward<T: Scalar>(
        &self,
        source: &dyn TileSource,
        kept: crate::residuals::Kept<T>,
        exchange: Exchange<'_>,
    ) -> Result<GradStore> {
        let reads = backward_reads(&self.geometry, &self.buffers, self.request.batch);
        source.expect_reads(&mut { reads });
        self.install(|| {
            let crate::residuals::Kept {
                mut prepared,
                saved,
            } = kept;
            let mut held = self.workspace.take();
            self.schedule().fit_backward(&mut held);
            let mut gradients = self.gradients(&mut prepared)?;
            backward(
                self.schedule(),
                &prepared,
                source,
                saved,
                &mut gradients,
                exchange,
                &mut held,
            )?;
            match self.held {
                HeldMemory::Nothing => held = Held::default(),
                HeldMemory::Working => held.blocks = Vec::new(),
                HeldMemory::Everything => {}
            }
            self.workspace.put(held);
            self.unfold(gradients, &mut prepared)
        })
    }

    fn gradients<T: Scalar>(&self, prepared: &mut Prepared<T>) -> Result<Gradients<T>> {
        let (operations, parameters) = (&self.net.operations, &self.net.parameters);
        let needs = backward_weights(operations, &self.trainable, self.geometry.sized().graph());
        Ok(Gradients {
            weights: prepared.pack_data_gradients(operations, &needs)?,
            parameters: ParameterGradients::new(operations, parameters, &self.trainable),
            trainable: self.trainable.clone(),
        })
    }

    fn unfold<T: Scalar>(
        &self,
        gradients: Gradients<T>,
        prepared: &mut Prepared<T>,
    ) -> Result<GradStore> {
        prepared.keep_packed(|_| false);
        gradients.parameters.into_store(
            &self.net.operations,
            &self.net.parameters,
            &self.trainable,
            prepared,
            gradients.weights,
        )
    }

    pub(crate) fn net(&self) -> &Net {
        &self.net
    }

    fn schedule(&self) -> Schedule<'_> {
        let spill = self.request.spill.as_deref();
        Schedule {
            geometry: &self.geometry,
            buffers: &self.buffers,
            operations: &self.net.operations,
            outputs: &self.net.outputs,
            taps: &self.taps,
            poison: self.request.poison,
            spill: spill.map(|folder| (folder, self.file_bytes().get())),
            observer: &*self.observer,
        }
    }

    /// Runs a whole sweep on a thread of the pool: from outside of it, each kernel would put this thread to sleep and wake
    /// it again.
    fn install<R: Send>(&self, run: impl FnOnce() -> R + Send) -> R {
        match &self.pool {
            Some(pool) => pool.install(run),
            None => rayon::scope(|_| run()),
        }
    }

    fn check_source(&self, source: &dyn TileSource) -> Result<()> {
        let image = self.geometry.sized().image();
        let expected = (
            self.request.batch,
            self.net.input_channels(),
            image.rows,
            image.columns,
        );
        let (height, width) = source.extent();
        let found = (source.batch(), source.channels(), height, width);
        if expected == found {
            return Ok(());
        }
        let shape = |(batch, channels, height, width)| {
            format!("{batch} image(s) of {channels} channels, {height} x {width} pixels")
        };
        Err(StreamError::PlanMismatch {
            what: "source",
            expected: shape(expected),
            found: shape(found),
        })
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
        self.check_whole("cotangents", self.request.features)?;
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

fn thread_pool(threads: usize) -> Result<Arc<rayon::ThreadPool>> {
    rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .build()
        .map(Arc::new)
        .map_err(|error| StreamError::Threads {
            threads,
            reason: error.to_string(),
        })
}
