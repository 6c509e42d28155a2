//! Ownership, halos, blocks, borders and costs of random graphs against brute force.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a helper of a test fails the test"
)]

mod common;

use common::random::{Case, cases};
use proptest::prelude::*;
use stream_grad_tiling::{
    AlignCorners, Axis, AxisRule, AxisSchedule, Cost, Fraction, LostBorder, PerAxis,
    ReceptiveField, SizedGraph, Span, Tile, strides,
};

fn one(index: i64) -> Span {
    Span::new(index, index + 1)
}

fn nodes(sized: &SizedGraph) -> usize {
    sized.graph().nodes().len()
}

/// Every output that a band owns reads only what the band holds, and all owned spans together are what is needed.
fn check_schedule(
    sized: &SizedGraph,
    axis: Axis,
    schedule: &AxisSchedule,
) -> Result<(), TestCaseError> {
    for node in 0..nodes(sized) {
        let mut next = schedule.needed(node).lo;
        for band in 0..schedule.bands() {
            let owned = schedule.owned(band, node);
            prop_assert_eq!(owned.lo, next, "node {} band {}", node, band);
            prop_assert!(owned.lo <= owned.hi);
            next = owned.hi;
            for output in owned.lo..owned.hi {
                for (index, edge) in sized.graph().nodes()[node].inputs.iter().enumerate() {
                    let read = sized.needed(node, index, axis, one(output));
                    let held = schedule.held(band, edge.source.0);
                    prop_assert!(
                        held.covers(read),
                        "{held} of node {} lacks {read}",
                        edge.source.0
                    );
                }
            }
            let halo = schedule.halo(band, node);
            prop_assert!(halo.is_empty() || schedule.needed(node).covers(halo));
            prop_assert!(halo.len() <= schedule.largest_halo(node));
            prop_assert!(owned.len() <= schedule.largest_owned(node));
            prop_assert!(schedule.held(band, node).len() <= schedule.largest_held(node));
            if band == 0 {
                prop_assert!(halo.is_empty());
            } else {
                // What a band hands on, it holds itself.
                prop_assert!(schedule.held(band - 1, node).covers(halo));
                prop_assert!(schedule.halo(band - 1, node).lo <= halo.lo);
            }
        }
        prop_assert_eq!(next, schedule.needed(node).hi.max(schedule.needed(node).lo));
    }
    Ok(())
}

/// Halos hold nothing that no later band reads: the first index is read, or the halo is empty.
fn check_halos_are_tight(
    sized: &SizedGraph,
    axis: Axis,
    schedule: &AxisSchedule,
) -> Result<(), TestCaseError> {
    for node in 0..nodes(sized) {
        for band in 0..schedule.bands() {
            let halo = schedule.halo(band, node);
            let read_later = |consumer: usize, edge: usize| {
                let lo = schedule.owned(band, consumer).lo;
                (lo..schedule.needed(consumer).hi).any(|output| {
                    let unclamped = sized.graph().nodes()[consumer].inputs[edge].rule[axis]
                        .needed(one(output), sized.size(node)[axis]);
                    unclamped.lo.max(0) <= halo.lo
                })
            };
            let read = sized
                .graph()
                .consumers(node)
                .iter()
                .any(|&(consumer, edge)| read_later(consumer.0, edge));
            prop_assert!(halo.is_empty() || read, "node {node} band {band}: {halo}");
        }
    }
    Ok(())
}

fn check_blocks(case: &Case) -> Result<(), TestCaseError> {
    let geometry = case.geometry();
    let sized = geometry.sized();
    let output = sized.graph().outputs()[0].0;
    for axis in Axis::BOTH {
        let mut next = 0;
        for schedule in geometry.schedules(axis) {
            prop_assert_eq!(schedule.needed(output).lo, next);
            next = schedule.needed(output).hi;
            check_schedule(sized, axis, schedule)?;
            check_halos_are_tight(sized, axis, schedule)?;
            for node in 1..nodes(sized) {
                for index in schedule.needed(node).lo..schedule.needed(node).hi {
                    for (edge, input) in sized.graph().nodes()[node].inputs.iter().enumerate() {
                        let read = sized.needed(node, edge, axis, one(index));
                        prop_assert!(schedule.needed(input.source.0).covers(read));
                    }
                }
            }
        }
        prop_assert_eq!(next, sized.size(output)[axis]);
    }
    Ok(())
}

