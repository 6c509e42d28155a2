//! Tiles of one class against brute force: every value is a digest of all that it is computed from, and of where that lies in it.

#![allow(clippy::unwrap_used, reason = "a helper of a test fails the test")]

mod common;

use std::cell::Cell;
use std::collections::HashMap;

use common::random::{Case, shifted_cases};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use stream_grad_tiling::{
    AlignCorners, Axis, AxisRule, BackwardPieces, BackwardTemplate, Block, Buffers,
    ForwardTemplate, Geometry, MOST_TEMPLATES, NodeId, PerAxis, Piece, Recipe, Rect, Reuse, Shifts,
    SizedGraph, Span, Tile, TileClasses,
};

/// One step of a hash (the finaliser of SplitMix64).
fn mix(state: u64, value: u64) -> u64 {
    let mut z = state
        .rotate_left(23)
        .wrapping_mul(0x9E37_79B9_7F4A_7C15)
        .wrapping_add(value);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// What lies in padding.
const PADDING: u64 = 0x5EED;

#[derive(Clone)]
struct Plane {
    rows: usize,
    columns: usize,
    values: Vec<u64>,
}

fn index(place: i64) -> usize {
    usize::try_from(place).unwrap()
}

impl Plane {
    fn new(rows: usize, columns: usize) -> Self {
        Self {
            rows,
            columns,
            values: vec![0; rows * columns],
        }
    }

    fn of(sized: &SizedGraph, node: usize) -> Self {
        let plane = sized.plane(node);
        Self::new(plane.height(), plane.width())
    }

    fn at(&self, row: usize, column: usize) -> u64 {
        self.values[row * self.columns + column]
    }

    fn at_mut(&mut self, row: usize, column: usize) -> &mut u64 {
        &mut self.values[row * self.columns + column]
    }

    fn part(&self, rect: Rect) -> Vec<u64> {
        let rows = rect.rows.lo..rect.rows.hi;
        rows.flat_map(|row| {
            let columns = rect.columns.lo..rect.columns.hi;
            columns.map(move |column| self.at(index(row), index(column)))
        })
        .collect()
    }

    /// The only value of a part that is not empty.
    fn color(&self, rect: Rect) -> Option<u64> {
        let values = self.part(rect);
        let first = *values.first()?;
        values.iter().all(|&value| value == first).then_some(first)
    }
}

/// What an output reads along one axis: inputs, or padding where there is none, and what else tells it from other outputs.
struct Taps {
    inputs: Vec<Option<usize>>,
    phase: u64,
}

fn taps(rule: &AxisRule, output: i64, size: i64) -> Taps {
    let (span, phase) = match rule {
        AxisRule::UpsampleBilinear(factor, AlignCorners::No) => {
            let left = (2 * output + 1 - factor).div_euclid(2 * factor);
            (Span::new(left, left + 2), output.rem_euclid(*factor))
        }
        // Each has weights of its own.
        AxisRule::UpsampleBilinear(_, AlignCorners::Yes) => {
            (rule.needed(Span::new(output, output + 1), size), output)
        }
        rule => {
            let span = rule.needed(Span::new(output, output + 1), size);
            (span, output.rem_euclid(rule.stride().1))
        }
    };
    let inside = |place: i64| (0..size).contains(&place).then(|| index(place));
    Taps {
        inputs: (span.lo..span.hi).map(inside).collect(),
        phase: phase.unsigned_abs(),
    }
}

/// The taps of all outputs along one axis.
fn all_taps(sized: &SizedGraph, node: usize, edge: usize, axis: Axis) -> Vec<Taps> {
    let edge = &sized.graph().nodes()[node].inputs[edge];
    let size = sized.size(edge.source.0)[axis];
    let outputs = 0..sized.size(node)[axis];
    outputs
        .map(|output| taps(&edge.rule[axis], output, size))
        .collect()
}

/// What an operator that knows where it is knows.
fn grid(shifts: Shifts, row: usize, column: usize) -> u64 {
    match shifts {
        Shifts::All => 0,
        Shifts::Multiples(grid) => {
            let grid = grid.get() as usize;
            mix((row % grid) as u64, (column % grid) as u64)
        }
        Shifts::Nothing => mix(row as u64, column as u64),
    }
}

/// Of each node, digests of the values.
fn forward(sized: &SizedGraph, image: Plane) -> Vec<Plane> {
    let mut values = vec![image];
    for (node, value) in sized.graph().nodes().iter().enumerate().skip(1) {
        let mut plane = Plane::of(sized, node);
        let shifts = sized.graph().shifts(node);
        for row in 0..plane.rows {
            for column in 0..plane.columns {
                *plane.at_mut(row, column) = mix(node as u64, grid(shifts, row, column));
            }
        }
        for (edge, input) in value.inputs.iter().enumerate() {
            let source = &values[input.source.0];
            let [rows, columns] = Axis::BOTH.map(|axis| all_taps(sized, node, edge, axis));
            // Along rows of the input first, then along columns of what that gives.
            let mut lines = Plane::new(source.rows, plane.columns);
            for row in 0..source.rows {
                for (column, taps) in columns.iter().enumerate() {
                    let values = taps.inputs.iter();
                    let values = values.map(|tap| tap.map_or(PADDING, |tap| source.at(row, tap)));
                    *lines.at_mut(row, column) = values.fold(taps.phase, mix);
                }
            }
            for (row, taps) in rows.iter().enumerate() {
                for column in 0..plane.columns {
                    let values = taps.inputs.iter();
                    let values = values.map(|tap| tap.map_or(PADDING, |tap| lines.at(tap, column)));
                    let read = values.fold(taps.phase, mix);
                    let value = plane.at_mut(row, column);
                    *value = mix(*value, read);
                }
            }
        }
        values.push(plane);
    }
    values
}

/// Of each node, digests of the complete cotangents of what a block needs; sums do not depend on their order.
fn backward(
    sized: &SizedGraph,
    block: Block<'_>,
    values: &[Plane],
    cotangents: Vec<(usize, Plane)>,
) -> Vec<Plane> {
    let nodes = sized.graph().nodes();
    let mut bars: Vec<Plane> = (0..nodes.len())
        .map(|node| Plane::of(sized, node))
        .collect();
    for (node, plane) in cotangents {
        bars[node] = plane;
    }
    for node in (1..nodes.len()).rev() {
        let needed = PerAxis::new(block.rows.needed(node), block.columns.needed(node));
        for (edge, input) in nodes[node].inputs.iter().enumerate() {
            let source = input.source.0;
            if !nodes[source].has_cotangent {
                continue;
            }
            let [rows, columns] = Axis::BOTH.map(|axis| all_taps(sized, node, edge, axis));
            let label = mix(node as u64, edge as u64);
            let mut lines = Plane::new(bars[node].rows, bars[source].columns);
            for row in needed.rows.lo..needed.rows.hi {
                for column in needed.columns.lo..needed.columns.hi {
                    let (row, column) = (index(row), index(column));
                    let given = mix(bars[node].at(row, column), values[node].at(row, column));
                    for (place, tap) in columns[column].inputs.iter().enumerate() {
                        if let Some(tap) = *tap {
                            let line = lines.at_mut(row, tap);
                            *line = line.wrapping_add(mix(given, mix(label, place as u64)));
                        }
                    }
                }
            }
            for row in needed.rows.lo..needed.rows.hi {
                for (place, tap) in rows[index(row)].inputs.iter().enumerate() {
                    let Some(tap) = *tap else { continue };
                    for column in 0..lines.columns {
                        let line = lines.at(index(row), column);
                        let bar = bars[source].at_mut(tap, column);
                        *bar = bar.wrapping_add(mix(line, place as u64));
                    }
                }
            }
        }
    }
    bars
}

/// Noise from a seed.
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u64 {
        self.0 = mix(self.0, 1);
        self.0
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound.max(1) as u64).unwrap()
    }
}

