//! Copying, adding, multiplying and concatenating regions.

use std::ops::Range;

use crate::rows::for_each_row;
use crate::{Activation, Element, ImageMut, KernelError, Located, Region};

/// Copies `source` into `region` of `target`.
///
/// # Errors
/// [`KernelError`] where shapes do not match; nothing is written then.
pub fn copy_region<T: Element>(
    source: Located<'_, T>,
    target: ImageMut<'_, T>,
    region: Region,
) -> Result<(), KernelError> {
    source.check("source", target.channels(), region)?;
    target.check_region("target", region)?;
    for_each_row(
        target,
        region,
        #[inline(always)]
        |row: usize, target: &mut [T]| {
            target.copy_from_slice(source.row(row, region.columns));
        },
    );
    Ok(())
}

/// Sets every value in `region` of `target`.
///
/// # Errors
/// [`KernelError::RegionOutside`] where the region is not inside.
pub fn fill_region<T: Element>(
    value: T,
    target: ImageMut<'_, T>,
    region: Region,
) -> Result<(), KernelError> {
    target.check_region("target", region)?;
    for_each_row(
        target,
        region,
        #[inline(always)]
        |_: usize, target: &mut [T]| target.fill(value),
    );
    Ok(())
}

/// Adds `source` to `region` of `target`.
///
/// # Errors
/// [`KernelError`] where shapes do not match; nothing is written then.
pub fn accumulate_region<T: Element>(
    source: Located<'_, T>,
    target: ImageMut<'_, T>,
    region: Region,
) -> Result<(), KernelError> {
    source.check("source", target.channels(), region)?;
    target.check_region("target", region)?;
    for_each_row(
        target,
        region,
        #[inline(always)]
        |row: usize, target: &mut [T]| {
            for (value, &more) in target.iter_mut().zip(source.row(row, region.columns)) {
                *value += more;
            }
        },
    );
    Ok(())
}

/// Writes `left + right`, then the activation, into `region` of `output`. The VJP of the sum is [`accumulate_region`], once for
/// each side.
///
/// # Errors
/// [`KernelError`] where shapes do not match; nothing is written then.
pub fn add<T: Element>(
    left: Located<'_, T>,
    right: Located<'_, T>,
    activation: Activation,
    output: ImageMut<'_, T>,
    region: Region,
) -> Result<(), KernelError> {
    left.check("left summand", output.channels(), region)?;
    right.check("right summand", output.channels(), region)?;
    output.check_region("output", region)?;
    for_each_row(
        output,
        region,
        #[inline(always)]
        |row: usize, output: &mut [T]| {
            let (left, right) = (
                left.row(row, region.columns),
                right.row(row, region.columns),
            );
            for ((value, &left), &right) in output.iter_mut().zip(left).zip(right) {
                *value = activation.apply(left + right);
            }
        },
    );
    Ok(())
}

/// Writes `left * right` into `region` of `output`.
///
/// # Errors
/// [`KernelError`] where shapes do not match; nothing is written then.
pub fn multiply<T: Element>(
    left: Located<'_, T>,
    right: Located<'_, T>,
    output: ImageMut<'_, T>,
    region: Region,
) -> Result<(), KernelError> {
    left.check("left factor", output.channels(), region)?;
    right.check("right factor", output.channels(), region)?;
    output.check_region("output", region)?;
    for_each_row(
        output,
        region,
        #[inline(always)]
        |row: usize, output: &mut [T]| {
            let (left, right) = (
                left.row(row, region.columns),
                right.row(row, region.columns),
            );
            for ((value, &left), &right) in output.iter_mut().zip(left).zip(right) {
                *value = left * right;
            }
        },
    );
    Ok(())
}

/// Adds the cotangent of one factor of a product to `region` of `factor_cotangent`, given the `other` factor: once for each.
///
/// # Errors
/// [`KernelError`] where shapes do not match; nothing is written then.
pub fn multiply_vjp<T: Element>(
    other: Located<'_, T>,
    cotangent: Located<'_, T>,
    factor_cotangent: ImageMut<'_, T>,
    region: Region,
) -> Result<(), KernelError> {
    other.check("other factor", factor_cotangent.channels(), region)?;
    cotangent.check("product cotangent", factor_cotangent.channels(), region)?;
    factor_cotangent.check_region("factor cotangent", region)?;
    for_each_row(
        factor_cotangent,
        region,
        #[inline(always)]
        |row: usize, sums: &mut [T]| {
            let other = other.row(row, region.columns);
            let cotangent = cotangent.row(row, region.columns);
            for ((sum, &other), &cotangent) in sums.iter_mut().zip(other).zip(cotangent) {
                *sum += cotangent * other;
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

/// Copies `channels` of every pixel of `source` to the channels from `target_channel` on in `region` of `target`.
///
/// A concatenation copies each of its parts to its own place. The VJP is [`accumulate_channels`] with the two sides
/// exchanged.
///
/// # Errors
/// [`KernelError`] where shapes do not match; nothing is written then.
pub fn copy_channels<T: Element>(
    source: Located<'_, T>,
    channels: Range<usize>,
    target: ImageMut<'_, T>,
    region: Region,
    target_channel: usize,
) -> Result<(), KernelError> {
    channel_pairs(
        source,
        channels,
        target,
        region,
        target_channel,
        #[inline(always)]
        |target, source| {
            target.copy_from_slice(source);
        },
    )
}

/// Adds `channels` of every pixel of `source` to the channels from `target_channel` on in `region` of `target`.
///
/// # Errors
/// [`KernelError`] where shapes do not match; nothing is written then.
pub fn accumulate_channels<T: Element>(
    source: Located<'_, T>,
    channels: Range<usize>,
    target: ImageMut<'_, T>,
    region: Region,
    target_channel: usize,
) -> Result<(), KernelError> {
    channel_pairs(
        source,
        channels,
        target,
        region,
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
    source: Located<'_, T>,
    channels: Range<usize>,
    target: ImageMut<'_, T>,
    region: Region,
    target_channel: usize,
    work: impl Fn(&mut [T], &[T]) + Sync,
) -> Result<(), KernelError> {
    let count = channels.len();
    let from = check_channel_range("source", channels.start, count, source.image.channels())?;
    let to = check_channel_range("target", target_channel, count, target.channels())?;
    source.check("source", source.image.channels(), region)?;
    target.check_region("target", region)?;
    let (source_channels, target_channels) = (source.image.channels(), target.channels());
    if count == 0 {
        return Ok(());
    }
    for_each_row(
        target,
        region,
        #[inline(always)]
        |row: usize, target: &mut [T]| {
            let source = source
                .row(row, region.columns)
                .chunks_exact(source_channels);
            for (target, source) in target.chunks_exact_mut(target_channels).zip(source) {
                work(&mut target[to.clone()], &source[from.clone()]);
            }
        },
    );
    Ok(())
}
