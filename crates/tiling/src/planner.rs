//! From a memory budget to the cheapest recipe.

use crate::buffers::{Buffers, Residual};
use crate::bytes::ByteCount;
use crate::cost::{Cost, file_traffic};
use crate::error::TilingError;
use crate::geometry::Geometry;
use crate::graph::{NodeId, SizedGraph};
use crate::lifetimes::residuals;
use crate::memory::{MemoryRequest, PeakBytes, file_bytes, fresh_bytes, peak_bytes};
use crate::recipe::{Recipe, Reuse, Weights};
use crate::saved::Storage;
use crate::search::Search;
use crate::span::PerAxis;
use crate::time::{Picoseconds, TimeModel, Traffic};
use crate::work::Work;

/// Which activations the planner may store from the forward to the backward sweep.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Store {
    /// Whichever pay under the budget.
    #[default]
    Any,
    /// Whichever pay, of these.
    Among(Vec<NodeId>),
    /// These and no others.
    Exactly(Vec<NodeId>),
}

/// What is asked of the planner; what is `None` it chooses.
#[derive(Debug, Clone)]
pub struct PlannerRequest {
    /// The most bytes that streaming may hold.
    pub budget: Option<ByteCount>,
    /// What the peak depends on besides the recipe.
    pub memory: MemoryRequest,
    /// Edge of a tile in image pixels.
    pub tile: Option<PerAxis<u64>>,
    /// Edge of a block in output positions; otherwise one block.
    pub output_block: Option<PerAxis<u64>>,
    /// Number of segments.
    pub segments: Option<u64>,
    /// Which activations may be stored.
    pub store: Store,
    /// Which tiles are not computed. How many these are is predicted from [`TimeModel::texture`].
    pub reuse: Reuse,
    /// When weights are packed; without a budget they are held.
    pub weights: Option<Weights>,
    /// The most bytes of a file in which what is saved may be. Without a budget it goes there, with one where that is faster
    /// than what fits in memory; with no file, never.
    pub file: Option<ByteCount>,
}

impl PlannerRequest {
    /// A request without a budget and without choices: the conventional computation.
    pub fn new(memory: MemoryRequest) -> Self {
        Self {
            budget: None,
            memory,
            tile: None,
            output_block: None,
            segments: None,
            store: Store::Any,
            reuse: Reuse::Nothing,
            weights: None,
            file: None,
        }
    }
}

/// A recipe with all that follows from it.
#[derive(Debug, Clone)]
pub struct Planned {
    /// The recipe, and its spans.
    pub geometry: Geometry,
    /// Its buffers.
    pub buffers: Buffers,
    /// Its bytes.
    pub peak: PeakBytes,
    /// Its FLOPs, for one image.
    pub cost: Cost,
    /// The time that a step is predicted to take, for all images, if another came before it.
    pub time: Picoseconds,
}

impl Planned {
    /// Works out what follows from a recipe whose saved values are in `storage`, if memory within `budget` stays from step to
    /// step ([`PeakBytes::holding`]).
    ///
    /// ```
    /// use stream_grad_tiling::{
    ///     FixedBytes, Geometry, Graph, MemoryRequest, NodeId, PerAxis, Planned, Recipe, SizedGraph, Storage, TimeModel,
    /// };
    /// let mut graph = Graph::new(3, false);
    /// graph.set_outputs(vec![NodeId::IMAGE])?;
    /// let sized = SizedGraph::new(graph, PerAxis::both(64))?;
    /// let (recipe, time) = (Recipe::whole(&sized), TimeModel::of_flops(sized.graph()));
    /// let memory = MemoryRequest::new(4, 1, FixedBytes::default());
    /// let planned = Planned::of(Geometry::new(sized, recipe)?, Storage::Memory, &memory, None, &time);
    /// assert_eq!(planned.cost.tiles, 1);
    /// # Ok::<(), stream_grad_tiling::TilingError>(())
    /// ```
    pub fn of(
        geometry: Geometry,
        storage: Storage,
        memory: &MemoryRequest,
        budget: Option<ByteCount>,
        time: &TimeModel,
    ) -> Self {
        let work = Work::of(&geometry);
        Self::of_work(geometry, &work, storage, memory, budget, time)
    }