/// One or two colours, with a few discs of noise.
fn picture(sized: &SizedGraph, noise: &mut Noise) -> Plane {
    let mut plane = Plane::of(sized, 0);
    plane.values.fill(7);
    if noise.below(3) == 0 {
        let from = noise.below(plane.columns);
        for row in 0..plane.rows {
            (from..plane.columns).for_each(|column| *plane.at_mut(row, column) = 9);
        }
    }
    for _ in 0..noise.below(3) {
        let (row, column) = (noise.below(plane.rows), noise.below(plane.columns));
        let radius = 1 + noise.below(6);
        for r in row.saturating_sub(radius)..(row + radius).min(plane.rows) {
            for c in column.saturating_sub(radius)..(column + radius).min(plane.columns) {
                if r.abs_diff(row).pow(2) + c.abs_diff(column).pow(2) < radius * radius {
                    *plane.at_mut(r, c) = noise.next();
                }
            }
        }
    }
    plane
}

/// A cotangent that depends on the features alone, but in a few places, and these places.
fn cotangent(features: &Plane, noise: &mut Noise) -> (Plane, Vec<Rect>) {
    let mut plane = features.clone();
    for value in &mut plane.values {
        *value = mix(*value, 3);
    }
    let places = (0..noise.below(3)).map(|_| {
        let (row, column) = (noise.below(plane.rows), noise.below(plane.columns));
        *plane.at_mut(row, column) = noise.next();
        let one = |place: usize| {
            Span::new(
                i64::try_from(place).unwrap(),
                i64::try_from(place + 1).unwrap(),
            )
        };
        PerAxis::new(one(row), one(column))
    });
    let places = places.collect();
    (plane, places)
}

