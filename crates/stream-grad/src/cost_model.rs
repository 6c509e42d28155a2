//! How long operations take on one machine, and what that predicts for a network.

use std::collections::BTreeMap;
use std::path::Path;

use stream_grad_kernels::{Activation, Convolution};
use stream_grad_tiling::{Fraction, Graph, Node, NodeTime, TileTime, TimeModel};

use crate::net::Net;
use crate::operation::{Kind, Operation, Pooling, trainable_flags};
use crate::request::PlanRequest;

/// How long the operations of networks take on this machine, with a number of threads: what the planner predicts the time of a
/// recipe from.
///
/// The default is a fixed table, the same everywhere: 50 billion FLOPs a second, 4 microseconds for a visit of an operation, 5
/// gigabytes a second for copies of halos and for fresh memory, 1 for a file. [`CostModel::calibrate`] measures instead. An
/// operation that was not measured goes by the one of its kind that is nearest in FLOPs, in proportion to them; where there is
/// none, by the table.
///
/// With the feature `serde` a model can be stored. It is worth something only on the machine, with the number of threads
/// and the version of this crate that it was measured with.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields))]
pub struct CostModel {
    /// By what decides the time of an operation, its kind first.
    pub(crate) operations: BTreeMap<String, OperationCost>,
    pub(crate) machine: Option<MachineCost>,
    /// Picoseconds for a byte through a file, by folder.
    pub(crate) folders: BTreeMap<String, u64>,
}

/// What does not depend on operations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(crate) struct MachineCost {
    /// Picoseconds for a byte of a halo that is copied.
    pub(crate) copied_byte: u64,
    /// Picoseconds for a byte of memory that is asked of the system and given back.
    pub(crate) fresh_byte: u64,
    /// Picoseconds for a parameter that is packed and whose gradient is unpacked.
    pub(crate) parameter: u64,
}

/// An operation that was measured.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(crate) struct OperationCost {
    pub(crate) time: NodeTime,
    /// What others of the kind are in proportion to, per output position.
    pub(crate) forward_work: u64,
    pub(crate) vjp_work: u64,
    /// How many thousandths the medians of the measured times are of the least ones; 0 if there were too few.
    pub(crate) spread_per_mille: u64,
}

impl CostModel {
    /// The fixed table.
    pub const FIXED: Self = Self {
        operations: BTreeMap::new(),
        machine: None,
        folders: BTreeMap::new(),
    };

    /// Whether nothing was measured.
    pub fn is_fixed(&self) -> bool {
        self.operations.is_empty()
    }

    /// What was measured: each operation in words, and its time.
    pub fn operations(&self) -> impl Iterator<Item = (&str, &NodeTime)> {
        let operations = self.operations.iter();
        operations.map(|(operation, cost)| (operation.as_str(), &cost.time))
    }

    /// How far measured times lay from the least ones, which count: how many thousandths the median is of the least, of the
    /// operation in the middle. A quiet machine gives up to some 1200; more says that something else was at work.
    ///
    /// `None` if nothing was measured three times.
    pub fn spread_per_mille(&self) -> Option<u64> {
        let mut spreads: Vec<u64> = self
            .operations
            .values()
            .map(|cost| cost.spread_per_mille)
            .filter(|&spread| spread > 0)
            .collect();
        spreads.sort_unstable();
        spreads.get(spreads.len() / 2).copied()
    }

    /// The same without what was measured of the operations of `net`, as `request` has it computed, and of the machine.
    #[must_use]
    pub fn without(mut self, net: &Net, request: &PlanRequest) -> Self {
        let net = net.computed_by(request.arithmetic);
        for key in keys(&net, request) {
            self.operations.remove(&key);
        }
        self.machine = None;
        self
    }

    /// Whether every operation of `net` was measured as `request` has it computed, and the folder for a file, if it names one.
    pub fn covers(&self, net: &Net, request: &PlanRequest) -> bool {
        let net = net.computed_by(request.arithmetic);
        let folder = request.spill.as_deref();
        self.machine.is_some()
            && folder.is_none_or(|folder| self.folders.contains_key(&folder_key(folder)))
            && keys(&net, request)
                .iter()
                .all(|key| self.operations.contains_key(key))
    }

