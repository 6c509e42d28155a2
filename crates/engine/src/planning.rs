//! From a request to a recipe, its buffers and its peak.

use stream_grad_tiling::{
    self as tiling, Axis, ByteCount, FixedBytes, FrontPoint, Geometry, Graph, Maps, MemoryRequest,
    NodeId, PackedWeights, PerAxis, Planned, PlannerRequest, Recipe, SizedGraph, Storage, Store,
    TilingError, TimeModel, file_bytes,
};

use crate::backend::{Backend, on_cpu};
use crate::custom_scratch::CustomScratch;
use crate::element::Stored;
use crate::error::{Result, StreamError};
use crate::network::{Network, unknown_layer};
use crate::offload::{self, OFFLOAD_BYTES};
use crate::parameter::{ParameterId, ParameterShape};
use crate::prepared::AllCopies;
use crate::request::PlanRequest;
use crate::sweep::scratch_length;
use crate::wanted::InputGradient;

pub(crate) fn plan<B: Backend>(
    backend: &B,
    net: &Network,
    request: &PlanRequest,
) -> Result<Planned> {
    let graph = net.graph(
        &request.trainable,
        request.input_gradient,
        &tapped_nodes(net, request)?,
    )?;
    let time = request.cost_model.time_model(net, request, &graph);
    let sized = SizedGraph::new(graph, PerAxis::new(request.height, request.width))?;
    let memory = memory_request(backend, net, request, sized.graph())?;
    if let Some(recipe) = &request.recipe {
        return stored(sized, recipe, &memory, &time, request);
    }
    let wanted = planner_request(net, request, &sized, memory)?;
    Ok(tiling::plan(&sized, &wanted, &time)?)
}

/// The most bytes that wait in a file for the backward sweep.
pub(crate) fn bytes_in_file<B: Backend>(
    backend: &B,
    planned: &Planned,
    net: &Network,
    request: &PlanRequest,
) -> Result<u128> {
    let memory = memory_request(backend, net, request, planned.geometry.sized().graph())?;
    Ok(file_bytes(&planned.geometry, &planned.buffers, &memory))
}

/// The recipes for images of one size that no other beats in both peak and compute ratio, by rising peak: what more memory
/// would bring. The budget of the request, if any, limits them from above; tile, block, segments, stored nodes and weights are as
/// asked for.
///
/// # Errors
/// As for [`Plan::new`](crate::Plan::new).
pub fn front(network: &Network, request: &PlanRequest) -> Result<Vec<FrontPoint>> {
    on_cpu!(request.known_dtype()?, backend => front_on(&backend, network, request))
}

fn front_on<B: Backend>(
    backend: &B,
    network: &Network,
    request: &PlanRequest,
) -> Result<Vec<FrontPoint>> {
    network.check_backend(backend)?;
    let net = &network.computed_by(request.arithmetic);
    let graph = net.graph(
        &request.trainable,
        request.input_gradient,
        &tapped_nodes(net, request)?,
    )?;
    let time = request.cost_model.time_model(net, request, &graph);
    let sized = SizedGraph::new(graph, PerAxis::new(request.height, request.width))?;
    let memory = memory_request(backend, net, request, sized.graph())?;
    let wanted = planner_request(net, request, &sized, memory)?;
    Ok(tiling::pareto(&sized, &wanted, &time)?)
}

fn planner_request(
    net: &Network,
    request: &PlanRequest,
    sized: &SizedGraph,
    memory: MemoryRequest,
) -> Result<PlannerRequest> {
    let mut wanted = PlannerRequest::new(memory);
    wanted.file = request.offload.as_deref().map(offload::room).transpose()?;
    wanted.budget = request.memory;
    wanted.tile = request
        .tile
        .map(|(rows, columns)| PerAxis::new(rows, columns));
    wanted.output_block = block_edge(request, sized);
    wanted.segments = request.segments;
    wanted.reuse = request.reuse;
    wanted.weights = request.weights;
    if let Some(names) = &request.stored {
        wanted.store = Store::Exactly(stored_nodes(net, names)?);
    }
    Ok(wanted)
}

/// Takes a recipe as it was stored.
fn stored(
    sized: SizedGraph,
    recipe: &Recipe,
    memory: &MemoryRequest,
    time: &TimeModel,
    request: &PlanRequest,
) -> Result<Planned> {
    if recipe.image != sized.image() {
        return Err(StreamError::PlanMismatch {
            what: "stored recipe",
            expected: format!("{} x {} pixels", request.height, request.width),
            found: format!("{} x {} pixels", recipe.image.rows, recipe.image.columns),
        });
    }
    let geometry = Geometry::new(sized, recipe.clone())?;
    let in_memory = Planned::of(geometry, Storage::Memory, memory, request.memory, time);
    let fits = |budget: ByteCount| in_memory.peak.peak() <= u128::from(budget.get());
    let Some(folder) = &request.offload else {
        return Ok(in_memory);
    };
    if request.memory.is_some_and(fits) {
        return Ok(in_memory);
    }
    let limit = u128::from(offload::room(folder)?.get());
    let planned = Planned::of(
        in_memory.geometry,
        Storage::File,
        memory,
        request.memory,
        time,
    );
    let needed = file_bytes(&planned.geometry, &planned.buffers, memory);
    if needed > limit {
        return Err(TilingError::FileTooSmall { limit, needed }.into());
    }
    Ok(planned)
}

