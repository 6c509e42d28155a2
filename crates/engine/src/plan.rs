//! Plans: everything decided before a pixel is touched, and the entry points that run them.

mod blocks;
mod computed;
mod display;
pub(crate) mod timing;

use std::sync::Arc;
use std::time::Duration;

use stream_grad_tiling::{
    Axis, Buffers, ByteCount, Cost, FrontPoint, Geometry, HeldMemory, Maps, PeakBytes, Picoseconds,
    Recipe, Weights,
};

use crate::backend::{Backend, Cpu, on_cpu};
use crate::element::{DType, Stored};
use crate::error::{Result, StreamError};
use crate::exchange::{FeatureSink, TileSource};
use crate::network::Network;
use crate::observer::{NoObserver, Observer};
use crate::operator::plain::GradientWriter;
use crate::operators::AnyTransposed;
use crate::parameter::{GradientSink, ParameterValues};
use crate::planning;
use crate::prepared::{AllCopies, Prepared};
use crate::request::PlanRequest;
use crate::residuals::{BackendResiduals, Residuals, Stores};
use crate::sweep::Schedule;
use crate::sweep::sums::{BlockSums, NodeSums};
use crate::threads::check_threads;
use crate::wanted::InputGradient;
use crate::workspace::Workspace;
use blocks::Swept;

pub use crate::sweep::backward::Exchange;
pub use computed::ComputedTiles;

/// A recipe with its geometry, its buffers and its peak, ready to run on any image of its size.
///
/// `{plan}` prints blocks, segments, tiles, stored nodes, peak bytes, predicted time and compute ratio.
#[derive(Clone)]
pub struct Plan {
    network: Network,
    request: PlanRequest,
    dtype: DType,
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
    /// Plans the streaming of images of one size, on this machine's processor.
    ///
    /// # Errors
    /// Every refusal happens here: an image that is too small, a budget below the minimum, cuts that cannot be.
    pub fn new(network: &Network, request: PlanRequest) -> Result<Self> {
        on_cpu!(request.known_dtype()?, backend => Self::on(&backend, network, request))
    }

