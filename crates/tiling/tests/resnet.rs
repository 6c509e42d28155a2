//! Known numbers of ResNet-18, and what the planner makes of budgets for ResNet-50.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a helper of a test fails the test"
)]

mod common;

use common::{one_image, resnet18, resnet50, square};
use stream_grad_tiling::{
    Axis, Buffers, ByteCount, Fraction, Geometry, LostBorder, MAX_BANDS, MemoryRequest, NodeId,
    PerAxis, Planned, PlannerRequest, PublishedBorders, PublishedCost, ReceptiveField, Recipe,
    Reuse, SizedGraph, Span, Store, TilingError, TimeModel, pareto, peak_bytes, plan,
};

/// The time that FLOPs alone predict.
fn time(sized: &SizedGraph) -> TimeModel {
    TimeModel::of_flops(sized.graph())
}

fn last(sized: &SizedGraph) -> NodeId {
    sized.graph().outputs()[0]
}

#[test]
fn resnet18_sees_435_pixels_every_32() {
    let sized = square(resnet18(), 1920);
    let field = ReceptiveField::of(&sized, Axis::Rows, last(&sized));
    assert_eq!(field.extent, 435);
    assert_eq!(field.stride, Fraction::new(32, 1));
}

#[test]
fn resnet18_loses_seven_and_six_outputs_as_the_probe_of_ones_finds() {
    for edge in [1024, 1920, 2048] {
        let sized = square(resnet18(), edge);
        for axis in Axis::BOTH {
            let lost = LostBorder::of_output(&sized, axis, last(&sized));
            assert_eq!(lost, LostBorder { lo: 7, hi: 6 }, "{edge}");
        }
    }
}

#[test]
fn the_exact_gradient_border_is_the_reach_of_the_lost_outputs() {
    let sized = square(resnet18(), 1920);
    let output = last(&sized);
    let border = LostBorder::of_gradient(&sized, Axis::Rows, output);
    // The first and the last kept output bound the pixels that only kept outputs read.
    let reach = |output_index| {
        let outputs = Span::new(output_index, output_index + 1);
        sized.dependencies(Axis::Rows, output, outputs)[0]
    };
    assert_eq!(border.lo, reach(6).hi.unsigned_abs());
    assert_eq!(border.hi, (1920 - reach(54).lo).unsigned_abs());
    assert_eq!((border.lo, border.hi), (410, 409));
}

#[test]
fn published_tiles_of_1024_and_1920_keep_32_and_928_pixels() {
    let lightstream = LostBorder { lo: 490, hi: 487 };
    let borders = PublishedBorders {
        gradient: PerAxis::both(lightstream),
        ..PublishedBorders::exact(&square(resnet18(), 1920))
    };
    let cost = |tile| PublishedCost::new(&resnet18(), PerAxis::both(8192), tile, &borders, 4);
    let small = cost(1024).unwrap();
    assert_eq!(small.kept_backward, PerAxis::both(32));
    assert_eq!(small.smallest_tile, 1024);
    let usual = cost(1920).unwrap();
    assert_eq!(usual.kept_backward, PerAxis::both(928));
    assert_eq!(usual.compute_factor, Fraction::new(1920 * 1920, 928 * 928));
    assert_eq!(usual.compute_factor.to_string(), "4.280");
    assert!(usual.compute_ratio > Fraction::new(4, 1));
    assert_eq!(
        cost(992),
        Err(TilingError::PublishedTile {
            found: 992,
            minimum: 1024
        })
    );
}

#[test]
fn without_choices_the_plan_is_conventional() {
    let sized = square(resnet18(), 2048);
    let Planned { geometry, cost, .. } =
        plan(&sized, &PlannerRequest::new(one_image()), &time(&sized)).unwrap();
    assert_eq!(cost.compute_ratio(), Fraction::new(1, 1));
    assert_eq!((cost.tiles, cost.recompute, cost.resweep), (1, 0, 0));
    assert_eq!(geometry.recipe().tile, PerAxis::both(2048));
}

