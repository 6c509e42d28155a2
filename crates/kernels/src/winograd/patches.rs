//! The transform of input patches, `B^E d B`.

use std::ops::Range;

use pulp::{Simd, WithSimd};

use super::{Grid, PATCH, TILE, Transformed};
use crate::Storage;
use crate::bounds::holds;
use crate::element::sealed::{
    Family, Register, Stored, Vectors, for_each_number, lanes, load, load_some, store, zero,
};
use crate::shared::Shared;

/// A view that patches are cut from.
#[derive(Debug, Clone, Copy)]
pub(super) struct Source<'a, E: Storage> {
    pub(super) data: &'a [E],
    /// From one row to the next, in values.
    pub(super) row_pitch: usize,
    /// From one position to the next.
    pub(super) pitch: usize,
    /// Channels that are transformed, from the first value of `data` on.
    pub(super) channels: usize,
}

/// Transforms the patches of some tiles.
pub(crate) struct PatchTask<'a, E: Storage> {
    pub(super) grid: &'a Grid,
    pub(super) source: Source<'a, E>,
    pub(super) tiles: Range<usize>,
    pub(super) target: &'a Shared<'a, E>,
    /// Where the first tile's values go.
    pub(super) first: usize,
    pub(super) layout: Transformed,
}

/// The family of [`PatchTask`].
pub(super) struct PatchFamily;

impl Family for PatchFamily {
    type Task<'a, E: Storage> = PatchTask<'a, E>;

    for_each_number!(|task, Number| Number::dispatch(task));
}

impl<E: Storage> WithSimd for PatchTask<'_, E> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        #[expect(unsafe_code, reason = "transforms address memory by pointer")]
        // SAFETY: whoever made the task laid the target out for its tiles, and gave them to no other task.
        unsafe {
            let target = self
                .target
                .place(self.first, self.layout.reach(self.tiles.len()));
            transform::<S, E, false>(
                simd,
                self.grid,
                self.source,
                self.tiles,
                target,
                &self.layout,
            );
        }
    }
}

/// Some channels of four rows of an image.
struct Rows<E> {
    /// Where each begins, or nothing where it is padding.
    starts: [Option<*const E>; PATCH],
    /// The same, if all rows are there and the channels fill a register.
    inside: Option<[*const E; PATCH]>,
    channel: usize,
    count: usize,
}

impl<E: Storage> Rows<E> {
    /// `B^E` times two columns of a patch.
    #[inline(always)]
    #[expect(unsafe_code, reason = "transforms address memory by pointer")]
    fn columns<S: Simd>(
        &self,
        simd: S,
        grid: &Grid,
        source: &Source<'_, E>,
        position: isize,
    ) -> [[Register<E, S>; PATCH]; 2] {
        let columns = &grid.columns;
        if let Some([a, b, c, d]) = self
            .inside
            .filter(|_| columns.holds(position) && columns.holds(position + 1))
        {
            let offset = position.unsigned_abs() * source.pitch + self.channel;
            let next = offset + source.pitch;
            let count = lanes::<S, E>() + source.pitch;
            debug_assert!([a, b, c, d].iter().all(|row| holds(
                source.data,
                row.wrapping_add(offset),
                count
            )));
            // SAFETY: rows, columns and channels exist.
            let columns = unsafe {
                [
                    [
                        load::<S, E>(simd, a.add(offset)),
                        load::<S, E>(simd, b.add(offset)),
                        load::<S, E>(simd, c.add(offset)),
                        load::<S, E>(simd, d.add(offset)),
                    ],
                    [
                        load::<S, E>(simd, a.add(next)),
                        load::<S, E>(simd, b.add(next)),
                        load::<S, E>(simd, c.add(next)),
                        load::<S, E>(simd, d.add(next)),
                    ],
                ]
            };
            return [
                transform_four::<S, E>(simd, columns[0]),
                transform_four::<S, E>(simd, columns[1]),
            ];
        }
        [
            self.column(simd, grid, source, position),
            self.column(simd, grid, source, position + 1),
        ]
    }

