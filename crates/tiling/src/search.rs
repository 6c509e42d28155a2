//! The recipes that the planner tries, and the fastest of those that fit.

use crate::bytes::ByteCount;
use crate::candidates::{kept_counts, segment_counts, tile_edges};
use crate::error::TilingError;
use crate::fraction::Fraction;
use crate::graph::SizedGraph;
use crate::keeping::{KeepOrder, Spared};
use crate::memory::{PeakBytes, file_bytes};
use crate::planner::{Keep, Planned, PlannerRequest, keepable, too_small};
use crate::recipe::{Geometry, Recipe};
use crate::saved::Storage;
use crate::span::Axis;
use crate::time::{Picoseconds, TimeModel, Traffic};
use crate::work::Work;

/// The recipes that the planner tries.
pub(crate) struct Search<'a> {
    request: &'a PlannerRequest,
    time: &'a TimeModel,
    budget: u128,
    /// One tile a block.
    whole: Geometry,
    /// What may be kept.
    keepable: Vec<Spared>,
}

/// Tiles and segments, with the order in which nodes would be kept.
pub(crate) struct Tiling {
    geometry: Geometry,
    work: Work,
    pub(crate) order: KeepOrder,
}

impl<'a> Search<'a> {
    pub(crate) fn new(
        sized: &SizedGraph,
        request: &'a PlannerRequest,
        time: &'a TimeModel,
        budget: u128,
    ) -> Result<Self, TilingError> {
        let mut recipe = Recipe::whole(sized);
        recipe.block = request.block.unwrap_or(recipe.block);
        if let Keep::Exactly(nodes) = &request.keep {
            recipe.kept.clone_from(nodes);
        }
        let whole = Geometry::new(sized.clone(), recipe)?;
        let keepable = keepable(&whole, &request.keep)
            .into_iter()
            .map(|node| Spared::by(node, &whole))
            .collect::<Result<_, TilingError>>()?;
        Ok(Self {
            request,
            time,
            budget,
            whole,
            keepable,
        })
    }

    /// Every tile and number of segments.
    pub(crate) fn visit(
        &self,
        visitor: &mut dyn FnMut(&Tiling) -> Result<(), TilingError>,
    ) -> Result<(), TilingError> {
        let tiles = match self.request.tile {
            Some(tile) => vec![tile],
            None => tile_edges(&self.whole),
        };
        for tile in tiles {
            let mut recipe = self.whole.recipe().clone();
            recipe.tile = tile;
            let tiled = Geometry::new(self.whole.sized().clone(), recipe)?;
            let order = KeepOrder::new(&tiled, &Work::of(&tiled), self.time, &self.keepable);
            let counts = match self.request.segments {
                // Too many segments for this tile are no error while the planner may take another.
                Some(segments)
                    if self.request.tile.is_none() && segments > tiled.fewest_bands() =>
                {
                    continue;
                }
                Some(segments) => vec![segments],
                None => segment_counts(tiled.fewest_bands()),
            };
            for segments in counts {
                let geometry = tiled.with(segments, tiled.recipe().kept.clone())?;
                visitor(&Tiling {
                    work: Work::of(&geometry),
                    geometry,
                    order: order.clone(),
                })?;
            }
        }
        Ok(())
    }

    /// The fastest recipe that fits.
    pub(crate) fn best(&self) -> Result<Planned, TilingError> {
        let mut best: Option<(Planned, KeepOrder)> = None;
        let mut smallest: Option<PeakBytes> = None;
        self.visit(&mut |tiling| {
            for storage in self.storages() {
                let (order, counts) = self.kept(tiling, storage);
                let mut too_many = order.len() + 1;
                for count in counts {
                    // Keeping less takes longer yet.
                    let least = self.least_time(tiling, &order, count)?;
                    if best.as_ref().is_some_and(|(best, _)| best.time <= least) {
                        break;
                    }
                    let planned = self.planned(tiling, &order, count, storage)?;
                    if !self.fits_in_file(&planned) {
                        too_many = count;
                        continue;
                    }
                    if smallest.is_none_or(|smallest| planned.peak.peak() < smallest.peak()) {
                        smallest = Some(planned.peak);
                    }
                    if planned.peak.peak() > self.budget {
                        too_many = count;
                        continue;
                    }
                    let planned = self.more_kept(tiling, &order, planned, count..too_many)?;
                    too_many = count;
                    if best
                        .as_ref()
                        .is_none_or(|(best, _)| planned.time < best.time)
                    {
                        best = Some((planned, order.clone()));
                    }
                }
            }
            Ok(())
        })?;
        match (best, smallest) {
            (Some((planned, order)), _) => self.fill(planned, &order),
            (None, Some(smallest)) => Err(too_small(self.budget, &smallest)),
            // Only a fixed number of segments can leave nothing to try.
            (None, None) => Err(TilingError::Cut {
                what: "the number of segments",
                axis: Axis::Rows,
                found: self.request.segments.unwrap_or(0),
                maximum: self.whole.sized().image().rows,
            }),
        }
    }