#[test]
fn a_tile_alone_keeps_nothing_and_costs_one_more_forward() {
    let sized = square(resnet18(), 2048);
    let mut request = PlannerRequest::new(one_image());
    request.tile = Some(PerAxis::both(512));
    let Planned { geometry, cost, .. } = plan(&sized, &request, &time(&sized)).unwrap();
    assert!(geometry.recipe().stored.is_empty());
    assert_eq!(cost.recompute, cost.forward);
    assert_eq!(cost.total(), cost.conventional + cost.forward);
}

#[test]
fn segments_sweep_all_but_the_last_again() {
    let sized = square(resnet18(), 2048);
    let mut request = PlannerRequest::new(one_image());
    request.tile = Some(PerAxis::both(256));
    request.segments = Some(4);
    let Planned { peak, cost, .. } = plan(&sized, &request, &time(&sized)).unwrap();
    assert!(cost.resweep < cost.forward && cost.resweep > cost.forward / 2);
    request.segments = Some(1);
    let single = plan(&sized, &request, &time(&sized)).unwrap().peak;
    assert!(peak.saved.forward < single.saved.forward / 3);
}

#[test]
fn a_larger_budget_is_never_slower_and_never_exceeded() {
    let sized = square(resnet18(), 8192);
    let mut request = PlannerRequest::new(one_image());
    let mut slower = None;
    for gib in [1, 2, 4, 8, 16, 64] {
        request.budget = Some(ByteCount::gib(gib));
        let planned = plan(&sized, &request, &time(&sized)).unwrap();
        let Planned {
            geometry,
            buffers,
            peak,
            ..
        } = &planned;
        assert!(peak.peak() <= u128::from(gib) << 30);
        assert_eq!(*peak, peak_bytes(geometry, buffers, &request.memory));
        assert!(
            slower.is_none_or(|slower| planned.time <= slower),
            "{gib} GiB"
        );
        slower = Some(planned.time);
    }
}

#[test]
fn a_budget_that_is_too_small_names_the_least_and_the_least_is_enough() {
    let sized = square(resnet18(), 4096);
    let mut request = PlannerRequest::new(one_image());
    request.budget = Some(ByteCount::mib(1));
    let refused = plan(&sized, &request, &time(&sized)).unwrap_err();
    let TilingError::BudgetTooSmall {
        budget,
        minimum,
        binding,
        binding_bytes,
    } = refused
    else {
        panic!("{refused}");
    };
    assert_eq!(
        (budget, binding),
        (1 << 20, "saved halos and stored activations")
    );
    // The largest of fourteen classes.
    assert!(binding_bytes <= minimum && binding_bytes * 14 >= minimum);
    request.budget = Some(ByteCount::saturating(minimum));
    let peak = plan(&sized, &request, &time(&sized)).unwrap().peak;
    assert_eq!(peak.peak(), minimum);
    request.budget = Some(ByteCount::saturating(minimum - 1));
    let refused = plan(&sized, &request, &time(&sized)).unwrap_err();
    assert!(
        matches!(refused, TilingError::BudgetTooSmall { budget, minimum: least, .. }
            if budget == minimum - 1 && least == minimum),
        "{refused}"
    );
}

#[test]
fn only_permitted_nodes_are_stored() {
    let sized = square(resnet18(), 2048);
    let mut request = PlannerRequest::new(one_image());
    request.budget = Some(ByteCount::gib(2));
    request.store = Store::Among(vec![NodeId(5), NodeId(9)]);
    let geometry = plan(&sized, &request, &time(&sized)).unwrap().geometry;
    assert_eq!(geometry.recipe().stored, [NodeId(5), NodeId(9)]);
    request.store = Store::Exactly(vec![NodeId(4)]);
    let geometry = plan(&sized, &request, &time(&sized)).unwrap().geometry;
    assert_eq!(geometry.recipe().stored, [NodeId(4)]);
}

