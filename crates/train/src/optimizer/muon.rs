//! Directions of Muon: the matrix with all singular values near 1 that is nearest to a gradient's mean.

use candle_core::Tensor;

use crate::error::Result;
use crate::in_place::{sum_of_squares, update};

/// Iterations, as in PyTorch.
const STEPS: usize = 5;
/// Coefficients of `a X + b (X X^T) X + c (X X^T)^2 X`, as in PyTorch: they raise small singular values fastest, and leave all between
/// about 0.7 and 1.2.
const COEFFICIENTS: [f64; 3] = [3.4445, -4.7750, 2.0315];
/// The least norm that is divided by, as in PyTorch.
const LEAST_NORM: f64 = 1e-7;

/// Whether weights of this shape are a matrix to Muon: `[out, in, ...]`, of which a row is what makes one output. A convolution that
/// reads one channel each is none: its rows belong to different channels, and have no directions in common. A transposed convolution is
/// `[in, out, ...]`, and one of a few groups one matrix.
pub(super) fn is_matrix(shape: &[usize]) -> bool {
    match *shape {
        [_, _] => true,
        [_, channels, ..] => channels > 1,
        _ => false,
    }
}

/// `U S' V^T` of `mean = U S V^T`, for a matrix `[rows, columns]`, with all of `S'` near 1, by Newton and Schulz's iteration with the
/// coefficients of Jordan ("Muon: An optimizer for hidden layers in neural networks", 2024). PyTorch rounds to bf16 on the way; this
/// does not.
///
/// # Errors
/// [`TrainError::Tensor`](crate::TrainError::Tensor) for what is no matrix of f32 or f64.
pub(super) fn orthogonalized(mean: &Tensor) -> Result<Tensor> {
    let (rows, columns) = mean.dims2()?;
    let is_tall = rows > columns;
    // The Gram matrix is of the shorter side.
    let wide = if is_tall { mean.t()? } else { mean.clone() }.contiguous()?;
    let norm = sum_of_squares(&wide)?.sqrt().max(LEAST_NORM);
    let mut x = (wide / norm)?;
    let [a, b, c] = COEFFICIENTS;
    for _ in 0..STEPS {
        let gram = x.matmul(&x.t()?)?;
        let factor = gram.matmul(&gram)?;
        update(&factor, &gram, |square, gram| c * square + b * gram)?;
        let next = factor.matmul(&x)?;
        update(&next, &x, |next, x| next + a * x)?;
        x = next;
    }
    Ok(if is_tall { x.t()?.contiguous()? } else { x })
}

/// What a direction is multiplied by beside the learning rate, so that its values are as large as those of AdamW's steps, about 0.2
/// (Liu and others, "Muon is Scalable for LLM Training", 2025, equation 4).
pub(super) fn scale(rows: usize, columns: usize) -> f64 {
    #[expect(
        clippy::cast_precision_loss,
        reason = "a square root of a small integer"
    )]
    let longer = rows.max(columns) as f64;
    0.2 * longer.sqrt()
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device};

    use super::*;

    fn matrix(rows: usize, columns: usize) -> Tensor {
        let values = (0_u32..).map(|i| (1.7 * f64::from(i * i) + 0.5).sin());
        let values: Vec<f64> = values.take(rows * columns).collect();
        Tensor::from_vec(values, (rows, columns), &Device::Cpu).unwrap()
    }

    /// PyTorch 2.15's own function in double precision: see `tests/golden/optimizers.py`.
    #[test]
    fn agrees_with_torch() {
        let golden: serde_json::Value =
            serde_json::from_str(include_str!("../../tests/golden/optimizers.json")).unwrap();
        let cases = golden["orthogonalized"].as_array().unwrap();
        assert!(!cases.is_empty());
        for case in cases {
            let [rows, columns] = ["rows", "columns"]
                .map(|key| usize::try_from(case[key].as_u64().unwrap()).unwrap());
            let values = (0..rows * columns).map(|i| (0.9 * (i * i) as f64 + 0.4).cos());
            let matrix = Tensor::from_iter(values, &Device::Cpu).unwrap();
            let made = orthogonalized(&matrix.reshape((rows, columns)).unwrap()).unwrap();
            let made: Vec<f64> = made.flatten_all().unwrap().to_vec1().unwrap();
            let expected = case["values"].as_array().unwrap();
            assert_eq!(made.len(), expected.len());
            for (made, expected) in made.iter().zip(expected) {
                let expected = expected.as_f64().unwrap();
                assert!((made - expected).abs() < 1e-11, "{made} {expected}");
            }
        }
    }

    /// The singular vectors of the result are those of the matrix.
    #[test]
    fn singular_values_end_near_one() {
        for (rows, columns) in [(4, 9), (9, 4), (5, 5), (1, 7), (7, 1), (1, 1)] {
            let from = matrix(rows, columns);
            let to = orthogonalized(&from).unwrap();
            assert_eq!(to.dims(), [rows, columns]);
            // Both products are symmetric and positive exactly if the vectors agree.
            let product = to.matmul(&from.t().unwrap()).unwrap();
            let asymmetry = (&product - product.t().unwrap()).unwrap();
            let asymmetry = sum_of_squares(&asymmetry).unwrap();
            let whole = sum_of_squares(&product).unwrap();
            assert!(
                asymmetry < 1e-20 * whole,
                "{rows} {columns}: {asymmetry} of {whole}"
            );
            let values = sum_of_squares(&to).unwrap() / rows.min(columns) as f64;
            assert!((0.4..1.3).contains(&values), "{rows} {columns}: {values}");
        }
    }

    #[test]
    fn nothing_has_no_direction() {
        let zeros = Tensor::zeros((3, 5), DType::F32, &Device::Cpu).unwrap();
        let to = orthogonalized(&zeros).unwrap();
        assert_eq!(sum_of_squares(&to).unwrap(), 0.0);
    }

    #[test]
    fn weights_that_mix_channels_are_matrices() {
        let found = [&[4, 3, 3, 3][..], &[4, 1, 7, 7], &[4, 1], &[4], &[]].map(is_matrix);
        assert_eq!(found, [true, false, true, false, false]);
    }
}