    /// The times of the graph's nodes.
    pub(crate) fn time_model(&self, net: &Net, request: &PlanRequest, graph: &Graph) -> TimeModel {
        let mut model = TimeModel::of_flops(graph);
        let nodes = model.nodes.iter_mut().zip(graph.nodes());
        for ((time, node), key) in nodes.zip(keys(net, request)) {
            let measured = self.operations.get(&key).map(|cost| cost.time.clone());
            if let Some(measured) = measured.or_else(|| self.alike(&key, node)) {
                *time = measured;
            }
        }
        if let Some(machine) = self.machine {
            let parameters = net.parameters.iter();
            let values: usize = parameters.map(|one| one.tensor.elem_count()).sum();
            model.copied_byte = machine.copied_byte;
            model.fresh_byte = machine.fresh_byte;
            model.fixed = machine.parameter.saturating_mul(values as u64);
        }
        let folder = request.spill.as_deref().map(folder_key);
        if let Some(&byte) = folder.and_then(|folder| self.folders.get(&folder)) {
            model.file_byte = byte;
        }
        model
    }

    /// The time of a node, by what was measured of its kind.
    fn alike(&self, key: &str, node: &Node) -> Option<NodeTime> {
        let kind = kind(key);
        let (forward, vjp) = work(node);
        let ratio = |cost: &OperationCost| {
            let (more, less) = (
                cost.forward_work.max(forward),
                cost.forward_work.min(forward),
            );
            Fraction::new(more.into(), less.max(1).into())
        };
        let nearest = self
            .operations
            .iter()
            .filter(|(other, _)| self::kind(other) == kind)
            .map(|(_, cost)| cost)
            .min_by_key(|cost| ratio(cost))?;
        Some(NodeTime {
            forward: scaled(&nearest.time.forward, forward, nearest.forward_work),
            vjp: scaled(&nearest.time.vjp, vjp, nearest.vjp_work),
        })
    }
}

/// A time, in proportion to the work for each position.
fn scaled(time: &TileTime, work: u64, of: u64) -> TileTime {
    TileTime::through(time.points().iter().map(|&(positions, time)| {
        let scaled = u128::from(time) * u128::from(work) / u128::from(of.max(1));
        (positions, u64::try_from(scaled).unwrap_or(u64::MAX))
    }))
}

/// What the times of a node are in proportion to among those of its kind: FLOPs, or where there are few, values.
pub(crate) fn work(node: &Node) -> (u64, u64) {
    let least = node.channels.max(1);
    (node.forward_flops.max(least), node.vjp_flops.max(least))
}

/// A folder's name in a [`CostModel`].
pub(crate) fn folder_key(folder: &Path) -> String {
    folder.display().to_string()
}

/// Of each operation, what decides its time, in words.
pub(crate) fn keys(net: &Net, request: &PlanRequest) -> Vec<String> {
    let trainable = trainable_flags(&net.parameters, &request.trainable);
    let taps = request.taps.iter();
    let taps: Vec<usize> = taps.filter_map(|layer| net.operation_of(layer)).collect();
    let mut has_cotangent = Vec::with_capacity(net.operations.len());
    let dtype = request.dtype.as_str();
    let keys = net.operations.iter().map(|operation| {
        let trains = operation.is_trainable(&trainable);
        let wanted = match operation.inputs.as_slice() {
            [] => request.input_gradient.is_computed(),
            inputs => inputs.iter().any(|&input| has_cotangent[input]),
        };
        let data = operation.inputs.first().map(|&input| has_cotangent[input]);
        has_cotangent.push(trains || wanted || taps.contains(&has_cotangent.len()));
        let gradients = match (trains, data == Some(true), wanted) {
            (true, true, _) => "both gradients",
            (true, false, _) => "weight gradient",
            (false, _, true) => "data gradient",
            (false, _, false) => "no gradient",
        };
        format!("{dtype} {}; {gradients}", description(operation))
    });
    keys.collect()
}

/// The part of a key that names the kind of operation.
fn kind(key: &str) -> &str {
    key.split_once(':').map_or(key, |(kind, _)| kind)
}

fn description(operation: &Operation) -> String {
    let channels = operation.channels;
    match &operation.kind {
        Kind::Image => format!("image: {channels}"),
        Kind::Convolution(convolution) => {
            let shape = &convolution.shape;
            let residual = if operation.inputs.len() > 1 {
                ", residual"
            } else {
                ""
            };
            let activation = activated(convolution.activation);
            format!(
                "{}: {} to {}, groups {}, {}{residual}{activation}",
                arithmetic(shape),
                shape.in_channels,
                shape.out_channels,
                shape.groups,
                window(&shape.window),
            )
        }
        Kind::Pool {
            window: shape,
            pooling,
            ..
        } => {
            let name = match pooling {
                Pooling::Maximum => "max pooling",
                Pooling::Average(_) => "average pooling",
            };
            format!("{name}: {channels}, {}", window(shape))
        }
        Kind::Affine(_, activation) => format!("affine: {channels}{}", activated(*activation)),
        Kind::LayerNorm { .. } => format!("layer norm: {channels}"),
        Kind::Relu => format!("relu: {channels}"),
        Kind::Gelu(form) => format!("gelu: {channels}, {form:?}"),
        Kind::Add(activation) => format!("add: {channels}{}", activated(*activation)),
        Kind::Concat => format!("concat: {channels} of {}", operation.inputs.len()),
        Kind::UpsampleNearest(factor) => format!("nearest upsampling: {channels}, by {factor}"),
        Kind::UpsampleBilinear(factor, _) => {
            format!("bilinear upsampling: {channels}, by {factor}")
        }
        Kind::Local { layer, .. } => format!(
            "local {}: {channels}, {} FLOPs",
            layer.name(),
            layer.flops_per_output()
        ),
    }
}

