//! Buffers of random recipes: nothing that is still to be read is overwritten, and plans keep their word.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a helper of a test fails the test"
)]

mod common;

use common::one_image;
use common::random::cases;
use proptest::prelude::*;
use stream_grad_tiling::{
    Buffers, ByteCount, Geometry, NodeId, Place, Planned, PlannerRequest, Recipe, Rect, Residual,
    Storage, Sweep, Tile, TilingError, TimeModel, peak_bytes, plan,
};

/// Memory that remembers who wrote each element last.
struct Painted(Vec<Option<usize>>);

impl Painted {
    fn new(length: u64) -> Self {
        Self(vec![None; usize::try_from(length).unwrap()])
    }

    fn range(offset: u64, length: u64) -> std::ops::Range<usize> {
        usize::try_from(offset).unwrap()..usize::try_from(offset + length).unwrap()
    }

    fn paint(&mut self, offset: u64, length: u64, owner: usize) {
        self.0[Self::range(offset, length)].fill(Some(owner));
    }

    fn intact(&self, offset: u64, length: u64, owner: usize) -> bool {
        self.0[Self::range(offset, length)]
            .iter()
            .all(|&painted| painted == Some(owner))
    }
}

fn forward_is_safe(
    geometry: &Geometry,
    buffers: &Buffers,
    sweep: Sweep,
) -> Result<(), TestCaseError> {
    let mut arena = Painted::new(buffers.forward_length(sweep));
    let in_arena = |node: usize| sweep == Sweep::Carrying || !geometry.is_stored(node);
    for (index, node) in geometry.sized().graph().nodes().iter().enumerate() {
        if in_arena(index) {
            let offset = buffers.forward_activation(sweep, index);
            arena.paint(offset, buffers.held(index), index);
        }
        for edge in &node.inputs {
            let source = edge.source.0;
            let offset = buffers.forward_activation(sweep, source);
            prop_assert!(!in_arena(source) || arena.intact(offset, buffers.held(source), source));
        }
    }
    Ok(())
}

/// Recomputes and runs the VJPs of one tile, step by step, as the engine does.
fn backward_is_safe(geometry: &Geometry, buffers: &Buffers) -> Result<(), TestCaseError> {
    let graph = geometry.sized().graph();
    let nodes = graph.nodes();
    let mut arena = Painted::new(buffers.backward_length());
    let cotangent = |node: usize| {
        (
            buffers.backward_cotangent(node),
            buffers.held(node),
            node + nodes.len(),
        )
    };
    let activation_intact = |arena: &Painted, node: usize| match buffers.residual(node) {
        Residual::Stored => true,
        Residual::Unused => false,
        Residual::Recomputed => {
            arena.intact(buffers.backward_activation(node), buffers.held(node), node)
        }
    };
    for (index, node) in nodes.iter().enumerate() {
        if buffers.residual(index) == Residual::Recomputed {
            arena.paint(
                buffers.backward_activation(index),
                buffers.held(index),
                index,
            );
            for edge in &node.inputs {
                prop_assert!(activation_intact(&arena, edge.source.0));
            }
        }
    }
    for index in (0..nodes.len()).rev() {
        let node = &nodes[index];
        let is_output = graph.outputs().contains(&NodeId(index));
        // The cotangent source is given the features at the output's step.
        prop_assert!(!is_output || activation_intact(&arena, index));
        if !node.has_cotangent {
            continue;
        }
        let (offset, length, owner) = cotangent(index);
        if buffers.first_touch(index) == index {
            arena.paint(offset, length, owner);
        }
        prop_assert!(arena.intact(offset, length, owner));
        if index == 0 {
            continue;
        }
        for edge in &node.inputs {
            let source = edge.source.0;
            if nodes[source].has_cotangent {
                let (offset, length, owner) = cotangent(source);
                if buffers.first_touch(source) == index {
                    arena.paint(offset, length, owner);
                }
                prop_assert!(arena.intact(offset, length, owner));
            }
            prop_assert!(!node.vjp_reads.inputs || activation_intact(&arena, source));
        }
        prop_assert!(!node.vjp_reads.output || activation_intact(&arena, index));
        let (offset, length, owner) = cotangent(index);
        prop_assert!(arena.intact(offset, length, owner));
    }
    Ok(())
}

/// Pieces of a slab, each an offset and a length.
#[derive(Default)]
struct Pieces(Vec<(u64, u64)>);

impl Pieces {
    fn disjoint_within(mut self, length: u64) -> Result<(), TestCaseError> {
        self.0.retain(|piece| piece.1 > 0);
        self.0.sort_unstable();
        for pair in self.0.windows(2) {
            prop_assert!(pair[0].0 + pair[0].1 <= pair[1].0, "{:?}", pair);
        }
        prop_assert!(self.0.last().is_none_or(|last| last.0 + last.1 <= length));
        Ok(())
    }
}

fn elements(geometry: &Geometry, region: Rect, node: usize) -> u64 {
    u64::try_from(region.area()).unwrap() * geometry.sized().graph().nodes()[node].channels
}

