//! Mean and maximum over the last axis, with PyTorch's gradients.
//!
//! Candle's `max` divides the gradient among equal values and its `mean` sums in the tensor's own precision.

use candle_core::{CpuStorage, CustomOp1, DType, Layout, Shape, Tensor};

use crate::error::Result;

/// Means `[R]` of the rows of `[R, L]`, summed in `f64`.
pub(crate) fn mean_rows(x: &Tensor) -> Result<Tensor> {
    Ok(x.contiguous()?.apply_op1(MeanRows)?)
}

/// Maxima `[R]` of the rows of `[R, L]`: the first maximum takes the gradient, a NaN wins (the last of several).
pub(crate) fn maximum_rows(x: &Tensor) -> Result<Tensor> {
    Ok(x.contiguous()?.apply_op1(MaximumRows)?)
}

struct MeanRows;
struct MaximumRows;

trait Value: Copy + PartialOrd {
    fn is_nan(self) -> bool;
    fn mean(row: &[Self]) -> Self;
}

impl Value for f32 {
    fn is_nan(self) -> bool {
        self.is_nan()
    }

    #[expect(
        clippy::cast_possible_truncation,
        reason = "the mean is rounded to the tensor's dtype"
    )]
    fn mean(row: &[Self]) -> Self {
        (row.iter().map(|&value| f64::from(value)).sum::<f64>() / length(row)) as Self
    }
}

impl Value for f64 {
    fn is_nan(self) -> bool {
        self.is_nan()
    }

    fn mean(row: &[Self]) -> Self {
        row.iter().sum::<Self>() / length(row)
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "rows have fewer than 2^53 values"
)]
fn length<T>(row: &[T]) -> f64 {
    row.len() as f64
}

fn position_of_maximum<T: Value>(row: &[T]) -> usize {
    let mut best = 0;
    for (position, value) in row.iter().enumerate() {
        if *value > row[best] || value.is_nan() {
            best = position;
        }
    }
    best
}

fn rows<'a, T>(
    data: &'a [T],
    layout: &Layout,
) -> candle_core::Result<std::slice::ChunksExact<'a, T>> {
    let (_, length) = layout.shape().dims2()?;
    let Some((start, end)) = layout.contiguous_offsets() else {
        candle_core::bail!("expected a contiguous tensor, found {layout:?}")
    };
    if length == 0 {
        candle_core::bail!(
            "expected rows of at least one value, found {:?}",
            layout.shape()
        )
    }
    Ok(data[start..end].chunks_exact(length))
}

fn reduce<T: Value>(
    data: &[T],
    layout: &Layout,
    row: impl Fn(&[T]) -> T,
) -> candle_core::Result<Vec<T>> {
    Ok(rows(data, layout)?.map(row).collect())
}

fn unsupported(found: DType) -> candle_core::Error {
    candle_core::Error::Msg(format!(
        "dtype {found:?} is not supported here, expected F32 or F64"
    ))
}

impl CustomOp1 for MeanRows {
    fn name(&self) -> &'static str {
        "mean-rows"
    }

    fn cpu_fwd(
        &self,
        storage: &CpuStorage,
        layout: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        let means = match storage {
            CpuStorage::F32(data) => CpuStorage::F32(reduce(data, layout, Value::mean)?),
            CpuStorage::F64(data) => CpuStorage::F64(reduce(data, layout, Value::mean)?),
            other => {
                return Err(unsupported(candle_core::backend::BackendStorage::dtype(
                    other,
                )));
            }
        };
        Ok((means, Shape::from(layout.dims()[0])))
    }

    fn bwd(
        &self,
        arg: &Tensor,
        _: &Tensor,
        cotangent: &Tensor,
    ) -> candle_core::Result<Option<Tensor>> {
        let (_, length) = arg.dims2()?;
        #[expect(
            clippy::cast_precision_loss,
            reason = "rows have fewer than 2^53 values"
        )]
        let share = (cotangent.unsqueeze(1)? / length as f64)?;
        Ok(Some(share.broadcast_as(arg.shape())?.contiguous()?))
    }
}

impl CustomOp1 for MaximumRows {
    fn name(&self) -> &'static str {
        "maximum-rows"
    }

    fn cpu_fwd(
        &self,
        storage: &CpuStorage,
        layout: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        fn maximum<T: Value>(row: &[T]) -> T {
            row[position_of_maximum(row)]
        }
        let maxima = match storage {
            CpuStorage::F32(data) => CpuStorage::F32(reduce(data, layout, maximum)?),
            CpuStorage::F64(data) => CpuStorage::F64(reduce(data, layout, maximum)?),
            other => {
                return Err(unsupported(candle_core::backend::BackendStorage::dtype(
                    other,
                )));
            }
        };
        Ok((maxima, Shape::from(layout.dims()[0])))
    }

    fn bwd(
        &self,
        arg: &Tensor,
        _: &Tensor,
        cotangent: &Tensor,
    ) -> candle_core::Result<Option<Tensor>> {
        fn positions<T: Value>(row: &[T]) -> u32 {
            u32::try_from(position_of_maximum(row)).unwrap_or(u32::MAX)
        }
        let arg = arg.contiguous()?;
        let places: Vec<u32> = {
            let (storage, layout) = arg.storage_and_layout();
            match &*storage {
                candle_core::Storage::Cpu(CpuStorage::F32(data)) => {
                    rows(data, layout)?.map(positions).collect()
                }
                candle_core::Storage::Cpu(CpuStorage::F64(data)) => {
                    rows(data, layout)?.map(positions).collect()
                }
                _ => return Err(unsupported(arg.dtype())),
            }
        };
        let places = Tensor::from_vec(places, (arg.dims()[0], 1), arg.device())?;
        let cotangent = cotangent.unsqueeze(1)?.contiguous()?;
        Ok(Some(arg.zeros_like()?.scatter_add(&places, &cotangent, 1)?))
    }
}
