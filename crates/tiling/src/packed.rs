//! Weights that are packed for the kernels that read them: when, and what that takes.

use crate::buffers::Buffers;
use crate::geometry::Geometry;
use crate::memory::{MemoryRequest, PhaseBytes};
use crate::recipe::Weights;

/// Bytes of the copies of one node's weights that are packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PackedWeights {
    /// For its forward computation. Where weights are held, the backward sweep holds these of the nodes that it computes again.
    pub forward: u128,
    /// For its VJP. Where weights are held, they live until all gradients are handed out.
    pub vjp: u128,
    /// Those of the VJP again, if making gradients reads them: where weights are packed on use, they are packed for that once more.
    pub gradients: u128,
}

/// Copied and packed weights in each phase.
pub(crate) fn weight_bytes(
    geometry: &Geometry,
    buffers: &Buffers,
    request: &MemoryRequest,
) -> PhaseBytes {
    let fixed = request.fixed;
    let count = geometry.sized().graph().nodes().len();
    let nodes = || request.packed_weights.iter().take(count).enumerate();
    let sum = |bytes: &dyn Fn(usize, &PackedWeights) -> u128| {
        nodes().fold(0_u128, |sum, (node, packed)| {
            sum.saturating_add(bytes(node, packed))
        })
    };
    let most = |bytes: &dyn Fn(usize, &PackedWeights) -> u128| {
        let bytes = nodes().map(|(node, packed)| bytes(node, packed));
        bytes.max().unwrap_or(0)
    };
    let forward_again = |node: usize, packed: &PackedWeights| {
        if buffers.computes_again(geometry, node) {
            packed.forward
        } else {
            0
        }
    };
    match geometry.recipe().weights {
        Weights::Held => {
            let to_the_end = fixed
                .backward_weights
                .saturating_add(sum(&|_, packed| packed.vjp));
            PhaseBytes {
                forward: fixed
                    .forward_weights
                    .saturating_add(sum(&|_, packed| packed.forward)),
                backward: to_the_end.saturating_add(sum(&forward_again)),
                finish: to_the_end,
            }
        }
        Weights::PackedOnUse => {
            let plain = |packed: u128| fixed.forward_weights.saturating_add(packed);
            PhaseBytes {
                forward: plain(most(&|_, packed| packed.forward)),
                backward: plain(most(&|node, packed| {
                    forward_again(node, packed).max(packed.vjp)
                })),
                finish: plain(most(&|_, packed| packed.gradients)),
            }
        }
    }
}
