//! What a plan is asked for.

use std::path::PathBuf;

use stream_grad_kernels::Arithmetic;
use stream_grad_tiling::{Fraction, Maps};

use crate::cost_model::CostModel;
use crate::element::{DType, RequestedDType};
use crate::error::{Result, StreamError};
use crate::wanted::{InputGradient, Trainable};
use crate::workspace::Workspace;

/// Everything that a plan, its peak and its results depend on.
///
/// Without a budget and without a tile the plan is the conventional computation: one tile, every activation
/// stored. With a budget it is the fastest recipe that fits.
#[derive(Debug, Clone, PartialEq)]
pub struct PlanRequest {
    pub(crate) height: u64,
    pub(crate) width: u64,
    pub(crate) memory: Option<stream_grad_tiling::ByteCount>,
    pub(crate) tile: Option<(u64, u64)>,
    pub(crate) block: Option<(u64, u64)>,
    pub(crate) segments: Option<u64>,
    pub(crate) stored: Option<Vec<String>>,
    pub(crate) weights: Option<stream_grad_tiling::Weights>,
    pub(crate) recipe: Option<stream_grad_tiling::Recipe>,
    pub(crate) batch: usize,
    pub(crate) dtype: RequestedDType,
    pub(crate) arithmetic: Arithmetic,
    pub(crate) threads: Option<usize>,
    pub(crate) trainable: Trainable,
    pub(crate) features: Maps,
    pub(crate) input_gradient: InputGradient,
    pub(crate) taps: Vec<String>,
    pub(crate) offload: Option<PathBuf>,
    pub(crate) poison: Option<f64>,
    pub(crate) workspace: Option<Workspace>,
    pub(crate) reuse: stream_grad_tiling::Reuse,
    pub(crate) texture: Option<Fraction>,
    pub(crate) cost_model: CostModel,
}

impl PlanRequest {
    /// Images of `height` x `width` pixels, one at a time, in f32, on all threads.
    pub const fn new(height: u64, width: u64) -> Self {
        Self {
            height,
            width,
            memory: None,
            tile: None,
            block: None,
            segments: None,
            stored: None,
            weights: None,
            recipe: None,
            batch: 1,
            dtype: RequestedDType(Ok(DType::F32)),
            arithmetic: Arithmetic::Auto,
            threads: None,
            trainable: Trainable::Variables,
            features: Maps::Whole,
            input_gradient: InputGradient::Skipped,
            taps: Vec::new(),
            offload: None,
            poison: None,
            workspace: None,
            reuse: stream_grad_tiling::Reuse::Nothing,
            texture: None,
            cost_model: CostModel::FIXED,
        }
    }

    /// The dtype, if it is one of this crate's.
    ///
    /// # Errors
    /// [`StreamError::DType`] for another one.
    pub(crate) fn known_dtype(&self) -> Result<DType> {
        let known = self.dtype.0.clone();
        known.map_err(|found| StreamError::DType { found })
    }

    /// The largest peak that the plan may have.
    #[must_use]
    pub fn memory(mut self, budget: stream_grad_tiling::ByteCount) -> Self {
        self.memory = Some(budget);
        self
    }

    /// The tile's edge in image pixels.
    #[must_use]
    pub fn tile(self, edge: u64) -> Self {
        self.tile_extent(edge, edge)
    }

    /// The tile's height and width in image pixels.
    #[must_use]
    pub fn tile_extent(mut self, rows: u64, columns: u64) -> Self {
        self.tile = Some((rows, columns));
        self
    }

    /// The block's edge in image pixels; it is rounded up to whole output positions.
    #[must_use]
    pub fn block(mut self, edge: u64) -> Self {
        self.block = Some((edge, edge));
        self
    }

    /// The number of segments.
    #[must_use]
    pub fn segments(mut self, segments: u64) -> Self {
        self.segments = Some(segments);
        self
    }

    /// Operations whose activations are stored, by the names of [`Network::operation_names`](crate::Network::operation_names).
    #[must_use]
    pub fn stored(mut self, names: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.stored = Some(names.into_iter().map(Into::into).collect());
        self
    }

