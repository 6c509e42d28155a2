//! Positions and sides as floating-point numbers.

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
