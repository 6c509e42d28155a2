//! The backward sweep.

use stream_grad_tiling::{BackwardPieces, BackwardTemplate, Sweep, Tile};

use super::roles::{BackwardRoles, Role, Roles};
use super::tap::OverlapSums;
use super::{
    Engine, Gradients, Phase, Saved, Schedule, TilePlace, exchange_failed, internal, working,
};
use crate::backend::{Backend, Buffer, Combine, Rect, Slab, offset};
use crate::error::Result;
use crate::exchange::{CotangentSource, InputGradientSink, TapSink, TileSource};
use crate::observer::{Progress, SweepKind};
use crate::prepared::Prepared;
use crate::tile::{TileMut, TileRef};
use crate::workspace::{BlockStore, Held};

/// What the backward sweep exchanges with its caller.
pub struct Exchange<'a> {
    /// Gives the cotangent of each region of the features.
    pub cotangents: &'a mut dyn CotangentSource,
    /// Takes the gradient of the image.
    pub input_gradient: Option<&'a mut dyn InputGradientSink>,
    /// Is shown the layers that the request taps.
    pub taps: Option<&'a mut dyn TapSink>,
}

/// What the backward sweep reads.
pub(crate) struct BackwardInput<'a, B: Backend> {
    pub(crate) prepared: &'a Prepared<B>,
    pub(crate) source: &'a dyn TileSource,
    pub(crate) saved: Saved<B>,
    /// What becomes of the tiles of each of its blocks.
    pub(crate) roles: Vec<BackwardRoles>,
}

/// Runs the backward sweep over the blocks of the forward sweep, in reverse. It works in memory from `held`, where what was saved
/// goes, too, when it is done.
pub(crate) fn backward<B: Backend>(
    backend: &B,
    schedule: Schedule<'_>,
    input: BackwardInput<'_, B>,
    gradients: &mut Gradients<'_, B>,
    mut exchange: Exchange<'_>,
    held: &mut Held<B>,
) -> Result<()> {
    let geometry = schedule.geometry;
    let BackwardInput {
        prepared,
        source,
        saved:
            Saved {
                range,
                blocks: mut stores,
                offload,
            },
        mut roles,
    } = input;
    let layout = working::backward(&schedule, backend);
    working::make(&layout, &schedule, backend, &mut held.working);
    let engine = Engine {
        backend,
        schedule,
        prepared,
        source,
        working: &mut held.working,
        layout,
        offload,
        roles: Roles::default(),
        templates: Vec::new(),
        template: None,
    };
    let mut sweep = BackwardSweep {
        engine,
        sums: Vec::new(),
        roles: Roles::default(),
        role: Role::Computed,
        template: BackwardTemplate::default(),
    };
    sweep.begin_taps(&exchange);
    let blocks = geometry.blocks();
    while let Some(mut store) = stores.pop() {
        let place = range.start + stores.len();
        let (image, block) = (place / blocks, place % blocks);
        sweep.begin_tapped_block(block);
        gradients.sums.begin_block(backend);
        let BackwardRoles { back, mut again } = roles.pop().unwrap_or_default();
        sweep.engine.templates = back.memories();
        sweep.roles = back;
        if sweep.engine.offload.is_some() {
            let length = offset(sweep.engine.schedule.buffers.saved_length(block));
            let schedule = &sweep.engine.schedule;
            schedule.make(backend, &mut store.saved, length, length);
        }
        for segment in (0..geometry.segments()).rev() {
            if segment + 1 < geometry.segments() {
                let roles = again.pop().unwrap_or_default();
                sweep.sweep_again((image, block, segment), roles, &mut store)?;
            }
            sweep.segment(
                (image, block, segment),
                &mut store,
                gradients,
                &mut exchange,
            )?;
        }
        gradients.sums.finish_block(backend);
        if sweep.engine.offload.is_none() {
            held.blocks.push(store);
        }
    }
    // In the order in which the forward sweep asks for them.
    held.blocks.reverse();
    Ok(())
}

pub(super) struct BackwardSweep<'p, B: Backend> {
    pub(super) engine: Engine<'p, B>,
    /// Of each tapped node, where several blocks add to what is shown.
    pub(super) sums: Vec<OverlapSums<B>>,
    /// What becomes of the tiles of the block at hand.
    pub(super) roles: Roles,
    /// That of the tile at hand.
    pub(super) role: Role,
    /// Where the pieces of its template lie, if it has one.
    pub(super) template: BackwardTemplate,
}