fn tiles(geometry: &Geometry) -> impl Iterator<Item = (usize, Tile)> + '_ {
    (0..geometry.blocks()).flat_map(|index| {
        let block = geometry.block(index);
        let columns = block.columns.bands();
        (0..block.rows.bands())
            .flat_map(move |band| (0..columns).map(move |column| (index, Tile { band, column })))
    })
}

/// Of each node, a part of what it has in a tile.
fn parts(planes: &[Plane], rect: impl Fn(usize) -> Rect) -> Vec<(usize, usize, Vec<u64>)> {
    let nodes = planes.iter().enumerate();
    nodes
        .map(|(node, plane)| {
            let rect = rect(node);
            (rect.height(), rect.width(), plane.part(rect))
        })
        .collect()
}

/// Compares all tiles of each class with its first one; returns how many there were besides.
fn forward_is_alike(geometry: &Geometry, values: &[Plane]) -> Result<usize, TestCaseError> {
    let classes = TileClasses::forward(geometry);
    let mut first = HashMap::new();
    let mut more = 0;
    for (index, tile) in tiles(geometry) {
        let class = classes.of(index, tile);
        prop_assert!(classes.tiles(class.key) > 0);
        let Some(color) = values[0].color(class.field) else {
            continue;
        };
        let block = geometry.block(index);
        let held = parts(values, |node| block.held(tile, node));
        let handed_on: Vec<[u64; 2]> = (0..values.len())
            .map(|node| {
                [
                    block.rows.halo(tile.band + 1, node).len(),
                    block.columns.halo(tile.column + 1, node).len(),
                ]
            })
            .collect();
        let found = (held, handed_on);
        match first.entry((class.key, color)) {
            std::collections::hash_map::Entry::Vacant(entry) => {
                entry.insert(found);
            }
            std::collections::hash_map::Entry::Occupied(entry) => {
                prop_assert!(*entry.get() == found, "block {} {:?}", index, tile);
                more += 1;
            }
        }
    }
    Ok(more)
}