/// What a saving sweep writes of one block lies apart, segment by segment.
fn saved_is_disjoint(
    geometry: &Geometry,
    buffers: &Buffers,
    index: usize,
) -> Result<(), TestCaseError> {
    let block = geometry.block(index);
    let nodes = geometry.sized().graph().nodes().len();
    let mut borders = Pieces::default();
    for segment in 0..geometry.segments() {
        let mut saved = Pieces::default();
        for band in geometry.segment_bands(block.rows.bands(), segment) {
            for node in 0..nodes {
                let length = elements(geometry, block.strip(band, node), node);
                match buffers.strip(geometry, index, band, node, Sweep::Saving) {
                    Place::Saved(offset) => saved.0.push((offset, length)),
                    Place::Border(offset) => borders.0.push((offset, length)),
                    Place::Transient(_) => prop_assert!(geometry.is_stored(node)),
                }
                let carried = buffers.strip(geometry, index, band, node, Sweep::Carrying);
                prop_assert!(!matches!(carried, Place::Saved(_)));
                for column in 0..block.columns.bands() {
                    let tile = Tile { band, column };
                    match buffers.left(geometry, index, tile, node, Sweep::Saving) {
                        Place::Saved(offset) => {
                            let length = elements(geometry, block.left(tile, node), node);
                            saved.0.push((offset, length));
                        }
                        _ => {
                            prop_assert!(geometry.is_stored(node));
                            let length = elements(geometry, block.held(tile, node), node);
                            saved
                                .0
                                .push((buffers.stored(geometry, index, tile, node), length));
                        }
                    }
                }
            }
        }
        saved.disjoint_within(buffers.saved_length(index))?;
    }
    borders.disjoint_within(buffers.border_length(index))
}

/// What a tile and a band save, and what the next ones do, lie apart in memory while the rest is in a file; the file takes as
/// much as memory would.
fn windows_are_disjoint(
    geometry: &Geometry,
    memory: &Buffers,
    index: usize,
) -> Result<(), TestCaseError> {
    let file = Buffers::with_storage(geometry, Storage::File);
    let block = geometry.block(index);
    let (bands, columns) = (block.rows.bands(), block.columns.bands());
    prop_assert_eq!(file.file_length(index), memory.saved_length(index));
    prop_assert_eq!(memory.file_length(index), 0);
    let mut traffic = 0;
    for band in 0..bands {
        traffic += length(&file.saved_strips(index, band));
        for column in 0..columns {
            let tile = Tile { band, column };
            traffic += length(&file.saved_tile(geometry, index, tile));
            let mut at_hand = vec![
                file.saved_strips(index, band),
                file.saved_tile(geometry, index, tile),
            ];
            if band + 1 < bands {
                at_hand.push(file.saved_strips(index, band + 1));
            }
            if column + 1 < columns {
                let column = column + 1;
                at_hand.push(file.saved_tile(geometry, index, Tile { band, column }));
            }
            let pieces = at_hand.iter().map(|part| (part.start, length(part)));
            Pieces(pieces.collect()).disjoint_within(file.saved_length(index))?;
            for node in 0..geometry.sized().graph().nodes().len() {
                if geometry.is_stored(node) {
                    let start = file.stored(geometry, index, tile, node);
                    let end = start + elements(geometry, block.held(tile, node), node);
                    prop_assert!(at_hand[1].start <= start && end <= at_hand[1].end);
                } else if let Place::Saved(start) =
                    file.left(geometry, index, tile, node, Sweep::Saving)
                {
                    let end = start + elements(geometry, block.left(tile, node), node);
                    prop_assert!(at_hand[1].start <= start && end <= at_hand[1].end);
                }
                let strip = file.strip(geometry, index, band, node, Sweep::Saving);
                if let Place::Saved(start) = strip {
                    let end = start + elements(geometry, block.strip(band, node), node);
                    prop_assert!(at_hand[0].start <= start && end <= at_hand[0].end);
                }
            }
        }
    }
    prop_assert_eq!(traffic, file.file_traffic(index));
    Ok(())
}

fn length(part: &std::ops::Range<u64>) -> u64 {
    part.end - part.start
}