#[test]
fn resnet50_at_65536_fits_in_its_budgets() {
    let sized = square(resnet50(), 65_536);
    let mut slower = None;
    for gib in [80, 128, 1024] {
        let mut request = PlannerRequest::new(one_image());
        request.budget = Some(ByteCount::gib(gib));
        let planned = plan(&sized, &request, &time(&sized)).unwrap();
        assert!(planned.peak.peak() <= u128::from(ByteCount::gib(gib).get()));
        assert!(slower.is_none_or(|slower| planned.time <= slower));
        slower = Some(planned.time);
    }
}

#[test]
fn the_front_trades_memory_for_arithmetic() {
    let sized = square(resnet18(), 4096);
    let front = pareto(&sized, &PlannerRequest::new(one_image()), &time(&sized)).unwrap();
    assert!(front.len() > 5);
    for pair in front.windows(2) {
        assert!(pair[0].peak.peak() < pair[1].peak.peak());
        assert!(
            pair[0].time > pair[1].time
                || pair[0].cost.compute_ratio() > pair[1].cost.compute_ratio()
        );
    }
    let conventional = front.last().unwrap();
    assert_eq!(conventional.cost.compute_ratio(), Fraction::new(1, 1));
}

#[test]
fn the_less_texture_the_faster_and_the_smaller_tiles() {
    let sized = square(resnet18(), 8192);
    let mut request = PlannerRequest::new(one_image());
    // Enough for everything: room for templates takes none from what is stored.
    request.budget = Some(ByteCount::gib(1 << 10));
    let computed = plan(&sized, &request, &time(&sized)).unwrap();
    request.reuse = Reuse::OneColor;
    let of = |percent: u128| {
        let mut time = time(&sized);
        time.texture = Fraction::new(percent, 100);
        plan(&sized, &request, &time).unwrap()
    };
    let [all, quarter, little] = [100, 25, 1].map(of);
    let area = |planned: &Planned| {
        let tile = planned.geometry.recipe().tile;
        tile.rows * tile.columns
    };
    assert!(all.peak.templates.backward > 0 && computed.peak.templates.backward == 0);
    assert_eq!((area(&all), all.time), (area(&computed), computed.time));
    assert!(area(&quarter) < area(&all) && area(&little) <= area(&quarter));
    let percent = |planned: &Planned| planned.time.0 * 100 / computed.time.0;
    let found = [&quarter, &little].map(percent);
    assert!(
        (35..50).contains(&found[0]) && (5..15).contains(&found[1]),
        "{found:?}"
    );
}

#[test]
fn tiny_tiles_on_a_large_image_are_laid_out() {
    let sized = square(resnet18(), 32_768);
    let recipe = Recipe {
        tile: PerAxis::both(32),
        ..Recipe::whole(&sized)
    };
    let geometry = Geometry::new(sized, recipe).unwrap();
    let buffers = Buffers::new(&geometry);
    let tiled = peak_bytes(&geometry, &buffers, &one_image());
    assert!(tiled.arena.backward < 1 << 30);
}

#[test]
fn the_largest_image_overflows_nothing() {
    let edge = 1_u64 << 31;
    let sized = square(resnet18(), edge);
    let whole = plan(&sized, &PlannerRequest::new(one_image()), &time(&sized));
    assert!(
        matches!(whole, Err(TilingError::BudgetTooSmall { budget, minimum, .. }) if minimum > budget),
        "{whole:?}"
    );
    let recipe = Recipe {
        tile: PerAxis::both(1 << 20),
        segments: 64,
        ..Recipe::whole(&sized)
    };
    let geometry = Geometry::new(sized.clone(), recipe.clone()).unwrap();
    let request = MemoryRequest::new(8, 64, one_image().fixed);
    let peak = peak_bytes(&geometry, &Buffers::new(&geometry), &request);
    assert!(peak.peak() > u128::from(edge));
    let too_fine = Recipe {
        tile: PerAxis::both(32),
        ..recipe
    };
    assert_eq!(
        Geometry::new(sized, too_fine).unwrap_err(),
        TilingError::TooManyPieces {
            what: "bands of rows",
            found: u128::from(edge / 32),
            maximum: MAX_BANDS,
        }
    );
}