fn backward_is_alike(
    geometry: &Geometry,
    values: &[Plane],
    noise: &mut Noise,
) -> Result<usize, TestCaseError> {
    let sized = geometry.sized();
    let outputs = sized.graph().outputs();
    let classes = TileClasses::backward(geometry);
    let given: Vec<(Plane, Vec<Rect>)> = outputs
        .iter()
        .map(|output| cotangent(&values[output.0], noise))
        .collect();
    let mut first = HashMap::new();
    let mut more = 0;
    for (index, tiles) in (0..geometry.blocks()).map(|index| {
        let tiles = tiles(geometry).filter(move |(block, _)| *block == index);
        (index, tiles.map(|(_, tile)| tile))
    }) {
        let block = geometry.block(index);
        let of_block = |output: usize| {
            let needed = PerAxis::new(block.rows.needed(output), block.columns.needed(output));
            let mut plane = Plane::of(sized, output);
            let from = outputs.iter().position(|node| node.0 == output).unwrap();
            for row in index_range(needed.rows) {
                for column in index_range(needed.columns) {
                    *plane.at_mut(row, column) = given[from].0.at(row, column);
                }
            }
            (output, plane)
        };
        let cotangents = outputs.iter().map(|output| of_block(output.0)).collect();
        let bars = backward(sized, block, values, cotangents);
        for tile in tiles {
            let class = classes.of(index, tile);
            let depends_on_features = given.iter().enumerate().all(|(output, (_, places))| {
                let cone = classes.outputs(index, tile, output);
                places.iter().all(|place| place.intersect(cone).is_empty())
            });
            let Some(color) = values[0].color(class.field) else {
                continue;
            };
            if !depends_on_features {
                continue;
            }
            let held = parts(values, |node| block.held(tile, node));
            let nodes = sized.graph().nodes();
            let owned = parts(&bars, |node| {
                // Of others nobody asks for a cotangent.
                if nodes[node].has_cotangent {
                    block.owned(tile, node)
                } else {
                    Rect::default()
                }
            });
            let found = (held, owned);
            match first.entry((class.key, color)) {
                std::collections::hash_map::Entry::Vacant(entry) => {
                    entry.insert(found);
                }
                std::collections::hash_map::Entry::Occupied(entry) => {
                    prop_assert!(*entry.get() == found, "block {} {:?}", index, tile);
                    more += 1;
                }
            }
        }
    }
    Ok(more)
}

fn index_range(span: Span) -> std::ops::Range<usize> {
    index(span.lo)..index(span.hi)
}

/// Extents and offsets of pieces, which must be apart.
fn laid_out(pieces: &[Piece], length: u64, channels: u64) -> Result<Vec<[u64; 3]>, TestCaseError> {
    let pieces = pieces.iter().map(|piece| {
        let extents = piece.rect.map(|span| span.len());
        [piece.offset, extents.rows, extents.columns]
    });
    let pieces: Vec<[u64; 3]> = pieces.collect();
    let end = |[offset, rows, columns]: [u64; 3]| offset + rows * columns * channels;
    for pair in pieces.windows(2) {
        prop_assert!(end(pair[0]) <= pair[1][0], "{:?}", pair);
    }
    prop_assert!(pieces.last().is_none_or(|&last| end(last) <= length));
    Ok(pieces)
}

