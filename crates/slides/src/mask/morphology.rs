//! Binary morphology on bitmaps.

use crate::geometry::Region;

/// A binary image.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Bitmap {
    height: usize,
    width: usize,
    bits: Vec<bool>,
}

/// Which neighbours belong together.
#[derive(Clone, Copy, PartialEq)]
enum Connectivity {
    /// Sides.
    Four,
    /// Sides and corners.
    Eight,
}

impl Bitmap {
    pub(crate) fn new(height: usize, width: usize) -> Self {
        Self::from_bits(height, width, vec![false; height * width])
    }

    /// `bits`: `height x width`.
    pub(crate) const fn from_bits(height: usize, width: usize, bits: Vec<bool>) -> Self {
        Self {
            height,
            width,
            bits,
        }
    }

    pub(crate) const fn height(&self) -> usize {
        self.height
    }

    pub(crate) const fn width(&self) -> usize {
        self.width
    }

    pub(crate) fn bits(&self) -> &[bool] {
        &self.bits
    }

    pub(crate) fn get(&self, row: usize, column: usize) -> bool {
        row < self.height && column < self.width && self.bits[row * self.width + column]
    }

    /// Sets what lies within `radius` of a set bit, by rows and columns (a square of edge 2 radius + 1).
    pub(crate) fn dilate(&mut self, radius: usize) {
        self.spread(radius, true);
    }

    /// Clears what lies within `radius` of a clear bit; the border does not count as clear.
    pub(crate) fn erode(&mut self, radius: usize) {
        self.spread(radius, false);
    }

    /// Erosion, then dilation: drops what is thinner than the square.
    pub(crate) fn open(&mut self, radius: usize) {
        self.erode(radius);
        self.dilate(radius);
    }

    /// Dilation, then erosion: closes gaps thinner than the square.
    pub(crate) fn close(&mut self, radius: usize) {
        self.dilate(radius);
        self.erode(radius);
    }

    pub(crate) fn subtract(&mut self, other: &Self) {
        for (bit, &removed) in self.bits.iter_mut().zip(&other.bits) {
            *bit &= !removed;
        }
    }

    /// Sets every enclosed clear region of fewer than `area` bits.
    pub(crate) fn fill_holes(&mut self, area: usize) {
        self.for_each_piece(false, Connectivity::Four, |piece, touches_border, bits| {
            if piece.len() < area && !touches_border {
                piece.iter().for_each(|&index| bits[index] = true);
            }
        });
    }

    /// Clears every set region of fewer than `area` bits.
    pub(crate) fn drop_pieces(&mut self, area: usize) {
        self.for_each_piece(true, Connectivity::Eight, |piece, _, bits| {
            if piece.len() < area {
                piece.iter().for_each(|&index| bits[index] = false);
            }
        });
    }

    /// Numbers of set bits above and left of each corner of the grid: `(height + 1) x (width + 1)`.
    pub(crate) fn summed(&self) -> Vec<u64> {
        let stride = self.width + 1;
        let mut sums = vec![0; (self.height + 1) * stride];
        for row in 0..self.height {
            let mut in_row = 0;
            for column in 0..self.width {
                in_row += u64::from(self.bits[row * self.width + column]);
                sums[(row + 1) * stride + column + 1] = sums[row * stride + column + 1] + in_row;
            }
        }
        sums
    }

    /// The smallest rectangle with all set bits.
    pub(crate) fn bounding_box(&self) -> Option<Region> {
        let row_is_set =
            |row: &usize| self.bits[row * self.width..(row + 1) * self.width].contains(&true);
        let column_is_set =
            |column: &usize| (0..self.height).any(|row| self.bits[row * self.width + column]);
        let place = |index: usize| i64::try_from(index).unwrap_or(i64::MAX);
        let top = (0..self.height).find(row_is_set)?;
        let bottom = (0..self.height).rev().find(row_is_set)?;
        let left = (0..self.width).find(column_is_set)?;
        let right = (0..self.width).rev().find(column_is_set)?;
        Some(Region::new(
            place(top)..place(bottom + 1),
            place(left)..place(right + 1),
        ))
    }

    /// Spreads `value` by `radius` along both axes.
    fn spread(&mut self, radius: usize, value: bool) {
        if radius == 0 || self.bits.is_empty() {
            return;
        }
        let (height, width) = (self.height, self.width);
        let mut spread = Spread {
            value,
            radius,
            line: Vec::new(),
        };
        for row in 0..height {
            spread.along(&mut self.bits, width, |column| row * width + column);
        }
        for column in 0..width {
            spread.along(&mut self.bits, height, |row| row * width + column);
        }
    }

