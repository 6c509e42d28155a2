//! Loops over the channels of a pixel in blocks of a constant size.

/// Runs a block of code for all channels of a pixel, `N` from `channel` on at a time, where `N` is a constant: loops over that
/// many values are vectorised, and the values stay in registers.
macro_rules! for_each_block {
    ($channels:expr, $channel:ident, $N:ident, $work:block) => {{
        let mut $channel = 0;
        for_each_block!(@blocks $channels, $channel, $N, $work, 16);
        for_each_block!(@blocks $channels, $channel, $N, $work, 8);
        for_each_block!(@blocks $channels, $channel, $N, $work, 4);
        for_each_block!(@blocks $channels, $channel, $N, $work, 1);
    }};
    (@blocks $channels:expr, $channel:ident, $N:ident, $work:block, $size:literal) => {{
        const $N: usize = $size;
        while $channel + $N <= $channels {
            $work
            $channel += $N;
        }
    }};
}
pub(crate) use for_each_block;

/// The `N` values from `place` on, which are all there.
#[inline(always)]
pub(crate) fn block<T, const N: usize>(values: &[T], place: usize) -> &[T; N] {
    let (values, _) = values[place..].as_chunks();
    &values[0]
}

/// The `N` values from `place` on, which are all there.
#[inline(always)]
pub(crate) fn block_mut<T, const N: usize>(values: &mut [T], place: usize) -> &mut [T; N] {
    let (values, _) = values[place..].as_chunks_mut();
    &mut values[0]
}
