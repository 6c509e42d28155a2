//! Outlines of sets of cells of a grid.
//!
//! `geo`'s union of the cells is not used: it loses holes (seen with geo 0.33).

use std::collections::HashMap;

use geo::{Coord, LineString, MultiPolygon, Polygon};

use crate::numbers::{float, wide};

/// The cells of a grid of `width` columns that are `inside`, as polygons: one for each set of cells that are joined by edges, with
/// its holes. Coordinates count cells, from the corner of the first.
///
/// Rings do not cross or touch themselves; they may touch each other at corners.
pub(crate) fn outlines(inside: &[bool], width: usize) -> MultiPolygon<f64> {
    let grid = Grid {
        inside,
        width,
        height: inside.len() / width.max(1),
    };
    let parts = grid.parts();
    let mut polygons: Vec<Rings> = Vec::new();
    for (cell, ring) in grid.rings() {
        let part = parts[cell];
        if polygons.len() <= part {
            polygons.resize(part + 1, Rings::default());
        }
        if twice_the_area(&ring) > 0.0 {
            polygons[part].exterior = Some(LineString(ring));
        } else {
            polygons[part].holes.push(LineString(ring));
        }
    }
    let polygons = polygons.into_iter();
    polygons
        .filter_map(|rings| Some(Polygon::new(rings.exterior?, rings.holes)))
        .collect()
}

/// Of one polygon, as they are found.
#[derive(Clone, Default)]
struct Rings {
    exterior: Option<LineString<f64>>,
    holes: Vec<LineString<f64>>,
}

/// More than 0 for a ring that runs clockwise as one looks at a picture, where rows count downwards.
fn twice_the_area(ring: &[Coord<f64>]) -> f64 {
    let next = ring.iter().cycle().skip(1);
    ring.iter()
        .zip(next)
        .map(|(a, b)| a.x * b.y - b.x * a.y)
        .sum()
}

#[derive(Clone, Copy)]
struct Grid<'a> {
    inside: &'a [bool],
    width: usize,
    height: usize,
}

/// Directions along the borders of cells, clockwise.
const RIGHT: usize = 0;
const DOWN: usize = 1;
const LEFT: usize = 2;
const UP: usize = 3;

