//! Copying, adding, multiplying and concatenating.

use std::ops::Range;

use crate::rows::for_each_row;
use crate::stored::add_to;
use crate::{Activation, KernelError, Storage, View, ViewMut};

/// Copies `source` to `target`.
///
/// # Errors
/// [`KernelError`] where shapes do not match; nothing is written then.
pub fn copy<E: Storage>(source: View<'_, E>, target: ViewMut<'_, E>) -> Result<(), KernelError> {
    let source = source.operand("source", target.channels(), target.rect())?;
    for_each_row(
        target,
        #[inline(always)]
        |row: usize, target: &mut [E]| target.copy_from_slice(source.row(row)),
    );
    Ok(())
}

/// Sets every value of `target`.
pub fn fill<E: Storage>(value: E, target: ViewMut<'_, E>) {
    for_each_row(
        target,
        #[inline(always)]
        |_: usize, target: &mut [E]| target.fill(value),
    );
}

/// Adds `source` to `target`.
///
/// # Errors
/// [`KernelError`] where shapes do not match; nothing is written then.
pub fn accumulate<E: Storage>(
    source: View<'_, E>,
    target: ViewMut<'_, E>,
) -> Result<(), KernelError> {
    let source = source.operand("source", target.channels(), target.rect())?;
    for_each_row(
        target,
        #[inline(always)]
        |row: usize, target: &mut [E]| {
            for (value, &more) in target.iter_mut().zip(source.row(row)) {
                add_to(value, more.widen());
            }
        },
    );
    Ok(())
}

/// Writes `left + right`, then the activation, to `output`. The VJP of the sum is [`accumulate`], once for each side.
///
/// # Errors
/// [`KernelError`] where shapes do not match; nothing is written then.
pub fn add<E: Storage>(
    left: View<'_, E>,
    right: View<'_, E>,
    activation: Activation,
    output: ViewMut<'_, E>,
) -> Result<(), KernelError> {
    let [what, other] = ["left summand", "right summand"];
    from_two(
        (what, left),
        (other, right),
        output,
        #[inline(always)]
        |value, left, right| *value = E::narrow(activation.apply(left + right)),
    )
}

/// Writes `left * right` to `output`.
///
/// # Errors
/// [`KernelError`] where shapes do not match; nothing is written then.
pub fn multiply<E: Storage>(
    left: View<'_, E>,
    right: View<'_, E>,
    output: ViewMut<'_, E>,
) -> Result<(), KernelError> {
    let [what, other] = ["left factor", "right factor"];
    from_two(
        (what, left),
        (other, right),
        output,
        #[inline(always)]
        |value, left, right| *value = E::narrow(left * right),
    )
}

/// Adds the cotangent of one factor of a product to `factor_cotangent`, given the `other` factor: once for each.
///
/// # Errors
/// [`KernelError`] where shapes do not match; nothing is written then.
pub fn multiply_vjp<E: Storage>(
    other: View<'_, E>,
    cotangent: View<'_, E>,
    factor_cotangent: ViewMut<'_, E>,
) -> Result<(), KernelError> {
    from_two(
        ("other factor", other),
        ("product cotangent", cotangent),
        factor_cotangent,
        #[inline(always)]
        |sum, other, cotangent| add_to(sum, cotangent * other),
    )
}

/// Runs `work` for every value of `target` and what two operands have there. The operands come with names for what is refused.
pub(crate) fn from_two<E: Storage>(
    (left_name, left): (&'static str, View<'_, E>),
    (right_name, right): (&'static str, View<'_, E>),
    target: ViewMut<'_, E>,
    work: impl Fn(&mut E, E::Compute, E::Compute) + Sync,
) -> Result<(), KernelError> {
    let left = left.operand(left_name, target.channels(), target.rect())?;
    let right = right.operand(right_name, target.channels(), target.rect())?;
    for_each_row(
        target,
        #[inline(always)]
        |row: usize, target: &mut [E]| {
            let (left, right) = (left.row(row), right.row(row));
            for ((value, &left), &right) in target.iter_mut().zip(left).zip(right) {
                work(value, left.widen(), right.widen());
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
pub fn copy_channels<E: Storage>(
    source: View<'_, E>,
    channels: Range<usize>,
    target: ViewMut<'_, E>,
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
pub fn accumulate_channels<E: Storage>(
    source: View<'_, E>,
    channels: Range<usize>,
    target: ViewMut<'_, E>,
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
                add_to(value, more.widen());
            }
        },
    )
}

fn channel_pairs<E: Storage>(
    source: View<'_, E>,
    channels: Range<usize>,
    target: ViewMut<'_, E>,
    target_channel: usize,
    work: impl Fn(&mut [E], &[E]) + Sync,
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
        |row: usize, target: &mut [E]| {
            let source = source.row(row).chunks_exact(source_channels);
            for (target, source) in target.chunks_exact_mut(target_channels).zip(source) {
                work(&mut target[to.clone()], &source[from.clone()]);
            }
        },
    );
    Ok(())
}
