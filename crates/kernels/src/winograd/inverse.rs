//! Weights from their transform.

/// The weight at `tap` of a kernel, given its products: the sums and differences of `G`'s rows undone. The corners are exact;
/// others carry the rounding of up to four products.
pub(crate) fn original_weight(tap: [usize; 2], product: impl Fn([usize; 2]) -> f64) -> f64 {
    /// The rows of a left inverse of `G`: places and signs.
    const INVERSE: [&[(usize, f64)]; 3] = [&[(0, 1.0)], &[(1, 1.0), (2, -1.0)], &[(3, 1.0)]];
    let mut sum = 0.0;
    for &(row, row_sign) in INVERSE[tap[0]] {
        for &(column, column_sign) in INVERSE[tap[1]] {
            sum += row_sign * column_sign * product([row, column]);
        }
    }
    sum
}