/// The block's edge in output positions, from its edge in image pixels.
fn block_edge(request: &PlanRequest, sized: &SizedGraph) -> Option<PerAxis<u64>> {
    let (rows, columns) = request.block?;
    let output = sized.size(sized.graph().outputs()[0].0);
    let positions = |axis: Axis, edge: u64| {
        let output = u128::from(output[axis].unsigned_abs());
        let image = u128::from(sized.image()[axis]);
        let positions = (u128::from(edge) * output).div_ceil(image);
        u64::try_from(positions).unwrap_or(u64::MAX)
    };
    Some(PerAxis::new(
        positions(Axis::Rows, rows),
        positions(Axis::Columns, columns),
    ))
}

fn stored_nodes(net: &Network, names: &[String]) -> Result<Vec<NodeId>> {
    let mut stored = names
        .iter()
        .map(|name| {
            net.operation_names()
                .position(|operation| operation == name)
                .map(NodeId)
                .ok_or_else(|| StreamError::Setting {
                    layer: "plan".into(),
                    setting: "stored operation",
                    found: name.clone(),
                    expected: "one of Net::operation_names",
                })
        })
        .collect::<Result<Vec<_>>>()?;
    stored.sort_unstable();
    stored.dedup();
    Ok(stored)
}

/// The operations that are tapped, in the order of the request.
pub(crate) fn tapped_nodes(net: &Network, request: &PlanRequest) -> Result<Vec<usize>> {
    let node = |layer: &String| net.operation_of(layer).ok_or_else(|| unknown_layer(layer));
    request.taps.iter().map(node).collect()
}

/// Bytes that every recipe of the network has in common.
fn memory_request<B: Backend>(
    backend: &B,
    net: &Network,
    request: &PlanRequest,
    graph: &Graph,
) -> Result<MemoryRequest> {
    let element = B::Stored::DTYPE.size_in_bytes();
    let trainable = net.trainable(&request.trainable);
    let stored = |values: usize| u128::from(element) * values as u128;
    let computed = |values: usize| (size_of::<B::Compute>() * values) as u128;
    let parameters = &*net.parameters;
    let sums = net
        .nodes
        .iter()
        .flat_map(|node| node.sums(parameters, &trainable));
    let copies = AllCopies::of(backend, net, &trainable, graph)?;
    let plain = |ids: Vec<ParameterId>| {
        let values = ids.iter().map(|id| computed(parameters[id.0].len()));
        values.sum::<u128>()
    };
    let mut fixed = FixedBytes {
        forward_weights: plain(copies.plain_at_first()),
        backward_weights: plain(copies.plain_to_the_end()),
        weight_accumulators: 8 * sums.sum::<usize>() as u128,
        gradients: 0,
        preparation: 0,
        finishing: 0,
        scratch: SCRATCH_PER_NODE * net.nodes.len() as u128
            + SCRATCH
            + stored(scratch_length(backend, &net.nodes)),
        file: OFFLOAD_BYTES,
    };
    for (parameter, &trains) in parameters.iter().zip(&trainable) {
        // Reading or folding a parameter makes a copy of it.
        fixed.preparation = fixed.preparation.max(computed(parameter.len()));
        if trains {
            add_gradient(&mut fixed, parameter);
        }
    }
    let mut packed_weights = vec![PackedWeights::default(); net.nodes.len()];
    for (copies, packed) in copies.iter().zip(&mut packed_weights) {
        let prepared = copies.prepared as u128;
        if copies.packed {
            packed.forward = prepared;
        } else {
            fixed.forward_weights += prepared;
            fixed.backward_weights += prepared;
        }
        packed.vjp = copies.transposed as u128;
        if copies.unpacked {
            packed.gradients = packed.vjp;
        }
    }
    let mut memory = MemoryRequest::new(element, request.batch as u64, fixed);
    memory.map_bytes = size_of::<B::Compute>() as u64;
    memory.packed_weights = packed_weights;
    memory.features = request.features;
    memory.input_gradient = match request.input_gradient {
        // It may be computed for a tap.
        InputGradient::Skipped => Maps::Streamed,
        computed => computed.maps(),
    };
    memory.shown = tapped_nodes(net, request)?
        .into_iter()
        .map(NodeId)
        .collect();
    memory.layers = CustomScratch::of(&net.nodes, parameters, size_of::<B::Compute>());
    Ok(memory)
}

/// The room that the gradient of a parameter needs, and making it.
fn add_gradient(fixed: &mut FixedBytes, parameter: &ParameterShape) {
    let gradient = (parameter.len() * parameter.gradient_bytes) as u128;
    // A convolution's sums are put in order, then rounded.
    fixed.finishing = fixed.finishing.max(8 * parameter.len() as u128 + gradient);
    // Sums are f64, so no gradient is larger; but a folded norm has two where the sums have one.
    if parameter.shape.len() <= 1 {
        fixed.gradients += gradient;
    }
}

/// Bookkeeping of the sweeps and of rayon that does not depend on the recipe.
const SCRATCH: u128 = 512 << 10;
/// Small vectors that each node owns: names, offsets, gradients' headers.
const SCRATCH_PER_NODE: u128 = 4 << 10;
