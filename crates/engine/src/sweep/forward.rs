//! The forward sweep.

use std::ops::Range;

use stream_grad_tiling::{ForwardTemplate, Sweep, Tile};

use super::roles::{Role, Roles};
use super::{Engine, Phase, Saved, Schedule, TilePlace, exchange_failed, internal, working};
use crate::backend::{Backend, Buffer};
use crate::error::Result;
use crate::exchange::{FeatureSink, TileSource};
use crate::observer::{Progress, SweepKind};
use crate::prepared::Prepared;
use crate::tile::TileRef;
use crate::workspace::{BlockStore, Held};

/// What the forward sweep exchanges with its caller.
pub(crate) struct ForwardExchange<'a> {
    pub(crate) source: &'a dyn TileSource,
    /// The blocks that are swept, counted over all images.
    pub(crate) range: Range<usize>,
    /// What becomes of their tiles.
    pub(crate) roles: Roles,
    pub(crate) sink: &'a mut dyn FeatureSink,
}

/// Runs the forward sweep over blocks and returns what the backward sweep needs. Memory for that, and to work
/// in, is taken from `held`, where the latter stays.
pub(crate) fn forward<B: Backend>(
    backend: &B,
    schedule: Schedule<'_>,
    prepared: &Prepared<B>,
    exchange: ForwardExchange<'_>,
    held: &mut Held<B>,
) -> Result<Saved<B>> {
    let ForwardExchange {
        source,
        range,
        roles,
        sink,
    } = exchange;
    let geometry = schedule.geometry;
    let segments = geometry.segments();
    let layout = working::forward(&schedule, backend);
    working::make(&layout, &schedule, backend, &mut held.working);
    let mut engine = Engine {
        backend,
        offload: schedule.file()?,
        schedule,
        prepared,
        source,
        working: &mut held.working,
        layout,
        templates: roles.memories(),
        roles,
        template: None,
    };
    let mut stores = Vec::with_capacity(range.len());
    let mut free = std::mem::take(&mut held.blocks).into_iter();
    for place in range.clone() {
        let (image, block) = (place / geometry.blocks(), place % geometry.blocks());
        let mut store = free.next().unwrap_or_default();
        engine.schedule.make_block(backend, &mut store, block);
        for segment in 0..segments {
            // The last segment's halos are the first that the backward sweep reads.
            let sweep = if segment + 1 == segments {
                Sweep::Saving
            } else {
                Sweep::Carrying
            };
            engine.sweep_segment((image, block, segment), sweep, &mut store, Some(&mut *sink))?;
        }
        if engine.offload.is_some() {
            // All of it is in the file.
            store.saved = B::Memory::default();
        }
        stores.push(store);
    }
    Ok(Saved {
        range,
        blocks: stores,
        offload: engine.offload,
    })
}

impl<B: Backend> Engine<'_, B> {
    /// Sweeps over the tiles of one segment in raster order; features go to `sink` if there is one.
    pub(super) fn sweep_segment(
        &mut self,
        (image, block, segment): (usize, usize, usize),
        sweep: Sweep,
        store: &mut BlockStore<B>,
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
                    self.offload(part, store)?;
                }
                self.schedule.observer.tile_done(&Progress {
                    kind,
                    image,
                    block,
                    tile: place.tile,
                });
            }
            if sweep == Sweep::Saving {
                self.offload(self.schedule.buffers.saved_strips(block, band), store)?;
            }
        }
        Ok(())
    }

    fn forward_tile(
        &mut self,
        place: TilePlace,
        sweep: Sweep,
        store: &mut BlockStore<B>,
        sink: &mut Option<&mut dyn FeatureSink>,
    ) -> Result<()> {
        let phase = Phase::Forward(sweep);
        let role = self.roles.of(self.schedule.geometry, place);
        self.take_up_template(role, self.roles.length(role));
        let template = match role {
            Role::Computed => ForwardTemplate::default(),
            Role::Template(_) | Role::Repeated(_) => {
                let geometry = self.schedule.geometry;
                ForwardTemplate::of(geometry, self.schedule.block(place), place.tile)
            }
        };
        for node in 0..self.schedule.nodes.len() {
            let mut values = self.schedule.activation(place, node, phase);
            match (role, template.nodes.get(node)) {
                (Role::Repeated(_), Some(pieces)) => {
                    self.repeat_node(place, node, phase, pieces, store);
                    values = self.piece(node, pieces.owned);
                }
                (Role::Template(_), Some(pieces)) => {
                    self.forward_node(place, node, phase, store)?;
                    self.hold_node(place, node, phase, pieces, store);
                }
                _ => self.forward_node(place, node, phase, store)?,
            }
            if let Some(sink) = sink {
                self.emit_features(place, node, values, store, *sink)?;
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
        store: &mut BlockStore<B>,
    ) -> Result<()> {
        self.restore_halos(place, node, phase, store);
        self.compute_owned(place, node, phase, store)?;
        let activation = self.schedule.activation(place, node, phase);
        self.save_halos(place, node, phase, [activation; 2], store);
        Ok(())
    }

    /// Hands on what the tile owns of a node that is an output, while a buffer still holds it.
    fn emit_features(
        &mut self,
        place: TilePlace,
        node: usize,
        values: Buffer,
        store: &mut BlockStore<B>,
        sink: &mut dyn FeatureSink,
    ) -> Result<()> {
        let owned = self.schedule.owned(place, node);
        for (index, (name, output)) in self.schedule.outputs.iter().enumerate() {
            if *output != node || owned.is_empty() {
                continue;
            }
            let (backend, slabs) = self.slabs(store);
            let write = |features: TileRef<'_>| sink.write(place.image, index, owned, features);
            backend
                .read(&slabs, values, owned, write)
                .ok_or_else(|| internal(name))?
                .map_err(exchange_failed("feature sink", place.image, owned))?;
        }
        Ok(())
    }
}
