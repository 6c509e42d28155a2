//! From a request to a recipe, its buffers and its peak.

use std::collections::BTreeSet;

use candle_core::DType;
use stream_grad_kernels::{Convolution, DataGradientWeights, ForwardWeights, KernelError};
use stream_grad_tiling::{
    self as tiling, Axis, ByteCount, FixedBytes, FrontPoint, Geometry, Graph, Keep, Maps,
    MemoryRequest, NodeId, PerAxis, Planned, PlannerRequest, Recipe, SizedGraph, Storage,
    TilingError, TimeModel, file_bytes,
};

use crate::engine::scratch_length;
use crate::error::{Result, StreamError};
use crate::gradients::ParameterGradients;
use crate::local::LocalScratch;
use crate::net::Net;
use crate::operation::{Kind, trainable_flags};
use crate::parameter::ParameterId;
use crate::part::unknown;
use crate::prepared::{copied, kernel_error};
use crate::request::{InputGradient, PlanRequest};
use crate::scalar::Scalar;
use crate::spill::{self, SPILL_BYTES};
use crate::weights::{BackwardWeights, backward_weights};

pub(crate) fn plan(net: &Net, request: &PlanRequest) -> Result<Planned> {
    let graph = net.graph(
        &request.trainable,
        request.input_gradient,
        &tapped_nodes(net, request)?,
    )?;
    let time = request.cost_model.time_model(net, request, &graph);
    let sized = SizedGraph::new(graph, PerAxis::new(request.height, request.width))?;
    let memory = memory_request(net, request, sized.graph())?;
    if let Some(recipe) = &request.recipe {
        return stored(sized, recipe, &memory, &time, request);
    }
    let wanted = planner_request(net, request, &sized, memory)?;
    Ok(tiling::plan(&sized, &wanted, &time)?)
}

/// The most bytes that wait in a file for the backward sweep.
pub(crate) fn bytes_in_file(planned: &Planned, net: &Net, request: &PlanRequest) -> Result<u128> {
    let memory = memory_request(net, request, planned.geometry.sized().graph())?;
    Ok(file_bytes(&planned.geometry, &planned.buffers, &memory))
}

/// The recipes that no other beats in memory, time and arithmetic.
pub(crate) fn front(net: &Net, request: &PlanRequest) -> Result<Vec<FrontPoint>> {
    let net = &net.computed_by(request.arithmetic);
    let graph = net.graph(
        &request.trainable,
        request.input_gradient,
        &tapped_nodes(net, request)?,
    )?;
    let time = request.cost_model.time_model(net, request, &graph);
    let sized = SizedGraph::new(graph, PerAxis::new(request.height, request.width))?;
    let memory = memory_request(net, request, sized.graph())?;
    let wanted = planner_request(net, request, &sized, memory)?;
    Ok(tiling::pareto(&sized, &wanted, &time)?)
}

