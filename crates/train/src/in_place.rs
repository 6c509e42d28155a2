//! Arithmetic on all values of tensors, in place, in double precision and on all cores: candle's own makes a new tensor of each
//! intermediate result, and new memory takes longer than the arithmetic.

use std::ops::Range;

use candle_core::{CpuStorage, InplaceOp2, InplaceOp3, Layout, Storage, Tensor, WithDType, bail};
use rayon::prelude::*;

use crate::error::Result;

/// Values that a task takes: enough to be worth its start. Sums do not depend on the number of threads.
const PART: usize = 1 << 15;

/// Replaces each value of `to` by what `rule` makes of it and of that of `from`, which has the same shape and type.
///
/// # Errors
/// [`TrainError::Tensor`](crate::TrainError::Tensor) for tensors that differ in shape, or are neither of f32 nor of f64.
pub(crate) fn update(
    to: &Tensor,
    from: &Tensor,
    rule: impl Fn(f64, f64) -> f64 + Sync,
) -> Result<()> {
    let rule = Rule(|value, [from]: [f64; 1]| rule(value, from));
    Ok(to.inplace_op2(&from.contiguous()?, &rule)?)
}

/// Replaces each value of `to` by what `rule` makes of it and of those of two others.
///
/// # Errors
/// As for [`update`].
pub(crate) fn update_by_two(
    to: &Tensor,
    [first, second]: [&Tensor; 2],
    rule: impl Fn(f64, [f64; 2]) -> f64 + Sync,
) -> Result<()> {
    Ok(to.inplace_op3(&first.contiguous()?, &second.contiguous()?, &Rule(rule))?)
}

/// The sum of the squares of all values, in double precision.
///
/// # Errors
/// As for [`update`].
pub(crate) fn sum_of_squares(tensor: &Tensor) -> Result<f64> {
    let tensor = tensor.contiguous()?;
    let (storage, layout) = tensor.storage_and_layout();
    let Storage::Cpu(storage) = &*storage else {
        return Err(elsewhere().into());
    };
    Ok(match storage {
        CpuStorage::F32(_) => squares::<f32>(values(storage, layout)?),
        _ => squares::<f64>(values(storage, layout)?),
    })
}

fn squares<T: Number>(values: &[T]) -> f64 {
    let parts: Vec<f64> = values
        .par_chunks(PART)
        .map(|values| values.iter().map(|value| value.wide() * value.wide()).sum())
        .collect();
    parts.iter().sum()
}

/// What happens to each value, by the values of `N` others.
struct Rule<F>(F);

impl<F: Sync> Rule<F> {
    fn apply<const N: usize>(
        &self,
        (to, layout): (&mut CpuStorage, &Layout),
        from: [(&CpuStorage, &Layout); N],
    ) -> candle_core::Result<()>
    where
        F: Fn(f64, [f64; N]) -> f64,
    {
        match to {
            CpuStorage::F32(to) => self.each(&mut to[range(layout)?], from),
            CpuStorage::F64(to) => self.each(&mut to[range(layout)?], from),
            _ => Err(other_type()),
        }
    }

    fn each<T: Number, const N: usize>(
        &self,
        to: &mut [T],
        from: [(&CpuStorage, &Layout); N],
    ) -> candle_core::Result<()>
    where
        F: Fn(f64, [f64; N]) -> f64,
    {
        let mut others: [&[T]; N] = [&[]; N];
        for (other, (storage, layout)) in others.iter_mut().zip(from) {
            *other = values(storage, layout)?;
            check_length(to.len(), other.len())?;
        }
        let parts = to.par_chunks_mut(PART).enumerate();
        parts.for_each(|(part, to)| {
            let start = part * PART;
            let others = others.map(|other| &other[start..start + to.len()]);
            for (place, to) in to.iter_mut().enumerate() {
                *to = T::narrow((self.0)(to.wide(), others.map(|other| other[place].wide())));
            }
        });
        Ok(())
    }
}

impl<F: Fn(f64, [f64; 1]) -> f64 + Sync> InplaceOp2 for Rule<F> {
    fn name(&self) -> &'static str {
        "update"
    }

    fn cpu_fwd(
        &self,
        to: &mut CpuStorage,
        to_layout: &Layout,
        from: &CpuStorage,
        from_layout: &Layout,
    ) -> candle_core::Result<()> {
        self.apply((to, to_layout), [(from, from_layout)])
    }
}

impl<F: Fn(f64, [f64; 2]) -> f64 + Sync> InplaceOp3 for Rule<F> {
    fn name(&self) -> &'static str {
        "update"
    }

    fn cpu_fwd(
        &self,
        to: &mut CpuStorage,
        to_layout: &Layout,
        first: &CpuStorage,
        first_layout: &Layout,
        second: &CpuStorage,
        second_layout: &Layout,
    ) -> candle_core::Result<()> {
        let from = [(first, first_layout), (second, second_layout)];
        self.apply((to, to_layout), from)
    }
}

