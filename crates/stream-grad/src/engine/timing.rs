//! The time of each operation, on a tile that is the whole image.

use std::time::{Duration, Instant};

use stream_grad_tiling::{PerAxis, Span, Sweep, Tile};

use super::backward::{BackwardSweep, Exchange};
use super::buffer::{Stored, combine_rows};
use super::operations::Gradients;
use super::working::{Parts, Working};
use super::{BlockStore, Engine, Memory, Phase, Schedule, TilePlace};
use crate::error::Result;
use crate::exchange::TileSource;
use crate::prepared::{Prepared, scalar};
use crate::scalar::Scalar;

/// Seconds that the computations of one node took, each time.
#[derive(Debug, Clone, Default)]
pub(crate) struct NodeSeconds {
    pub(crate) forward: Vec<f64>,
    pub(crate) vjp: Vec<f64>,
}

/// The times of each node in rounds of forward and backward through one tile, for as long as `slice`.
pub(crate) fn time_nodes<T: Scalar>(
    schedule: Schedule<'_>,
    prepared: &Prepared<T>,
    source: &dyn TileSource,
    gradients: &mut Gradients<T>,
    mut exchange: Exchange<'_>,
    slice: Duration,
) -> Result<Vec<NodeSeconds>> {
    let nodes = schedule.operations.len();
    let mut store = BlockStore::default();
    schedule.make_block(&mut store, 0);
    let mut memory = Memory::default();
    // Memory that was never written would be read from one page of zeros.
    for memory in [&mut store.saved, &mut store.border] {
        memory.fill(scalar(0.5));
    }
    let Parts {
        arena,
        transient,
        carries,
        scratch,
    } = Working::either::<T>(&schedule).cut(&schedule, &mut memory);
    for part in [&mut *arena, &mut *transient, &mut *carries] {
        part.fill(scalar(0.5));
    }
    let engine = Engine {
        schedule,
        prepared,
        source,
        arena,
        transient,
        spill: None,
        scratch,
    };
    let mut sweep = BackwardSweep {
        engine,
        carries,
        sums: Vec::new(),
    };
    let place = TilePlace {
        image: 0,
        block: 0,
        tile: Tile { band: 0, column: 0 },
    };
    let mut seconds = vec![NodeSeconds::default(); nodes];
    let began = Instant::now();
    loop {
        for (node, seconds) in seconds.iter_mut().enumerate() {
            let start = Instant::now();
            let phase = Phase::Forward(Sweep::Saving);
            sweep.engine.forward_node(place, node, phase, &mut store)?;
            seconds.forward.push(start.elapsed().as_secs_f64());
        }
        sweep.recompute(place, &mut store)?;
        for (node, seconds) in seconds.iter_mut().enumerate().rev() {
            let start = Instant::now();
            sweep.node(place, node, &mut store, gradients, &mut exchange)?;
            seconds.vjp.push(start.elapsed().as_secs_f64());
        }
        if began.elapsed() >= slice {
            return Ok(seconds);
        }
    }
}

/// Seconds in which a byte of memory is taken from the system and given back.
pub(crate) fn time_fresh_memory() -> f64 {
    // More than an allocator keeps for itself.
    const VALUES: usize = 16 << 20;
    let start = Instant::now();
    let mut memory = Memory::<f32>::default();
    memory.make(VALUES, VALUES);
    drop(std::hint::black_box(memory));
    start.elapsed().as_secs_f64() / (VALUES * size_of::<f32>()) as f64
}

/// Seconds in which a byte of a halo is copied: two rows and two columns of a map of 64 channels, each time others.
pub(crate) fn time_copies() -> f64 {
    const CHANNELS: usize = 64;
    const EDGE: u16 = 256;
    const ROUNDS: u16 = 20;
    let plane = Span::new(0, i64::from(EDGE));
    let at = |rect: PerAxis<Span>| Stored { offset: 0, rect };
    let edge = usize::from(EDGE);
    let map = vec![0.5_f32; CHANNELS * edge * edge];
    let mut halo = vec![0.0_f32; 2 * CHANNELS * edge];
    let bytes = (2 * usize::from(ROUNDS) * size_of_val(&*halo)) as f64;
    let start = Instant::now();
    for round in 0..ROUNDS {
        let first = i64::from(round * (EDGE / ROUNDS));
        let two = Span::new(first, first + 2);
        for rect in [PerAxis::new(two, plane), PerAxis::new(plane, two)] {
            let whole = at(PerAxis::both(plane));
            let copy = |to: &mut [f32], from: &[f32]| to.copy_from_slice(from);
            combine_rows(&mut halo, at(rect), &map, whole, rect, CHANNELS, copy);
            std::hint::black_box(&mut halo);
        }
    }
    start.elapsed().as_secs_f64() / bytes
}
