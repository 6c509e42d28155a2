//! A global allocator that counts, to hold `Plan::peak_bytes` to its promise.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

/// The system's allocator with a count of the bytes held and their peak.
#[derive(Debug, Default)]
pub struct CountingAllocator {
    held: AtomicUsize,
    peak: AtomicUsize,
}

impl CountingAllocator {
    /// The allocator, which has to be the program's `#[global_allocator]`.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            held: AtomicUsize::new(0),
            peak: AtomicUsize::new(0),
        }
    }

    /// Starts to watch the peak.
    #[must_use]
    pub fn watch(&self) -> PeakWatch<'_> {
        let held = self.held.load(Ordering::SeqCst);
        self.peak.store(held, Ordering::SeqCst);
        PeakWatch {
            allocator: self,
            before: held,
        }
    }

    fn grow(&self, bytes: usize) {
        let held = self.held.fetch_add(bytes, Ordering::Relaxed) + bytes;
        self.peak.fetch_max(held, Ordering::Relaxed);
    }

    fn shrink(&self, bytes: usize) {
        self.held.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// Heap bytes since [`CountingAllocator::watch`].
#[derive(Debug)]
pub struct PeakWatch<'a> {
    allocator: &'a CountingAllocator,
    before: usize,
}

impl PeakWatch<'_> {
    /// The most bytes held at any moment, above what was held before.
    #[must_use]
    pub fn peak_bytes(&self) -> usize {
        self.allocator
            .peak
            .load(Ordering::SeqCst)
            .saturating_sub(self.before)
    }
}

#[expect(
    unsafe_code,
    reason = "counting needs an allocator of our own, and that trait is unsafe"
)]
// SAFETY: every request is passed to the system's allocator unchanged; counting allocates nothing.
unsafe impl GlobalAlloc for CountingAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promises are the callee's.
        let pointer = unsafe { System.alloc(layout) };
        if !pointer.is_null() {
            self.grow(layout.size());
        }
        pointer
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promises are the callee's.
        let pointer = unsafe { System.alloc_zeroed(layout) };
        if !pointer.is_null() {
            self.grow(layout.size());
        }
        pointer
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promises are the callee's.
        unsafe { System.dealloc(pointer, layout) };
        self.shrink(layout.size());
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        // SAFETY: the caller's promises are the callee's.
        let moved = unsafe { System.realloc(pointer, layout, new_size) };
        if !moved.is_null() {
            // Where it moved, old and new existed at once.
            self.grow(new_size);
            self.shrink(layout.size());
        }
        moved
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_peak_outlives_what_made_it() {
        let allocator = CountingAllocator::new();
        allocator.grow(100);
        let watch = allocator.watch();
        allocator.grow(50);
        allocator.shrink(50);
        allocator.grow(20);
        assert_eq!(watch.peak_bytes(), 50);
    }
}