    /// Calls `change` with the indices of each region of `value` and whether it touches the border.
    fn for_each_piece(
        &mut self,
        value: bool,
        connectivity: Connectivity,
        mut change: impl FnMut(&[usize], bool, &mut [bool]),
    ) {
        let mut seen = vec![false; self.bits.len()];
        let mut piece = Vec::new();
        for start in 0..self.bits.len() {
            if seen[start] || self.bits[start] != value {
                continue;
            }
            piece.clear();
            piece.push(start);
            seen[start] = true;
            let mut touches_border = false;
            let mut next = 0;
            while let Some(&index) = piece.get(next) {
                next += 1;
                let (row, column) = (index / self.width, index % self.width);
                touches_border |=
                    row == 0 || column == 0 || row + 1 == self.height || column + 1 == self.width;
                for r in row.saturating_sub(1)..(row + 2).min(self.height) {
                    for c in column.saturating_sub(1)..(column + 2).min(self.width) {
                        let neighbour = r * self.width + c;
                        let diagonal = r != row && c != column;
                        if seen[neighbour]
                            || self.bits[neighbour] != value
                            || (diagonal && connectivity == Connectivity::Four)
                        {
                            continue;
                        }
                        seen[neighbour] = true;
                        piece.push(neighbour);
                    }
                }
            }
            change(&piece, touches_border, &mut self.bits);
        }
    }
}

/// Spreads a value along lines of bits.
struct Spread {
    value: bool,
    radius: usize,
    /// A line as it was.
    line: Vec<bool>,
}

impl Spread {
    /// Sets to the value what lies within the radius of it along one line of `length` bits, of which `at` says where they are.
    fn along(&mut self, bits: &mut [bool], length: usize, at: impl Fn(usize) -> usize) {
        self.line.clear();
        self.line.extend((0..length).map(|place| bits[at(place)]));
        // One past the last place that the value before reaches.
        let mut done = 0;
        for (place, _) in self
            .line
            .iter()
            .enumerate()
            .filter(|(_, bit)| **bit == self.value)
        {
            let end = (place + self.radius + 1).min(length);
            for target in place.saturating_sub(self.radius).max(done)..end {
                bits[at(target)] = self.value;
            }
            done = end;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bitmap(rows: &[&str]) -> Bitmap {
        let bits = rows
            .iter()
            .flat_map(|row| row.bytes().map(|bit| bit == b'#'))
            .collect();
        Bitmap::from_bits(rows.len(), rows[0].len(), bits)
    }

    #[test]
    fn small_holes_fill_and_bays_stay() {
        let mut map = bitmap(&["#####", "#.#.#", "#####", "#..#.", "#####"]);
        map.fill_holes(2);
        assert_eq!(map, bitmap(&["#####", "#####", "#####", "#..#.", "#####"]));
        map.fill_holes(3);
        assert_eq!(map, bitmap(&["#####", "#####", "#####", "####.", "#####"]));
    }

    #[test]
    fn small_pieces_go_and_corners_hold_together() {
        let mut map = bitmap(&["#....", ".#..#", "..#..", "....."]);
        map.drop_pieces(2);
        assert_eq!(map, bitmap(&["#....", ".#...", "..#..", "....."]));
        assert_eq!(map.bounding_box(), Some(Region::new(0..3, 0..3)));
        map.drop_pieces(4);
        assert_eq!(map.bounding_box(), None);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(100))]

        #[test]
        fn dilation_and_erosion_are_those_of_a_square(
            (height, width, bits) in (1..12_usize, 1..12_usize)
                .prop_flat_map(|(h, w)| (Just(h), Just(w), proptest::collection::vec(any::<bool>(), h * w))),
            radius in 0..4_usize,
        ) {
            let map = Bitmap::from_bits(height, width, bits);
            let near = |row: usize, column: usize, value: bool| {
                (0..height).any(|r| (0..width).any(|c| {
                    map.get(r, c) == value && r.abs_diff(row) <= radius && c.abs_diff(column) <= radius
                }))
            };
            let (mut dilated, mut eroded) = (map.clone(), map.clone());
            dilated.dilate(radius);
            eroded.erode(radius);
            for row in 0..height {
                for column in 0..width {
                    prop_assert_eq!(dilated.get(row, column), near(row, column, true));
                    prop_assert_eq!(eroded.get(row, column), !near(row, column, false));
                }
            }
        }
    }
}
