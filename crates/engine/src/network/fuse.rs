//! Fusing nodes into those before them, so that no activation between them is held.

use super::Node;
use crate::operator::Absorbed;

/// Merges nodes into the ones before them wherever nothing else reads what lies between, and the [operator](crate::operator) that
/// comes first computes both: `convolution, [frozen norm or scale], [add], [ReLU]`, for instance. Returns the nodes and where each
/// layer went.
pub(super) fn fuse(layers: Vec<Node>, outputs: &[usize]) -> (Vec<Node>, Vec<usize>) {
    let mut readers = vec![0_usize; layers.len()];
    for &input in layers.iter().flat_map(|layer| &layer.inputs).chain(outputs) {
        readers[input] += 1;
    }
    let mut fused: Vec<Node> = Vec::with_capacity(layers.len());
    let mut place: Vec<usize> = Vec::with_capacity(layers.len());
    for layer in layers {
        let inputs: Vec<usize> = layer.inputs.iter().map(|&input| place[input]).collect();
        // What absorbs the layer is computed when all its inputs are there.
        let latest = inputs.iter().copied().max();
        let target = layer
            .inputs
            .iter()
            .zip(&inputs)
            .filter(|(old, new)| readers[**old] == 1 && latest == Some(**new))
            .map(|(_, &new)| new)
            .find(|&new| absorbs(&mut fused[new], &layer, &inputs, new));
        place.push(target.unwrap_or_else(|| {
            let crop = layer.crop.map(|like| place[like]);
            fused.push(Node {
                inputs,
                crop,
                ..layer
            });
            fused.len() - 1
        }));
    }
    (fused, place)
}

fn absorbs(node: &mut Node, next: &Node, inputs: &[usize], place: usize) -> bool {
    match node
        .operator
        .absorb(&next.operator.fusible(), node.inputs.len())
    {
        Absorbed::No => false,
        Absorbed::Whole => true,
        Absorbed::WithInput => {
            node.inputs
                .extend(inputs.iter().copied().filter(|&input| input != place));
            true
        }
    }
}
