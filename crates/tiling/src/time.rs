//! A prediction of the time that a recipe takes, in picoseconds.

use std::fmt;
use std::ops::{Add, Mul};

use crate::fraction::Fraction;
use crate::geometry::Geometry;
use crate::graph::Graph;
use crate::memory::MemoryRequest;
use crate::recipe::Weights;
use crate::span::PerAxis;
use crate::work::{AlikeTiles, Amount, Work, duties};

/// A time in picoseconds: a FLOP takes about ten. Sums and products saturate.
///
/// ```
/// use stream_grad_tiling::Picoseconds;
/// assert_eq!(Picoseconds(1_234_567_890_123).to_string(), "1.234 s");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Picoseconds(pub u128);

impl fmt::Display for Picoseconds {
    /// In seconds, rounded down to milliseconds.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let milliseconds = self.0 / 1_000_000_000;
        write!(f, "{}.{:03} s", milliseconds / 1000, milliseconds % 1000)
    }
}

impl Add for Picoseconds {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
}

impl Mul<u128> for Picoseconds {
    type Output = Self;

    fn mul(self, times: u128) -> Self {
        Self(self.0.saturating_mul(times))
    }
}

/// The time of one computation at one node of a tile, in picoseconds, by the number of output positions that the tile owns.
///
/// It goes straight from point to point: fewer positions than in the first point take as long as it, and more than in the last
/// go on along the last line. So it says both what a visit takes however little the tile owns, and that a position takes longer
/// where a large tile does not fit in a cache.
///
/// ```
/// use stream_grad_tiling::{Picoseconds, TileTime};
/// let time = TileTime::through([(0, 100), (10, 120), (20, 160)]);
/// let of = |positions| time.of(positions).0;
/// assert_eq!([of(0), of(5), of(10), of(15), of(30)], [100, 110, 120, 140, 200]);
/// assert_eq!(TileTime::line(100, 2).of(1000), Picoseconds(2100));
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(
    feature = "serde",
    serde(from = "Vec<(u64, u64)>", into = "Vec<(u64, u64)>")
)]
pub struct TileTime {
    /// Positions, rising, and picoseconds.
    points: Vec<(u64, u64)>,
}

impl TileTime {
    /// The line of `visit` picoseconds for each tile and `position` for each position.
    pub fn line(visit: u64, position: u64) -> Self {
        Self::through([(0, visit), (1, visit.saturating_add(position))])
    }

    /// Through points of positions and picoseconds, in any order; of several with the same positions, the first.
    pub fn through(points: impl IntoIterator<Item = (u64, u64)>) -> Self {
        let mut points: Vec<(u64, u64)> = points.into_iter().collect();
        points.sort_by_key(|point| point.0);
        points.dedup_by_key(|point| point.0);
        Self { points }
    }

    /// The points, by rising positions.
    pub fn points(&self) -> &[(u64, u64)] {
        &self.points
    }

    /// For a tile that owns `positions`.
    pub fn of(&self, positions: u128) -> Picoseconds {
        let points = self.points.as_slice();
        let after = points.partition_point(|point| u128::from(point.0) <= positions);
        let (low, high) = match (points, after) {
            ([], _) => return Picoseconds::default(),
            ([first], _) | ([first, ..], 0) => return Picoseconds(first.1.into()),
            _ => {
                let high = after.min(points.len() - 1);
                (points[high - 1], points[high])
            }
        };
        let (length, distance) = (high.0 - low.0, positions - u128::from(low.0));
        let change =
            u128::from(low.1.abs_diff(high.1)).saturating_mul(distance) / u128::from(length);
        let start = u128::from(low.1);
        Picoseconds(if high.1 < low.1 {
            start.saturating_sub(change)
        } else {
            start.saturating_add(change)
        })
    }

    /// All of `amount`.
    fn sum(&self, amount: &Amount) -> Picoseconds {
        let tiles = amount.tiles.iter();
        tiles.fold(Picoseconds::default(), |sum, alike| {
            sum + self.of(alike.positions) * alike.count
        })
    }
}

impl From<Vec<(u64, u64)>> for TileTime {
    fn from(points: Vec<(u64, u64)>) -> Self {
        Self::through(points)
    }
}

impl From<TileTime> for Vec<(u64, u64)> {
    fn from(time: TileTime) -> Self {
        time.points
    }
}

/// The time of a node's computations.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct NodeTime {
    /// The forward computation, in whichever sweep.
    pub forward: TileTime,
    /// The VJP.
    pub vjp: TileTime,
}

