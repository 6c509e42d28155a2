//! Showing tapped layers to the caller.

use stream_grad_tiling::{BlockOverlap, Geometry, Span};

use super::backward::{BackwardSweep, Exchange};
use super::{Phase, TilePlace, exchange_failed, internal};
use crate::backend::{Backend, Buffer, Combine, Rect, Slab, offset};
use crate::error::Result;
use crate::tile::TileRef;
use crate::workspace::BlockStore;

/// Sums over blocks of the cotangent of one tapped node.
pub(super) struct OverlapSums<B: Backend> {
    overlap: BlockOverlap,
    channels: usize,
    /// The row of blocks that `values` belong to.
    row: usize,
    values: B::Memory,
}

impl<B: Backend> OverlapSums<B> {
    /// Zeros, for a recipe with several blocks.
    pub(super) fn new(backend: &B, geometry: &Geometry, node: usize, channels: usize) -> Self {
        let overlap = BlockOverlap::of(geometry, node);
        let length = offset(overlap.values());
        let mut values = B::Memory::default();
        backend.make(&mut values, length, length);
        backend.fill(&mut values, 0..length, 0.0);
        Self {
            values,
            channels,
            row: 0,
            overlap,
        }
    }

    /// Takes up block `block`, which comes before the one that was taken up last, or is the last of an image.
    fn begin(&mut self, backend: &B, block: usize, blocks: usize) {
        let row = self.overlap.row(block);
        if block + 1 == blocks {
            let length = backend.len(&self.values);
            backend.fill(&mut self.values, 0..length, 0.0);
        } else if row != self.row {
            self.shift(backend, row);
        }
        self.row = row;
    }

    /// Keeps what the blocks of the row below have added to rows of the next window.
    fn shift(&mut self, backend: &B, row: usize) {
        let (from, to) = (self.overlap.window(self.row), self.overlap.window(row));
        let pitch = offset(from.columns.len()) * self.channels;
        let kept = from.rows.intersect(to.rows);
        let rows = |span: Span| offset(span.len()) * pitch;
        let before = |lo: i64, of: Rect| rows(Span::new(of.rows.lo, lo));
        let length = backend.len(&self.values);
        if kept.is_empty() {
            backend.fill(&mut self.values, 0..length, 0.0);
            return;
        }
        let (source, target) = (before(kept.lo, from), before(kept.lo, to));
        backend.move_within(&mut self.values, source..source + rows(kept), target);
        backend.fill(&mut self.values, 0..target, 0.0);
        backend.fill(&mut self.values, target + rows(kept)..length, 0.0);
    }

    /// The sums of the rows at hand.
    fn buffer(&self) -> Buffer {
        Buffer {
            slab: Slab::Shown,
            offset: 0,
            rect: self.overlap.window(self.row),
            channels: self.channels,
        }
    }
}

impl<B: Backend> BackwardSweep<'_, B> {
    /// Makes room for the sums over blocks, where there are several and somebody is shown them.
    pub(super) fn begin_taps(&mut self, exchange: &Exchange<'_>) {
        let schedule = &self.engine.schedule;
        if exchange.taps.is_none() || schedule.geometry.blocks() == 1 {
            return;
        }
        let sums = schedule.taps.iter().map(|&node| {
            let channels = schedule.nodes[node].channels;
            OverlapSums::new(self.engine.backend, schedule.geometry, node, channels)
        });
        self.sums = sums.collect();
    }

    /// Takes up a block of an image.
    pub(super) fn begin_tapped_block(&mut self, block: usize) {
        let blocks = self.engine.schedule.geometry.blocks();
        for sums in &mut self.sums {
            sums.begin(self.engine.backend, block, blocks);
        }
    }

    /// Shows the caller what the tile owns of a node, whose cotangent is complete as far as this block gives it.
    pub(super) fn show(
        &mut self,
        place: TilePlace,
        node: usize,
        store: &mut BlockStore<B>,
        exchange: &mut Exchange<'_>,
    ) -> Result<()> {
        let Some(sink) = exchange.taps.as_deref_mut() else {
            return Ok(());
        };
        let owned = self.engine.schedule.owned(place, node);
        if owned.is_empty() {
            return Ok(());
        }
        let taps = self.engine.schedule.taps;
        let name = &self.engine.schedule.nodes[node].name;
        let activation = self
            .engine
            .schedule
            .activation(place, node, Phase::Backward);
        let part = self.engine.schedule.cotangent(place, node);
        for tap in (0..taps.len()).filter(|&tap| taps[tap] == node) {
            let (backend, mut slabs) = self.engine.slabs(store);
            let (cotangent, shown) = match self.sums.get_mut(tap) {
                None => (part, owned),
                Some(sums) => {
                    let buffer = sums.buffer();
                    let share = sums.overlap.share(place.block);
                    slabs.shown = Some(&mut sums.values);
                    backend.combine(&mut slabs, buffer, part, owned, Combine::Add);
                    (buffer, owned.intersect(share))
                }
            };
            if shown.is_empty() {
                continue;
            }
            let take = |x: TileRef<'_>| {
                let take = |g: TileRef<'_>| sink.take(place.image, tap, shown, x, g);
                backend.read(&slabs, cotangent, shown, take)
            };
            backend
                .read(&slabs, activation, shown, take)
                .flatten()
                .ok_or_else(|| internal(name))?
                .map_err(exchange_failed("tap", place.image, shown))?;
        }
        Ok(())
    }
}