    /// When weights are packed. Without this they are held without a budget, and with one the planner chooses: packing them whenever a
    /// tile reads them takes time for each tile, and the memory of one operation's packed weights instead of all. Results are the
    /// same, bit for bit.
    ///
    /// ```
    /// use stream_grad_engine::{PlanRequest, tiling::Weights};
    /// let request = PlanRequest::new(4096, 4096).tile(1024).weights(Weights::PackedOnUse);
    /// # let _ = request;
    /// ```
    #[must_use]
    pub const fn weights(mut self, weights: stream_grad_tiling::Weights) -> Self {
        self.weights = Some(weights);
        self
    }

    /// A recipe that was stored with a run; tile, block, segments, stored nodes, weights and reuse are not looked at, nor is the budget but
    /// to decide whether what is saved goes to a file.
    #[must_use]
    pub fn recipe(mut self, recipe: stream_grad_tiling::Recipe) -> Self {
        self.recipe = Some(recipe);
        self
    }

    /// The number of images that run in turn.
    #[must_use]
    pub fn batch(mut self, images: usize) -> Self {
        self.batch = images;
        self
    }

    /// What activations, halos and cotangents are stored as: `F32`, `F64` or `BF16`; planning refuses others. Of bf16, arithmetic is
    /// done in f32, and so are parameters and whole maps: a result is rounded once, when it is stored.
    #[must_use]
    pub fn dtype(mut self, dtype: impl Into<RequestedDType>) -> Self {
        self.dtype = dtype.into();
        self
    }

    /// How convolutions are computed; by default as it is fastest, with Winograd's where it gains.
    #[must_use]
    pub fn arithmetic(mut self, arithmetic: Arithmetic) -> Self {
        self.arithmetic = arithmetic;
        self
    }

    /// The number of threads, 0 for one for each core; it changes neither the recipe nor any result. Planning refuses
    /// [more than four](crate::THREADS_PER_CORE) for each core.
    #[must_use]
    pub fn threads(mut self, threads: usize) -> Self {
        self.threads = Some(threads);
        self
    }

    /// Which parameters get gradients.
    #[must_use]
    pub fn trainable(mut self, trainable: Trainable) -> Self {
        self.trainable = trainable;
        self
    }

    /// Who holds the features and their cotangents. Without this the peak has room for them as whole tensors.
    ///
    /// [`Maps::Streamed`] promises to use [`Plan::forward_to`](crate::Plan::forward_to) and
    /// [`Plan::vjp`](crate::Plan::vjp), where features go to a sink and cotangents come from a source; the
    /// entry points for whole tensors refuse such a plan.
    ///
    /// ```
    /// use stream_grad_engine::{ByteCount, Maps, PlanRequest};
    /// let request = PlanRequest::new(65_536, 65_536).memory(ByteCount::gib(8)).features(Maps::Streamed);
    /// # let _ = request;
    /// ```
    #[must_use]
    pub fn features(mut self, features: Maps) -> Self {
        self.features = features;
        self
    }

    /// Whether the gradient of the image is computed, and who holds it.
    #[must_use]
    pub fn input_gradient(mut self, input_gradient: InputGradient) -> Self {
        self.input_gradient = input_gradient;
        self
    }

    /// Taps a layer: the backward sweep shows its activation and its cotangent to a
    /// [`TapSink`](crate::TapSink). Several layers may be tapped; they count from 0 in the order of the calls.
    ///
    /// The layer is one of [`Network::operation_names`](crate::Network::operation_names), after fusing, or a module of which several
    /// of these are part, such as `layer4`, whose output is that of its last operation; the first, `image`, is the image.
    ///
    /// A tapped layer has a cotangent though nothing before it be [trainable](Self::trainable), and its activation is held or
    /// computed again until that is complete, which the peak has room for. Where the recipe has several blocks there is room, too, for the
    /// cotangents of as many of its rows as one row of blocks needs.
    ///
    /// ```
    /// use stream_grad_engine::{PlanRequest, Trainable};
    /// let request = PlanRequest::new(4096, 4096).tap("layer4").trainable(Trainable::Nothing);
    /// # let _ = request;
    /// ```
    #[must_use]
    pub fn tap(mut self, layer: impl Into<String>) -> Self {
        self.taps.push(layer.into());
        self
    }

