//! The memory of the sweeps.

use std::ops::{Deref, DerefMut};

use stream_grad_kernels::{Storage, take_pages};

/// Bytes of a cache line, on which memory begins: registers that straddle two lines are loaded at half the rate.
pub(super) const LINE: usize = 64;

/// Values that begin on a cache line.
#[derive(Debug)]
pub struct Memory<T> {
    values: Vec<T>,
    start: usize,
    /// Values whose pages were taken.
    taken: usize,
}

impl<T> Default for Memory<T> {
    fn default() -> Self {
        Self {
            values: Vec::new(),
            start: 0,
            taken: 0,
        }
    }
}

impl<T: Storage> Memory<T> {
    /// Zeros, of which no page is there yet.
    fn zeros(length: usize) -> Self {
        if length == 0 {
            return Self::default();
        }
        let spare = LINE / size_of::<T>();
        let mut values = vec![T::ZERO; length.saturating_add(spare)];
        let start = values.as_ptr().align_offset(LINE).min(spare);
        values.truncate(start + length);
        Self {
            values,
            start,
            taken: 0,
        }
    }

    /// Makes this memory of `length` values, of which the first `used` will be written. The same memory stays if the length is
    /// the same; what it holds is anything. Memory of another length is freed first.
    pub(crate) fn make(&mut self, length: usize, used: usize) {
        if self.len() != length {
            drop(std::mem::take(self));
            *self = Self::zeros(length);
        }
        if used > self.taken {
            let taken = std::mem::replace(&mut self.taken, used);
            take_pages(&mut self[taken..used]);
        }
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
            let mut memory = Memory::<f32>::default();
            memory.make(length, length / 2);
            assert_eq!(*memory, vec![0.0; length]);
            assert!(length == 0 || memory.as_ptr().addr().is_multiple_of(LINE));
        }
    }

    #[test]
    fn memory_of_the_same_length_stays() {
        let mut memory = Memory::<f64>::default();
        memory.make(5, 5);
        memory[4] = 1.0;
        memory.make(5, 2);
        assert_eq!(memory[4], 1.0);
        memory.make(4, 4);
        assert_eq!(*memory, [0.0; 4]);
    }
}