/// A number that a weight may be.
trait Number: WithDType {
    fn wide(self) -> f64;
    fn narrow(value: f64) -> Self;
}

impl Number for f32 {
    fn wide(self) -> f64 {
        f64::from(self)
    }

    #[expect(clippy::cast_possible_truncation, reason = "rounding is what is meant")]
    fn narrow(value: f64) -> Self {
        value as Self
    }
}

impl Number for f64 {
    fn wide(self) -> f64 {
        self
    }

    fn narrow(value: f64) -> Self {
        value
    }
}

/// The values of a tensor that lies in one piece.
fn values<'a, T: WithDType>(
    storage: &'a CpuStorage,
    layout: &Layout,
) -> candle_core::Result<&'a [T]> {
    let values = T::cpu_storage_as_slice(storage).map_err(|_| other_type())?;
    Ok(&values[range(layout)?])
}

/// Where they lie in the storage.
fn range(layout: &Layout) -> candle_core::Result<Range<usize>> {
    match layout.contiguous_offsets() {
        Some((start, end)) => Ok(start..end),
        None => bail!("expected a tensor that lies in one piece, found {layout:?}"),
    }
}

fn check_length(expected: usize, found: usize) -> candle_core::Result<()> {
    if expected == found {
        return Ok(());
    }
    bail!("expected {expected} values, found {found}")
}

fn other_type() -> candle_core::Error {
    candle_core::Error::Msg("expected tensors of one type, f32 or f64".to_owned())
}

fn elsewhere() -> candle_core::Error {
    candle_core::Error::Msg("expected a tensor on the CPU".to_owned())
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device};

    use super::*;

    fn numbers(dtype: DType, from: u32) -> Tensor {
        let values: Vec<f64> = (from..from + 70_000)
            .map(|value| f64::from(value) / 7.0)
            .collect();
        let tensor = Tensor::from_vec(values, (7, 10_000), &Device::Cpu).unwrap();
        tensor.to_dtype(dtype).unwrap()
    }

    fn list(tensor: &Tensor) -> Vec<f64> {
        let tensor = tensor.to_dtype(DType::F64).unwrap();
        tensor.flatten_all().unwrap().to_vec1().unwrap()
    }

    #[test]
    fn every_value_is_updated_once_and_rounded_once() {
        for (dtype, epsilon) in [(DType::F32, 1e-7), (DType::F64, 1e-15)] {
            let (to, a, b) = (numbers(dtype, 1), numbers(dtype, 5), numbers(dtype, 9));
            let before = list(&to);
            update(&to, &a, |to, from| to - 2.0 * from).unwrap();
            update_by_two(&to, [&a, &b], |to, [a, b]| to * a + b).unwrap();
            let others = list(&a).into_iter().zip(list(&b));
            for ((before, after), (a, b)) in before.iter().zip(list(&to)).zip(others) {
                let expected = (before - 2.0 * a) * a + b;
                assert!(
                    (after - expected).abs() <= 4.0 * epsilon * (before.abs() + 2.0 * a) * a,
                    "{after}, expected {expected}"
                );
            }
        }
    }

    #[test]
    fn tensors_in_another_order_are_read_in_theirs() {
        let to = Tensor::zeros((2, 3), DType::F32, &Device::Cpu).unwrap();
        let from = Tensor::arange(0_f32, 6.0, &Device::Cpu).unwrap();
        let from = from.reshape((3, 2)).unwrap().t().unwrap();
        update(&to, &from, |_, from| from).unwrap();
        assert_eq!(list(&to), [0.0, 2.0, 4.0, 1.0, 3.0, 5.0]);
    }

    #[test]
    fn squares_are_summed_in_double_precision() {
        for dtype in [DType::F32, DType::F64] {
            let tensor = numbers(dtype, 3);
            let expected: f64 = list(&tensor).iter().map(|value| value * value).sum();
            let found = sum_of_squares(&tensor).unwrap();
            assert!(
                (found / expected - 1.0).abs() < 1e-13,
                "{found}, expected {expected}"
            );
        }
    }

    #[test]
    fn tensors_that_do_not_fit_are_refused_with_both() {
        let to = Tensor::zeros(4, DType::F32, &Device::Cpu).unwrap();
        let message = |from: &Tensor| {
            let error = update(&to, from, |to, _| to).unwrap_err();
            error.to_string()
        };
        let longer = message(&Tensor::zeros(5, DType::F32, &Device::Cpu).unwrap());
        assert!(longer.contains("expected 4 values, found 5"), "{longer}");
        let wider = message(&Tensor::zeros(4, DType::F64, &Device::Cpu).unwrap());
        assert!(wider.contains("of one type, f32 or f64"), "{wider}");
        let whole = Tensor::zeros(4, DType::U8, &Device::Cpu).unwrap();
        let error = sum_of_squares(&whole).unwrap_err().to_string();
        assert!(error.contains("of one type, f32 or f64"), "{error}");
    }
}
