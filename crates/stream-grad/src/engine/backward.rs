//! The backward sweep.

use stream_grad_tiling::{PerAxis, Span, Sweep, Tile};

use super::buffer::{Slab, Stored, clear, combine_rows, disjoint, offset, strided, strided_mut};
use super::operations::Gradients;
use super::tap::OverlapSums;
use super::working::{Parts, Working};
use super::{
    BlockStore, Engine, Phase, Saved, Schedule, TilePlace, exchange_failed, internal, pixel_region,
};
use crate::error::Result;
use crate::exchange::{CotangentSource, InputGradientSink, TapSink, TileSource};
use crate::observer::{Progress, SweepKind};
use crate::prepared::{Prepared, scalar};
use crate::scalar::Scalar;
use crate::workspace::Held;

/// What the backward sweep exchanges with its caller.
pub(crate) struct Exchange<'a> {
    pub(crate) cotangents: &'a mut dyn CotangentSource,
    pub(crate) input_gradient: Option<&'a mut dyn InputGradientSink>,
    pub(crate) taps: Option<&'a mut dyn TapSink>,
}

/// Runs the backward sweep over every block of every image, in reverse. It works in memory from `held`, where what was saved
/// goes, too, when it is done.
pub(crate) fn backward<T: Scalar>(
    schedule: Schedule<'_>,
    prepared: &Prepared<T>,
    source: &dyn TileSource,
    saved: Saved<T>,
    gradients: &mut Gradients<T>,
    mut exchange: Exchange<'_>,
    held: &mut Held<T>,
) -> Result<()> {
    let geometry = schedule.geometry;
    let Saved {
        blocks: mut stores,
        spill,
    } = saved;
    let Parts {
        arena,
        transient,
        carries,
        scratch,
    } = Working::backward::<T>(&schedule).cut(&schedule, &mut held.working);
    let engine = Engine {
        schedule,
        prepared,
        source,
        arena,
        transient,
        spill,
        scratch,
    };
    let mut sweep = BackwardSweep {
        engine,
        carries,
        sums: Vec::new(),
    };
    sweep.begin_taps(&exchange);
    let blocks = geometry.blocks();
    while let Some(mut store) = stores.pop() {
        let (image, block) = (stores.len() / blocks, stores.len() % blocks);
        sweep.begin_tapped_block(block);
        if sweep.engine.spill.is_some() {
            let length = offset(sweep.engine.schedule.buffers.saved_length(block));
            let schedule = &sweep.engine.schedule;
            schedule.make(&mut store.saved, length, length);
        }
        for segment in (0..geometry.segments()).rev() {
            if segment + 1 < geometry.segments() {
                let place = (image, block, segment);
                sweep
                    .engine
                    .sweep_segment(place, Sweep::Saving, &mut store, None)?;
            }
            sweep.segment(
                (image, block, segment),
                &mut store,
                gradients,
                &mut exchange,
            )?;
        }
        if sweep.engine.spill.is_none() {
            held.blocks.push(store);
        }
    }
    // In the order in which the forward sweep asks for them.
    held.blocks.reverse();
    Ok(())
}

pub(super) struct BackwardSweep<'p, T> {
    pub(super) engine: Engine<'p, T>,
    /// Cotangents on their way to tiles above and to the left.
    pub(super) carries: &'p mut [T],
    /// Of each tapped node, where several blocks add to what is shown.
    pub(super) sums: Vec<OverlapSums<T>>,
}

