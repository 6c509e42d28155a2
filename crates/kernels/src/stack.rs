//! Memory of tasks on the stack.

use std::mem::MaybeUninit;

/// Bytes on the stack, aligned to a cache line, that are written before they are read.
#[repr(align(64))]
pub(crate) struct Stack<const BYTES: usize>([MaybeUninit<u8>; BYTES]);

impl<const BYTES: usize> Stack<BYTES> {
    #[inline(always)]
    pub(crate) const fn uninit() -> Self {
        Self([const { MaybeUninit::uninit() }; BYTES])
    }

    /// Where values begin.
    #[inline(always)]
    pub(crate) fn values<T>(&mut self) -> *mut T {
        self.0.as_mut_ptr().cast()
    }
}

/// Registers on the stack, where they can be counted through: those that a loop of unknown length goes through cannot stay in
/// registers.
#[repr(align(64))]
pub(crate) struct Aligned<V>(pub(crate) V);