/// Prefixes are the most that the inputs allow, node by node.
fn check_prefixes(sized: &SizedGraph, axis: Axis) -> Result<(), TestCaseError> {
    let image = sized.size(0)[axis];
    for available in 0..=image {
        let prefixes = sized.prefixes(axis, available);
        for (node, value) in sized.graph().nodes().iter().enumerate().skip(1) {
            let allowed = |output: i64| {
                value.inputs.iter().all(|edge| {
                    let source = edge.source.0;
                    let size = sized.size(source)[axis];
                    let read = edge.rule[axis].needed(one(output), size);
                    prefixes[source] >= size || read.hi <= prefixes[source]
                })
            };
            let size = sized.size(node)[axis];
            let expected = (0..size).take_while(|&output| allowed(output)).count();
            prop_assert_eq!(usize::try_from(prefixes[node]).unwrap(), expected);
        }
    }
    Ok(())
}

/// The span that a rule reads if the image went on beyond its ends, from first principles for bilinear upsampling.
fn beyond(rule: &AxisRule, output: i64, size: i64) -> Span {
    match rule {
        AxisRule::UpsampleBilinear(factor, corners) => {
            let (numerator, denominator) = match corners {
                AlignCorners::No => (2 * output + 1 - factor, 2 * factor),
                AlignCorners::Yes => (output * (size - 1), (size * factor - 1).max(1)),
            };
            let left = numerator.div_euclid(denominator);
            Span::new(left, left + 2)
        }
        other => other.needed(one(output), size),
    }
}

/// For every node and index, whether its value depends on padding.
fn depends_on_padding(sized: &SizedGraph, axis: Axis) -> Vec<Vec<bool>> {
    let mut lost: Vec<Vec<bool>> = Vec::new();
    for (node, value) in sized.graph().nodes().iter().enumerate() {
        let size = sized.size(node)[axis];
        let column = (0..size)
            .map(|output| {
                value.inputs.iter().any(|edge| {
                    let source = &lost[edge.source.0];
                    let read = beyond(&edge.rule[axis], output, sized.size(edge.source.0)[axis]);
                    (read.lo..read.hi).any(|index| {
                        usize::try_from(index)
                            .ok()
                            .and_then(|index| source.get(index).copied())
                            .unwrap_or(true)
                    })
                })
            })
            .collect();
        lost.push(column);
    }
    lost
}

fn has_aligned_corners(sized: &SizedGraph) -> bool {
    let mut edges = sized.graph().nodes().iter().flat_map(|node| &node.inputs);
    edges.any(|edge| {
        matches!(
            edge.rule.rows,
            AxisRule::UpsampleBilinear(_, AlignCorners::Yes)
        )
    })
}

/// How far, in pixels, repeated values let what an output reads lag behind the line through all outputs.
///
/// Each nearest-neighbour upsampling repeats values that lie a stride of its input apart.
fn largest_repeat(sized: &SizedGraph, axis: Axis) -> u128 {
    let strides = strides(sized, axis);
    let edges = sized.graph().nodes().iter().flat_map(|node| &node.inputs);
    edges
        .filter(|edge| {
            matches!(
                edge.rule[axis],
                AxisRule::UpsampleNearest(_) | AxisRule::TransposedWindow(_)
            )
        })
        .map(|edge| strides[edge.source.0].ceil())
        .sum()
}

