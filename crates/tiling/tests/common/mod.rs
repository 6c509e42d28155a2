//! Graphs that several tests share.

#![allow(dead_code, reason = "each test uses its own part")]

pub(crate) mod random;

use stream_grad_tiling::{
    AxisRule, Edge, FixedBytes, Graph, MemoryRequest, Node, NodeId, PerAxis, SizedGraph, VjpReads,
    Window,
};

/// A request for one f32 image and no weights.
pub(crate) fn one_image() -> MemoryRequest {
    MemoryRequest::new(4, 1, FixedBytes::default())
}

/// Appends a node whose FLOPs follow from the rule of its first input.
pub(crate) fn push(graph: &mut Graph, channels: u64, inputs: Vec<Edge>, reads: VjpReads) -> NodeId {
    let taps: u64 = inputs
        .iter()
        .map(|edge| match &edge.rule.rows {
            AxisRule::Window(window) => window.extent().unsigned_abs().pow(2) * channels,
            _ => 1,
        })
        .sum();
    graph
        .push(Node {
            name: format!("node{}", graph.nodes().len()),
            channels,
            inputs,
            forward_flops: 2 * taps * channels,
            vjp_flops: 4 * taps * channels,
            vjp_reads: reads,
            has_cotangent: true,
        })
        .unwrap()
}

fn convolution(source: NodeId, kernel: u64, stride: u64) -> Edge {
    let window = Window::new(kernel, stride, 1, kernel / 2, kernel / 2).unwrap();
    Edge {
        source,
        rule: PerAxis::both(AxisRule::Window(window)),
    }
}

const READS: VjpReads = VjpReads {
    output: true,
    inputs: true,
};

fn stem(graph: &mut Graph) -> NodeId {
    let x = push(graph, 64, vec![convolution(NodeId::IMAGE, 7, 2)], READS);
    push(graph, 64, vec![convolution(x, 3, 2)], READS)
}

/// ResNet-18 up to its last stage, each convolution fused with what follows it.
pub(crate) fn resnet18() -> Graph {
    let mut graph = Graph::new(3, false);
    let mut x = stem(&mut graph);
    let mut channels = 64;
    for (stage, width) in [64, 128, 256, 512].into_iter().enumerate() {
        for block in 0..2 {
            let stride = if stage > 0 && block == 0 { 2 } else { 1 };
            let y = push(&mut graph, width, vec![convolution(x, 3, stride)], READS);
            let shortcut = if stride == 2 || channels != width {
                push(&mut graph, width, vec![convolution(x, 1, stride)], READS)
            } else {
                x
            };
            let inputs = vec![convolution(y, 3, 1), Edge::pointwise(shortcut)];
            x = push(&mut graph, width, inputs, READS);
            channels = width;
        }
    }
    graph.set_outputs(vec![x]).unwrap();
    graph
}

/// ResNet-50 up to its last stage, each convolution fused with what follows it.
pub(crate) fn resnet50() -> Graph {
    let mut graph = Graph::new(3, false);
    let mut x = stem(&mut graph);
    for (stage, (width, blocks)) in [(64, 3), (128, 4), (256, 6), (512, 3)]
        .into_iter()
        .enumerate()
    {
        for block in 0..blocks {
            let stride = if stage > 0 && block == 0 { 2 } else { 1 };
            let y = push(&mut graph, width, vec![convolution(x, 1, 1)], READS);
            let y = push(&mut graph, width, vec![convolution(y, 3, stride)], READS);
            let shortcut = if block == 0 {
                push(
                    &mut graph,
                    4 * width,
                    vec![convolution(x, 1, stride)],
                    READS,
                )
            } else {
                x
            };
            let inputs = vec![convolution(y, 1, 1), Edge::pointwise(shortcut)];
            x = push(&mut graph, 4 * width, inputs, READS);
        }
    }
    graph.set_outputs(vec![x]).unwrap();
    graph
}

/// A graph on a square image.
pub(crate) fn square(graph: Graph, edge: u64) -> SizedGraph {
    SizedGraph::new(graph, PerAxis::both(edge)).unwrap()
}
