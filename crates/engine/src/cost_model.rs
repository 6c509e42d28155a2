//! How long operations take on one machine, and what that predicts for a network.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use stream_grad_tiling::{Fraction, Graph, Node, NodeTime, TileTime, TimeModel};

use crate::element::DType;
use crate::network::{Model, Network};
use crate::operator::OperatorKey;
use crate::parameter::ParameterShape;
use crate::request::PlanRequest;

/// How long the operations of networks take on this machine, with a number of threads: what the planner predicts the time of a
/// recipe from.
///
/// The default is a fixed table, the same everywhere: 50 billion FLOPs a second, 4 microseconds for a visit of an operation, 5
/// gigabytes a second for copies of halos and for fresh memory, 1 for packing weights and for a file. [`CostModel::calibrate`]
/// measures instead. An operation that was not measured goes by the one of its kind that is nearest in FLOPs, in proportion to
/// them; where there is none, by the table.
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
    /// Picoseconds for a byte of weights that is packed on use. Models that were stored before it was measured have the table's.
    #[cfg_attr(feature = "serde", serde(default = "packed_byte_of_the_table"))]
    pub(crate) packed_byte: u64,
    /// Picoseconds for a parameter that is packed and whose gradient is unpacked.
    pub(crate) parameter: u64,
}

#[cfg(feature = "serde")]
const fn packed_byte_of_the_table() -> u64 {
    TimeModel::PACKED_BYTE
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
    pub fn without(mut self, net: &impl Model, request: &PlanRequest) -> Self {
        let net = net.network().computed_by(request.arithmetic);
        for key in keys(&net, request) {
            self.operations.remove(&key.to_string());
        }
        self.machine = None;
        self
    }

    /// Whether every operation of `net` was measured as `request` has it computed, and the folder for a file, if it names one.
    pub fn covers(&self, net: &impl Model, request: &PlanRequest) -> bool {
        let net = net.network().computed_by(request.arithmetic);
        let folder = request.offload.as_deref();
        self.machine.is_some()
            && folder.is_none_or(|folder| self.folders.contains_key(&folder_key(folder)))
            && keys(&net, request)
                .iter()
                .all(|key| self.operations.contains_key(&key.to_string()))
    }

    /// The times of the graph's nodes.
    pub(crate) fn time_model(
        &self,
        net: &Network,
        request: &PlanRequest,
        graph: &Graph,
    ) -> TimeModel {
        let mut model = TimeModel::of_flops(graph);
        let nodes = model.nodes.iter_mut().zip(graph.nodes());
        for ((time, node), key) in nodes.zip(keys(net, request)) {
            let measured = self.operations.get(&key.to_string());
            let measured = measured.map(|cost| cost.time.clone());
            if let Some(measured) = measured.or_else(|| self.alike(&key, node)) {
                *time = measured;
            }
        }
        model.texture = request.texture.unwrap_or(model.texture);
        if let Some(machine) = self.machine {
            let parameters = net.parameters.iter();
            let values: usize = parameters.map(ParameterShape::len).sum();
            model.copied_byte = machine.copied_byte;
            model.fresh_byte = machine.fresh_byte;
            model.packed_byte = machine.packed_byte;
            model.fixed = machine.parameter.saturating_mul(values as u64);
        }
        let folder = request.offload.as_deref().map(folder_key);
        if let Some(&byte) = folder.and_then(|folder| self.folders.get(&folder)) {
            model.file_byte = byte;
        }
        model
    }

    /// The time of a node, by what was measured of its kind.
    fn alike(&self, key: &CostKey, node: &Node) -> Option<NodeTime> {
        let kind = key.kind();
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
            .filter(|(other, _)| kind_of(other) == kind)
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

/// What decides the time of a node: stored under its words, which begin with the kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CostKey {
    dtype: DType,
    operator: OperatorKey,
    gradients: &'static str,
}

/// What a kind ends with in words.
const END_OF_KIND: char = ':';

impl CostKey {
    /// The words for the kind: those of nodes that take time in proportion to their work.
    fn kind(&self) -> String {
        format!("{} {}", self.dtype.as_str(), self.operator.kind)
    }
}

impl fmt::Display for CostKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kind, detail) = (self.kind(), &self.operator.detail);
        write!(f, "{kind}{END_OF_KIND} {detail}; {}", self.gradients)
    }
}

