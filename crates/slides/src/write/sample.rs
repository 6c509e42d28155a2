//! Kinds of pixels that pyramids hold.

/// A sample of a pixel: `u8`, `u16` or `f32`.
///
/// Sealed: these are the kinds that viewers of pyramids read.
pub trait Sample: private::Sealed + Copy + Send + Sync + Default {}

impl Sample for u8 {}
impl Sample for u16 {}
impl Sample for f32 {}

pub(crate) mod private {
    use crate::numbers::narrow;

    pub trait Sealed: Sized {
        /// Bits of a sample.
        const BITS: u16;
        /// TIFF's SampleFormat: 1 unsigned whole numbers, 3 floating point.
        const FORMAT: u16;

        /// The mean of four samples.
        fn mean(four: [Self; 4]) -> Self;

        /// The samples as TIFF's little-endian bytes.
        fn into_bytes(samples: Vec<Self>) -> Vec<u8>;
    }

    impl Sealed for u8 {
        const BITS: u16 = 8;
        const FORMAT: u16 = 1;

        fn mean(four: [Self; 4]) -> Self {
            let sum: u16 = four.into_iter().map(u16::from).sum();
            Self::try_from((sum + 2) / 4).unwrap_or(Self::MAX)
        }

        fn into_bytes(samples: Vec<Self>) -> Vec<u8> {
            samples
        }
    }

    impl Sealed for u16 {
        const BITS: u16 = 16;
        const FORMAT: u16 = 1;

        fn mean(four: [Self; 4]) -> Self {
            let sum: u32 = four.into_iter().map(u32::from).sum();
            Self::try_from((sum + 2) / 4).unwrap_or(Self::MAX)
        }

        fn into_bytes(samples: Vec<Self>) -> Vec<u8> {
            samples.into_iter().flat_map(Self::to_le_bytes).collect()
        }
    }

    impl Sealed for f32 {
        const BITS: u16 = 32;
        const FORMAT: u16 = 3;

        /// NaN stands for nothing known: it does not count unless all four are NaN.
        fn mean(four: [Self; 4]) -> Self {
            let (mut sum, mut count) = (0.0, 0.0);
            for value in four.into_iter().filter(|value| !value.is_nan()) {
                sum += f64::from(value);
                count += 1.0;
            }
            narrow(sum / count)
        }

        fn into_bytes(samples: Vec<Self>) -> Vec<u8> {
            samples.into_iter().flat_map(Self::to_le_bytes).collect()
        }
    }
}

/// Means of 2 x 2 pixels; an odd last column is averaged with itself.
pub(crate) fn halve<S: Sample>(upper: &[S], lower: &[S], channels: usize) -> Vec<S> {
    let pair = 2 * channels;
    let mut halved = Vec::with_capacity(upper.len().div_ceil(pair) * channels);
    for (upper, lower) in upper.chunks(pair).zip(lower.chunks(pair)) {
        for channel in 0..channels {
            let right = if upper.len() == pair {
                channel + channels
            } else {
                channel
            };
            halved.push(S::mean([
                upper[channel],
                upper[right],
                lower[channel],
                lower[right],
            ]));
        }
    }
    halved
}

/// The first, third and so on of a row's pixels.
pub(crate) fn every_second<S: Copy>(row: &[S], channels: usize) -> Vec<S> {
    let pairs = row.chunks(2 * channels);
    pairs
        .flat_map(|pair| pair[..channels].iter().copied())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn means_are_rounded_and_nothing_known_is_left_out() {
        assert_eq!(halve(&[1_u8, 2, 9], &[2, 2, 8], 1), [2, 9]);
        assert_eq!(halve(&[65_535_u16, 65_535], &[65_535, 65_534], 1), [65_535]);
        let nan = f32::NAN;
        assert_eq!(halve(&[1.0, nan, nan], &[nan, 2.0, nan], 1)[0], 1.5);
        assert!(halve(&[nan], &[nan], 1)[0].is_nan());
    }

    #[test]
    fn of_classes_the_first_of_two_stays() {
        assert_eq!(every_second(&[7_u8, 1, 255, 2, 9], 1), [7, 255, 9]);
        assert_eq!(every_second(&[1_u8, 2, 3, 4, 5, 6], 2), [1, 2, 5, 6]);
    }
}
