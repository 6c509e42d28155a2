//! In which order activations are worth storing.

use std::cmp::Reverse;

use crate::error::TilingError;
use crate::fraction::Fraction;
use crate::geometry::Geometry;
use crate::graph::NodeId;
use crate::memory::MemoryRequest;
use crate::schedule::AxisSchedule;
use crate::span::Axis;
use crate::time::{Picoseconds, TimeModel};
use crate::work::{Work, duties};

/// A node, and those that the backward sweep need not compute again if it alone is stored.
#[derive(Debug, Clone)]
pub(crate) struct Spared {
    pub(crate) node: NodeId,
    pub(crate) spared: Vec<usize>,
}

impl Spared {
    /// What storing `node` spares a recipe that stores nothing else than `geometry` does.
    pub(crate) fn by(node: NodeId, geometry: &Geometry) -> Result<Self, TilingError> {
        let mut stored = geometry.recipe().stored.clone();
        stored.push(node);
        stored.sort_unstable();
        let alone = geometry.with(geometry.recipe().segments, stored)?;
        let both = duties(geometry).zip(duties(&alone)).enumerate();
        let spared = both.filter(|(_, (before, after))| before.recompute && !after.recompute);
        Ok(Self {
            node,
            spared: spared.map(|(spared, _)| spared).collect(),
        })
    }
}

/// Nodes by falling picoseconds saved per element stored.
#[derive(Debug, Clone)]
pub(crate) struct StoreOrder {
    nodes: Vec<Ranked>,
}

/// A node, and the time that storing it saves for each element stored.
#[derive(Debug, Clone, Copy)]
struct Ranked {
    node: NodeId,
    worth: Fraction,
}

impl StoreOrder {
    /// Orders the nodes for the tiles of `geometry`, given what storing each alone spares.
    pub(crate) fn new(
        geometry: &Geometry,
        work: &Work,
        (time, memory): (&TimeModel, &MemoryRequest),
        nodes: &[Spared],
    ) -> Self {
        let [_, backward_share] = time.computed(geometry, work);
        let mut ranked: Vec<Ranked> = nodes
            .iter()
            .map(|Spared { node, spared }| {
                let all = spared.iter().fold(Picoseconds::default(), |sum, &spared| {
                    sum + time.recompute(spared, geometry, &work.sweep[spared], memory)
                });
                let saved = backward_share.of(all);
                let elements = extra_elements(geometry, node.0);
                Ranked {
                    node: *node,
                    worth: Fraction::new(saved.0, elements),
                }
            })
            .collect();
        ranked.sort_by_key(|ranked| (Reverse(ranked.worth), ranked.node));
        Self { nodes: ranked }
    }

    pub(crate) fn len(&self) -> usize {
        self.nodes.len()
    }

    /// The nodes that save more than `least` picoseconds for each element stored; the order is the same.
    pub(crate) fn above(&self, least: Fraction) -> Self {
        let nodes = self.nodes.iter().filter(|ranked| ranked.worth > least);
        Self {
            nodes: nodes.copied().collect(),
        }
    }

    /// The nodes that save any time, best first.
    pub(crate) fn worthwhile(&self) -> impl Iterator<Item = NodeId> {
        let nothing = Fraction::new(0, 1);
        let nodes = self
            .nodes
            .iter()
            .filter(move |ranked| ranked.worth > nothing);
        nodes.map(|ranked| ranked.node)
    }

    /// `geometry` with the first `count` nodes stored besides those that it stores already.
    pub(crate) fn storing(
        &self,
        geometry: &Geometry,
        count: usize,
    ) -> Result<Geometry, TilingError> {
        let mut stored = geometry.recipe().stored.clone();
        stored.extend(self.nodes.iter().take(count).map(|ranked| ranked.node));
        stored.sort_unstable();
        stored.dedup();
        geometry.with(geometry.recipe().segments, stored)
    }
}

/// Elements that storing a node takes beyond those of the halos that it replaces.
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
