//! Rules of single edges against oracles that enumerate taps.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a helper of a test fails the test"
)]

mod common;

use common::random::{corners, windows};
use proptest::prelude::*;
use stream_grad_tiling::{
    AlignCorners, AxisRule, Lifetime, Span, TransposedWindow, Window, aligned, place,
};

/// First and last index that each output reads, padding included.
fn reads(output: i64, taps: &[i64], stride: i64) -> (i64, i64) {
    let positions: Vec<i64> = taps.iter().map(|tap| output * stride + tap).collect();
    (
        *positions.iter().min().unwrap(),
        *positions.iter().max().unwrap(),
    )
}

/// Leading outputs whose last read is below `available`.
fn leading(reads: &[(i64, i64)], available: i64) -> i64 {
    let count = reads.iter().take_while(|(_, last)| *last < available);
    i64::try_from(count.count()).unwrap()
}

/// Checks `prefix` and `needed` of a rule against what each output reads.
fn agrees(rule: &AxisRule, reads: &[(i64, i64)], size: i64) -> Result<(), TestCaseError> {
    let outputs = i64::try_from(reads.len()).unwrap();
    prop_assert_eq!(rule.output_size(size), Some(outputs));
    prop_assert_eq!(rule.prefix(size, size), outputs);
    for available in 0..size {
        prop_assert_eq!(rule.prefix(available, size), leading(reads, available));
    }
    for lo in 0..reads.len() {
        for hi in lo + 1..=reads.len().min(lo + 4) {
            let span = Span::new(i64::try_from(lo).unwrap(), i64::try_from(hi).unwrap());
            let expected = Span::new(reads[lo].0, reads[hi - 1].1 + 1);
            prop_assert_eq!(rule.needed(span, size), expected);
        }
    }
    Ok(())
}

proptest! {
    #[test]
    fn a_window_reads_its_taps(
        kernel in 1_u64..=5, stride in 1_u64..=6, dilation in 1_u64..=3, before in 0_u64..=4,
        after in 0_u64..=4, size in 1_i64..=40, ceil_mode in any::<bool>(),
    ) {
        let mut window = Window::new(kernel, stride, dilation, before, after).unwrap();
        if ceil_mode {
            window = window.ceil_mode();
        }
        let signed = |value: u64| i64::try_from(value).unwrap();
        let taps: Vec<i64> = (0..signed(kernel))
            .map(|tap| tap * signed(dilation) - signed(before))
            .collect();
        let stride = signed(stride);
        // As many outputs as fit with their last tap in the padded image; with `ceil_mode` one more, if its first tap is before the
        // padding that follows.
        let mut all: Vec<(i64, i64)> = (0..)
            .map(|output| reads(output, &taps, stride))
            .take_while(|(_, last)| *last < size + signed(after))
            .collect();
        let next = reads(i64::try_from(all.len()).unwrap(), &taps, stride);
        let left_over = all.last().is_some_and(|(_, last)| *last + 1 < size + signed(after));
        if ceil_mode && left_over && next.0 < size {
            all.push(next);
        }
        if all.is_empty() {
            prop_assert_eq!(window.output_size(size), None);
        } else {
            agrees(&AxisRule::Window(window), &all, size)?;
        }
    }

    #[test]
    fn a_transposed_window_reads_what_is_spread_over_it(
        kernel in 1_u64..=5, stride in 1_u64..=6, dilation in 1_u64..=3, before in 0_u64..=4,
        after in 0_u64..=4, output_padding in 0_u64..=5, size in 1_i64..=40,
    ) {
        let window = Window::new(kernel, stride, dilation, before, after).unwrap();
        let transposed = TransposedWindow::new(window, output_padding).unwrap();
        let [kernel, stride, dilation, before, after, output_padding] =
            [kernel, stride, dilation, before, after, output_padding].map(|v| i64::try_from(v).unwrap());
        // What the last input is spread over ends the output, but for padding.
        let end = (size - 1) * stride + dilation * (kernel - 1) + 1;
        let outputs = end - before - after + output_padding;
        if outputs < 1 {
            prop_assert_eq!(transposed.output_size(size), None);
            return Ok(());
        }
        // Every place where an input could be, beyond both ends too.
        let all: Vec<(i64, i64)> = (0..outputs)
            .map(|output| {
                let last = (-40..size + 40).rev().find(|input| input * stride - before <= output).unwrap();
                let first = (-40..size + 40)
                    .find(|input| input * stride - before + dilation * (kernel - 1) >= output)
                    .unwrap();
                (first.min(last), last)
            })
            .collect();
        agrees(&AxisRule::TransposedWindow(transposed), &all, size)?;
    }

    #[test]
    fn upsampling_reads_its_neighbours(factor in 1_i64..=5, size in 1_i64..=30, corners in corners()) {
        let outputs = size * factor;
        let nearest: Vec<(i64, i64)> = (0..outputs).map(|o| (o / factor, o / factor)).collect();
        agrees(&AxisRule::UpsampleNearest(factor), &nearest, size)?;
        let bilinear: Vec<(i64, i64)> = (0..outputs)
            .map(|output| {
                // The position as a fraction; PyTorch clamps it at 0 for half pixels.
                let (numerator, denominator) = match corners {
                    AlignCorners::No => ((2 * output + 1 - factor).max(0), 2 * factor),
                    AlignCorners::Yes => (output * (size - 1), (outputs - 1).max(1)),
                };
                let left = numerator / denominator;
                (left, (left + 1).min(size - 1))
            })
            .collect();
        agrees(&AxisRule::UpsampleBilinear(factor, corners), &bilinear, size)?;
    }

    #[test]
    fn prefixes_rise_and_needs_rise(window in windows(), size in 10_i64..=60) {
        for available in 1..=size {
            prop_assert!(window.prefix(available - 1, size) <= window.prefix(available, size));
        }
        for output in 1..window.output_size(size).unwrap() {
            let earlier = window.needed(Span::new(output - 1, output));
            let later = window.needed(Span::new(output, output + 1));
            prop_assert!(earlier.lo <= later.lo && earlier.hi <= later.hi);
        }
    }

    #[test]
    fn placements_never_overlap_while_both_live(
        buffers in prop::collection::vec((0_u64..200, 0_usize..12, 0_usize..6), 0..20),
    ) {
        let buffers: Vec<Lifetime> = buffers
            .into_iter()
            .map(|(size, first, length)| Lifetime { size, first, last: first + length })
            .collect();
        let placement = place(&buffers);
        let total: u64 = buffers.iter().map(|buffer| aligned(buffer.size)).sum();
        prop_assert!(placement.length <= total);
        for (i, a) in buffers.iter().enumerate() {
            let end = placement.offsets[i] + a.size;
            prop_assert!(end <= placement.length);
            for (j, b) in buffers.iter().enumerate().skip(i + 1) {
                let together = a.first <= b.last && b.first <= a.last;
                let apart = end <= placement.offsets[j]
                    || placement.offsets[j] + b.size <= placement.offsets[i];
                prop_assert!(!together || apart || a.size == 0 || b.size == 0);
            }
        }
    }
}