proptest! {
    #[test]
    fn tiles_own_every_position_once_and_hold_what_they_read(case in cases()) {
        check_blocks(&case)?;
    }

    #[test]
    fn prefixes_are_what_the_inputs_allow(case in cases()) {
        let sized = case.sized();
        for axis in Axis::BOTH {
            check_prefixes(&sized, axis)?;
        }
    }

    #[test]
    fn dependencies_cover_every_path(case in cases(), percent in 0_i64..100) {
        let sized = case.sized();
        let output = sized.graph().outputs()[0];
        let size = sized.size(output.0).rows;
        let lo = size * percent / 100;
        let outputs = Span::new(lo, size.min(lo + 3));
        let spans = sized.dependencies(Axis::Rows, output, outputs);
        // Which single positions are reached, edge by edge.
        let mut reached: Vec<Vec<bool>> = (0..nodes(&sized))
            .map(|node| vec![false; usize::try_from(sized.size(node).rows).unwrap()])
            .collect();
        let mut only_padding = false;
        for index in outputs.lo..outputs.hi {
            reached[output.0][usize::try_from(index).unwrap()] = true;
        }
        for node in (1..nodes(&sized)).rev() {
            for index in 0..reached[node].len() {
                if !reached[node][index] {
                    continue;
                }
                for (edge, input) in sized.graph().nodes()[node].inputs.iter().enumerate() {
                    let read = sized.needed(node, edge, Axis::Rows, one(i64::try_from(index).unwrap()));
                    only_padding |= read.is_empty();
                    for position in read.lo..read.hi {
                        reached[input.source.0][usize::try_from(position).unwrap()] = true;
                    }
                }
            }
        }
        for (node, reached) in reached.iter().enumerate() {
            let first = reached.iter().position(|&hit| hit);
            let last = reached.iter().rposition(|&hit| hit);
            if let (Some(first), Some(last)) = (first, last) {
                let hull = Span::new(i64::try_from(first).unwrap(), i64::try_from(last).unwrap() + 1);
                prop_assert!(spans[node].covers(hull));
                prop_assert!(only_padding || spans[node] == hull, "{} {}", spans[node], hull);
            }
        }
    }

    #[test]
    fn lost_borders_are_where_padding_reaches(case in cases()) {
        let sized = case.sized();
        let output = sized.graph().outputs()[0];
        for axis in Axis::BOTH {
            let lost = &depends_on_padding(&sized, axis)[output.0];
            let border = LostBorder::of_output(&sized, axis, output);
            match lost.iter().position(|&lost| !lost) {
                None => prop_assert_eq!(border.total(), lost.len() as u64),
                Some(first) => {
                    let last = lost.iter().rposition(|&lost| !lost).unwrap();
                    prop_assert!(lost[first..=last].iter().all(|&lost| !lost));
                    prop_assert_eq!(border.lo, first as u64);
                    prop_assert_eq!(border.hi, (lost.len() - 1 - last) as u64);
                }
            }
        }
    }

    #[test]
    fn receptive_fields_are_the_largest_dependence_of_inner_outputs(case in cases()) {
        let sized = case.sized_for(PerAxis::both(480));
        prop_assume!(!has_aligned_corners(&sized));
        let output = sized.graph().outputs()[0];
        for axis in Axis::BOTH {
            let field = ReceptiveField::of(&sized, axis, output);
            let inner: Vec<Span> = (0..sized.size(output.0)[axis])
                .map(|index| sized.dependencies(axis, output, one(index))[0])
                .filter(|span| span.lo > 0 && span.hi < 480)
                .collect();
            let largest = inner.iter().map(|span| span.len()).max().unwrap_or(0);
            prop_assert!(largest <= field.extent);
            // Up to three factors of three, so 27 outputs show every phase of most graphs and never too much.
            if inner.len() > 200 {
                prop_assert_eq!(largest, field.extent);
            }
            prop_assert_eq!(strides(&sized, axis)[output.0], field.stride);
            if inner.len() > 400 {
                let moved = inner[inner.len() - 1].lo - inner[0].lo;
                let steps = u128::try_from(inner.len() - 1).unwrap();
                let expected = field.stride.times(Fraction::new(steps, 1));
                let slack = u128::from(field.extent) + largest_repeat(&sized, axis) + 2;
                prop_assert!(u128::from(moved.unsigned_abs()).abs_diff(expected.ceil()) <= slack);
            }
        }
    }

    #[test]
    fn costs_are_sums_over_tiles(case in cases()) {
        let geometry = case.geometry();
        let graph = geometry.sized().graph();
        let cost = Cost::of(&geometry);
        let (mut forward, mut vjp, mut resweep, mut tiles) = (0, 0, 0, 0);
        for block in geometry.iter_blocks() {
            let bands = block.rows.bands();
            let last = geometry.segment_bands(bands, geometry.segments() - 1);
            for band in 0..bands {
                for column in 0..block.columns.bands() {
                    tiles += 1;
                    for (node, value) in graph.nodes().iter().enumerate() {
                        let area = block.owned(Tile { band, column }, node).area();
                        forward += area * u128::from(value.forward_flops);
                        if !last.contains(&band) {
                            resweep += area * u128::from(value.forward_flops);
                        }
                        if value.has_cotangent && node > 0 {
                            vjp += area * u128::from(value.vjp_flops);
                        }
                    }
                }
            }
        }
        prop_assert_eq!((cost.forward, cost.resweep), (forward, resweep));
        prop_assert_eq!((cost.vjp, cost.tiles), (vjp, tiles));
        prop_assert!(cost.recompute <= cost.forward);
        // Blocks may overlap, and leave out what no output reads.
        prop_assert!(geometry.blocks() > 1 || cost.compute_ratio() >= Fraction::new(1, 1));
    }
}
