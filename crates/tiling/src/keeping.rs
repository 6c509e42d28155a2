//! In which order activations are worth keeping.

use std::cmp::Reverse;

use crate::error::TilingError;
use crate::fraction::Fraction;
use crate::graph::NodeId;
use crate::recipe::Geometry;
use crate::schedule::AxisSchedule;
use crate::span::Axis;

/// Nodes by falling FLOPs saved per element kept.
#[derive(Debug, Clone)]
pub(crate) struct KeepOrder {
    nodes: Vec<(NodeId, Fraction)>,
}

impl KeepOrder {
    /// Orders the nodes for the tiles of `geometry`, given what keeping each alone saves.
    pub(crate) fn new(geometry: &Geometry, saved_flops: &[(NodeId, u128)]) -> Self {
        let mut ranked: Vec<(Fraction, NodeId)> = saved_flops
            .iter()
            .map(|&(node, flops)| (Fraction::new(flops, extra_elements(geometry, node.0)), node))
            .collect();
        ranked.sort_by_key(|&(worth, node)| (Reverse(worth), node));
        Self {
            nodes: ranked
                .into_iter()
                .map(|(worth, node)| (node, worth))
                .collect(),
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.nodes.len()
    }

    /// The nodes that save more than `least` FLOPs for each element kept; the order is the same.
    pub(crate) fn above(&self, least: Fraction) -> Self {
        let nodes = self.nodes.iter().filter(|(_, worth)| *worth > least);
        Self {
            nodes: nodes.copied().collect(),
        }
    }

    /// The nodes that save any FLOPs, best first.
    pub(crate) fn worthwhile(&self) -> impl Iterator<Item = NodeId> {
        let nothing = Fraction::new(0, 1);
        let nodes = self.nodes.iter().filter(move |(_, worth)| *worth > nothing);
        nodes.map(|(node, _)| *node)
    }

    /// `geometry` with the first `count` nodes kept besides those that it keeps already.
    pub(crate) fn keeping(
        &self,
        geometry: &Geometry,
        count: usize,
    ) -> Result<Geometry, TilingError> {
        let mut kept = geometry.recipe().kept.clone();
        kept.extend(self.nodes.iter().take(count).map(|(node, _)| *node));
        kept.sort_unstable();
        kept.dedup();
        geometry.with(geometry.recipe().segments, kept)
    }
}

/// Elements that keeping a node takes beyond those of the halos that it replaces.
fn extra_elements(geometry: &Geometry, node: usize) -> u128 {
    let total = |axis, length: fn(&AxisSchedule, usize, usize) -> u64| -> u128 {
        geometry
            .schedules(axis)
            .iter()
            .flat_map(|schedule| {
                (0..schedule.bands()).map(move |band| u128::from(length(schedule, band, node)))
            })
            .sum()
    };
    let owned = |axis| {
        total(axis, |schedule, band, node| {
            schedule.owned(band, node).len()
        })
    };
    let halo = |axis| total(axis, |schedule, band, node| schedule.halo(band, node).len());
    let (rows, columns) = (owned(Axis::Rows), owned(Axis::Columns));
    let (row_halos, column_halos) = (halo(Axis::Rows), halo(Axis::Columns));
    let held = (rows + row_halos).saturating_mul(columns + column_halos);
    let halos = row_halos
        .saturating_mul(columns)
        .saturating_add(rows.saturating_mul(column_halos));
    let channels = u128::from(geometry.sized().graph().nodes()[node].channels);
    held.saturating_sub(halos).saturating_mul(channels)
}
