//! Memory of tasks on the stack.

use std::mem::MaybeUninit;

/// Bytes on the stack, aligned to a cache line, that are written before they are read. Declared in place, with
/// `Stack::uninit()`: a function that returned them would hold them once more where nothing is optimised.
pub(crate) type Stack<const BYTES: usize> = MaybeUninit<Lines<BYTES>>;

/// Bytes from the beginning of a cache line on.
#[repr(align(64))]
pub(crate) struct Lines<const BYTES: usize>([u8; BYTES]);

/// Registers on the stack, where they can be counted through: those that a loop of unknown length goes through cannot stay in
/// registers.
#[repr(align(64))]
pub(crate) struct Aligned<V>(pub(crate) V);

/// Output channels between one row of a block and the next are a multiple of this: whole registers of any width.
pub(crate) const ALIGNMENT: usize = 16;
