//! A bounded cache of decoded blocks, shared by threads and, if wanted, by slides.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::error::Result;
use crate::geometry::Level;
use crate::numbers::wide;

/// Edge of a block in level pixels. Blocks lie on a grid from the level's origin.
pub(crate) const BLOCK_EDGE: u64 = 512;

/// Decoded pixels of one block: RGB rows, clipped to the level.
#[derive(Debug)]
pub(crate) struct Block {
    /// Columns in this block, fewer than [`BLOCK_EDGE`] at the right edge.
    pub(crate) width: usize,
    /// `height x width x 3` bytes.
    pub(crate) rgb: Vec<u8>,
}

impl Block {
    /// The RGB bytes of `columns` of one row; empty where the block does not reach.
    pub(crate) fn row(&self, row: usize, columns: std::ops::Range<usize>) -> &[u8] {
        let start = row.saturating_mul(self.width);
        self.rgb
            .get((start + columns.start) * 3..(start + columns.end) * 3)
            .unwrap_or_default()
    }
}

/// Which block of which slide.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct BlockKey {
    pub(crate) slide: SlideKey,
    pub(crate) level: Level,
    pub(crate) row: u64,
    pub(crate) column: u64,
}

/// Tells apart the slides that share a cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct SlideKey(u64);

impl SlideKey {
    pub(crate) fn next() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

/// Holds the blocks that were used last, up to a number of bytes.
///
/// One cache may serve any number of slides and threads; a block that two threads want at once is decoded once. Blocks
/// that are being decoded or copied from are held outside the bound: at most one per thread at work, plus one row of
/// blocks per thread while resampling.
#[derive(Debug)]
pub struct BlockCache {
    capacity: u64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    slots: HashMap<BlockKey, Arc<Slot>>,
    bytes: u64,
    clock: u64,
}

#[derive(Debug, Default)]
struct Slot {
    block: Mutex<Option<Arc<Block>>>,
    /// Bytes counted in [`State::bytes`]; zero until decoded.
    counted: AtomicU64,
    last_use: AtomicU64,
}

impl BlockCache {
    /// Edge of a block, which is decoded as one, in pixels of its level.
    pub const BLOCK_EDGE: u64 = BLOCK_EDGE;

    /// A cache of at most `capacity` bytes of pixels. Zero keeps nothing.
    #[must_use]
    pub fn new(capacity: u64) -> Self {
        Self {
            capacity,
            state: Mutex::default(),
        }
    }

    /// The bound in bytes.
    #[must_use]
    pub const fn capacity(&self) -> u64 {
        self.capacity
    }

    /// Bytes of pixels held now; never above [`capacity`](Self::capacity).
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.lock().bytes
    }

    /// The block of `key`, from the cache or from `decode`. Failures are not remembered.
    pub(crate) fn get_or_decode(
        &self,
        key: BlockKey,
        decode: impl FnOnce() -> Result<Block>,
    ) -> Result<Arc<Block>> {
        let slot = self.slot(key);
        let mut held = slot.block.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(block) = held.as_ref() {
            return Ok(Arc::clone(block));
        }
        match decode() {
            Ok(block) => {
                let block = Arc::new(block);
                *held = Some(Arc::clone(&block));
                drop(held);
                self.count(key, &slot, block.rgb.len());
                Ok(block)
            }
            Err(error) => {
                drop(held);
                self.lock().slots.remove(&key);
                Err(error)
            }
        }
    }

    /// Forgets every block of a slide that is closed.
    pub(crate) fn forget(&self, slide: SlideKey) {
        let mut state = self.lock();
        let mut freed = 0;
        state.slots.retain(|key, slot| {
            let keep = key.slide != slide;
            if !keep {
                freed += slot.counted.load(Ordering::Relaxed);
            }
            keep
        });
        state.bytes -= freed;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn slot(&self, key: BlockKey) -> Arc<Slot> {
        let mut state = self.lock();
        state.clock += 1;
        let now = state.clock;
        let slot = state.slots.entry(key).or_default();
        slot.last_use.store(now, Ordering::Relaxed);
        Arc::clone(slot)
    }

    /// Adds a decoded block to the count and drops what was used longest ago until the bound holds.
    fn count(&self, key: BlockKey, slot: &Arc<Slot>, bytes: usize) {
        let bytes = wide(bytes);
        let mut state = self.lock();
        // The slot may have been evicted or forgotten while it was being decoded.
        if !state
            .slots
            .get(&key)
            .is_some_and(|held| Arc::ptr_eq(held, slot))
        {
            return;
        }
        slot.counted.store(bytes, Ordering::Relaxed);
        state.bytes += bytes;
        while state.bytes > self.capacity {
            let oldest = state
                .slots
                .iter()
                .filter(|(_, slot)| slot.counted.load(Ordering::Relaxed) > 0)
                .min_by_key(|(_, slot)| slot.last_use.load(Ordering::Relaxed))
                .map(|(key, _)| *key);
            let Some(evicted) = oldest.and_then(|key| state.slots.remove(&key)) else {
                break;
            };
            state.bytes -= evicted.counted.load(Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::SlideError;

    fn key(column: u64) -> BlockKey {
        BlockKey {
            slide: SlideKey(u64::MAX),
            level: Level(0),
            row: 0,
            column,
        }
    }

    fn block(value: u8) -> Result<Block> {
        Ok(Block {
            width: 10,
            rgb: vec![value; 30],
        })
    }

    #[test]
    fn the_least_recently_used_block_goes_first() {
        let cache = BlockCache::new(60);
        cache.get_or_decode(key(0), || block(0)).unwrap();
        cache.get_or_decode(key(1), || block(1)).unwrap();
        cache
            .get_or_decode(key(0), || panic!("still held"))
            .unwrap();
        cache.get_or_decode(key(2), || block(2)).unwrap();
        assert_eq!(cache.bytes(), 60);
        cache
            .get_or_decode(key(0), || panic!("still held"))
            .unwrap();
        let again = cache.get_or_decode(key(1), || block(9)).unwrap();
        assert_eq!(again.rgb[0], 9, "block 1 was evicted and decoded again");
    }

    #[test]
    fn nothing_is_kept_without_capacity_nor_after_a_failure() {
        let cache = BlockCache::new(0);
        cache.get_or_decode(key(0), || block(0)).unwrap();
        assert_eq!(cache.bytes(), 0);
        let failing = || {
            Err(SlideError::NoScale {
                path: std::path::PathBuf::from("the decoder's own"),
            })
        };
        assert!(matches!(
            cache.get_or_decode(key(1), failing),
            Err(SlideError::NoScale { path }) if path == std::path::Path::new("the decoder's own")
        ));
        assert!(cache.get_or_decode(key(1), || block(1)).is_ok());
        assert!(cache.lock().slots.is_empty());
    }

    #[test]
    fn threads_that_want_one_block_decode_it_once() {
        let cache = BlockCache::new(1000);
        let decoded = AtomicU64::new(0);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    cache
                        .get_or_decode(key(7), || {
                            decoded.fetch_add(1, Ordering::Relaxed);
                            std::thread::sleep(std::time::Duration::from_millis(20));
                            block(7)
                        })
                        .unwrap();
                });
            }
        });
        assert_eq!(decoded.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn a_closed_slide_leaves_nothing() {
        let cache = BlockCache::new(1000);
        cache.get_or_decode(key(0), || block(0)).unwrap();
        cache.forget(key(0).slide);
        assert_eq!(cache.bytes(), 0);
    }
}