impl<B: Backend> BackwardSweep<'_, B> {
    /// Runs the forward sweep of a segment, with templates of its own.
    fn sweep_again(
        &mut self,
        place: (usize, usize, usize),
        roles: Roles,
        store: &mut BlockStore<B>,
    ) -> Result<()> {
        let engine = &mut self.engine;
        let templates = std::mem::replace(&mut engine.templates, roles.memories());
        engine.roles = roles;
        engine.sweep_segment(place, Sweep::Saving, store, None)?;
        engine.templates = templates;
        Ok(())
    }

    fn segment(
        &mut self,
        (image, block, segment): (usize, usize, usize),
        store: &mut BlockStore<B>,
        gradients: &mut Gradients<'_, B>,
        exchange: &mut Exchange<'_>,
    ) -> Result<()> {
        let geometry = self.engine.schedule.geometry;
        let (bands, columns) = {
            let block = geometry.block(block);
            (block.rows.bands(), block.columns.bands())
        };
        for band in geometry.segment_bands(bands, segment).rev() {
            self.begin_band(block, band, store);
            let strips = self.engine.schedule.buffers.saved_strips(block, band);
            self.engine.take_back(strips, store)?;
            for column in (0..columns).rev() {
                let place = TilePlace {
                    image,
                    block,
                    tile: Tile { band, column },
                };
                self.engine.poison_arena();
                let buffers = self.engine.schedule.buffers;
                let part = buffers.saved_tile(geometry, block, place.tile);
                self.engine.take_back(part, store)?;
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
    fn begin_band(&mut self, block: usize, band: usize, store: &mut BlockStore<B>) {
        let geometry = self.engine.schedule.geometry;
        let bands = geometry.block(block).rows.bands();
        for node in 0..self.engine.schedule.nodes.len() {
            if !self.engine.schedule.has_cotangent(node) {
                continue;
            }
            let outgoing = self.cotangent_strip(block, node, band);
            self.clear(outgoing);
            if band + 1 == bands {
                continue;
            }
            // The two strips are the two halves of a pair: they do not overlap.
            let incoming = self.cotangent_strip(block, node, band + 1);
            let passed = outgoing.rect.intersect(incoming.rect);
            self.combine(outgoing, incoming, passed, Combine::Copy, store);
        }
    }

    /// Where cotangents on their way to the band above lie.
    fn cotangent_strip(&self, block: usize, node: usize, band: usize) -> Buffer {
        let Schedule {
            geometry, buffers, ..
        } = self.engine.schedule;
        let rect = geometry.block(block).strip(band, node);
        let start = buffers.cotangent_strip(node, band);
        self.engine
            .schedule
            .buffer_of(node, Slab::Carries, start, rect)
    }

    /// Where cotangents on their way to the tile to the left of `tile` lie.
    fn cotangent_left(&self, block: usize, node: usize, tile: Tile) -> Buffer {
        let Schedule {
            geometry, buffers, ..
        } = self.engine.schedule;
        let rect = geometry.block(block).left(tile, node);
        let start = buffers.cotangent_left(node, tile.column);
        self.engine
            .schedule
            .buffer_of(node, Slab::Carries, start, rect)
    }

    fn combine(
        &mut self,
        to: Buffer,
        from: Buffer,
        region: Rect,
        how: Combine,
        store: &mut BlockStore<B>,
    ) {
        if region.is_empty() {
            return;
        }
        let (backend, mut slabs) = self.engine.slabs(store);
        backend.combine(&mut slabs, to, from, region, how);
    }

    /// Sets a buffer of the working memory to zero.
    fn clear(&mut self, buffer: Buffer) {
        self.fill(buffer, 0.0);
    }

    fn fill(&mut self, buffer: Buffer, value: f64) {
        let Engine {
            backend,
            working,
            layout,
            ..
        } = &mut self.engine;
        let start = match buffer.slab {
            Slab::Carries => layout.carries.start,
            _ => layout.arena.start,
        };
        let range = buffer.range();
        backend.fill(working, start + range.start..start + range.end, value);
    }

    fn tile(
        &mut self,
        place: TilePlace,
        store: &mut BlockStore<B>,
        gradients: &mut Gradients<'_, B>,
        exchange: &mut Exchange<'_>,
    ) -> Result<()> {
        self.role = self.roles.of(self.engine.schedule.geometry, place);
        let length = self.roles.length(self.role);
        self.engine.take_up_template(self.role, length);
        if self.role != Role::Computed {
            let block = self.engine.schedule.block(place);
            self.template = BackwardTemplate::of(self.engine.schedule.geometry, block, place.tile);
        }
        if let Role::Repeated(_) = self.role {
            return self.repeat(place, store, exchange);
        }
        self.recompute(place, store)?;
        for node in (0..self.engine.schedule.nodes.len()).rev() {
            self.node(place, node, store, gradients, exchange)?;
        }
        Ok(())
    }

    /// Hands on what the tile of the template handed on.
    fn repeat(
        &mut self,
        place: TilePlace,
        store: &mut BlockStore<B>,
        exchange: &mut Exchange<'_>,
    ) -> Result<()> {
        for node in (0..self.engine.schedule.nodes.len()).rev() {
            if !self.engine.schedule.has_cotangent(node) {
                continue;
            }
            let BackwardPieces { above, left, owned } = self.template.nodes[node];
            if node == 0 {
                let owned = self.engine.piece(node, owned);
                self.emit_input_gradient(place, owned, exchange, store)?;
            }
            let own = [above, left].map(|piece| self.engine.piece(node, piece));
            self.hand_on(place, node, own, store);
        }
        Ok(())
    }

    /// Holds what the tile at hand adds to the cotangents of others, if it is computed for others, and of the image its own.
    fn hold(&mut self, place: TilePlace, node: usize, store: &mut BlockStore<B>) {
        let Role::Template(_) = self.role else {
            return;
        };
        let cotangent = self.engine.schedule.cotangent(place, node);
        let pieces = self.template.nodes.get(node).copied().unwrap_or_default();
        for piece in [pieces.above, pieces.left, pieces.owned] {
            let held = self.engine.piece(node, piece);
            self.combine(held, cotangent, piece.rect, Combine::Copy, store);
        }
    }

    /// Runs the VJP of a node; what it adds to sums counts for all tiles that this one is computed for.
    fn vjp(
        &mut self,
        place: TilePlace,
        node: usize,
        store: &mut BlockStore<B>,
        gradients: &mut Gradients<'_, B>,
    ) -> Result<()> {
        let tiles = f64::from(self.roles.tiles(self.role));
        let backend = self.engine.backend;
        // n times what is added, without sums of its own: s + n v = n (s / n + v).
        let scale = |gradients: &mut Gradients<'_, B>, factor: f64| {
            if tiles > 1.0 {
                let sums = gradients.sums.block[node].iter_mut();
                sums.for_each(|sums| backend.scale_sums(sums, factor));
            }
        };
        scale(gradients, 1.0 / tiles);
        self.engine.vjp(place, node, store, gradients)?;
        scale(gradients, tiles);
        Ok(())
    }

    /// Computes again what was not stored.
    pub(super) fn recompute(&mut self, place: TilePlace, store: &mut BlockStore<B>) -> Result<()> {
        for node in 0..self.engine.schedule.nodes.len() {
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
        store: &mut BlockStore<B>,
        gradients: &mut Gradients<'_, B>,
        exchange: &mut Exchange<'_>,
    ) -> Result<()> {
        for touched in 0..=node {
            if self.engine.schedule.buffers.first_touch(touched) == node
                && self.engine.schedule.has_cotangent(touched)
                && !self.engine.schedule.replaces(place, node, touched)
            {
                self.begin_cotangent(place, touched, store, exchange.cotangents)?;
                self.absorb_carries(place, touched, store);
            }
        }
        if !self.engine.schedule.has_cotangent(node) {
            return Ok(());
        }
        self.show(place, node, store, exchange)?;
        if !self.engine.schedule.owned(place, node).is_empty() {
            if node == 0 {
                let cotangent = self.engine.schedule.cotangent(place, node);
                self.emit_input_gradient(place, cotangent, exchange, store)?;
            } else if self.has_gradients(node, gradients) {
                self.vjp(place, node, store, gradients)?;
            }
        }
        for touched in 0..node {
            if self.engine.schedule.replaces(place, node, touched) {
                self.absorb_carries(place, touched, store);
            }
        }
        self.hold(place, node, store);
        let cotangent = self.engine.schedule.cotangent(place, node);
        self.hand_on(place, node, [cotangent; 2], store);
        if let Some(value) = self.engine.schedule.poison {
            self.fill(cotangent, value);
        }
        Ok(())
    }

    /// Whether a node's VJP gives anything: before one that is tapped there may be nothing that needs a cotangent.
    fn has_gradients(&self, node: usize, gradients: &Gradients<'_, B>) -> bool {
        let one = &self.engine.schedule.nodes[node];
        let mut inputs = one.inputs.iter();
        inputs.any(|&input| self.engine.schedule.has_cotangent(input)) || gradients.trains[node]
    }

    /// Sets a node's cotangent to zero, or to what the caller gives for an output.
    fn begin_cotangent(
        &mut self,
        place: TilePlace,
        node: usize,
        store: &mut BlockStore<B>,
        cotangents: &mut dyn CotangentSource,
    ) -> Result<()> {
        let buffer = self.engine.schedule.cotangent(place, node);
        self.clear(buffer);
        self.read_cotangent(place, node, store, cotangents)
    }

    /// Adds to a node's cotangent what later tiles left for what the tile owns of it.
    fn absorb_carries(&mut self, place: TilePlace, node: usize, store: &mut BlockStore<B>) {
        let block = self.engine.schedule.block(place);
        let Tile { band, column } = place.tile;
        let owned = block.owned(place.tile, node);
        let cotangent = self.engine.schedule.cotangent(place, node);
        if band + 1 < block.rows.bands() {
            let strip = self.cotangent_strip(place.block, node, band + 1);
            let own_part = strip.rect.intersect(owned).intersect(cotangent.rect);
            self.combine(cotangent, strip, own_part, Combine::Add, store);
        }
        if column + 1 < block.columns.bands() {
            let next = Tile {
                band,
                column: column + 1,
            };
            let left = self.cotangent_left(place.block, node, next);
            let own_part = left.rect.intersect(owned);
            self.combine(cotangent, left, own_part, Combine::Add, store);
        }
    }

    fn read_cotangent(
        &mut self,
        place: TilePlace,
        node: usize,
        store: &mut BlockStore<B>,
        cotangents: &mut dyn CotangentSource,
    ) -> Result<()> {
        let owned = self.engine.schedule.owned(place, node);
        for (index, (name, output)) in self.engine.schedule.outputs.iter().enumerate() {
            if *output != node || owned.is_empty() {
                continue;
            }
            let features = self
                .engine
                .schedule
                .activation(place, node, Phase::Backward);
            let cotangent = self.engine.schedule.cotangent(place, node);
            let (backend, mut slabs) = self.engine.slabs(store);
            let read =
                |y: TileRef<'_>, g: TileMut<'_>| cotangents.read(place.image, index, owned, y, g);
            backend
                .exchange(&mut slabs, features, cotangent, owned, read)
                .ok_or_else(|| internal(name))?
                .map_err(exchange_failed("cotangent source", place.image, owned))?;
        }
        Ok(())
    }

    fn emit_input_gradient(
        &mut self,
        place: TilePlace,
        cotangent: Buffer,
        exchange: &mut Exchange<'_>,
        store: &mut BlockStore<B>,
    ) -> Result<()> {
        let Some(sink) = exchange.input_gradient.as_deref_mut() else {
            return Ok(());
        };
        let owned = self.engine.schedule.owned(place, 0);
        let (backend, slabs) = self.engine.slabs(store);
        let add = |gradient: TileRef<'_>| sink.add(place.image, owned, gradient);
        backend
            .read(&slabs, cotangent, owned, add)
            .ok_or_else(|| internal("image"))?
            .map_err(exchange_failed("input gradient sink", place.image, owned))
    }

    /// Hands the cotangents of the halos, from the buffers that hold what the tile adds to them, to the tiles above and to the left,
    /// which own them.
    fn hand_on(
        &mut self,
        place: TilePlace,
        node: usize,
        [above, left]: [Buffer; 2],
        store: &mut BlockStore<B>,
    ) {
        let block = self.engine.schedule.block(place);
        let Tile { band, column } = place.tile;
        let region = block.above(place.tile, node);
        if !region.is_empty() {
            let strip = self.cotangent_strip(place.block, node, band);
            self.combine(strip, above, region, Combine::Add, store);
        }
        let outgoing = self.cotangent_left(place.block, node, place.tile);
        self.combine(outgoing, left, outgoing.rect, Combine::Copy, store);
        if column + 1 < block.columns.bands() {
            let next = Tile {
                band,
                column: column + 1,
            };
            // Of a tile that is narrower than the halo of the next one, what is meant for tiles further to the left.
            let incoming = self.cotangent_left(place.block, node, next);
            let passed = outgoing.rect.intersect(incoming.rect);
            self.combine(outgoing, incoming, passed, Combine::Add, store);
        }
    }
}