fn planner_request(
    net: &Net,
    request: &PlanRequest,
    sized: &SizedGraph,
    memory: MemoryRequest,
) -> Result<PlannerRequest> {
    let mut wanted = PlannerRequest::new(memory);
    wanted.file = request.spill.as_deref().map(spill::room).transpose()?;
    wanted.budget = request.memory;
    wanted.tile = request
        .tile
        .map(|(rows, columns)| PerAxis::new(rows, columns));
    wanted.block = block_edge(request, sized);
    wanted.segments = request.segments;
    if let Some(names) = &request.kept {
        wanted.keep = Keep::Exactly(kept_nodes(net, names)?);
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
    let Some(folder) = &request.spill else {
        return Ok(in_memory);
    };
    if request.memory.is_some_and(fits) {
        return Ok(in_memory);
    }
    let limit = u128::from(spill::room(folder)?.get());
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

fn kept_nodes(net: &Net, names: &[String]) -> Result<Vec<NodeId>> {
    let mut kept = names
        .iter()
        .map(|name| {
            net.operation_names()
                .position(|operation| operation == name)
                .map(NodeId)
                .ok_or_else(|| StreamError::Setting {
                    layer: "plan".into(),
                    setting: "kept operation",
                    found: name.clone(),
                    expected: "one of Net::operation_names",
                })
        })
        .collect::<Result<Vec<_>>>()?;
    kept.sort_unstable();
    kept.dedup();
    Ok(kept)
}

/// The operations that are tapped, in the order of the request.
pub(crate) fn tapped_nodes(net: &Net, request: &PlanRequest) -> Result<Vec<usize>> {
    let node = |layer: &String| net.operation_of(layer).ok_or_else(|| unknown(layer));
    request.taps.iter().map(node).collect()
}

/// Bytes that every recipe of the network has in common.
fn memory_request(net: &Net, request: &PlanRequest, graph: &Graph) -> Result<MemoryRequest> {
    let element: u64 = if request.dtype == DType::F64 { 8 } else { 4 };
    let trainable = trainable_flags(&net.parameters, &request.trainable);
    let bytes = |elements: usize| u128::from(element) * elements as u128;
    let scratch = match request.dtype {
        DType::F64 => scratch_length::<f64>(&net.operations),
        _ => scratch_length::<f32>(&net.operations),
    };
    let mut fixed = FixedBytes {
        forward_weights: 0,
        backward_weights: 0,
        weight_accumulators: 8 * ParameterGradients::length(
            &net.operations,
            &net.parameters,
            &trainable,
        ) as u128,
        gradients: 0,
        preparation: 0,
        finishing: 0,
        scratch: SCRATCH_PER_OPERATION * net.operations.len() as u128 + SCRATCH + bytes(scratch),
        file: SPILL_BYTES,
    };
    for (parameter, &trains) in net.parameters.iter().zip(&trainable) {
        let count = parameter.tensor.elem_count();
        // Converting or folding a parameter makes a copy of it.
        fixed.preparation = fixed.preparation.max(bytes(count));
        if trains {
            let gradient = (count * parameter.tensor.dtype().size_in_bytes()) as u128;
            // A convolution's sums are put in order, then rounded.
            fixed.finishing = fixed.finishing.max(8 * count as u128 + gradient);
            // Sums are f64, so no gradient is larger; but a folded norm has two where the sums have one.
            if parameter.tensor.rank() <= 1 {
                fixed.gradients += gradient;
            }
        }
    }
    let needs = backward_weights(&net.operations, &trainable, graph);
    let mut packed_weights = vec![0; net.operations.len()];
    let mut held_until_the_end: BTreeSet<ParameterId> = copied(&net.operations).collect();
    fixed.forward_weights += held_until_the_end
        .iter()
        .map(|id| bytes(net.parameters[id.0].tensor.elem_count()))
        .sum::<u128>();
    for operation in &*net.operations {
        if let Kind::Convolution(convolution) = &operation.kind {
            held_until_the_end.remove(&convolution.weight);
        }
    }
    for (node, operation) in net.operations.iter().enumerate() {
        let copies = match &operation.kind {
            Kind::Convolution(convolution) => {
                let shape = &convolution.shape;
                let lengths = match request.dtype {
                    DType::F64 => packed_lengths::<f64>(shape),
                    _ => packed_lengths::<f32>(shape),
                };
                let (forward, backward) = lengths.map_err(kernel_error(&operation.name))?;
                packed_weights[node] = bytes(forward + operation.channels);
                if let Some(BackwardWeights { packing, plain }) = needs[node] {
                    if packing.is_some() {
                        // With factors for the cotangent's channels.
                        fixed.backward_weights += bytes(backward + operation.channels);
                    }
                    if plain {
                        held_until_the_end.insert(convolution.weight);
                    }
                }
                0
            }
            Kind::Affine(..) | Kind::LayerNorm { .. } => 2 * operation.channels,
            Kind::Local { parameters, .. } => parameters
                .iter()
                .map(|id| net.parameters[id.0].tensor.elem_count())
                .sum(),
            _ => 0,
        };
        fixed.forward_weights += bytes(copies);
        fixed.backward_weights += bytes(copies);
    }
    fixed.backward_weights += held_until_the_end
        .iter()
        .map(|id| bytes(net.parameters[id.0].tensor.elem_count()))
        .sum::<u128>();
    let mut memory = MemoryRequest::new(element, request.batch as u64, fixed);
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
    memory.layers = LocalScratch::of(&net.operations, element);
    Ok(memory)
}

/// Elements of a convolution's packed weights, forward and backward.
fn packed_lengths<T: Scalar>(shape: &Convolution) -> Result<(usize, usize), KernelError> {
    Ok((
        ForwardWeights::<T>::packed_len(shape)?,
        DataGradientWeights::<T>::packed_len(shape)?,
    ))
}

/// Bookkeeping of the sweeps and of rayon that does not depend on the recipe.
const SCRATCH: u128 = 512 << 10;
/// Small vectors that each operation owns: names, offsets, gradients' headers.
const SCRATCH_PER_OPERATION: u128 = 4 << 10;