impl<T: Scalar> BackwardSweep<'_, T> {
    fn segment(
        &mut self,
        (image, block, segment): (usize, usize, usize),
        store: &mut BlockStore<T>,
        gradients: &mut Gradients<T>,
        exchange: &mut Exchange<'_>,
    ) -> Result<()> {
        let geometry = self.engine.schedule.geometry;
        let (bands, columns) = {
            let block = geometry.block(block);
            (block.rows.bands(), block.columns.bands())
        };
        for band in geometry.segment_bands(bands, segment).rev() {
            self.begin_band(block, band);
            let strips = self.engine.schedule.buffers.saved_strips(block, band);
            self.engine.unspill(strips, store)?;
            for column in (0..columns).rev() {
                let place = TilePlace {
                    image,
                    block,
                    tile: Tile { band, column },
                };
                self.engine.poison_arena();
                let buffers = self.engine.schedule.buffers;
                let part = buffers.saved_tile(geometry, block, place.tile);
                self.engine.unspill(part, store)?;
                self.tile(place, store, gradients, exchange)?;
                self.engine.schedule.observer.tile_done(&Progress {
                    kind: SweepKind::Backward,
                    image,
                    block,
                    tile: place.tile,
                });
            }
        }
        Ok(())
    }

    /// Makes the strips that this band hands upwards: zero, plus what the band below meant for higher ones.
    fn begin_band(&mut self, block: usize, band: usize) {
        let Schedule {
            geometry, buffers, ..
        } = self.engine.schedule;
        let block = geometry.block(block);
        for node in 0..self.engine.schedule.operations.len() {
            if !self.engine.has_cotangent(node) {
                continue;
            }
            let channels = self.engine.schedule.operations[node].channels;
            let outgoing = block.strip(band, node);
            let start = offset(buffers.cotangent_strip(node, band));
            let length = offset(outgoing.rows.len() * outgoing.columns.len()) * channels;
            clear(&mut self.carries[start..start + length]);
            if band + 1 == block.rows.bands() {
                continue;
            }
            let incoming = block.strip(band + 1, node);
            let passed = outgoing.intersect(incoming);
            if passed.is_empty() {
                continue;
            }
            let from = offset(buffers.cotangent_strip(node, band + 1));
            let size = offset(incoming.rows.len() * incoming.columns.len()) * channels;
            // The two strips are the two halves of a pair: they do not overlap.
            let (out, into) = if start < from {
                let (head, tail) = self.carries.split_at_mut(from);
                (&tail[..size], &mut head[start..])
            } else {
                let (head, tail) = self.carries.split_at_mut(start);
                (&head[from..from + size], tail)
            };
            let place = |rect| Stored { offset: 0, rect };
            combine_rows(
                into,
                place(outgoing),
                out,
                place(incoming),
                passed,
                channels,
                |to, from| {
                    to.copy_from_slice(from);
                },
            );
        }
    }

    fn tile(
        &mut self,
        place: TilePlace,
        store: &mut BlockStore<T>,
        gradients: &mut Gradients<T>,
        exchange: &mut Exchange<'_>,
    ) -> Result<()> {
        self.recompute(place, store)?;
        for node in (0..self.engine.schedule.operations.len()).rev() {
            self.node(place, node, store, gradients, exchange)?;
        }
        Ok(())
    }

    /// Computes again what was not kept.
    pub(super) fn recompute(&mut self, place: TilePlace, store: &mut BlockStore<T>) -> Result<()> {
        for node in 0..self.engine.schedule.operations.len() {
            if self.engine.is_recomputed(node) {
                self.engine
                    .restore_halos(place, node, Phase::Backward, store);
                self.engine
                    .compute_owned(place, node, Phase::Backward, store)?;
            }
        }
        Ok(())
    }

    /// Runs the VJP of a node, all of whose readers are done, and hands on the cotangents of its halos.
    pub(super) fn node(
        &mut self,
        place: TilePlace,
        node: usize,
        store: &mut BlockStore<T>,
        gradients: &mut Gradients<T>,
        exchange: &mut Exchange<'_>,
    ) -> Result<()> {
        for touched in 0..=node {
            if self.engine.schedule.buffers.first_touch(touched) == node
                && self.engine.has_cotangent(touched)
                && !self.engine.replaces(place, node, touched)
            {
                self.begin_cotangent(place, touched, store, exchange.cotangents)?;
                self.absorb_carries(place, touched);
            }
        }
        if !self.engine.has_cotangent(node) {
            return Ok(());
        }
        self.show(place, node, store, exchange)?;
        if !self.engine.owned(place, node).is_empty() {
            if node == 0 {
                self.emit_input_gradient(place, exchange)?;
            } else if self.has_gradients(node, gradients) {
                self.engine.vjp(place, node, store, gradients)?;
            }
        }
        for touched in 0..node {
            if self.engine.replaces(place, node, touched) {
                self.absorb_carries(place, touched);
            }
        }
        self.hand_on(place, node);
        Ok(())
    }

    /// Whether a node's VJP gives anything: before one that is tapped there may be nothing that needs a cotangent.
    fn has_gradients(&self, node: usize, gradients: &Gradients<T>) -> bool {
        let operation = &self.engine.schedule.operations[node];
        let mut inputs = operation.inputs.iter();
        inputs.any(|&input| self.engine.has_cotangent(input))
            || operation.is_trainable(&gradients.trainable)
    }

    /// Sets a node's cotangent to zero, or to what the caller gives for an output.
    fn begin_cotangent(
        &mut self,
        place: TilePlace,
        node: usize,
        store: &mut BlockStore<T>,
        cotangents: &mut dyn CotangentSource,
    ) -> Result<()> {
        let buffer = self.engine.cotangent(place, node);
        clear(&mut self.engine.arena[buffer.range()]);
        self.read_cotangent(place, node, store, cotangents)
    }

    /// Adds to a node's cotangent what later tiles left for it.
    fn absorb_carries(&mut self, place: TilePlace, node: usize) {
        let Schedule {
            geometry, buffers, ..
        } = self.engine.schedule;
        let block = geometry.block(place.block);
        let Tile { band, column } = place.tile;
        let owned = block.owned(place.tile, node);
        if band + 1 < block.rows.bands() {
            let rect = block.strip(band + 1, node);
            let own_part = rect.intersect(owned);
            self.absorb(
                place,
                node,
                buffers.cotangent_strip(node, band + 1),
                rect,
                own_part,
            );
        }
        if column + 1 < block.columns.bands() {
            let next = Tile {
                band,
                column: column + 1,
            };
            let rect = block.left(next, node);
            self.absorb(
                place,
                node,
                buffers.cotangent_left(node, column + 1),
                rect,
                rect,
            );
        }
    }

    fn absorb(
        &mut self,
        place: TilePlace,
        node: usize,
        start: u64,
        rect: PerAxis<Span>,
        region: PerAxis<Span>,
    ) {
        let buffer = self.engine.cotangent(place, node);
        let region = region.intersect(buffer.rect);
        if region.is_empty() {
            return;
        }
        let to = Stored {
            offset: buffer.offset,
            rect: buffer.rect,
        };
        let from = Stored {
            offset: offset(start),
            rect,
        };
        combine_rows(
            self.engine.arena,
            to,
            self.carries,
            from,
            region,
            buffer.channels,
            add,
        );
    }

    fn read_cotangent(
        &mut self,
        place: TilePlace,
        node: usize,
        store: &mut BlockStore<T>,
        cotangents: &mut dyn CotangentSource,
    ) -> Result<()> {
        let owned = self.engine.owned(place, node);
        for (index, (name, output)) in self.engine.schedule.outputs.iter().enumerate() {
            if *output != node || owned.is_empty() {
                continue;
            }
            let features = self.engine.activation(place, node, Phase::Backward);
            let cotangent = self.engine.cotangent(place, node);
            let [y, g] = disjoint(
                self.engine.arena,
                &mut store.saved,
                [features, cotangent],
                name,
            )?;
            let at_start = |buffer: super::Buffer| super::Buffer {
                slab: Slab::Arena,
                offset: 0,
                ..buffer
            };
            let y = strided(y, at_start(features), owned).ok_or_else(|| internal(name))?;
            let g = strided_mut(g, at_start(cotangent), owned).ok_or_else(|| internal(name))?;
            let region = pixel_region(owned);
            cotangents
                .read(place.image, index, &region, T::tile(y), T::tile_mut(g))
                .map_err(exchange_failed("cotangent source", place.image, region))?;
        }
        Ok(())
    }

    fn emit_input_gradient(&self, place: TilePlace, exchange: &mut Exchange<'_>) -> Result<()> {
        let Some(sink) = exchange.input_gradient.as_deref_mut() else {
            return Ok(());
        };
        let owned = self.engine.owned(place, 0);
        let buffer = self.engine.cotangent(place, 0);
        let gradient =
            strided(self.engine.arena, buffer, owned).ok_or_else(|| internal("image"))?;
        let region = pixel_region(owned);
        sink.add(place.image, &region, T::tile(gradient))
            .map_err(exchange_failed("input gradient sink", place.image, region))
    }

    /// Hands the cotangents of the halos to the tiles above and to the left, which own them.
    fn hand_on(&mut self, place: TilePlace, node: usize) {
        let Schedule {
            geometry,
            buffers,
            poison,
            ..
        } = self.engine.schedule;
        let block = geometry.block(place.block);
        let Tile { band, column } = place.tile;
        let buffer = self.engine.cotangent(place, node);
        let from = Stored {
            offset: buffer.offset,
            rect: buffer.rect,
        };
        let above = PerAxis::new(block.rows.halo(band, node), buffer.rect.columns);
        if !above.is_empty() {
            let to = Stored {
                offset: offset(buffers.cotangent_strip(node, band)),
                rect: block.strip(band, node),
            };
            combine_rows(
                self.carries,
                to,
                self.engine.arena,
                from,
                above,
                buffer.channels,
                add,
            );
        }
        let left = block.left(place.tile, node);
        if !left.is_empty() {
            let to = Stored {
                offset: offset(buffers.cotangent_left(node, column)),
                rect: left,
            };
            combine_rows(
                self.carries,
                to,
                self.engine.arena,
                from,
                left,
                buffer.channels,
                |to, from| {
                    to.copy_from_slice(from);
                },
            );
        }
        if let Some(value) = poison {
            self.engine.arena[buffer.range()].fill(scalar(value));
        }
    }
}

pub(super) fn add<T: Scalar>(to: &mut [T], from: &[T]) {
    for (to, from) in to.iter_mut().zip(from) {
        *to += *from;
    }
}
