//! Fusing layers into the convolution before them, so that no activation between them is held.

use stream_grad_kernels::Activation;

use crate::operation::{ChannelMap, ConvolutionOperation, Kind, Operation};

/// Merges `convolution, [frozen norm or scale], [add], [ReLU]` into one operation wherever nothing else reads
/// what lies between, and a ReLU likewise into an add, a layer norm or a frozen norm or scale that stands alone. Returns the operations and where each layer went.
pub(crate) fn fuse(layers: Vec<Operation>, outputs: &[usize]) -> (Vec<Operation>, Vec<usize>) {
    let mut readers = vec![0_usize; layers.len()];
    for &input in layers.iter().flat_map(|layer| &layer.inputs).chain(outputs) {
        readers[input] += 1;
    }
    let mut fused: Vec<Operation> = Vec::with_capacity(layers.len());
    let mut place: Vec<usize> = Vec::with_capacity(layers.len());
    for layer in layers {
        let inputs: Vec<usize> = layer.inputs.iter().map(|&input| place[input]).collect();
        let mut free = layer
            .inputs
            .iter()
            .zip(&inputs)
            .filter(|(old, _)| readers[**old] == 1)
            .map(|(_, &new)| new);
        let target = match &layer.kind {
            Kind::Affine(map, _) => free.find(|&new| fold(&mut fused[new], *map)),
            Kind::Relu => free.find(|&new| activate(&mut fused[new].kind)),
            Kind::Add(_) if inputs[0] != inputs[1] => {
                let later = inputs[0].max(inputs[1]);
                let earlier = inputs[0].min(inputs[1]);
                free.find(|&new| new == later && takes_residual(&fused[new]))
                    .inspect(|&new| {
                        fused[new].inputs.push(earlier);
                    })
            }
            _ => None,
        };
        place.push(target.unwrap_or_else(|| {
            fused.push(Operation { inputs, ..layer });
            fused.len() - 1
        }));
    }
    (fused, place)
}

fn plain(convolution: &ConvolutionOperation) -> bool {
    convolution.activation == Activation::Identity
}

fn fold(operation: &mut Operation, map: ChannelMap) -> bool {
    // What was added to the convolution is mapped, too: weights alone cannot do that.
    let alone = operation.inputs.len() == 1;
    match &mut operation.kind {
        Kind::Convolution(convolution)
            if alone && plain(convolution) && convolution.folded.is_none() =>
        {
            convolution.folded = Some(map);
            true
        }
        _ => false,
    }
}

fn activate(kind: &mut Kind) -> bool {
    let activation = match kind {
        Kind::Convolution(ConvolutionOperation { activation, .. })
        | Kind::Affine(_, activation)
        | Kind::LayerNorm { activation, .. }
        | Kind::Add(activation) => activation,
        _ => return false,
    };
    // Another ReLU changes nothing.
    *activation = Activation::Relu;
    true
}

fn takes_residual(operation: &Operation) -> bool {
    matches!(&operation.kind, Kind::Convolution(convolution) if plain(convolution))
        && operation.inputs.len() == 1
}
