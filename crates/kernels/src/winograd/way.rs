//! Who transforms patches: each task its own, or all tasks together.

use super::Transformed;
use super::products::TASK_TILES;

/// Longest sum held in registers: its weights stay in the first-level cache while all tiles of a task pass.
pub(super) const LONGEST_SUM: usize = 128;

/// Tiles of a task that transforms its patches itself, where all weights fit in the second-level cache beside these.
const FEW_TILES: usize = 24;

/// The same where they do not: weights come past once for each task, and more tiles are to share them.
const MANY_TILES: [usize; 2] = [48, 24];

/// Bytes of the patches that such tasks hold on the stack: of up to 128 and 256 channels in f32, of half as many in f64.
pub(super) const FEW_BYTES: usize = Transformed::values(FEW_TILES, 64) * size_of::<f64>();
pub(super) const MANY_BYTES: usize = Transformed::values(MANY_TILES[0], 128) * size_of::<f64>();

/// Most values of patches that all tasks share at a time.
const SHARED_VALUES: usize = 1 << 20;

/// How a convolution's patches are transformed: a rule on its channels alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// By each task for itself, a few tiles at a time.
    Few,
    /// By each task for itself, so many tiles at a time.
    Many(usize),
    /// For all tasks at once, since a task's would not stay in the second-level cache.
    Shared,
}

impl Way {
    pub(super) fn new<T>(channels: usize) -> Self {
        let bytes = |tiles| Transformed::values(tiles, channels).saturating_mul(size_of::<T>());
        if channels <= LONGEST_SUM && bytes(FEW_TILES) <= FEW_BYTES {
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

/// Tiles whose patches are transformed at a time for all tasks.
pub(super) fn shared_tiles(channels: usize) -> usize {
    (SHARED_VALUES / Transformed::values(1, channels))
        .next_multiple_of(TASK_TILES)
        .max(TASK_TILES)
}

/// Values of scratch that a convolution needs which reads `channels` channels.
pub(super) fn scratch_len<T>(channels: usize) -> usize {
    match Way::new::<T>(channels) {
        Way::Few | Way::Many(_) => 0,
        Way::Shared => Transformed::values(shared_tiles(channels), channels),
    }
}

const _: () = assert!(FEW_TILES <= TASK_TILES && MANY_TILES[0] <= TASK_TILES);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patches_lie_where_there_is_room() {
        let ways = [32, 64, 128, 129, 256, 257, 512, 513, 2048].map(Way::new::<f32>);
        let [few, many, half] = [Way::Few, Way::Many(48), Way::Many(24)];
        assert_eq!(ways[..7], [few, few, few, many, many, half, half]);
        assert_eq!(ways[7..], [Way::Shared, Way::Shared]);
        let ways = [64, 65, 128, 256, 257].map(Way::new::<f64>);
        assert_eq!(ways, [few, many, many, half, Way::Shared]);
        assert_eq!(scratch_len::<f32>(512), 0);
        assert_eq!(scratch_len::<f32>(528), 16 * (144 * 528 + 16));
    }
}
