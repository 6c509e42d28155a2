//! An image that is computed, and a head that only sums: for images that do not fit in memory.

use stream_grad::{ExternalError, FeatureSink, Rect, Storage, TileMut, TileRef, TileSource, bf16};

/// Noise in [-1, 1): every value is a function of its coordinates.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Noise {
    pub(crate) height: u64,
    pub(crate) width: u64,
}

impl Noise {
    /// The value of one channel of a pixel.
    pub(crate) fn value(row: u64, column: u64, channel: u64) -> f32 {
        // Two rounds of xor-shift and multiply: any good mixer would do.
        let place = (row << 33) ^ (column << 2) ^ channel;
        let mixed = place.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (mixed ^ (mixed >> 32)).wrapping_mul(0xd6e8_feb8_6659_fd93);
        let mixed = (mixed ^ (mixed >> 32)).wrapping_mul(0xd6e8_feb8_6659_fd93);
        const UNIT: f32 = 8_388_608.0;
        ((mixed >> 40) as f32 - UNIT) / UNIT
    }
}

impl TileSource for Noise {
    fn batch(&self) -> usize {
        1
    }

    fn channels(&self) -> usize {
        3
    }

    fn extent(&self) -> (u64, u64) {
        (self.height, self.width)
    }

    fn read(&self, _image: usize, region: Rect, mut out: TileMut<'_>) -> Result<(), ExternalError> {
        let Rect { rows, columns } = region;
        let values = |row: i64| {
            (columns.lo..columns.hi).flat_map(move |column| {
                let (row, column) = (row.unsigned_abs(), column.unsigned_abs());
                (0..3).map(move |channel| Self::value(row, column, channel))
            })
        };
        for (index, row) in (rows.lo..rows.hi).enumerate() {
            match &mut out {
                TileMut::F32(tile) => {
                    let out = tile.row(index).iter_mut();
                    out.zip(values(row)).for_each(|(out, value)| *out = value);
                }
                TileMut::F64(tile) => {
                    let out = tile.row(index).iter_mut();
                    out.zip(values(row))
                        .for_each(|(out, value)| *out = value.into());
                }
                TileMut::BF16(tile) => {
                    let out = tile.row(index).iter_mut();
                    out.zip(values(row))
                        .for_each(|(out, value)| *out = bf16::narrow(value));
                }
            }
        }
        Ok(())
    }
}

/// The features' sum over all positions: a pooling head up to its divisor. Its cotangent is [`Ones`].
///
/// [`Ones`]: stream_grad::Ones
#[derive(Debug, Default)]
pub(crate) struct Sum {
    pub(crate) total: f64,
}

impl FeatureSink for Sum {
    fn write(
        &mut self,
        _image: usize,
        _output: usize,
        region: Rect,
        features: TileRef<'_>,
    ) -> Result<(), ExternalError> {
        for row in 0..region.height() {
            self.total += match features {
                TileRef::F32(tile) => tile.row(row).iter().map(|&value| f64::from(value)).sum(),
                TileRef::F64(tile) => tile.row(row).iter().sum::<f64>(),
                TileRef::BF16(tile) => tile.row(row).iter().map(|&value| f64::from(value)).sum(),
            };
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device, Tensor};
    use stream_grad::{Ones, PlanRequest};

    use super::*;
    use stream_grad_cli::model;

    #[test]
    fn noise_is_spread_evenly() {
        let values = (0..300).flat_map(|row| (0..100).map(move |column| (row, column)));
        let values: Vec<f64> = values
            .flat_map(|(row, column)| {
                (0..3).map(move |channel| f64::from(Noise::value(row, column, channel)))
            })
            .collect();
        let count = values.len() as f64;
        let mean = values.iter().sum::<f64>() / count;
        let square = values.iter().map(|value| value * value).sum::<f64>() / count;
        assert!(
            mean.abs() < 0.01 && (square - 1.0 / 3.0).abs() < 0.01,
            "{mean} {square}"
        );
        assert!(values.iter().all(|value| (-1.0..1.0).contains(value)));
    }

    /// Computed pixels and summed features are the same step as tensors of them.
    #[test]
    fn streaming_everything_changes_nothing() {
        let (_, net) = model::build("imagenette", DType::F64).unwrap();
        let plan = net
            .plan(PlanRequest::new(96, 80).tile(32).dtype(DType::F64))
            .unwrap();
        let noise = Noise {
            height: 96,
            width: 80,
        };
        let image: Vec<f32> = (0..3)
            .flat_map(|channel| {
                (0..96).flat_map(move |row| {
                    (0..80).map(move |column| Noise::value(row, column, channel))
                })
            })
            .collect();
        let image = Tensor::from_vec(image, (1, 3, 96, 80), &Device::Cpu).unwrap();

        let mut sum = Sum::default();
        let residuals = plan.forward_to(&noise, &mut sum).unwrap();
        let streamed = plan.vjp_from(residuals, &mut Ones, None).unwrap();
        let (features, residuals) = plan.forward(&image).unwrap();
        let cotangent = features.ones_like().unwrap();
        let whole = plan.vjp(residuals, &[cotangent]).unwrap();

        let total: f64 = features.sum_all().unwrap().to_scalar().unwrap();
        assert!((total - sum.total).abs() <= 1e-9 * total.abs());
        for parameter in net.parameters() {
            let values = |gradients: &candle_core::backprop::GradStore| {
                let gradient = gradients.get(&parameter.tensor).unwrap();
                gradient.flatten_all().unwrap().to_vec1::<f64>().unwrap()
            };
            assert_eq!(values(&streamed), values(&whole), "{}", parameter.name);
        }
    }
}