    /// The recipe that keeps the first `count` nodes of the order.
    pub(crate) fn planned(
        &self,
        tiling: &Tiling,
        order: &KeepOrder,
        count: usize,
        storage: Storage,
    ) -> Result<Planned, TilingError> {
        let geometry = order.keeping(&tiling.geometry, count)?;
        let memory = &self.request.memory;
        Ok(Planned::of_work(
            geometry,
            &tiling.work,
            storage,
            memory,
            self.time,
        ))
    }

    /// Where a recipe may save.
    pub(crate) fn storages(&self) -> impl Iterator<Item = Storage> + use<> {
        let file = self.request.file.map(|_| Storage::File);
        [Storage::Memory].into_iter().chain(file)
    }

    pub(crate) fn fits_in_file(&self, planned: &Planned) -> bool {
        let limit = self.request.file.map_or(0, ByteCount::get);
        let memory = &self.request.memory;
        file_bytes(&planned.geometry, &planned.buffers, memory) <= u128::from(limit)
    }

    fn fits(&self, planned: &Planned) -> bool {
        planned.peak.peak() <= self.budget && self.fits_in_file(planned)
    }

    /// The time of the computations alone: memory and a file add to it.
    fn least_time(
        &self,
        tiling: &Tiling,
        order: &KeepOrder,
        count: usize,
    ) -> Result<Picoseconds, TilingError> {
        let geometry = order.keeping(&tiling.geometry, count)?;
        let (memory, nothing) = (&self.request.memory, Traffic::default());
        Ok(self.time.of_work(&geometry, &tiling.work, nothing, memory))
    }

    /// The order in which nodes are kept there, and how many of them to try, from all to none.
    pub(crate) fn kept(&self, tiling: &Tiling, storage: Storage) -> (KeepOrder, Vec<usize>) {
        let element = u128::from(self.request.memory.element_bytes);
        let price = |byte: u64, times: u64| {
            Fraction::new(element.saturating_mul(byte.into()), times.max(1).into())
        };
        let order = match storage {
            Storage::Memory => tiling.order.clone(),
            // What takes longer to store than to compute again is not kept.
            Storage::File => tiling.order.above(price(self.time.file_byte, 1)),
        };
        // Segments take turns in one memory.
        let segments = tiling.geometry.recipe().segments;
        let pay = order.above(price(self.time.fresh_byte, segments)).len();
        let counts = kept_counts(order.len(), pay);
        (order, counts)
    }

    /// Keeps more of the order than `counts.start` nodes, which fit, and fewer than `counts.end`, if that fits and is faster; by
    /// bisection.
    fn more_kept(
        &self,
        tiling: &Tiling,
        order: &KeepOrder,
        fitting: Planned,
        counts: std::ops::Range<usize>,
    ) -> Result<Planned, TilingError> {
        let storage = fitting.buffers.storage();
        let (mut low, mut high) = (counts.start, counts.end);
        let mut fastest = fitting;
        while high - low > 1 {
            let middle = usize::midpoint(low, high);
            let planned = self.planned(tiling, order, middle, storage)?;
            if self.fits(&planned) {
                low = middle;
                if planned.time < fastest.time {
                    fastest = planned;
                }
            } else {
                high = middle;
            }
        }
        Ok(fastest)
    }

    /// Keeps what else fits and saves time: nodes further down the order may be smaller.
    fn fill(&self, planned: Planned, order: &KeepOrder) -> Result<Planned, TilingError> {
        let work = Work::of(&planned.geometry);
        let mut filled = planned;
        for node in order.worthwhile() {
            let mut kept = filled.geometry.recipe().kept.clone();
            if let Err(position) = kept.binary_search(&node) {
                kept.insert(position, node);
                let geometry = filled
                    .geometry
                    .with(filled.geometry.recipe().segments, kept)?;
                let (storage, memory) = (filled.buffers.storage(), &self.request.memory);
                let more = Planned::of_work(geometry, &work, storage, memory, self.time);
                if more.time < filled.time && self.fits(&more) {
                    filled = more;
                }
            }
        }
        Ok(filled)
    }
}
