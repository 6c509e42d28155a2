//! The planner as an optimiser: random graphs under random models of time.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a helper of a test fails the test"
)]

mod common;

use common::random::cases;
use common::{one_image, resnet18, square};
use proptest::prelude::*;
use stream_grad_tiling::{
    ByteCount, Fraction, FrontPoint, Geometry, MemoryRequest, NodeId, NodeTime, PackedWeights,
    PerAxis, Picoseconds, Planned, PlannerRequest, Recipe, Storage, TileTime, TilingError,
    TimeModel, Weights, pareto, plan,
};

fn tile_times() -> impl Strategy<Value = TileTime> {
    // Some nodes cost nothing, some only visits, some only positions; some take longer for each from some size on.
    let visit = prop_oneof![Just(0), 0_u64..100_000_000];
    let position = || prop_oneof![Just(0), 0_u64..30_000_000];
    let bend = 1_u64..500;
    (visit, position(), bend, position()).prop_map(|(visit, below, bend, beyond)| {
        let bent = visit + below * bend;
        TileTime::through([(0, visit), (bend, bent), (bend + 1, bent + beyond)])
    })
}

/// Models for up to 32 nodes.
fn models() -> impl Strategy<Value = TimeModel> {
    let node = (tile_times(), tile_times()).prop_map(|(forward, vjp)| NodeTime { forward, vjp });
    let byte = || prop_oneof![Just(0), 0_u64..200_000];
    (
        prop::collection::vec(node, 0..32),
        byte(),
        byte(),
        byte(),
        byte(),
        0_u64..1_000_000,
    )
        .prop_map(
            |(nodes, copied_byte, fresh_byte, file_byte, packed_byte, fixed)| TimeModel {
                nodes,
                copied_byte,
                fresh_byte,
                file_byte,
                packed_byte,
                fixed,
                texture: Fraction::new(1, 1),
            },
        )
}

/// Of up to 32 nodes, some of which pack weights.
fn memories() -> impl Strategy<Value = MemoryRequest> {
    let bytes = || prop_oneof![Just(0_u128), 0_u128..200_000];
    let node =
        (bytes(), bytes(), any::<bool>()).prop_map(|(forward, vjp, gradients)| PackedWeights {
            forward,
            vjp,
            gradients: if gradients { vjp } else { 0 },
        });
    prop::collection::vec(node, 0..32).prop_map(|packed_weights| {
        let mut memory = one_image();
        for packed in &packed_weights {
            memory.fixed.forward_weights += packed.forward / 2;
            memory.fixed.backward_weights += packed.forward / 8;
        }
        memory.packed_weights = packed_weights;
        memory
    })
}

/// Whether `other` is at least as good in everything.
fn beats(other: &FrontPoint, point: &FrontPoint) -> bool {
    other.peak.peak() <= point.peak.peak()
        && other.time <= point.time
        && other.cost.compute_ratio() <= point.cost.compute_ratio()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(ProptestConfig::default().cases / 4))]
    #[test]
    fn nothing_that_fits_is_faster(
        case in cases(),
        time in models(),
        memory in memories(),
        file in prop::option::of(0_u64..200_000),
        share in 0_usize..100,
    ) {
        let sized = case.sized();
        let mut request = PlannerRequest::new(memory);
        request.memory.fixed.file = 1000;
        request.file = file.map(ByteCount::bytes);
        let front = pareto(&sized, &request, &time).unwrap();
        let (least, most) = (&front[0].peak, &front[front.len() - 1].peak);
        let budget = least.peak() + (most.peak() - least.peak()) * share as u128 / 99;
        request.budget = Some(ByteCount::saturating(budget));
        let chosen = plan(&sized, &request, &time).unwrap();
        prop_assert!(chosen.peak.peak() <= budget);
        let fitting = pareto(&sized, &request, &time).unwrap();
        prop_assert!(!fitting.is_empty());
        for point in fitting {
            prop_assert!(chosen.time <= point.time, "{:?} under {budget}", point.recipe);
        }
        let again = Geometry::new(sized, chosen.geometry.recipe().clone()).unwrap();
        let storage = chosen.buffers.storage();
        let predicted = Planned::of(again, storage, &request.memory, request.budget, &time);
        prop_assert_eq!(predicted.time, chosen.time);
    }

    #[test]
    fn a_budget_too_small_names_the_least_of_all(
        case in cases(),
        time in models(),
        memory in memories(),
        file: bool,
    ) {
        let sized = case.sized();
        let mut request = PlannerRequest::new(memory);
        request.file = file.then_some(ByteCount::gib(1 << 10));
        let least = pareto(&sized, &request, &time).unwrap()[0].peak.peak();
        request.budget = Some(ByteCount::saturating(least - 1));
        match plan(&sized, &request, &time) {
            Err(TilingError::BudgetTooSmall { minimum, .. }) => prop_assert_eq!(minimum, least),
            other => prop_assert!(false, "{other:?}"),
        }
        request.budget = Some(ByteCount::saturating(least));
        prop_assert!(plan(&sized, &request, &time).unwrap().peak.peak() <= least);
    }

    #[test]
    fn nothing_on_the_front_is_beaten(case in cases(), time in models(), memory in memories()) {
        let front = pareto(&case.sized(), &PlannerRequest::new(memory), &time).unwrap();
        for (index, point) in front.iter().enumerate() {
            for (other, rival) in front.iter().enumerate() {
                prop_assert!(index == other || !beats(rival, point), "{index} and {other}");
            }
        }
        for pair in front.windows(2) {
            prop_assert!(pair[0].peak.peak() <= pair[1].peak.peak());
        }
    }
}

