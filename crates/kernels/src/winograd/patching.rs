//! Who transforms patches: each task its own, or all tasks together.

use super::Transformed;
use super::products::TASK_TILES;
use crate::Storage;

/// Steps of the longest sum held in registers: its weights stay in the first-level cache while all tiles of a task pass.
pub(super) const LONGEST_SUM: usize = 128;

/// Tiles of a task that transforms its patches itself, of so few channels that a sum is not cut: the weights fit in the
/// second-level cache beside its patches, if there are not many more channels on the other side.
const FEW_TILES: usize = 24;

/// The same of more channels: then weights come past once for each task, and tiles are to share them, as many as a cache of a
/// MiB holds the patches of.
const MANY_TILES: [usize; 2] = [48, 24];

/// Tasks worth having. Of more, several would transform the same patches sooner: with 32, planes of 64 x 64 positions and 256
/// channels took 7% longer on two cores.
const TASKS: usize = 16;

/// Bytes of the patches that such tasks hold on the stack: of up to 128 and 256 channels in f32, of half as many in f64, and of twice as
/// many in bf16.
pub(super) const FEW_BYTES: usize = Transformed::values(FEW_TILES, 64) * size_of::<f64>();
pub(super) const MANY_BYTES: usize = Transformed::values(MANY_TILES[0], 128) * size_of::<f64>();

/// A multiple of the tiles that most micro-kernels take at a time.
const GROUP: usize = 12;

/// About so many values of patches are shared by all tasks at a time.
const SHARED_VALUES: usize = 1 << 20;

/// How a convolution's patches are transformed: a rule on its channels alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Patching {
    /// By each task for itself, a few tiles at a time.
    Few,
    /// By each task for itself, so many tiles at a time.
    Many(usize),
    /// For all tasks at once, since a task's would not stay in the second-level cache.
    Shared,
}

impl Patching {
    pub(super) fn new<E: Storage>(channels: usize) -> Self {
        let bytes = |tiles| Transformed::values(tiles, channels).saturating_mul(size_of::<E>());
        if channels <= LONGEST_SUM * E::TERMS && bytes(FEW_TILES) <= FEW_BYTES {
            return Self::Few;
        }
        let mut many = MANY_TILES.into_iter();
        many.find(|&tiles| bytes(tiles) <= MANY_BYTES)
            .map_or(Self::Shared, Self::Many)
    }

    /// Most tiles of a task.
    pub(super) const fn tiles(self) -> usize {
        match self {
            Self::Few => FEW_TILES,
            Self::Many(tiles) => tiles,
            Self::Shared => TASK_TILES,
        }
    }
}

/// How tiles and panels of weights are cut into tasks.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cut {
    /// Tiles of a task.
    pub(super) step: usize,
    /// Parts of the panels, each for another task.
    pub(super) parts: usize,
}

impl Cut {
    /// Where tiles are few, tasks take parts of the panels, and after that fewer tiles.
    pub(super) fn new(patching: Patching, tiles: usize, panels: usize) -> Self {
        let wanted = tiles / TASKS.div_ceil(panels.max(1));
        let step = (wanted / GROUP * GROUP).clamp(GROUP, patching.tiles());
        Self {
            step,
            parts: TASKS.div_ceil(tiles.div_ceil(step).max(1)).min(panels),
        }
    }
}

/// Tiles whose patches are transformed at a time for all tasks.
pub(super) fn shared_tiles(channels: usize) -> usize {
    (SHARED_VALUES / Transformed::values(1, channels))
        .next_multiple_of(TASK_TILES)
        .max(TASK_TILES)
}

/// Values of scratch that a convolution needs which reads `channels` channels.
pub(super) fn scratch_len<E: Storage>(channels: usize) -> usize {
    match Patching::new::<E>(channels) {
        Patching::Few | Patching::Many(_) => 0,
        Patching::Shared => Transformed::values(shared_tiles(channels), channels),
    }
}

const _: () = assert!(FEW_TILES <= TASK_TILES && MANY_TILES[0] <= TASK_TILES);
const _: () = assert!(MANY_TILES[1] <= MANY_TILES[0]);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bf16;

    #[test]
    fn patches_lie_where_there_is_room() {
        let ways = [32, 64, 128, 129, 256, 257, 512, 513, 2048].map(Patching::new::<f32>);
        let [few, many, half] = [Patching::Few, Patching::Many(48), Patching::Many(24)];
        assert_eq!(ways[..7], [few, few, few, many, many, half, half]);
        assert_eq!(ways[7..], [Patching::Shared, Patching::Shared]);
        let ways = [64, 65, 128, 256, 257].map(Patching::new::<f64>);
        assert_eq!(ways, [few, many, many, half, Patching::Shared]);
        let ways = [256, 257, 1024, 1100].map(Patching::new::<bf16>);
        assert_eq!(ways, [few, many, half, Patching::Shared]);
        assert_eq!(scratch_len::<f32>(512), 0);
        assert_eq!(scratch_len::<f32>(528), 16 * (144 * 528 + 16));
    }

    #[test]
    fn small_planes_are_cut_into_tasks() {
        let cut = |patching, tiles, panels| {
            let cut = Cut::new(patching, tiles, panels);
            (cut.step, cut.parts)
        };
        assert_eq!(cut(Patching::Few, 100_000, 1), (24, 1));
        assert_eq!(cut(Patching::Few, 200, 1), (12, 1));
        assert_eq!(cut(Patching::Few, 1, 2), (12, 2));
        assert_eq!(cut(Patching::Many(48), 100_000, 4), (48, 1));
        assert_eq!(cut(Patching::Many(24), 256, 8), (24, 2));
        assert_eq!(cut(Patching::Many(24), 1, 8), (12, 8));
    }
}