/// What a recipe moves besides computing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Traffic {
    /// Bytes of one image that are written to a file and read again.
    pub(crate) file: u128,
    /// Bytes of memory that are asked of the system, for all images.
    pub(crate) fresh: u128,
}

/// What a recipe's time is predicted from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TimeModel {
    /// Of each node of the graph; nodes beyond the end take no time.
    pub nodes: Vec<NodeTime>,
    /// Picoseconds for a byte of a halo or of its cotangent that is copied.
    pub copied_byte: u64,
    /// Picoseconds for a byte of memory that is asked of the system, which clears it, and given back.
    pub fresh_byte: u64,
    /// Picoseconds for a byte that is written to a file and read again.
    pub file_byte: u64,
    /// Picoseconds for a byte of weights that is packed on use. What is packed once in a sweep is part of `fixed`.
    pub packed_byte: u64,
    /// Picoseconds of a step that depend neither on the recipe nor on the number of images.
    pub fixed: u64,
    /// The share of an image that is expected not to be of one colour. Where tiles of one colour are computed once, others are counted
    /// as if this was one disc.
    pub texture: Fraction,
}

impl TimeModel {
    /// Picoseconds of a FLOP where nothing was measured: 50 billion a second.
    pub const FLOP: u64 = 20;
    /// Picoseconds of a visit of a node of a tile where nothing was measured.
    pub const VISIT: u64 = 4_000_000;
    /// Picoseconds of a copied byte where nothing was measured: five gigabytes a second.
    pub const COPIED_BYTE: u64 = 200;
    /// Picoseconds of a byte of fresh memory where nothing was measured: five gigabytes a second.
    pub const FRESH_BYTE: u64 = 200;
    /// Picoseconds of a byte through a file where nothing was measured: a gigabyte a second each way.
    pub const FILE_BYTE: u64 = 2_000;
    /// Picoseconds of a packed byte where nothing was measured: a gigabyte a second.
    pub const PACKED_BYTE: u64 = 1_000;

    /// The fixed table for when nothing was measured: the graph's FLOPs at one rate, and the constants of this type.
    pub fn of_flops(graph: &Graph) -> Self {
        let time = |flops: u64| TileTime::line(Self::VISIT, flops.saturating_mul(Self::FLOP));
        let nodes = graph.nodes().iter().map(|node| NodeTime {
            forward: time(node.forward_flops),
            vjp: time(node.vjp_flops),
        });
        Self {
            nodes: nodes.collect(),
            copied_byte: Self::COPIED_BYTE,
            fresh_byte: Self::FRESH_BYTE,
            file_byte: Self::FILE_BYTE,
            packed_byte: Self::PACKED_BYTE,
            fixed: 0,
            texture: Fraction::new(1, 1),
        }
    }

    /// The time of forward and backward of all images of `memory` under a recipe.
    pub(crate) fn of_work(
        &self,
        geometry: &Geometry,
        work: &Work,
        traffic: Traffic,
        memory: &MemoryRequest,
    ) -> Picoseconds {
        let nodes = geometry.sized().graph().nodes();
        let mut image = Picoseconds(self.file_byte.into()) * traffic.file;
        let [forward_share, backward_share] = self.computed(geometry, work);
        let unknown = NodeTime::default();
        let amounts = work.sweep.iter().zip(&work.again);
        for (((index, node), duties), (sweep, again)) in
            nodes.iter().enumerate().zip(duties(geometry)).zip(amounts)
        {
            let time = self.nodes.get(index).unwrap_or(&unknown);
            let byte = u128::from(node.channels)
                .saturating_mul(memory.element_bytes.into())
                .saturating_mul(self.copied_byte.into());
            // A halo is copied out of one tile and into another.
            let copies = |amount: &Amount, times| Picoseconds(byte) * amount.halo * times;
            let packed = memory
                .packed_weights
                .get(index)
                .copied()
                .unwrap_or_default();
            let packing = |bytes, amount| self.packing(geometry, bytes, amount);
            let forward = |amount| time.forward.sum(amount) + packing(packed.forward, amount);
            image = image + forward_share.of(forward(sweep)) + copies(sweep, 2);
            image = image + forward(again) + copies(again, 2);
            if duties.recompute {
                image = image + backward_share.of(forward(sweep)) + copies(sweep, 1);
            }
            if duties.vjp {
                let vjp = time.vjp.sum(sweep) + packing(packed.vjp, sweep);
                image = image + backward_share.of(vjp) + copies(sweep, 2);
            }
        }
        image * u128::from(memory.images)
            + Picoseconds(self.fresh_byte.into()) * traffic.fresh
            + Picoseconds(self.fixed.into())
    }