/// The old and the new strips and left halos of a tile lie apart, in both carrying slabs.
fn carries_are_disjoint(
    geometry: &Geometry,
    buffers: &Buffers,
    index: usize,
) -> Result<(), TestCaseError> {
    let block = geometry.block(index);
    // A single segment is never swept without saving.
    let sweeps = [Sweep::Saving, Sweep::Carrying];
    let sweeps = &sweeps[..geometry.segments().min(2)];
    let elements = |region, node| elements(geometry, region, node);
    for band in 0..block.rows.bands().saturating_sub(1) {
        for column in 0..block.columns.bands().saturating_sub(1) {
            let nodes = geometry.sized().graph().nodes().iter().enumerate();
            let mut cotangents = Pieces::default();
            for (node, _) in nodes.filter(|(_, value)| value.has_cotangent) {
                for step in 0..2 {
                    let strip = elements(block.strip(band + step, node), node);
                    let tile = Tile {
                        band,
                        column: column + step,
                    };
                    let left = elements(block.left(tile, node), node);
                    let strip_at = buffers.cotangent_strip(node, band + step);
                    let left_at = buffers.cotangent_left(node, column + step);
                    cotangents.0.extend([(strip_at, strip), (left_at, left)]);
                }
            }
            cotangents.disjoint_within(buffers.cotangent_length())?;
            for &sweep in sweeps {
                let mut transient = Pieces::default();
                for node in 0..geometry.sized().graph().nodes().len() {
                    for step in 0..2 {
                        let tile = Tile {
                            band,
                            column: column + step,
                        };
                        let strip = buffers.strip(geometry, index, band + step, node, sweep);
                        if let Place::Transient(at) = strip {
                            let length = elements(block.strip(band + step, node), node);
                            transient.0.push((at, length));
                        }
                        let left = buffers.left(geometry, index, tile, node, sweep);
                        if let Place::Transient(at) = left {
                            transient
                                .0
                                .push((at, elements(block.left(tile, node), node)));
                        }
                    }
                }
                transient.disjoint_within(buffers.transient_length())?;
            }
        }
    }
    Ok(())
}

proptest! {
    #[test]
    fn arenas_hold_what_is_still_read(case in cases()) {
        let geometry = case.geometry();
        let buffers = Buffers::new(&geometry);
        forward_is_safe(&geometry, &buffers, Sweep::Saving)?;
        forward_is_safe(&geometry, &buffers, Sweep::Carrying)?;
        backward_is_safe(&geometry, &buffers)?;
    }

    #[test]
    fn slabs_are_disjoint(case in cases()) {
        let geometry = case.geometry();
        let buffers = Buffers::new(&geometry);
        for index in 0..geometry.blocks().min(4) {
            saved_is_disjoint(&geometry, &buffers, index)?;
            carries_are_disjoint(&geometry, &buffers, index)?;
            windows_are_disjoint(&geometry, &buffers, index)?;
        }
    }

    #[test]
    fn plans_keep_within_their_budget(case in cases(), kib in 70_u64..2000) {
        let sized = case.sized();
        let time = TimeModel::of_flops(sized.graph());
        let mut request = PlannerRequest::new(one_image());
        request.budget = Some(ByteCount::bytes(kib << 10));
        match plan(&sized, &request, &time) {
            Ok(Planned { geometry, buffers, peak, .. }) => {
                prop_assert!(peak.peak() <= u128::from(kib) << 10);
                let again = Geometry::new(sized, geometry.recipe().clone()).unwrap();
                prop_assert_eq!(&Buffers::new(&again), &buffers);
                prop_assert_eq!(peak_bytes(&again, &buffers, &request.memory), peak);
            }
            Err(TilingError::BudgetTooSmall { budget, minimum, .. }) => {
                prop_assert!(minimum > budget);
                request.budget = Some(ByteCount::saturating(minimum));
                prop_assert!(plan(&sized, &request, &time).is_ok());
            }
            Err(other) => prop_assert!(false, "{other}"),
        }
    }

    #[test]
    fn a_file_lets_smaller_budgets_do(case in cases(), share in 0_u64..100) {
        let sized = case.sized();
        let time = TimeModel::of_flops(sized.graph());
        let mut request = PlannerRequest::new(one_image());
        request.memory.fixed.file = 1000;
        request.budget = Some(ByteCount::bytes(1));
        let minimum = |request: &PlannerRequest| match plan(&sized, request, &time) {
            Err(TilingError::BudgetTooSmall { minimum, .. }) => minimum,
            other => panic!("a byte is enough: {other:?}"),
        };
        let in_memory = minimum(&request);
        request.file = Some(ByteCount::gib(1 << 10));
        let with_file = minimum(&request);
        prop_assert!(with_file <= in_memory);
        let budget = with_file + (in_memory - with_file) * u128::from(share) / 100;
        request.budget = Some(ByteCount::saturating(budget));
        let Planned { geometry, buffers, peak, cost, .. } = plan(&sized, &request, &time).unwrap();
        prop_assert!(peak.peak() <= budget);
        prop_assert_eq!(cost, stream_grad_tiling::Cost::stored(&geometry, &buffers, 4));
        // Nothing that fits in memory alone is refused a file, and nothing is written for nothing.
        if budget < in_memory {
            prop_assert_eq!(buffers.storage(), Storage::File);
        }
    }

    #[test]
    fn recipes_print_and_survive_serialisation(case in cases()) {
        let geometry = case.geometry();
        let recipe = geometry.recipe();
        let text = serde_json::to_string(recipe).unwrap();
        let read: Recipe = serde_json::from_str(&text).unwrap();
        prop_assert_eq!(&read, recipe);
        let printed = recipe.to_string();
        let tile = format!("tiles of {}x{} pixels", recipe.tile.rows, recipe.tile.columns);
        prop_assert!(printed.contains(&tile), "{printed}");
    }
}
