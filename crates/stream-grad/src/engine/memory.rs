//! The memory of the sweeps.

use std::ops::{Deref, DerefMut};

use stream_grad_kernels::zeros;

use crate::scalar::Scalar;

/// Bytes of a cache line, on which memory begins: registers that straddle two lines are loaded at half the rate.
const LINE: usize = 64;

/// Values that begin on a cache line.
#[derive(Debug, Default)]
pub(crate) struct Memory<T> {
    values: Vec<T>,
    start: usize,
}

impl<T: Scalar> Memory<T> {
    pub(crate) fn zeros(length: usize) -> Self {
        if length == 0 {
            return Self {
                values: Vec::new(),
                start: 0,
            };
        }
        let spare = LINE / size_of::<T>();
        let mut values = zeros::<T>(length.saturating_add(spare));
        let start = values.as_ptr().align_offset(LINE).min(spare);
        values.truncate(start + length);
        Self { values, start }
    }
}

impl<T> Deref for Memory<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.values[self.start..]
    }
}

impl<T> DerefMut for Memory<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        &mut self.values[self.start..]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_begins_on_a_cache_line() {
        for length in [0, 1, 15, 16, 1000] {
            let memory = Memory::<f32>::zeros(length);
            assert_eq!(*memory, vec![0.0; length]);
            assert!(length == 0 || memory.as_ptr().addr().is_multiple_of(LINE));
        }
    }
}
