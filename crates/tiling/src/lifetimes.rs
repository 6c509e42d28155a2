//! What the backward sweep needs of each node, and from which step to which its buffers live.

use crate::arena::Lifetime;
use crate::buffers::{Residual, Sweep};
use crate::geometry::Geometry;

/// Whether the backward sweep runs the node's VJP.
pub(crate) fn has_vjp(geometry: &Geometry, node: usize) -> bool {
    node > 0 && geometry.sized().graph().nodes()[node].has_cotangent
}

pub(crate) fn residuals(geometry: &Geometry) -> Vec<Residual> {
    let graph = geometry.sized().graph();
    let nodes = graph.nodes();
    let mut residuals = vec![Residual::Unused; nodes.len()];
    for node in (0..nodes.len()).rev() {
        let read_by_vjp = nodes[node].has_cotangent && nodes[node].vjp_reads.output
            || graph.outputs().iter().any(|output| output.0 == node)
            || graph.consumers(node).iter().any(|&(consumer, _)| {
                has_vjp(geometry, consumer.0) && nodes[consumer.0].vjp_reads.inputs
            });
        let read_by_recompute = graph
            .consumers(node)
            .iter()
            .any(|&(consumer, _)| residuals[consumer.0] == Residual::Recomputed);
        residuals[node] = if geometry.is_stored(node) {
            Residual::Stored
        } else if read_by_vjp || read_by_recompute {
            Residual::Recomputed
        } else {
            Residual::Unused
        };
    }
    residuals
}

pub(crate) fn first_touches(geometry: &Geometry) -> Vec<usize> {
    let graph = geometry.sized().graph();
    (0..graph.nodes().len())
        .map(|node| {
            graph
                .consumers(node)
                .iter()
                .map(|consumer| consumer.0.0)
                .filter(|&consumer| has_vjp(geometry, consumer))
                .max()
                .unwrap_or(node)
        })
        .collect()
}

pub(crate) fn forward_lifetimes(geometry: &Geometry, held: &[u64], sweep: Sweep) -> Vec<Lifetime> {
    let graph = geometry.sized().graph();
    (0..held.len())
        .map(|node| {
            let stored = sweep == Sweep::Saving && geometry.is_stored(node);
            let last_consumer = graph
                .consumers(node)
                .iter()
                .map(|consumer| consumer.0.0)
                .max();
            Lifetime {
                size: if stored { 0 } else { held[node] },
                first: node,
                last: last_consumer.unwrap_or(node),
            }
        })
        .collect()
}

/// Lifetimes of the activations, then of the cotangents, over recomputing (one step a node) and the VJPs
/// (one step a node, in reverse).
pub(crate) fn backward_lifetimes(
    geometry: &Geometry,
    held: &[u64],
    residuals: &[Residual],
    first_touch: &[usize],
) -> Vec<Lifetime> {
    let graph = geometry.sized().graph();
    let nodes = graph.nodes();
    let vjp_step = |node: usize| 2 * held.len() - 1 - node;
    let activations = (0..held.len()).map(|node| {
        let consumers = graph.consumers(node).iter().map(|consumer| consumer.0.0);
        let last_use = consumers
            .flat_map(|consumer| {
                let recomputed = residuals[consumer] == Residual::Recomputed;
                let read = has_vjp(geometry, consumer) && nodes[consumer].vjp_reads.inputs;
                [
                    recomputed.then_some(consumer),
                    read.then(|| vjp_step(consumer)),
                ]
            })
            .flatten()
            .max()
            .unwrap_or(node);
        let own =
            nodes[node].vjp_reads.output || graph.outputs().iter().any(|output| output.0 == node);
        Lifetime {
            size: if residuals[node] == Residual::Recomputed {
                held[node]
            } else {
                0
            },
            first: node,
            last: if own {
                vjp_step(node).max(last_use)
            } else {
                last_use
            },
        }
    });
    let cotangents = (0..held.len()).map(|node| Lifetime {
        size: if nodes[node].has_cotangent {
            held[node]
        } else {
            0
        },
        first: vjp_step(first_touch[node]),
        last: vjp_step(node),
    });
    activations.chain(cotangents).collect()
}