proptest! {
    #[test]
    fn storing_more_is_never_slower_but_for_fresh_memory(
        case in cases(),
        mut time in models(),
        node in 1_usize..32,
    ) {
        time.fresh_byte = 0;
        let geometry = case.geometry();
        let nodes = geometry.sized().graph().nodes().len();
        prop_assume!(nodes > 1);
        let node = NodeId(1 + node % (nodes - 1));
        let mut stored = geometry.recipe().stored.clone();
        if let Err(place) = stored.binary_search(&node) {
            stored.insert(place, node);
        }
        let more = geometry.with(geometry.recipe().segments, stored).unwrap();
        let predict = |geometry, storage| Planned::of(geometry, storage, &one_image(), None, &time).time;
        let before = predict(geometry.clone(), Storage::Memory);
        prop_assert!(predict(more, Storage::Memory) <= before);
        prop_assert!(predict(geometry, Storage::File) >= before);
    }
}

/// ResNet-18 on tiles of an image, with packed weights for each of two nodes.
fn packing(weights: Weights, stored: &[NodeId], segments: u64) -> Planned {
    let sized = square(resnet18(), 512);
    let mut memory = one_image();
    memory.fixed.forward_weights = 1000;
    memory.fixed.backward_weights = 10;
    let packed = |forward, vjp, gradients| PackedWeights {
        forward,
        vjp,
        gradients,
    };
    memory.packed_weights = vec![
        PackedWeights::default(),
        packed(300, 0, 0),
        packed(200, 250, 0),
        packed(20, 30, 30),
    ];
    let time = TimeModel {
        packed_byte: 1_000_000,
        ..TimeModel::of_flops(sized.graph())
    };
    let recipe = Recipe {
        tile: PerAxis::both(128),
        segments,
        stored: stored.to_vec(),
        weights,
        ..Recipe::whole(&sized)
    };
    let geometry = Geometry::new(sized, recipe).unwrap();
    Planned::of(geometry, Storage::Memory, &memory, None, &time)
}

#[test]
fn weights_that_are_packed_on_use_take_room_for_one_node_and_time_for_every_tile() {
    let stored = [NodeId(1), NodeId(2)];
    for (stored, segments, held, on_use, tiles) in [
        // Nothing is stored, and all is computed again.
        (&[][..], 1, [1520, 810, 290], [1300, 1300, 1030], [32, 32]),
        // The third node is computed again, the first and the second are not.
        (&stored, 1, [1520, 310, 290], [1300, 1250, 1030], [16, 32]),
        // Three of four bands are swept again, and so are their nodes.
        (&stored, 4, [1520, 810, 290], [1300, 1300, 1030], [28, 44]),
    ] {
        let all = Weights::ALL.map(|weights| packing(weights, stored, segments));
        let classes = all.each_ref().map(|planned| {
            let weights = planned.peak.weights;
            [weights.forward, weights.backward, weights.finish]
        });
        assert_eq!(classes, [held, on_use]);
        let difference = all[1].time.0 - all[0].time.0;
        // Of each node, the tiles that own any of it: here all of them.
        let [first, third] = tiles;
        let bytes = (300 + 200) * first + 20 * third + (250 + 30) * 16;
        assert_eq!(Picoseconds(difference), Picoseconds(bytes * 1_000_000));
        // What is computed and held of activations is the same.
        assert_eq!(all[0].cost, all[1].cost);
        assert_eq!(all[0].peak.saved, all[1].peak.saved);
    }
}

#[test]
fn without_a_budget_weights_are_held_unless_asked_otherwise() {
    let sized = square(resnet18(), 256);
    let time = TimeModel::of_flops(sized.graph());
    let mut request = PlannerRequest::new(one_image());
    let weights = |request: &PlannerRequest| {
        let planned = plan(&sized, request, &time).unwrap();
        planned.geometry.recipe().weights
    };
    assert_eq!(weights(&request), Weights::Held);
    for wanted in Weights::ALL {
        request.weights = Some(wanted);
        for budget in [None, Some(ByteCount::gib(1))] {
            request.budget = budget;
            assert_eq!(weights(&request), wanted);
        }
        let front = pareto(&sized, &request, &time).unwrap();
        assert!(front.iter().all(|point| point.recipe.weights == wanted));
    }
}
