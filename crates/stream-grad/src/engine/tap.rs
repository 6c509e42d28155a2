//! Showing tapped layers to the caller.

use stream_grad_tiling::{BlockOverlap, Geometry, PerAxis, Span};

use super::backward::{BackwardSweep, Exchange, add};
use super::buffer::{Buffer, Slab, Stored, clear, combine_rows, offset, strided};
use super::{BlockStore, Phase, TilePlace, exchange_failed, internal, pixel_region};
use crate::error::Result;
use crate::scalar::Scalar;

/// Sums over blocks of the cotangent of one tapped node.
pub(super) struct OverlapSums<T> {
    overlap: BlockOverlap,
    channels: usize,
    /// The row of blocks that `values` belong to.
    row: usize,
    values: Vec<T>,
}

impl<T: Scalar> OverlapSums<T> {
    /// Zeros, for a recipe with several blocks.
    pub(super) fn new(geometry: &Geometry, node: usize, channels: usize) -> Self {
        let overlap = BlockOverlap::of(geometry, node);
        Self {
            values: vec![T::ZERO; offset(overlap.values())],
            channels,
            row: 0,
            overlap,
        }
    }

    /// Takes up block `block`, which comes before the one that was taken up last, or is the last of an image.
    fn begin(&mut self, block: usize, blocks: usize) {
        let row = self.overlap.row(block);
        if block + 1 == blocks {
            clear(&mut self.values);
        } else if row != self.row {
            self.shift(row);
        }
        self.row = row;
    }

    /// Keeps what the blocks of the row below have added to rows of the next window.
    fn shift(&mut self, row: usize) {
        let (from, to) = (self.overlap.window(self.row), self.overlap.window(row));
        let pitch = offset(from.columns.len()) * self.channels;
        let kept = from.rows.intersect(to.rows);
        let rows = |span: Span| offset(span.len()) * pitch;
        let before = |lo: i64, of: PerAxis<Span>| rows(Span::new(of.rows.lo, lo));
        if kept.is_empty() {
            clear(&mut self.values);
            return;
        }
        let (source, target) = (before(kept.lo, from), before(kept.lo, to));
        self.values.copy_within(source..source + rows(kept), target);
        clear(&mut self.values[..target]);
        clear(&mut self.values[target + rows(kept)..]);
    }

    /// The sums of the rows at hand.
    fn buffer(&self) -> Buffer {
        Buffer {
            slab: Slab::Arena,
            offset: 0,
            rect: self.overlap.window(self.row),
            channels: self.channels,
        }
    }

    /// Adds what a block gives for `region`.
    fn add(&mut self, region: PerAxis<Span>, from: &[T], buffer: Buffer) {
        let stored = |buffer: Buffer| Stored {
            offset: buffer.offset,
            rect: buffer.rect,
        };
        let to = stored(self.buffer());
        let from_place = stored(buffer);
        combine_rows(
            &mut self.values,
            to,
            from,
            from_place,
            region,
            self.channels,
            add,
        );
    }
}

impl<T: Scalar> BackwardSweep<'_, T> {
    /// Makes room for the sums over blocks, where there are several and somebody is shown them.
    pub(super) fn begin_taps(&mut self, exchange: &Exchange<'_>) {
        let schedule = &self.engine.schedule;
        if exchange.taps.is_none() || schedule.geometry.blocks() == 1 {
            return;
        }
        let sums = schedule.taps.iter().map(|&node| {
            let channels = schedule.operations[node].channels;
            OverlapSums::new(schedule.geometry, node, channels)
        });
        self.sums = sums.collect();
    }

    /// Takes up a block of an image.
    pub(super) fn begin_tapped_block(&mut self, block: usize) {
        let blocks = self.engine.schedule.geometry.blocks();
        for sums in &mut self.sums {
            sums.begin(block, blocks);
        }
    }

    /// Shows the caller what the tile owns of a node, whose cotangent is complete as far as this block gives it.
    pub(super) fn show(
        &mut self,
        place: TilePlace,
        node: usize,
        store: &BlockStore<T>,
        exchange: &mut Exchange<'_>,
    ) -> Result<()> {
        let Some(sink) = exchange.taps.as_deref_mut() else {
            return Ok(());
        };
        let owned = self.engine.owned(place, node);
        if owned.is_empty() {
            return Ok(());
        }
        let taps = self.engine.schedule.taps;
        let name = &self.engine.schedule.operations[node].name;
        for tap in (0..taps.len()).filter(|&tap| taps[tap] == node) {
            let (cotangent, shown) = match self.sums.get_mut(tap) {
                None => (self.engine.cotangent(place, node), owned),
                Some(sums) => {
                    let part = self.engine.cotangent(place, node);
                    sums.add(owned, self.engine.arena, part);
                    let share = sums.overlap.share(place.block);
                    (sums.buffer(), owned.intersect(share))
                }
            };
            if shown.is_empty() {
                continue;
            }
            let from = match self.sums.get(tap) {
                None => &*self.engine.arena,
                Some(sums) => &sums.values,
            };
            let activation = self.engine.activation(place, node, Phase::Backward);
            let slab = match activation.slab {
                Slab::Arena => &*self.engine.arena,
                Slab::Saved => &*store.saved,
            };
            let activation = strided(slab, activation, shown).ok_or_else(|| internal(name))?;
            let cotangent = strided(from, cotangent, shown).ok_or_else(|| internal(name))?;
            let region = pixel_region(shown);
            sink.take(
                place.image,
                tap,
                &region,
                T::tile(activation),
                T::tile(cotangent),
            )
            .map_err(exchange_failed("tap", place.image, region))?;
        }
        Ok(())
    }
}