    pub(crate) fn of_work(
        geometry: Geometry,
        work: &Work,
        storage: Storage,
        memory: &MemoryRequest,
        budget: Option<ByteCount>,
        time: &TimeModel,
    ) -> Self {
        let buffers = Buffers::with_storage(&geometry, storage);
        let peak = peak_bytes(&geometry, &buffers, memory);
        let traffic = Traffic {
            file: file_traffic(&geometry, &buffers, memory.element_bytes),
            fresh: fresh_bytes(&geometry, &buffers, memory, &peak, budget),
        };
        Self {
            peak,
            cost: Cost {
                file_bytes: traffic.file,
                ..Cost::of_work(&geometry, work)
            },
            time: time.of_work(&geometry, work, traffic, memory),
            buffers,
            geometry,
        }
    }
}

/// The most bytes that one address space can hold.
const ADDRESSABLE: u128 = i64::MAX as u128;

/// Chooses the recipe with the least predicted time whose peak is within the budget.
///
/// Without a budget, what is not chosen is left whole: without any choice the plan is one tile with every activation
/// stored, and with a choice nothing is stored unless [`Store::Exactly`] says so. With a budget the planner tries square
/// tiles and bands of the full width from the whole image down to one total stride, segments in powers of
/// two, each with weights that are held and with weights that are packed on use, and for each stores the activations that save most
/// time per byte, as many as pay.
///
/// # Errors
/// [`TilingError::BudgetTooSmall`] with the smallest peak that was found and the class of bytes that binds, and
/// whatever [`Geometry::new`] refuses of the choices that were made.
///
/// ```
/// use stream_grad_tiling::{
///     AxisRule, ByteCount, Edge, FixedBytes, Graph, MemoryRequest, Node, NodeId, PerAxis, PlannerRequest,
///     SizedGraph, TimeModel, VjpReads, Window, plan,
/// };
/// let mut graph = Graph::new(3, false);
/// let convolution = graph.push(Node {
///     name: "conv".into(),
///     channels: 16,
///     inputs: vec![Edge {
///         source: NodeId::IMAGE,
///         rule: PerAxis::both(AxisRule::Window(Window::new(3, 2, 1, 1, 1)?)),
///     }],
///     forward_flops: 2 * 27 * 16,
///     vjp_flops: 2 * 27 * 16,
///     vjp_reads: VjpReads { output: true, inputs: true },
///     has_cotangent: true,
/// })?;
/// graph.set_outputs(vec![convolution])?;
/// let sized = SizedGraph::new(graph, PerAxis::both(1024))?;
///
/// let time = TimeModel::of_flops(sized.graph());
/// let mut request = PlannerRequest::new(MemoryRequest::new(4, 1, FixedBytes::default()));
/// let whole = plan(&sized, &request, &time)?;
/// assert_eq!(whole.cost.compute_ratio().to_string(), "1.000");
///
/// request.budget = Some(ByteCount::mib(48));
/// let tiled = plan(&sized, &request, &time)?;
/// assert!(tiled.peak.peak() <= 48 << 20 && whole.peak.peak() > 48 << 20);
/// assert!(tiled.geometry.recipe().tile.rows < 1024);
/// # Ok::<(), stream_grad_tiling::TilingError>(())
/// ```
pub fn plan(
    sized: &SizedGraph,
    request: &PlannerRequest,
    time: &TimeModel,
) -> Result<Planned, TilingError> {
    match request.budget {
        None => unbudgeted(sized, request, time),
        Some(budget) => Search::new(sized, request, time, u128::from(budget.get()))?.best(),
    }
}

/// A recipe on the front of memory against time and arithmetic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FrontPoint {
    /// The recipe.
    pub recipe: Recipe,
    /// Where it saves.
    pub storage: Storage,
    /// Its bytes.
    pub peak: PeakBytes,
    /// Its FLOPs, for one image.
    pub cost: Cost,
    /// The time that a step is predicted to take, for all images, if what stays from the one before does not raise the peak.
    pub time: Picoseconds,
}

