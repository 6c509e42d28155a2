//! A slice that tasks write at disjoint places.

use std::marker::PhantomData;

/// The memory of a slice, borrowed for `'a`, that several tasks may write.
pub(crate) struct Shared<'a, T> {
    pointer: *mut T,
    length: usize,
    slice: PhantomData<&'a mut [T]>,
}

#[expect(unsafe_code, reason = "tasks write disjoint parts of one slice")]
// SAFETY: the pointer is only read and written through in unsafe blocks: each writes places that belong to its task alone, and reads
// those or what tasks wrote that are done.
unsafe impl<T: Send> Sync for Shared<'_, T> {}

impl<'a, T> Shared<'a, T> {
    pub(crate) fn new(slice: &'a mut [T]) -> Self {
        Self {
            pointer: slice.as_mut_ptr(),
            length: slice.len(),
            slice: PhantomData,
        }
    }

    /// Where the `count` values from `first` on begin, which are part of the slice. Whoever writes through it must own the place.
    #[inline(always)]
    pub(crate) fn place(&self, first: usize, count: usize) -> *mut T {
        debug_assert!(
            count == 0 || first + count <= self.length,
            "{count} values from {first} on, of {}",
            self.length
        );
        self.pointer.wrapping_add(first)
    }
}
