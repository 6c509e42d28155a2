//! Watching a sweep: libraries do not print.

use stream_grad_tiling::Tile;

/// Which sweep a tile belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SweepKind {
    /// The forward sweep.
    Forward,
    /// The forward sweep of a segment, run again before its backward sweep.
    Resweep,
    /// The backward sweep.
    Backward,
}

/// A tile that is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// The sweep.
    pub kind: SweepKind,
    /// Index of the image in the batch.
    pub image: usize,
    /// Index of the block.
    pub block: usize,
    /// The tile.
    pub tile: Tile,
}

/// Is told of every tile that is done; called on the thread that runs the sweep.
pub trait Observer: Send + Sync {
    /// One tile is done.
    fn tile_done(&self, progress: &Progress);
}

/// Watches nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoObserver;

impl Observer for NoObserver {
    fn tile_done(&self, _progress: &Progress) {}
}
