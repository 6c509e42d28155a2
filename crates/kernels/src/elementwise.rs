//! Copying, adding, multiplying and concatenating.

use std::ops::Range;

use crate::rows::for_each_row;
use crate::{Activation, Element, KernelError, View, ViewMut};

/// Copies `source` to `target`.
///
/// # Errors
/// [`KernelError`] where shapes do not match; nothing is written then.
pub fn copy<T: Element>(source: View<'_, T>, target: ViewMut<'_, T>) -> Result<(), KernelError> {
    let source = source.operand("source", target.channels(), target.rect())?;
    for_each_row(
        target,
        #[inline(always)]
        |row: usize, target: &mut [T]| target.copy_from_slice(source.row(row)),
    );
    Ok(())
}

/// Sets every value of `target`.
pub fn fill<T: Element>(value: T, target: ViewMut<'_, T>) {
    for_each_row(
        target,
        #[inline(always)]
        |_: usize, target: &mut [T]| target.fill(value),
    );
}

/// Adds `source` to `target`.
///
/// # Errors
/// [`KernelError`] where shapes do not match; nothing is written then.
pub fn accumulate<T: Element>(
    source: View<'_, T>,
    target: ViewMut<'_, T>,
) -> Result<(), KernelError> {
    let source = source.operand("source", target.channels(), target.rect())?;
    for_each_row(
        target,
        #[inline(always)]
        |row: usize, target: &mut [T]| {
            for (value, &more) in target.iter_mut().zip(source.row(row)) {
                *value += more;
            }
        },
    );
    Ok(())
}

/// Writes `left + right`, then the activation, to `output`. The VJP of the sum is [`accumulate`], once for each side.
///
/// # Errors
/// [`KernelError`] where shapes do not match; nothing is written then.
pub fn add<T: Element>(
    left: View<'_, T>,
    right: View<'_, T>,
    activation: Activation,
    output: ViewMut<'_, T>,
) -> Result<(), KernelError> {
    let [what, other] = ["left summand", "right summand"];
    from_two(
        (what, left),
        (other, right),
        output,
        #[inline(always)]
        |value, left, right| *value = activation.apply(left + right),
    )
}

/// Writes `left * right` to `output`.
///
/// # Errors
/// [`KernelError`] where shapes do not match; nothing is written then.
pub fn multiply<T: Element>(
    left: View<'_, T>,
    right: View<'_, T>,
    output: ViewMut<'_, T>,
) -> Result<(), KernelError> {
    let [what, other] = ["left factor", "right factor"];
    from_two(
        (what, left),
        (other, right),
        output,
        #[inline(always)]
        |value, left, right| *value = left * right,
    )
}

/// Adds the cotangent of one factor of a product to `factor_cotangent`, given the `other` factor: once for each.
///
/// # Errors
/// [`KernelError`] where shapes do not match; nothing is written then.
pub fn multiply_vjp<T: Element>(
    other: View<'_, T>,
    cotangent: View<'_, T>,
    factor_cotangent: ViewMut<'_, T>,
) -> Result<(), KernelError> {
    from_two(
        ("other factor", other),
        ("product cotangent", cotangent),
        factor_cotangent,
        #[inline(always)]
        |sum, other, cotangent| *sum += cotangent * other,
    )
}

/// Runs `work` for every value of `target` and what two operands have there. The operands come with names for what is refused.
pub(crate) fn from_two<T: Element>(
    (left_name, left): (&'static str, View<'_, T>),
    (right_name, right): (&'static str, View<'_, T>),
    target: ViewMut<'_, T>,
    work: impl Fn(&mut T, T, T) + Sync,
) -> Result<(), KernelError> {
    let left = left.operand(left_name, target.channels(), target.rect())?;
    let right = right.operand(right_name, target.channels(), target.rect())?;
    for_each_row(
        target,
        #[inline(always)]
        |row: usize, target: &mut [T]| {
            let (left, right) = (left.row(row), right.row(row));
            for ((value, &left), &right) in target.iter_mut().zip(left).zip(right) {
                work(value, left, right);
            }
        },
    );
    Ok(())
}

fn check_channel_range(
    what: &'static str,
    first: usize,
    count: usize,
    channels: usize,
) -> Result<Range<usize>, KernelError> {
    match first.checked_add(count) {
        Some(end) if end <= channels => Ok(first..end),
        end => Err(KernelError::Channels {
            what,
            expected: end.unwrap_or(usize::MAX),
            found: channels,
        }),
    }
}

/// Copies `channels` of every pixel of `source` to the channels from `target_channel` on of `target`.
///
/// A concatenation copies each of its parts to its own place. The VJP is [`accumulate_channels`] with the two sides
/// exchanged.
///
/// # Errors
/// [`KernelError`] where shapes do not match; nothing is written then.
pub fn copy_channels<T: Element>(
    source: View<'_, T>,
    channels: Range<usize>,
    target: ViewMut<'_, T>,
    target_channel: usize,
) -> Result<(), KernelError> {
    channel_pairs(
        source,
        channels,
        target,
        target_channel,
        #[inline(always)]
        |target, source| {
            target.copy_from_slice(source);
        },
    )
}

/// Adds `channels` of every pixel of `source` to the channels from `target_channel` on of `target`.
///
/// # Errors
/// [`KernelError`] where shapes do not match; nothing is written then.
pub fn accumulate_channels<T: Element>(
    source: View<'_, T>,
    channels: Range<usize>,
    target: ViewMut<'_, T>,
    target_channel: usize,
) -> Result<(), KernelError> {
    channel_pairs(
        source,
        channels,
        target,
        target_channel,
        #[inline(always)]
        |target, source| {
            for (value, &more) in target.iter_mut().zip(source) {
                *value += more;
            }
        },
    )
}

fn channel_pairs<T: Element>(
    source: View<'_, T>,
    channels: Range<usize>,
    target: ViewMut<'_, T>,
    target_channel: usize,
    work: impl Fn(&mut [T], &[T]) + Sync,
) -> Result<(), KernelError> {
    let count = channels.len();
    let (source_channels, target_channels) = (source.channels(), target.channels());
    let from = check_channel_range("source", channels.start, count, source_channels)?;
    let to = check_channel_range("target", target_channel, count, target_channels)?;
    let source = source.part_of("source", target.rect())?;
    if count == 0 {
        return Ok(());
    }
    for_each_row(
        target,
        #[inline(always)]
        |row: usize, target: &mut [T]| {
            let source = source.row(row).chunks_exact(source_channels);
            for (target, source) in target.chunks_exact_mut(target_channels).zip(source) {
                work(&mut target[to.clone()], &source[from.clone()]);
            }
        },
    );
    Ok(())
}