    /// `B^E` times a column of a patch.
    #[inline(always)]
    fn column<S: Simd>(
        &self,
        simd: S,
        grid: &Grid,
        source: &Source<'_, E>,
        position: isize,
    ) -> [Register<E, S>; PATCH] {
        let mut d = [zero::<S, E>(simd); PATCH];
        if grid.columns.holds(position) {
            let offset = position.unsigned_abs() * source.pitch + self.channel;
            for (value, start) in d.iter_mut().zip(self.starts) {
                if let Some(start) = start {
                    debug_assert!(holds(source.data, start.wrapping_add(offset), self.count));
                    #[expect(unsafe_code, reason = "transforms address memory by pointer")]
                    // SAFETY: row and column exist in the image.
                    unsafe {
                        *value = load_some::<S, E>(simd, start.add(offset), self.count);
                    }
                }
            }
        }
        transform_four::<S, E>(simd, d)
    }
}

/// `B^E` times four values.
#[inline(always)]
fn transform_four<S: Simd, E: Storage>(
    simd: S,
    d: [Register<E, S>; PATCH],
) -> [Register<E, S>; PATCH] {
    [
        E::Compute::vector_sub(simd, d[0], d[2]),
        E::Compute::vector_add(simd, d[1], d[2]),
        E::Compute::vector_sub(simd, d[2], d[1]),
        E::Compute::vector_sub(simd, d[1], d[3]),
    ]
}

/// Writes the transformed patches of `tiles` from `target` on; the values of `STEPS` of tiles lie side by side, as the terms of steps.
///
/// # Safety
/// `target` must be valid for writing all tiles in the layout.
#[inline(always)]
#[expect(unsafe_code, reason = "transforms address memory by pointer")]
pub(super) unsafe fn transform<S: Simd, E: Storage, const STEPS: bool>(
    simd: S,
    grid: &Grid,
    source: Source<'_, E>,
    tiles: Range<usize>,
    target: *mut E,
    layout: &Transformed,
) {
    let lanes = lanes::<S, E>();
    let pitch = source.row_pitch;
    let mut first = 0;
    for (row, columns) in grid.runs(tiles) {
        let count = columns.len();
        let top = grid.rows.patch(row);
        let mut starts = [None; PATCH];
        for (start, row) in starts.iter_mut().zip(top..) {
            if grid.rows.holds(row) {
                *start = Some(
                    source
                        .data
                        .as_ptr()
                        .wrapping_add(row.unsigned_abs() * pitch),
                );
            }
        }
        let all = match starts {
            [Some(a), Some(b), Some(c), Some(d)] => Some([a, b, c, d]),
            _ => None,
        };
        for channel in (0..source.channels).step_by(lanes) {
            let count_here = lanes.min(source.channels - channel);
            let rows = Rows {
                starts,
                inside: all.filter(|_| count_here == lanes),
                channel,
                count: count_here,
            };
            let mut position = grid.columns.patch(columns.start);
            // Neighbouring patches share two columns.
            let mut left = rows.columns(simd, grid, &source, position);
            for tile in 0..count {
                position += 2;
                let right = rows.columns(simd, grid, &source, position);
                let (place, term) = layout.place::<E>(first + tile, channel, STEPS);
                let mut to = target.wrapping_add(place);
                for row in 0..PATCH {
                    let patch = [left[0][row], left[1][row], right[0][row], right[1][row]];
                    let values = transform_four::<S, E>(simd, patch);
                    for &value in &values {
                        // SAFETY: the caller vouches for the target; its channels are filled up to whole registers.
                        unsafe {
                            if STEPS {
                                E::store_term(simd, to, term, value);
                            } else {
                                store::<S, E>(simd, to, value);
                            }
                        }
                        to = to.wrapping_add(layout.product_step);
                    }
                }
                left = right;
            }
        }
        first += count;
    }
    const { assert!(TILE == 2) };
}
