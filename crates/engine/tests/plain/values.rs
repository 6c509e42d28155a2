//! Values of buffers, position by position.

use stream_grad_engine::{Buffer, Rect, Slabs, Transposed};
use stream_grad_kernels::Existing;

use crate::backend::Plain;

/// A position of a plane.
pub(crate) type At = [i64; 2];

pub(crate) fn positions(rect: Rect) -> impl Iterator<Item = At> + Clone {
    (rect.rows.lo..rect.rows.hi)
        .flat_map(move |row| (rect.columns.lo..rect.columns.hi).map(move |column| [row, column]))
}

pub(crate) fn index(buffer: &Buffer, [row, column]: At) -> Option<usize> {
    let Rect { rows, columns } = buffer.rect;
    let inside = (rows.lo..rows.hi).contains(&row) && (columns.lo..columns.hi).contains(&column);
    let place = (row - rows.lo) * (columns.hi - columns.lo) + column - columns.lo;
    inside.then(|| buffer.offset + usize::try_from(place).unwrap() * buffer.channels)
}

/// A value; zero where the buffer does not hold it: there is padding.
pub(crate) fn get(
    slabs: &Slabs<'_, Plain>,
    buffer: &Buffer,
    at: At,
    channel: usize,
) -> Option<f64> {
    let (memory, start) = slabs.memory(buffer.slab).unwrap();
    index(buffer, at).map(|place| memory[start + place + channel])
}

pub(crate) fn set(
    slabs: &mut Slabs<'_, Plain>,
    buffer: &Buffer,
    at: At,
    channel: usize,
    value: f64,
) {
    let (memory, start) = slabs.memory_mut(buffer.slab).unwrap();
    memory[start + index(buffer, at).unwrap() + channel] = value;
}

/// Adds, where the buffer holds the position.
pub(crate) fn add(
    slabs: &mut Slabs<'_, Plain>,
    buffer: &Buffer,
    at: At,
    channel: usize,
    value: f64,
) {
    let (memory, start) = slabs.memory_mut(buffer.slab).unwrap();
    if let Some(place) = index(buffer, at) {
        memory[start + place + channel] += value;
    }
}

/// Sets a cotangent to zero that is to be replaced.
pub(crate) fn begin(slabs: &mut Slabs<'_, Plain>, map: &Transposed) {
    if map.existing == Existing::Replace {
        for at in positions(map.target.rect) {
            for channel in 0..map.target.channels {
                set(slabs, &map.target, at, channel, 0.0);
            }
        }
    }
}

pub(crate) fn signed(value: usize) -> i64 {
    i64::try_from(value).unwrap()
}

/// Rows, and values of a row.
pub(crate) fn extent(region: Rect, channels: usize) -> (usize, usize) {
    (region.height(), region.width() * channels)
}

/// Sets each value of `outputs` to what `value` says.
pub(crate) fn set_each(
    slabs: &mut Slabs<'_, Plain>,
    buffer: &Buffer,
    outputs: Rect,
    value: impl Fn(&Slabs<'_, Plain>, At, usize) -> f64,
) {
    for at in positions(outputs) {
        for channel in 0..buffer.channels {
            let value = value(slabs, at, channel);
            set(slabs, buffer, at, channel, value);
        }
    }
}

/// Adds to each value of `outputs` what `value` says.
pub(crate) fn add_each(
    slabs: &mut Slabs<'_, Plain>,
    buffer: &Buffer,
    outputs: Rect,
    value: impl Fn(&Slabs<'_, Plain>, At, usize) -> f64,
) {
    for at in positions(outputs) {
        for channel in 0..buffer.channels {
            let value = value(slabs, at, channel);
            add(slabs, buffer, at, channel, value);
        }
    }
}
