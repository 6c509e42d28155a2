//! The forward sweep.

use stream_grad_tiling::{Sweep, Tile};

use super::buffer::{Slab, strided};
use super::working::{Parts, Working};
use super::{
    BlockStore, Engine, Memory, Phase, Saved, Schedule, TilePlace, exchange_failed, internal,
    pixel_region,
};
use crate::error::Result;
use crate::exchange::{FeatureSink, TileSource};
use crate::observer::{Progress, SweepKind};
use crate::prepared::Prepared;
use crate::scalar::Scalar;
use crate::workspace::Held;

/// Runs the forward sweep over every block of every image and returns what the backward sweep needs. Memory for that, and to work
/// in, is taken from `held`, where the latter stays.
pub(crate) fn forward<T: Scalar>(
    schedule: Schedule<'_>,
    prepared: &Prepared<T>,
    source: &dyn TileSource,
    images: usize,
    sink: &mut dyn FeatureSink,
    held: &mut Held<T>,
) -> Result<Saved<T>> {
    let geometry = schedule.geometry;
    let segments = geometry.segments();
    let Parts {
        arena,
        transient,
        scratch,
        ..
    } = Working::forward::<T>(&schedule).cut(&schedule, &mut held.working);
    let mut engine = Engine {
        spill: schedule.file()?,
        schedule,
        prepared,
        source,
        arena,
        transient,
        scratch,
    };
    let mut stores = Vec::with_capacity(images * geometry.blocks());
    let mut free = std::mem::take(&mut held.blocks).into_iter();
    for image in 0..images {
        for block in 0..geometry.blocks() {
            let mut store = free.next().unwrap_or_default();
            engine.schedule.make_block(&mut store, block);
            for segment in 0..segments {
                // The last segment's halos are the first that the backward sweep reads.
                let sweep = if segment + 1 == segments {
                    Sweep::Saving
                } else {
                    Sweep::Carrying
                };
                engine.sweep_segment(
                    (image, block, segment),
                    sweep,
                    &mut store,
                    Some(&mut *sink),
                )?;
            }
            if engine.spill.is_some() {
                // All of it is in the file.
                store.saved = Memory::default();
            }
            stores.push(store);
        }
    }
    Ok(Saved {
        blocks: stores,
        spill: engine.spill,
    })
}

impl<T: Scalar> Engine<'_, T> {
    /// Sweeps over the tiles of one segment in raster order; features go to `sink` if there is one.
    pub(super) fn sweep_segment(
        &mut self,
        (image, block, segment): (usize, usize, usize),
        sweep: Sweep,
        store: &mut BlockStore<T>,
        mut sink: Option<&mut dyn FeatureSink>,
    ) -> Result<()> {
        let geometry = self.schedule.geometry;
        let (bands, columns) = {
            let block = geometry.block(block);
            (block.rows.bands(), block.columns.bands())
        };
        let kind = if sink.is_some() {
            SweepKind::Forward
        } else {
            SweepKind::Resweep
        };
        for band in geometry.segment_bands(bands, segment) {
            for column in 0..columns {
                let place = TilePlace {
                    image,
                    block,
                    tile: Tile { band, column },
                };
                self.poison_arena();
                self.forward_tile(place, sweep, store, &mut sink)?;
                if sweep == Sweep::Saving {
                    let part = self
                        .schedule
                        .buffers
                        .saved_tile(geometry, block, place.tile);
                    self.spill(part, store)?;
                }
                self.schedule.observer.tile_done(&Progress {
                    kind,
                    image,
                    block,
                    tile: place.tile,
                });
            }
            if sweep == Sweep::Saving {
                self.spill(self.schedule.buffers.saved_strips(block, band), store)?;
            }
        }
        Ok(())
    }

    fn forward_tile(
        &mut self,
        place: TilePlace,
        sweep: Sweep,
        store: &mut BlockStore<T>,
        sink: &mut Option<&mut dyn FeatureSink>,
    ) -> Result<()> {
        let phase = Phase::Forward(sweep);
        for node in 0..self.schedule.operations.len() {
            self.forward_node(place, node, phase, store)?;
            if let Some(sink) = sink {
                self.emit_features(place, node, phase, store, *sink)?;
            }
        }
        Ok(())
    }

    /// Computes what the tile owns of a node from its halos, and hands on those of later tiles.
    pub(super) fn forward_node(
        &mut self,
        place: TilePlace,
        node: usize,
        phase: Phase,
        store: &mut BlockStore<T>,
    ) -> Result<()> {
        self.restore_halos(place, node, phase, store);
        self.compute_owned(place, node, phase, store)?;
        self.save_halos(place, node, phase, store);
        Ok(())
    }

    /// Hands on what the tile owns of a node that is an output, while its buffer still holds it.
    fn emit_features(
        &self,
        place: TilePlace,
        node: usize,
        phase: Phase,
        store: &BlockStore<T>,
        sink: &mut dyn FeatureSink,
    ) -> Result<()> {
        let owned = self.owned(place, node);
        for (index, (name, output)) in self.schedule.outputs.iter().enumerate() {
            if *output != node || owned.is_empty() {
                continue;
            }
            let buffer = self.activation(place, node, phase);
            let slab = match buffer.slab {
                Slab::Arena => &*self.arena,
                Slab::Saved => &*store.saved,
            };
            let features = strided(slab, buffer, owned).ok_or_else(|| internal(name))?;
            let region = pixel_region(owned);
            sink.write(place.image, index, &region, T::tile(features))
                .map_err(exchange_failed("feature sink", place.image, region))?;
        }
        Ok(())
    }
}
