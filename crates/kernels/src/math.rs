//! Single-precision functions without branches, so that loops over them vectorise.
//!
//! Polynomials of `exp` and `tanh` are those of the Cephes library (S. Moshier); those of `erf` are N. Juffa's (njuffa,
//! "erff with maximum error below one unit in the last place", Stack Overflow 35148198).

/// The exponential. Below the smallest normal number it stays at it; NaN stays NaN.
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    const ROUND: f32 = 12_582_912.0;
    const LN_2_HIGH: f32 = 0.693_359_4;
    const LN_2_LOW: f32 = -2.121_944_4e-4;
    // A NaN is neither above nor below.
    let clamped = if x > 89.0 { 89.0 } else { x };
    let clamped = if clamped < -87.0 { -87.0 } else { clamped };
    let shifted = clamped * std::f32::consts::LOG2_E + ROUND;
    let whole = shifted - ROUND;
    let rest = clamped - whole * LN_2_HIGH - whole * LN_2_LOW;
    let mut series = 1.987_569_1e-4;
    for coefficient in [
        1.398_2e-3,
        8.333_452e-3,
        4.166_579_6e-2,
        1.666_666_6e-1,
        0.5,
    ] {
        series = series * rest + coefficient;
    }
    let series = series * rest * rest + rest + 1.0;
    // The low bits of `shifted` count the powers of two; they go into the exponent in two halves, as 2^128 is infinite.
    let powers = shifted
        .to_bits()
        .wrapping_sub(ROUND.to_bits())
        .cast_signed();
    let half = powers >> 1;
    let power = |power: i32| f32::from_bits((power + 127).cast_unsigned() << 23);
    if x.is_nan() {
        x
    } else {
        series * power(half) * power(powers - half)
    }
}

/// The error function.
#[inline(always)]
pub(crate) fn erf(x: f32) -> f32 {
    let magnitude = if x.abs() > 10.0 { 10.0 } else { x.abs() };
    let square = magnitude * magnitude;
    let high = -1.728_534_7e-5 * magnitude + 3.831_971_3e-4;
    let low = -3.883_964_4e-3 * magnitude + 2.425_462_2e-2;
    let mut tail = high * square + low;
    for coefficient in [-1.067_778_8e-1, -6.348_467e-1, -1.287_175_1e-1] {
        tail = tail * magnitude + coefficient;
    }
    let tail = 1.0 - exp(tail * magnitude - magnitude);
    let mut series = -5.967_617e-4;
    for coefficient in [
        4.991_194_2e-3,
        -2.676_813_5e-2,
        1.128_199_25e-1,
        -3.761_253_4e-1,
        1.283_791_7e-1,
    ] {
        series = series * square + coefficient;
    }
    let series = series * magnitude + magnitude;
    (if magnitude > 0.927_734_4 {
        tail
    } else {
        series
    })
    .copysign(x)
}

/// The hyperbolic tangent.
#[inline(always)]
pub(crate) fn tanh(x: f32) -> f32 {
    let magnitude = if x.abs() > 10.0 { 10.0 } else { x.abs() };
    let square = magnitude * magnitude;
    let tail = 1.0 - 2.0 / (exp(2.0 * magnitude) + 1.0);
    let mut series = -5.704_988_7e-3;
    for coefficient in [2.063_909e-2, -5.373_971_6e-2, 1.333_144_2e-1, -3.333_328e-1] {
        series = series * square + coefficient;
    }
    let series = series * square * magnitude + magnitude;
    (if magnitude > 0.625 { tail } else { series }).copysign(x)
}

#[cfg(test)]
mod tests {
    /// Largest relative error over a fine grid, in units of 2^-23.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the grid is single precision"
    )]
    fn worst(range: std::ops::Range<f64>, found: fn(f32) -> f32, expected: fn(f64) -> f64) -> f64 {
        (0..100_000)
            .map(|step| {
                let x = range.start + (range.end - range.start) * f64::from(step) / 1e5;
                let x = x as f32;
                let expected = expected(f64::from(x));
                let error = (f64::from(found(x)) - expected).abs();
                error / expected.abs().max(f64::from(f32::MIN_POSITIVE)) * f64::from(1 << 23)
            })
            .fold(0.0, f64::max)
    }

    #[test]
    fn errors_are_a_few_units_in_the_last_place() {
        assert!(worst(-86.0..88.0, super::exp, libm::exp) < 3.0);
        assert!(worst(-12.0..12.0, super::erf, libm::erf) < 3.0);
        assert!(worst(-0.01..0.01, super::erf, libm::erf) < 3.0);
        assert!(worst(-12.0..12.0, super::tanh, libm::tanh) < 3.0);
        assert!(worst(-0.01..0.01, super::tanh, libm::tanh) < 3.0);
    }

    #[test]
    fn limits_are_reached_and_nan_stays() {
        assert_eq!(super::exp(f32::INFINITY), f32::INFINITY);
        assert!(super::exp(f32::NEG_INFINITY) < 2e-38);
        for function in [super::erf as fn(f32) -> f32, super::tanh] {
            assert_eq!(function(f32::INFINITY), 1.0);
            assert_eq!(function(-1e30), -1.0);
            assert_eq!(function(-0.0).to_bits(), (-0.0_f32).to_bits());
        }
        for function in [super::erf as fn(f32) -> f32, super::exp, super::tanh] {
            assert!(function(f32::NAN).is_nan());
        }
    }
}
