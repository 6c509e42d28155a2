//! Templates: what a tile that is computed for others leaves to them.

use stream_grad_tiling::{ForwardPieces, Piece};

use super::roles::Role;
use super::{Engine, Phase, TilePlace};
use crate::backend::{Backend, Buffer, Slab, offset};
use crate::workspace::BlockStore;

impl<B: Backend> Engine<'_, B> {
    /// Takes up the template of a tile, if it has one: with room for the `length` elements that it is to hold, or with what it holds.
    pub(super) fn take_up_template(&mut self, role: Role, length: u64) {
        self.template = match role {
            Role::Computed => None,
            Role::Template(number) => {
                let length = offset(length);
                let memory = &mut self.templates[number];
                self.schedule.make(self.backend, memory, length, length);
                Some(number)
            }
            Role::Repeated(number) => Some(number),
        };
    }

    /// Where a piece of the template at hand lies.
    pub(super) fn piece(&self, node: usize, piece: Piece) -> Buffer {
        self.schedule
            .buffer_of(node, Slab::Template, piece.offset, piece.rect)
    }

    /// Holds what others take of a node that was computed.
    pub(super) fn hold_node(
        &mut self,
        place: TilePlace,
        node: usize,
        phase: Phase,
        pieces: &ForwardPieces,
        store: &mut BlockStore<B>,
    ) {
        let activation = self.schedule.activation(place, node, phase);
        for piece in pieces.distinct() {
            let held = self.piece(node, piece);
            self.copy(held, activation, piece.rect, store);
        }
    }

    /// Hands on, and keeps, what the tile of the template had of a node.
    pub(super) fn repeat_node(
        &mut self,
        place: TilePlace,
        node: usize,
        phase: Phase,
        pieces: &ForwardPieces,
        store: &mut BlockStore<B>,
    ) {
        let [below, right, owned] =
            [pieces.below, pieces.right, pieces.owned].map(|piece| self.piece(node, piece));
        let activation = self.schedule.activation(place, node, phase);
        // Where it is stored; in the arena nobody reads it.
        if activation.slab == Slab::Saved {
            self.copy(activation, owned, activation.rect, store);
        }
        self.save_halos(place, node, phase, [below, right], store);
    }
}
