//! Weights from their transform.

/// Sets every `step`-th of `weights` to the weight at `tap` of kernels that lie side by side, given their products: the sums
/// and differences of `G`'s rows undone. The corners are exact; others carry the rounding of up to four products.
pub(crate) fn original_weights<Products: Iterator<Item = f64>>(
    tap: [usize; 2],
    products: impl Fn([usize; 2]) -> Products,
    weights: &mut [f64],
    step: usize,
) {
    /// The rows of a left inverse of `G`: places and signs.
    const INVERSE: [&[(usize, f64)]; 3] = [&[(0, 1.0)], &[(1, 1.0), (2, -1.0)], &[(3, 1.0)]];
    let mut is_first = true;
    for &(row, row_sign) in INVERSE[tap[0]] {
        for &(column, column_sign) in INVERSE[tap[1]] {
            let sign = row_sign * column_sign;
            let products = products([row, column]);
            for (weight, product) in weights.iter_mut().step_by(step).zip(products) {
                let before = if is_first { 0.0 } else { *weight };
                *weight = before + sign * product;
            }
            is_first = false;
        }
    }
}
