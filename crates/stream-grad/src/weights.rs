//! Which copies of a convolution's weights the backward sweep holds.

use stream_grad_tiling::Graph;

use crate::operation::{ConvolutionOperation, Kind, Operation};

/// Weights of one output channel from which on a pass over the cotangent is cheaper than a second copy of the weights: such
/// convolutions do thousands of operations for each value that the pass touches, and lie where planes are small.
const MANY_WEIGHTS: usize = 2048;

/// How weights are packed for the data gradient.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Packing {
    /// Times the factors of the map that is folded into the convolution, if one is.
    Folded,
    /// As they are: the cotangent is multiplied by the factors.
    Unfolded,
}

/// What the backward sweep holds of a convolution's weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BackwardWeights {
    /// How they are packed for the data gradient, if that is computed.
    pub(crate) packing: Option<Packing>,
    /// Whether a copy is held that is not packed. The gradient of a folded map needs the weights without its factors, which
    /// may be 0.
    pub(crate) plain: bool,
}

impl BackwardWeights {
    fn of(
        convolution: &ConvolutionOperation,
        trainable: &[bool],
        input_has_cotangent: bool,
    ) -> Self {
        let needed = convolution.folded.is_some_and(|map| {
            let mut parameters = map.parameters().into_iter();
            parameters.any(|id| trainable[id.0])
        });
        let shape = &convolution.shape;
        let many = shape.in_channels / shape.groups * shape.window.taps() >= MANY_WEIGHTS;
        let unfolded = needed && many && input_has_cotangent;
        Self {
            packing: input_has_cotangent.then_some(if unfolded {
                Packing::Unfolded
            } else {
                Packing::Folded
            }),
            plain: needed && !unfolded,
        }
    }
}

/// What the backward sweep holds of the weights of each operation that is a convolution.
pub(crate) fn backward_weights(
    operations: &[Operation],
    trainable: &[bool],
    graph: &Graph,
) -> Vec<Option<BackwardWeights>> {
    let needs = |operation: &Operation| match &operation.kind {
        Kind::Convolution(convolution) => {
            let input_has_cotangent = graph.nodes()[operation.inputs[0]].has_cotangent;
            Some(BackwardWeights::of(
                convolution,
                trainable,
                input_has_cotangent,
            ))
        }
        _ => None,
    };
    operations.iter().map(needs).collect()
}
