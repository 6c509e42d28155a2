//! What micro-kernels that address memory by pointer are checked by in debug builds.

/// Whether the `count` values from `first` on are part of `slice`.
#[inline(always)]
pub(crate) fn holds<T>(slice: &[T], first: *const T, count: usize) -> bool {
    let size = size_of::<T>();
    let before = first.addr().checked_sub(slice.as_ptr().addr());
    before.is_some_and(|bytes| bytes.is_multiple_of(size) && bytes / size + count <= slice.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_ends_where_the_slice_does() {
        let values = [0.0_f32; 8];
        let slice = &values[2..6];
        let at = |place: isize| slice.as_ptr().wrapping_offset(place);
        assert!(holds(slice, at(0), 4) && holds(slice, at(3), 1) && holds(slice, at(4), 0));
        assert!(!holds(slice, at(0), 5) && !holds(slice, at(-1), 1) && !holds(slice, at(4), 1));
        assert!(!holds(slice, at(0).wrapping_byte_add(1), 1));
    }
}
