//! The planner as an optimiser: random graphs under random models of time.

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
    ByteCount, Fraction, FrontPoint, Geometry, NodeId, NodeTime, Planned, PlannerRequest, Storage,
    TileTime, TilingError, TimeModel, pareto, plan,
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
        0_u64..1_000_000,
    )
        .prop_map(
            |(nodes, copied_byte, fresh_byte, file_byte, fixed)| TimeModel {
                nodes,
                copied_byte,
                fresh_byte,
                file_byte,
                fixed,
                texture: Fraction::new(1, 1),
            },
        )
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
        file in prop::option::of(0_u64..200_000),
        share in 0_usize..100,
    ) {
        let sized = case.sized();
        let mut request = PlannerRequest::new(one_image());
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
    fn a_budget_too_small_names_the_least_of_all(case in cases(), time in models(), file: bool) {
        let sized = case.sized();
        let mut request = PlannerRequest::new(one_image());
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
    fn nothing_on_the_front_is_beaten(case in cases(), time in models()) {
        let front = pareto(&case.sized(), &PlannerRequest::new(one_image()), &time).unwrap();
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
