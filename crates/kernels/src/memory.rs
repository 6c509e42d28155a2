//! Memory for long buffers.

use std::mem::MaybeUninit;

use rayon::prelude::*;

use crate::Storage;
use crate::parallel::parallel_for;

/// Shorter buffers are taken page by page, as they are written.
const LONG: usize = 4 << 20;

/// Bytes that one task takes.
const TAKEN_AT_ONCE: usize = 16 << 20;

/// Vectors of more bytes are cleared on all threads, so many bytes at a time.
const CLEARED_AT_ONCE: usize = 512 << 10;

/// A vector of `count` zeros, for buffers that are written through. A long one is cleared on all threads of the caller's rayon pool:
/// copies of weights and sums of gradients are made anew for each step, and one thread took a tenth of a small step for them.
///
/// ```
/// assert_eq!(stream_grad_kernels::zeros::<f32>(3), [0.0; 3]);
/// ```
#[must_use]
pub fn zeros<E: Storage>(count: usize) -> Vec<E> {
    let at_once = CLEARED_AT_ONCE / size_of::<E>();
    if count <= at_once {
        return vec![E::ZERO; count];
    }
    let mut values = Vec::with_capacity(count);
    let parts = values.spare_capacity_mut()[..count].par_chunks_mut(at_once);
    parallel_for(parts, |part| {
        populate(part);
        part.fill(MaybeUninit::new(E::ZERO));
    });
    #[expect(
        unsafe_code,
        reason = "the values were written as memory that held none"
    )]
    // SAFETY: there is room for `count` values, and all of them were written.
    unsafe {
        values.set_len(count);
    }
    values
}

/// Takes the memory of a long buffer that will be written through. On Linux the system is asked for all of its pages at once, on
/// all threads of the caller's rayon pool: a fault for each page took a sixth of a step. Values stay as they are.
pub fn take_pages<E: Storage>(values: &mut [E]) {
    if size_of_val(values) >= LONG {
        let pages = values.par_chunks(TAKEN_AT_ONCE / size_of::<E>());
        parallel_for(pages, populate);
    }
}

#[cfg(target_os = "linux")]
fn populate<T>(values: &[T]) {
    use rustix::mm::{Advice, madvise};
    use rustix::param::page_size;

    let page = page_size();
    let start = values.as_ptr().cast::<u8>();
    let skipped = start.align_offset(page);
    let length = size_of_val(values).saturating_sub(skipped) / page * page;
    #[expect(unsafe_code, reason = "advice about memory is raw")]
    // SAFETY: whole pages inside the slice; the advice changes no value in them. Where it is not known, nothing is lost.
    let _ = unsafe {
        madvise(
            start.wrapping_add(skipped).cast_mut().cast(),
            length,
            Advice::LinuxPopulateWrite,
        )
    };
}

#[cfg(not(target_os = "linux"))]
fn populate<T>(_: &[T]) {}