    /// The time for which a node is computed again in the backward sweep over all tiles of one image, if it is.
    pub(crate) fn recompute(
        &self,
        node: usize,
        geometry: &Geometry,
        sweep: &Amount,
        memory: &MemoryRequest,
    ) -> Picoseconds {
        let time = self.nodes.get(node);
        let time = time.map_or(Picoseconds::default(), |time| time.forward.sum(sweep));
        let packed = memory.packed_weights.get(node).copied().unwrap_or_default();
        time + self.packing(geometry, packed.forward, sweep)
    }

    /// The time for packing so many bytes for each tile of `amount` that owns anything, if weights are packed on use.
    fn packing(&self, geometry: &Geometry, bytes: u128, amount: &Amount) -> Picoseconds {
        match geometry.recipe().weights {
            Weights::Held => Picoseconds::default(),
            Weights::PackedOnUse => {
                let tiles = amount.tiles.iter().map(|alike| alike.count);
                let tiles = tiles.fold(0, u128::saturating_add);
                Picoseconds(self.packed_byte.into()) * bytes * tiles
            }
        }
    }

    /// The shares of tiles that are computed forward and backward.
    pub(crate) fn computed(&self, geometry: &Geometry, work: &Work) -> [Share; 2] {
        let image = geometry.sized().image();
        match work.alike {
            None => [Share::ALL; 2],
            Some(alike) => alike.map(|alike| {
                Share::seeing(self.texture, image, alike.field).computed(&alike, work.tiles)
            }),
        }
    }
}

/// A share of all tiles, in parts of 2^20.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Share(u128);

impl Share {
    pub(crate) const ALL: Self = Self(1 << 20);

    /// Those whose fields meet a disc that takes `texture` of the image. The places of a rectangle where it meets a disc have the area of
    /// the disc, that of the rectangle, and the product of the radius and the rectangle's circumference (Steiner).
    fn seeing(texture: Fraction, image: PerAxis<u64>, field: PerAxis<u64>) -> Self {
        let image = u128::from(image.rows).saturating_mul(image.columns.into());
        let numerator = image.saturating_mul(texture.numerator());
        let disc = numerator / texture.denominator();
        // 355 / 113 is pi to six digits.
        let radius = (disc.saturating_mul(113) / 355).isqrt();
        let (rows, columns) = (u128::from(field.rows), u128::from(field.columns));
        let around = radius.saturating_mul(2 * (rows + columns));
        let places = disc.saturating_add(around).saturating_add(rows * columns);
        let parts = places.min(image).saturating_mul(Self::ALL.0) / image.max(1);
        Self(parts)
    }

    /// Of all tiles, those that are computed if this is the share of those that see texture.
    fn computed(self, alike: &AlikeTiles, tiles: u128) -> Self {
        let repeated = alike.tiles.saturating_sub(alike.templates).min(tiles);
        let repeated = repeated.saturating_mul(Self::ALL.0 - self.0) / tiles.max(1);
        Self(Self::ALL.0 - repeated)
    }

    pub(crate) fn of(self, time: Picoseconds) -> Picoseconds {
        Picoseconds(time.0.saturating_mul(self.0) / Self::ALL.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_meet_a_disc_where_they_do() {
        let (image, field) = (
            PerAxis::new(900_u64, 1100_u64),
            PerAxis::new(70_u64, 130_u64),
        );
        let texture = Fraction::new(1, 10);
        let radius = 177.5_f64;
        // Of every place of the field's upper left corner, over an image that goes on behind its ends.
        let mut meet = 0_u128;
        for row in -800_i32..800 {
            for column in -800_i32..800 {
                let distance =
                    |first: i32, length: i32| f64::from((-first).clamp(0, length) + first);
                let (rows, columns) = (distance(row, 69), distance(column, 129));
                meet += u128::from(rows.hypot(columns) <= radius);
            }
        }
        let share = Share::seeing(texture, image, field);
        let expected = (meet << 20) / (900 * 1100);
        assert!(
            share.0.abs_diff(expected) * 100 <= expected,
            "{} {expected}",
            share.0
        );
        let alike = AlikeTiles {
            field,
            tiles: 90,
            templates: 10,
        };
        let half = Share(Share::ALL.0 / 2);
        assert_eq!(half.computed(&alike, 100), Share(Share::ALL.0 * 6 / 10 + 1));
        let all = Share::seeing(Fraction::new(1, 1), image, field);
        assert_eq!(all.computed(&alike, 100), Share::ALL);
        assert_eq!(all, Share::ALL);
        assert_eq!(all.of(Picoseconds(77)), Picoseconds(77));
    }
}