/// Tiles of one class have the same template, which holds what they hand on; there is room for one of each key.
fn templates_are_alike(geometry: &Geometry) -> Result<usize, TestCaseError> {
    let buffers = Buffers::new(geometry);
    let nodes = geometry.sized().graph().nodes();
    let (mut room, mut more) = ([0; 2], 0);
    let mut first = HashMap::new();
    for (index, tile) in tiles(geometry) {
        let block = geometry.block(index);
        let forward = ForwardTemplate::of(geometry, block, tile);
        let backward = BackwardTemplate::of(geometry, block, tile);
        for (node, of_graph) in nodes.iter().enumerate() {
            let (pieces, channels) = (forward.nodes[node], of_graph.channels);
            prop_assert!(pieces.below.rect.covers(block.below(tile, node)));
            prop_assert!(pieces.right.rect.covers(block.right(tile, node)));
            let is_output = geometry.sized().graph().outputs().contains(&NodeId(node));
            if is_output || geometry.is_stored(node) {
                prop_assert!(pieces.owned.rect.covers(block.owned(tile, node)));
            }
            let distinct: Vec<Piece> = pieces.distinct().collect();
            let forward_places = laid_out(&distinct, forward.length, channels)?;
            let BackwardPieces { above, left, owned } = backward.nodes[node];
            let backward_places = laid_out(&[above, left, owned], backward.length, channels)?;
            for (sweep, templates, places, length) in [
                (
                    0,
                    buffers.forward_templates(),
                    forward_places,
                    forward.length,
                ),
                (
                    1,
                    buffers.backward_templates(),
                    backward_places,
                    backward.length,
                ),
            ] {
                let templates = templates.unwrap();
                let Some((key, _)) = templates.of(index, tile) else {
                    continue;
                };
                prop_assert_eq!(templates.length(key), length);
                match first.entry((sweep, key, node)) {
                    std::collections::hash_map::Entry::Vacant(entry) => {
                        entry.insert(places);
                        room[sweep] += if node == 0 { length } else { 0 };
                    }
                    std::collections::hash_map::Entry::Occupied(entry) => {
                        prop_assert_eq!(entry.get(), &places);
                        more += usize::from(node == 0);
                    }
                }
            }
        }
    }
    for (room, templates) in room
        .into_iter()
        .zip([buffers.forward_templates(), buffers.backward_templates()])
    {
        let templates = templates.unwrap();
        prop_assert!(room <= templates.room() && templates.keys() <= MOST_TEMPLATES);
    }
    Ok(more)
}

/// What a test over many cases has seen, so that it is known to have seen something.
#[derive(Default)]
struct Seen {
    tiles: Cell<usize>,
    copies: Cell<usize>,
}

fn over_cases(check: impl Fn(&Case, &mut Noise, &Seen) -> Result<(), TestCaseError>) -> Seen {
    let seen = Seen::default();
    let mut runner = TestRunner::new(ProptestConfig::with_cases(1000));
    runner
        .run(&(shifted_cases(), any::<u64>()), |(case, seed)| {
            check(&case, &mut Noise(seed), &seen)
        })
        .unwrap();
    seen
}

#[test]
fn tiles_of_a_class_hold_the_same_values() {
    let seen = over_cases(|case, noise, seen| {
        let geometry = case.alike_geometry();
        let image = picture(geometry.sized(), noise);
        let values = forward(geometry.sized(), image);
        seen.tiles.set(seen.tiles.get() + tiles(&geometry).count());
        let more = forward_is_alike(&geometry, &values)?;
        seen.copies.set(seen.copies.get() + more);
        Ok(())
    });
    let share = seen.copies.get() as f64 / seen.tiles.get() as f64;
    assert!(share > 0.1, "{share} of {} tiles", seen.tiles.get());
}

#[test]
fn tiles_of_a_class_have_the_same_cotangents() {
    let seen = over_cases(|case, noise, seen| {
        let geometry = case.alike_geometry();
        let image = picture(geometry.sized(), noise);
        let values = forward(geometry.sized(), image);
        seen.tiles.set(seen.tiles.get() + tiles(&geometry).count());
        let more = backward_is_alike(&geometry, &values, noise)?;
        seen.copies.set(seen.copies.get() + more);
        Ok(())
    });
    let share = seen.copies.get() as f64 / seen.tiles.get() as f64;
    assert!(share > 0.05, "{share} of {} tiles", seen.tiles.get());
}

#[test]
fn tiles_of_a_class_have_one_template() {
    let seen = over_cases(|case, _, seen| {
        let geometry = case.alike_geometry();
        let recipe = Recipe {
            reuse: Reuse::OneColor,
            stored: case.stored_nodes(geometry.sized()),
            ..geometry.recipe().clone()
        };
        let geometry = Geometry::new(geometry.sized().clone(), recipe).unwrap();
        let more = templates_are_alike(&geometry)?;
        seen.copies.set(seen.copies.get() + more);
        Ok(())
    });
    assert!(seen.copies.get() > 10_000, "{}", seen.copies.get());
}
