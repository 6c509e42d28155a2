//! How far streamed values are from those of the whole image.

use candle_core::{DType, Tensor};
use serde::Serialize;

/// How far one tensor of the streamed computation is from the whole one's.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Difference {
    /// `output`, or the parameter's name.
    pub(crate) name: String,
    /// Of the whole computation's values.
    pub(crate) largest_magnitude: f64,
    pub(crate) largest_difference: f64,
    /// Norm of the difference over that of the whole computation's values; 0 if there is no difference.
    pub(crate) relative_l2: f64,
}

impl Difference {
    /// Of two tensors of one shape, in f64.
    pub(crate) fn between(name: &str, whole: &Tensor, streamed: &Tensor) -> anyhow::Result<Self> {
        let (whole, streamed) = (whole.to_dtype(DType::F64)?, streamed.to_dtype(DType::F64)?);
        let maximum = |tensor: &Tensor| tensor.abs()?.flatten_all()?.max(0)?.to_scalar::<f64>();
        let norm = |tensor: &Tensor| tensor.sqr()?.sum_all()?.sqrt()?.to_scalar::<f64>();
        let difference = (&whole - streamed)?;
        let distance = norm(&difference)?;
        Ok(Self {
            name: name.to_owned(),
            largest_magnitude: maximum(&whole)?,
            largest_difference: maximum(&difference)?,
            relative_l2: if distance == 0.0 {
                0.0
            } else {
                distance / norm(&whole)?
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    #[test]
    fn the_whole_computation_is_the_measure() {
        let tensor = |values: &[f32]| Tensor::new(values, &Device::Cpu).unwrap();
        let (whole, streamed) = (tensor(&[3.0, -4.0]), tensor(&[3.0, -3.5]));
        let found = Difference::between("a", &whole, &streamed).unwrap();
        let expected = Difference {
            name: "a".to_owned(),
            largest_magnitude: 4.0,
            largest_difference: 0.5,
            relative_l2: 0.1,
        };
        assert_eq!(found, expected);
        let zero = tensor(&[0.0; 2]);
        let none = Difference::between("b", &zero, &zero).unwrap();
        assert_eq!((none.largest_difference, none.relative_l2), (0.0, 0.0));
    }
}
