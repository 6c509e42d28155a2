//! Positions, sides and samples from one type of number to another.

#[expect(clippy::cast_precision_loss, reason = "sides of slides are below 2^53")]
pub(crate) fn float(side: u64) -> f64 {
    side as f64
}

#[expect(
    clippy::cast_precision_loss,
    reason = "positions on slides are below 2^53"
)]
pub(crate) fn position(value: i64) -> f64 {
    value as f64
}

/// Where the centre of a pixel lies along an axis.
pub(crate) fn centre(index: i64) -> f64 {
    position(index) + 0.5
}

/// The whole number at or below a position, saturating far outside any slide.
#[expect(clippy::cast_possible_truncation, reason = "saturating is meant")]
pub(crate) fn floor(position: f64) -> i64 {
    position.floor() as i64
}

/// The whole part of a number that is not negative; of others 0.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "saturating is meant"
)]
pub(crate) fn whole(value: f64) -> u64 {
    value as u64
}

/// The nearest byte; of NaN 0.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "saturating is meant"
)]
pub(crate) fn nearest_byte(value: f64) -> u8 {
    value.round() as u8
}

/// The nearest f32.
#[expect(clippy::cast_possible_truncation, reason = "rounding is meant")]
pub(crate) fn narrow(value: f64) -> f32 {
    value as f32
}

/// A number of things in memory; what does not fit is refused where memory is asked for.
pub(crate) fn to_usize(value: u64) -> usize {
    usize::try_from(value).unwrap_or(usize::MAX)
}

/// A picture's side or place as a number of things in memory.
pub(crate) fn index(value: u32) -> usize {
    usize::try_from(value).unwrap_or(usize::MAX)
}

/// A number of things in memory.
pub(crate) fn wide(value: usize) -> u64 {
    u64::try_from(value).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_saturates() {
        assert_eq!((floor(-0.5), floor(1e300)), (-1, i64::MAX));
        assert_eq!(
            (whole(2.9), whole(-3.0), whole(f64::INFINITY)),
            (2, 0, u64::MAX)
        );
        assert_eq!(
            [-1.0, 0.49, 254.5, 300.0, f64::NAN].map(nearest_byte),
            [0, 0, 255, 255, 0]
        );
    }
}