impl Grid<'_> {
    fn at(self, row: Option<usize>, column: Option<usize>) -> bool {
        let (Some(row), Some(column)) = (row, column) else {
            return false;
        };
        row < self.height && column < self.width && self.inside[row * self.width + column]
    }

    /// For each cell, which set of cells it is joined to by edges; 0 outside.
    fn parts(self) -> Vec<usize> {
        let mut parts = vec![0; self.inside.len()];
        let (mut found, mut waiting) = (0, Vec::new());
        for first in 0..self.inside.len() {
            if !self.inside[first] || parts[first] != 0 {
                continue;
            }
            found += 1;
            parts[first] = found;
            waiting.push(first);
            while let Some(cell) = waiting.pop() {
                let (row, column) = (cell / self.width, cell % self.width);
                let near = [
                    (column + 1 < self.width).then_some(cell + 1),
                    (column > 0).then(|| cell - 1),
                    (row + 1 < self.height).then_some(cell + self.width),
                    (row > 0).then(|| cell - self.width),
                ];
                for other in near.into_iter().flatten() {
                    if self.inside[other] && parts[other] == 0 {
                        parts[other] = found;
                        waiting.push(other);
                    }
                }
            }
        }
        parts
    }

    /// The steps that lead from a corner along borders with the inside on their right, by direction.
    fn steps(self, corner: usize) -> [bool; 4] {
        let (row, column) = (corner / (self.width + 1), corner % (self.width + 1));
        let (above, left) = (row.checked_sub(1), column.checked_sub(1));
        let (row, column) = (Some(row), Some(column));
        let [upper_left, upper_right, lower_left, lower_right] = [
            self.at(above, left),
            self.at(above, column),
            self.at(row, left),
            self.at(row, column),
        ];
        let mut steps = [false; 4];
        steps[RIGHT] = lower_right && !upper_right;
        steps[DOWN] = lower_left && !lower_right;
        steps[LEFT] = upper_left && !lower_left;
        steps[UP] = upper_right && !upper_left;
        steps
    }

    /// The corner that a step leads to, and the cell on its right.
    fn step(self, corner: usize, direction: usize) -> (usize, usize) {
        let pitch = self.width + 1;
        let (row, column) = (corner / pitch, corner % pitch);
        let cell = |row: usize, column: usize| row * self.width + column;
        match direction {
            RIGHT => (corner + 1, cell(row, column)),
            DOWN => (corner + pitch, cell(row, column - 1)),
            LEFT => (corner - 1, cell(row - 1, column - 1)),
            _ => (corner - pitch, cell(row - 1, column)),
        }
    }

    /// All rings, each with a cell that lies on its right.
    fn rings(self) -> Vec<(usize, Vec<Coord<f64>>)> {
        let corners = (self.width + 1) * (self.height + 1);
        let mut taken = vec![[false; 4]; corners];
        let mut rings = Vec::new();
        // The first corner of a ring, row by row, is one where it turns.
        for corner in 0..corners {
            let steps = self.steps(corner);
            for direction in [RIGHT, DOWN, LEFT, UP] {
                if steps[direction] && !taken[corner][direction] {
                    self.follow(corner, direction, &mut taken, &mut rings);
                }
            }
        }
        rings
    }

    /// Follows a border to where it began, and cuts off what returns to a corner as a ring of its own.
    fn follow(
        self,
        first: usize,
        outset: usize,
        taken: &mut [[bool; 4]],
        rings: &mut Vec<(usize, Vec<Coord<f64>>)>,
    ) {
        let mut path = vec![first];
        let mut places = HashMap::from([(first, 0)]);
        let (mut corner, mut direction) = (first, outset);
        loop {
            taken[corner][direction] = true;
            let (reached, cell) = self.step(corner, direction);
            let steps = self.steps(reached);
            // Where two cells touch at a corner, the same cell is followed.
            let turns = [direction + 1, direction, direction + 3].map(|turn| turn % 4);
            let Some(next) = turns.into_iter().find(|&turn| steps[turn]) else {
                return;
            };
            if (reached, next) == (first, outset) {
                rings.push((cell, self.coordinates(&path)));
                return;
            }
            if next != direction {
                if let Some(&place) = places.get(&reached) {
                    rings.push((cell, self.coordinates(&path[place..])));
                    for corner in path.drain(place + 1..) {
                        places.remove(&corner);
                    }
                } else {
                    places.insert(reached, path.len());
                    path.push(reached);
                }
            }
            (corner, direction) = (reached, next);
        }
    }

    fn coordinates(self, path: &[usize]) -> Vec<Coord<f64>> {
        let pitch = self.width + 1;
        let place = |&corner: &usize| Coord {
            x: float(wide(corner % pitch)),
            y: float(wide(corner / pitch)),
        };
        path.iter().map(place).collect()
    }
}

#[cfg(test)]
mod tests {
    use geo::Validation;

    use super::*;

    /// Whether an odd number of rings' upright edges lies to the left of a cell's centre.
    fn holds(polygon: &Polygon<f64>, row: f64, column: f64) -> bool {
        let rings = std::iter::once(polygon.exterior()).chain(polygon.interiors());
        let edges = rings.flat_map(|ring| ring.lines());
        let crossed = edges.filter(|edge| {
            let (low, high) = (edge.start.y.min(edge.end.y), edge.start.y.max(edge.end.y));
            edge.start.x < column && low < row && row < high
        });
        crossed.count() % 2 == 1
    }

    /// All sets of cells of 4 x 4: each cell in as many polygons as it is inside, all valid, and as many as there are parts.
    #[test]
    fn all_small_sets_are_outlined_by_valid_polygons() {
        for set in 0..1_u32 << 16 {
            let inside: Vec<bool> = (0..16).map(|cell| set >> cell & 1 == 1).collect();
            let polygons = outlines(&inside, 4);
            for (cell, &is_inside) in inside.iter().enumerate() {
                let (row, column) = (float(wide(cell / 4)) + 0.5, float(wide(cell % 4)) + 0.5);
                let holding = polygons
                    .iter()
                    .filter(|polygon| holds(polygon, row, column));
                assert_eq!(holding.count(), usize::from(is_inside), "{set:b}: {cell}");
            }
            assert!(polygons.is_valid(), "{set:b}: {polygons:?}");
        }
    }

    #[test]
    fn a_ring_that_returns_to_a_corner_is_cut_there() {
        // Tips that touch at a corner enclose a hole, and another touches it from inside.
        let rows = ["#####", "#..##", "##.##", "#..#.", "####."];
        let cells = rows.iter().flat_map(|row| row.chars());
        let polygons = outlines(&cells.map(|cell| cell == '#').collect::<Vec<_>>(), 5);
        assert_eq!(polygons.0.len(), 1);
        assert!(polygons.is_valid());
        assert!(outlines(&[], 0).0.is_empty());
        assert!(outlines(&[false; 6], 3).0.is_empty());
    }
}