/// An activation that was fused into an operation, as part of its description.
fn activated(activation: Activation) -> &'static str {
    match activation {
        Activation::Identity => "",
        _ => ", activation",
    }
}

/// How a convolution is computed: what has rates of its own.
fn arithmetic(shape: &Convolution) -> &'static str {
    if shape.is_winograd() {
        "winograd convolution"
    } else if shape.groups > 1 {
        "grouped convolution"
    } else if shape.window.kernel == [1, 1] {
        "pointwise convolution"
    } else {
        "direct convolution"
    }
}

fn window(window: &stream_grad_kernels::Window) -> String {
    let pair = |[rows, columns]: [usize; 2]| format!("{rows}x{columns}");
    format!(
        "kernel {}, stride {}, dilation {}",
        pair(window.kernel),
        pair(window.stride),
        pair(window.dilation)
    )
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device};
    use candle_nn::{VarBuilder, VarMap};

    use super::*;
    use crate::layers::Conv2d;
    use crate::net::NetBuilder;

    fn net(channels: &[usize]) -> Net {
        let variables = VarMap::new();
        let vb = VarBuilder::from_varmap(&variables, DType::F32, &Device::Cpu);
        let mut net = NetBuilder::new(channels[0]);
        let mut x = net.input();
        for (index, pair) in channels.windows(2).enumerate() {
            let conv = Conv2d::new(pair[0], pair[1], 3).padding(1);
            x = net.conv2d(x, conv, vb.pp(index)).unwrap();
        }
        net.build(x).unwrap()
    }

    fn times(model: &CostModel, net: &Net, request: &PlanRequest) -> TimeModel {
        let graph = net
            .graph(&request.trainable, request.input_gradient, &[])
            .unwrap();
        model.time_model(net, request, &graph)
    }

    #[test]
    fn keys_tell_apart_what_takes_different_times() {
        let net = net(&[3, 32, 32, 32, 40]);
        let request = PlanRequest::new(64, 64);
        let keys = keys(&net, &request);
        assert_eq!(keys[2], keys[3]);
        assert!(keys[1].contains("direct") && keys[1].ends_with("weight gradient"));
        assert!(keys[2].contains("winograd") && keys[2].ends_with("both gradients"));
        assert_ne!(keys[3], keys[4]);
        assert!(keys.iter().all(|key| key.starts_with("f32 ")), "{keys:?}");
    }

    #[test]
    fn what_was_not_measured_goes_by_its_kind_and_else_by_the_table() {
        let (measured, other) = (net(&[3, 32, 32]), net(&[3, 32, 64]));
        let request = PlanRequest::new(64, 64);
        let fixed = times(&CostModel::FIXED, &other, &request);
        let graph = measured
            .graph(&request.trainable, request.input_gradient, &[])
            .unwrap();
        let mut model = CostModel::default();
        let key = keys(&measured, &request).swap_remove(2);
        let (forward_work, vjp_work) = work(&graph.nodes()[2]);
        let time = NodeTime {
            forward: TileTime::line(50, 1000),
            vjp: TileTime::through([(1, 70), (10, 3000), (100, 40_000)]),
        };
        model.operations.insert(
            key,
            OperationCost {
                time: time.clone(),
                forward_work,
                vjp_work,
                spread_per_mille: 1000,
            },
        );
        assert_eq!(times(&model, &measured, &request).nodes[2], time);
        // Twice the channels, twice the FLOPs.
        let found = times(&model, &other, &request).nodes;
        assert_eq!(found[2].forward, TileTime::line(100, 2000));
        let vjp = TileTime::through([(1, 140), (10, 6000), (100, 80_000)]);
        assert_eq!(found[2].vjp, vjp);
        assert_eq!(found[1], fixed.nodes[1]);
        assert!(!model.covers(&other, &request) && !model.covers(&measured, &request));
    }
}