    /// A folder for a file in which saved halos and stored activations may wait for the backward sweep. With a budget they do where
    /// it does not hold them in memory, if nothing that fits is faster; without one they always do. Results are the same, bit
    /// for bit.
    ///
    /// The file may take up to half of what is free in the folder when the plan is made, so a recipe that must stay the same is
    /// to be [stored](Self::recipe). The file has no name: it is gone when the residuals are, and however the process ends.
    ///
    /// ```
    /// use stream_grad_engine::{ByteCount, PlanRequest};
    /// let request = PlanRequest::new(65_536, 65_536).memory(ByteCount::gib(8)).offload("/scratch");
    /// # let _ = request;
    /// ```
    #[must_use]
    pub fn offload(mut self, folder: impl Into<PathBuf>) -> Self {
        self.offload = Some(folder.into());
        self
    }

    /// What the time of recipes is predicted from: with a budget, the fastest that fits is chosen. Without this it is a fixed
    /// table, so that the same request makes the same plan everywhere; a recipe that was chosen by what was
    /// [measured](CostModel::calibrate) is to be [stored](Self::recipe) if it must stay the same. Results are exact
    /// either way.
    #[must_use]
    pub fn cost_model(mut self, model: CostModel) -> Self {
        self.cost_model = model;
        self
    }

    /// Memory to share with other plans, of which one runs at a time: for instance those of one training, for images of several
    /// sizes.
    ///
    /// ```
    /// use stream_grad_engine::{PlanRequest, Workspace};
    /// let workspace = Workspace::new();
    /// let small = PlanRequest::new(512, 512).workspace(&workspace);
    /// let large = PlanRequest::new(4096, 4096).workspace(&workspace);
    /// # let _ = (small, large);
    /// ```
    #[must_use]
    pub fn workspace(mut self, workspace: &Workspace) -> Self {
        self.workspace = Some(workspace.clone());
        self
    }

    /// Whether tiles that have the same values are computed once: with [`Reuse::OneColor`](stream_grad_tiling::Reuse::OneColor), those
    /// that lie alike and depend on a part of the image of which the source [says](crate::TileSource::one_color) that it is of one
    /// colour. Features are the same, bit for bit, and gradients up to the order of sums: a run keeps to what it began with.
    ///
    /// ```
    /// use stream_grad_engine::{PlanRequest, tiling::Reuse};
    /// let request = PlanRequest::new(65_536, 65_536).tile(512).reuse(Reuse::OneColor);
    /// # let _ = request;
    /// ```
    #[must_use]
    pub fn reuse(mut self, reuse: stream_grad_tiling::Reuse) -> Self {
        self.reuse = reuse;
        self
    }

    /// The share of the image that is expected not to be of one colour; without this, all of it. The time of recipes that
    /// [reuse](Self::reuse) what they computed is predicted from it, so that with a budget tiles are as small as that pays.
    ///
    /// ```
    /// use stream_grad_engine::{ByteCount, PlanRequest, tiling::{Fraction, Reuse}};
    /// let request = PlanRequest::new(65_536, 65_536).memory(ByteCount::gib(8));
    /// let request = request.reuse(Reuse::OneColor).texture(Fraction::new(15, 100));
    /// # let _ = request;
    /// ```
    #[must_use]
    pub const fn texture(mut self, share: Fraction) -> Self {
        self.texture = Some(share);
        self
    }

    /// For tests: fills all memory that holds no value that may be read. Results must not depend on `value`.
    #[must_use]
    pub fn poison(mut self, value: f64) -> Self {
        self.poison = Some(value);
        self
    }
}
