//! The time of each operation, on a tile that is the whole image.

use std::time::{Duration, Instant};

use stream_grad_tiling::{BackwardTemplate, PerAxis, Span, Sweep, Tile};

use super::backward::{BackwardSweep, Exchange};
use super::roles::{Role, Roles};
use super::{Engine, Gradients, Phase, Schedule, TilePlace, working};
use crate::backend::{Backend, Buffer, Combine, Cpu, Slab, Slabs, WorkingLayout};
use crate::error::Result;
use crate::exchange::TileSource;
use crate::prepared::Prepared;
use crate::workspace::BlockStore;

/// Seconds that the computations of one node took, each time.
#[derive(Debug, Clone, Default)]
pub(crate) struct NodeSeconds {
    pub(crate) forward: Vec<f64>,
    pub(crate) vjp: Vec<f64>,
}

/// The times of each node in rounds of forward and backward through one tile, for as long as `slice`.
pub(crate) fn time_nodes<B: Backend>(
    backend: &B,
    schedule: Schedule<'_>,
    (prepared, source): (&Prepared<B>, &dyn TileSource),
    gradients: &mut Gradients<'_, B>,
    mut exchange: Exchange<'_>,
    slice: Duration,
) -> Result<Vec<NodeSeconds>> {
    let nodes = schedule.nodes.len();
    let mut store = BlockStore::default();
    schedule.make_block(backend, &mut store, 0);
    let layout = working::either(&schedule, backend);
    let mut working = B::Memory::default();
    working::make(&layout, &schedule, backend, &mut working);
    // Memory that was never written would be read from one page of zeros.
    for memory in [&mut store.saved, &mut store.border, &mut working] {
        let length = backend.len(memory);
        backend.fill(memory, 0..length, 0.5);
    }
    let engine = Engine {
        backend,
        schedule,
        prepared,
        source,
        working: &mut working,
        layout,
        offload: None,
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
    let mut memory = <Cpu<f32> as Backend>::Memory::default();
    Cpu::<f32>::new().make(&mut memory, VALUES, VALUES);
    drop(std::hint::black_box(memory));
    start.elapsed().as_secs_f64() / (VALUES * size_of::<f32>()) as f64
}

/// Seconds in which a byte of a halo is copied: two rows and two columns of a map of 64 channels, each time others.
pub(crate) fn time_copies() -> f64 {
    const CHANNELS: usize = 64;
    const EDGE: u16 = 256;
    const ROUNDS: u16 = 20;
    let plane = Span::new(0, i64::from(EDGE));
    let edge = usize::from(EDGE);
    let backend = Cpu::<f32>::new();
    let [mut map, mut halo, mut nothing] = <[<Cpu<f32> as Backend>::Memory; 3]>::default();
    for (memory, length) in [
        (&mut map, CHANNELS * edge * edge),
        (&mut halo, 2 * CHANNELS * edge),
    ] {
        backend.make(memory, length, length);
        backend.fill(memory, 0..length, 0.5);
    }
    let buffer = |slab, rect| Buffer {
        slab,
        offset: 0,
        rect,
        channels: CHANNELS,
    };
    let whole = buffer(Slab::Saved, PerAxis::both(plane));
    let mut slabs = Slabs::<Cpu<f32>> {
        working: &mut nothing,
        layout: &WorkingLayout::default(),
        saved: &mut map,
        border: &mut halo,
        shown: None,
        template: None,
    };
    let bytes = (2 * usize::from(ROUNDS) * 2 * CHANNELS * edge * size_of::<f32>()) as f64;
    let start = Instant::now();
    for round in 0..ROUNDS {
        let first = i64::from(round * (EDGE / ROUNDS));
        let two = Span::new(first, first + 2);
        for rect in [PerAxis::new(two, plane), PerAxis::new(plane, two)] {
            let halo = buffer(Slab::Border, rect);
            backend.combine(&mut slabs, halo, whole, rect, Combine::Copy);
            std::hint::black_box(&mut slabs);
        }
    }
    start.elapsed().as_secs_f64() / bytes
}