/// The recipes that no other tried recipe beats in memory, predicted time and compute ratio at once, by rising peak.
///
/// The budget of the request, if any, limits the front from above. With the same budget, no recipe on it is predicted to be
/// faster than that of [`plan`].
///
/// # Errors
/// As [`plan`].
pub fn pareto(
    sized: &SizedGraph,
    request: &PlannerRequest,
    time: &TimeModel,
) -> Result<Vec<FrontPoint>, TilingError> {
    let budget = request
        .budget
        .map_or(ADDRESSABLE, |budget| u128::from(budget.get()));
    let search = Search::new(sized, request, time, budget)?.holding_within_the_peak();
    let mut points = Vec::new();
    search.visit(&mut |tiling| {
        for storage in search.storages() {
            let (order, counts) = search.stored(tiling, storage);
            for count in counts {
                let planned = search.planned(tiling, &order, count, storage)?;
                if planned.peak.peak() <= budget && search.fits_in_file(&planned) {
                    points.push(FrontPoint {
                        recipe: planned.geometry.recipe().clone(),
                        storage,
                        peak: planned.peak,
                        cost: planned.cost,
                        time: planned.time,
                    });
                }
            }
        }
        Ok(())
    })?;
    points.sort_by_key(|point| (point.peak.peak(), point.time, point.cost.total()));
    let mut front: Vec<FrontPoint> = Vec::new();
    for point in points {
        let ratio = point.cost.compute_ratio();
        let beaten =
            |other: &FrontPoint| other.time <= point.time && other.cost.compute_ratio() <= ratio;
        if !front.iter().any(beaten) {
            front.push(point);
        }
    }
    Ok(front)
}

fn unbudgeted(
    sized: &SizedGraph,
    request: &PlannerRequest,
    time: &TimeModel,
) -> Result<Planned, TilingError> {
    let whole = Recipe::whole(sized);
    let segments = request.segments.unwrap_or(1);
    let conventional =
        request.tile.is_none() && request.output_block.is_none() && request.segments.is_none();
    let tile = request.tile.unwrap_or_else(|| {
        // Each segment needs a band of its own.
        let rows = whole.tile.rows.checked_div(segments).unwrap_or(1).max(1);
        PerAxis::new(rows, whole.tile.columns)
    });
    let recipe = Recipe {
        output_block: request.output_block.unwrap_or(whole.output_block),
        segments,
        tile,
        reuse: request.reuse,
        weights: request.weights.unwrap_or_default(),
        ..whole
    };
    let geometry = Geometry::new(sized.clone(), recipe)?;
    let stored = match &request.store {
        Store::Exactly(nodes) => nodes.clone(),
        Store::Among(_) | Store::Any if !conventional => Vec::new(),
        among => storable(&geometry, among),
    };
    let storage = match request.file {
        None => Storage::Memory,
        Some(_) => Storage::File,
    };
    let geometry = geometry.with(segments, stored)?;
    let planned = Planned::of(geometry, storage, &request.memory, request.budget, time);
    if let Some(limit) = request.file {
        let limit = u128::from(limit.get());
        let needed = file_bytes(&planned.geometry, &planned.buffers, &request.memory);
        if needed > limit {
            return Err(TilingError::FileTooSmall { limit, needed });
        }
    }
    if planned.peak.peak() > ADDRESSABLE {
        return Err(too_small(ADDRESSABLE, &planned.peak));
    }
    Ok(planned)
}

/// every node that the backward sweep would compute again and that the request allows to store.
pub(crate) fn storable(geometry: &Geometry, store: &Store) -> Vec<NodeId> {
    residuals(geometry)
        .iter()
        .enumerate()
        .filter(|&(node, &residual)| node > 0 && residual == Residual::Recomputed)
        .map(|(node, _)| NodeId(node))
        .filter(|node| match store {
            Store::Any => true,
            Store::Among(nodes) => nodes.contains(node),
            Store::Exactly(_) => false,
        })
        .collect()
}

pub(crate) fn too_small(budget: u128, smallest: &PeakBytes) -> TilingError {
    let (binding, binding_bytes) = smallest.binding();
    TilingError::BudgetTooSmall {
        budget,
        minimum: smallest.peak(),
        binding,
        binding_bytes,
    }
}