    /// Plans the same on a backend, whose type of stored numbers counts, not that of the request.
    ///
    /// # Errors
    /// As for [`Plan::new`], and an operator that the backend has no kernels for.
    pub fn on<B: Backend>(backend: &B, network: &Network, request: PlanRequest) -> Result<Self> {
        if request.batch == 0 {
            return Err(StreamError::Setting {
                layer: "plan".into(),
                setting: "batch",
                found: "0".into(),
                expected: "at least 1 image",
            });
        }
        check_threads(request.threads.unwrap_or(0))?;
        network.check_backend(backend)?;
        let network = network.computed_by(request.arithmetic);
        let planned = planning::plan(backend, &network, &request)?;
        let file_bytes = planning::bytes_in_file(backend, &planned, &network, &request)?;
        let pool = request.threads.map(thread_pool).transpose()?;
        let (peak, held) = planned.peak.holding(request.memory);
        Ok(Self {
            trainable: network.trainable(&request.trainable),
            taps: planning::tapped_nodes(&network, &request)?,
            network,
            geometry: Arc::new(planned.geometry),
            buffers: Arc::new(planned.buffers),
            peak,
            file_bytes,
            cost: planned.cost,
            time: planned.time,
            workspace: request.workspace.clone().unwrap_or_default(),
            held,
            dtype: B::Stored::DTYPE,
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

    /// The plan as a point of the [front](crate::front).
    pub(crate) fn front_point(&self) -> FrontPoint {
        FrontPoint {
            recipe: self.recipe().clone(),
            storage: self.buffers.storage(),
            peak: self.peak,
            cost: self.cost,
            time: self.time,
        }
    }

    /// Names of the nodes whose activations are stored.
    pub fn stored_names(&self) -> impl Iterator<Item = &str> {
        let operations = &self.network.nodes;
        let stored = self.recipe().stored.iter();
        stored
            .filter_map(|node| operations.get(node.0))
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
        self.network.is_winograd()
    }

    /// Number of tiles of one image, over all blocks.
    pub fn tiles(&self) -> usize {
        self.geometry.iter_blocks().map(|block| block.tiles()).sum()
    }

    /// Shape `[N, C, H, W]` of each output.
    pub fn output_shapes(&self) -> Vec<[usize; 4]> {
        let outputs = self.network.outputs.iter();
        outputs.map(|&(_, node)| self.shape_of(node)).collect()
    }

    /// Shape `[N, C, H, W]` of the images.
    pub fn input_shape(&self) -> [usize; 4] {
        self.shape_of(0)
    }

    pub(crate) fn network(&self) -> &Network {
        &self.network
    }

    /// What activations are stored as.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Who holds the features and their cotangents.
    pub fn features(&self) -> Maps {
        self.request.features
    }

    /// Whether the gradient of the image is computed, and who holds it.
    pub fn input_gradient(&self) -> InputGradient {
        self.request.input_gradient
    }

    /// Shape `[N, C, H, W]` of each tapped layer, in the order of the request.
    pub fn tap_shapes(&self) -> Vec<[usize; 4]> {
        let shapes = self.taps.iter().map(|&node| self.shape_of(node));
        shapes.collect()
    }

    fn shape_of(&self, node: usize) -> [usize; 4] {
        let size = self.geometry.sized().size(node);
        let extent = |axis: Axis| usize::try_from(size[axis]).unwrap_or(usize::MAX);
        [
            self.request.batch,
            self.network.nodes[node].channels,
            extent(Axis::Rows),
            extent(Axis::Columns),
        ]
    }

    /// Runs the forward sweep with these parameters. Features leave tile by tile.
    ///
    /// # Errors
    /// A source that does not fit the plan, or fails to deliver a region; a sink that fails; parameters that cannot be read.
    pub fn forward_to<'a>(
        &self,
        values: &dyn ParameterValues,
        source: &'a dyn TileSource,
        sink: &mut dyn FeatureSink,
    ) -> Result<Residuals<'a>> {
        self.forward_blocks(values, source, sink, 0..self.blocks())
    }

    /// The same on the backend that the plan was made for.
    ///
    /// # Errors
    /// As for [`Plan::forward_to`].
    pub fn forward_on<'a, B: Backend>(
        &self,
        backend: &B,
        values: &dyn ParameterValues,
        source: &'a dyn TileSource,
        sink: &mut dyn FeatureSink,
    ) -> Result<BackendResiduals<'a, B>> {
        self.forward_blocks_on(backend, values, source, sink, 0..self.blocks())
    }

    /// Runs the backward sweep: cotangents are asked for region by region, gradients of parameters handed out at the end. Of the
    /// residuals of some blocks, they are what these contribute.
    ///
    /// # Errors
    /// Residuals of another plan, a sink on a plan without input gradient, or a source or sink that fails.
    pub fn vjp(
        &self,
        residuals: Residuals<'_>,
        exchange: Exchange<'_>,
        gradients: &mut dyn GradientSink,
    ) -> Result<()> {
        match residuals.stores {
            Stores::F32(residuals) => self.vjp_on(&Cpu::new(), residuals, exchange, gradients),
            Stores::F64(residuals) => self.vjp_on(&Cpu::new(), residuals, exchange, gradients),
            Stores::BF16(residuals) => self.vjp_on(&Cpu::new(), residuals, exchange, gradients),
        }
    }

    /// The same on the backend that the plan was made for.
    ///
    /// # Errors
    /// As for [`Plan::vjp`].
    pub fn vjp_on<B: Backend>(
        &self,
        backend: &B,
        residuals: BackendResiduals<'_, B>,
        exchange: Exchange<'_>,
        sink: &mut dyn GradientSink,
    ) -> Result<()> {
        let mut sums = BlockSums::new(self.sum_lengths(), None);
        self.install(|| {
            let copies = self.copies(backend)?;
            let swept = self.sweep_back(backend, residuals, exchange, &copies, &mut sums)?;
            self.hand_out(backend, &copies, swept, sums.into_total(backend), sink)
        })
    }

    fn copies<B: Backend>(&self, backend: &B) -> Result<AllCopies> {
        let graph = self.geometry.sized().graph();
        AllCopies::of(backend, &self.network, &self.trainable, graph)
    }

    /// What the VJPs read of the parameters.
    fn transpose<B: Backend>(
        &self,
        backend: &B,
        copies: &AllCopies,
        prepared: &mut Prepared<B>,
    ) -> Result<Vec<AnyTransposed<B>>> {
        let graph = self.geometry.sized().graph();
        match self.recipe().weights {
            Weights::Held => {
                prepared.transpose(backend, &self.network, copies, (&self.trainable, graph))
            }
            Weights::PackedOnUse => Ok(copies.transposed_on_use()),
        }
    }

    /// Whether a gradient of any of its own parameters is wanted, of each node.
    fn trains(&self) -> Vec<bool> {
        let nodes = self.network.nodes.iter();
        nodes.map(|node| node.trains(&self.trainable)).collect()
    }

    /// Makes gradients of sums.
    fn hand_out<B: Backend>(
        &self,
        backend: &B,
        copies: &AllCopies,
        swept: Swept<B>,
        sums: NodeSums<B>,
        sink: &mut dyn GradientSink,
    ) -> Result<()> {
        let mut writer = GradientWriter {
            sink,
            trainable: &self.trainable,
            parameters: &self.network.parameters,
        };
        let Swept {
            prepared,
            transposed,
        } = swept;
        let network = (&self.network, self.geometry.sized().graph());
        prepared.gradients(backend, network, copies, (sums, transposed), &mut writer)
    }

    fn schedule(&self) -> Schedule<'_> {
        let offload = self.request.offload.as_deref();
        Schedule {
            geometry: &self.geometry,
            buffers: &self.buffers,
            nodes: &self.network.nodes,
            trainable: &self.trainable,
            outputs: &self.network.outputs,
            taps: &self.taps,
            poison: self.request.poison,
            offload: offload.map(|folder| (folder, self.file_bytes().get())),
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
            self.network.input_channels(),
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

impl AsRef<Plan> for Plan {
    fn as_ref(&self) -> &Plan {
        self
    }
}