/// The kind in stored words.
fn kind_of(words: &str) -> &str {
    words
        .split_once(END_OF_KIND)
        .map_or(words, |(kind, _)| kind)
}

/// Of each node, what decides its time.
pub(crate) fn keys(net: &Network, request: &PlanRequest) -> Vec<CostKey> {
    let trainable = net.trainable(&request.trainable);
    let taps = request.taps.iter();
    let taps: Vec<usize> = taps.filter_map(|layer| net.operation_of(layer)).collect();
    let mut has_cotangent = Vec::with_capacity(net.nodes.len());
    // Planning refuses a dtype that is not known.
    let dtype = request.known_dtype().unwrap_or_default();
    let keys = net.nodes.iter().map(|node| {
        let trains = node.trains(&trainable);
        let wanted = match node.inputs.as_slice() {
            [] => request.input_gradient.is_computed(),
            inputs => inputs.iter().any(|&input| has_cotangent[input]),
        };
        let data = node.inputs.first().map(|&input| has_cotangent[input]);
        has_cotangent.push(trains || wanted || taps.contains(&has_cotangent.len()));
        let gradients = match (trains, data == Some(true), wanted) {
            (true, true, _) => "both gradients",
            (true, false, _) => "weight gradient",
            (false, _, true) => "data gradient",
            (false, _, false) => "no gradient",
        };
        CostKey {
            dtype,
            operator: node.operator.key(node.shape()),
            gradients,
        }
    });
    keys.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layers::Conv2d;
    use crate::network::NetworkBuilder;
    use crate::parameter::{OwnedModel, OwnedParameters};

    fn net(channels: &[usize]) -> OwnedModel {
        let mut parameters = OwnedParameters::new(0);
        let mut net = NetworkBuilder::new(channels[0]);
        let mut x = net.input();
        for pair in channels.windows(2) {
            let conv = Conv2d::new(pair[0], pair[1], 3).padding(1);
            x = net.conv2d(x, conv, "", &mut parameters).unwrap();
        }
        OwnedModel::new(net, vec![("features".into(), x)], parameters).unwrap()
    }

    fn times(model: &CostModel, net: &OwnedModel, request: &PlanRequest) -> TimeModel {
        let net = net.network();
        let graph = net
            .graph(&request.trainable, request.input_gradient, &[])
            .unwrap();
        model.time_model(net, request, &graph)
    }

    #[test]
    fn keys_tell_apart_what_takes_different_times() {
        let net = net(&[3, 32, 32, 32, 40]);
        let request = PlanRequest::new(64, 64);
        let keys = keys(net.network(), &request);
        let keys: Vec<String> = keys.iter().map(CostKey::to_string).collect();
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
            .network()
            .graph(&request.trainable, request.input_gradient, &[])
            .unwrap();
        let mut model = CostModel::default();
        let key = keys(measured.network(), &request).swap_remove(2);
        let (forward_work, vjp_work) = work(&graph.nodes()[2]);
        let time = NodeTime {
            forward: TileTime::line(50, 1000),
            vjp: TileTime::through([(1, 70), (10, 3000), (100, 40_000)]),
        };
        model.operations.insert(
            key.to_string(),
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

    #[cfg(feature = "serde")]
    #[test]
    fn models_that_were_stored_before_packing_was_measured_have_the_rate_of_the_table() {
        let net = net(&[3, 8]);
        let request = PlanRequest::new(64, 64);
        let packed_byte = |measured: &str| {
            let machine = format!(r#"{{"copied_byte":1,"fresh_byte":2,"parameter":3{measured}}}"#);
            let text = format!(r#"{{"operations":{{}},"machine":{machine},"folders":{{}}}}"#);
            let model: CostModel = serde_json::from_str(&text).unwrap();
            let found = times(&model, &net, &request);
            assert_eq!(found.fresh_byte, 2);
            found.packed_byte
        };
        assert_eq!(packed_byte(""), TimeModel::PACKED_BYTE);
        assert_eq!(packed_byte(r#","packed_byte":4"#), 4);
    }
}
