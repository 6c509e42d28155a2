//! Activations and their VJPs.

use crate::image::check_length;
use crate::rows::{for_each_row, for_each_row_and_sum};
use crate::{Element, ImageMut, KernelError, Located, Region};

/// Writes `max(input, 0)` into `region` of `output`; NaN stays NaN.
///
/// # Errors
/// [`KernelError`] where shapes do not match; nothing is written then.
pub fn relu_forward<T: Element>(
    input: Located<'_, T>,
    output: ImageMut<'_, T>,
    region: Region,
) -> Result<(), KernelError> {
    input.check("relu input", output.channels(), region)?;
    output.check_region("relu output", region)?;
    for_each_row(
        output,
        region,
        #[inline(always)]
        |row: usize, output: &mut [T]| {
            for (value, &input) in output.iter_mut().zip(input.row(row, region.columns)) {
                *value = if input < T::ZERO { T::ZERO } else { input };
            }
        },
    );
    Ok(())
}

/// Turns the cotangent of a ReLU's output into that of its input, in place in `region` of `cotangent`: 0 where the
/// output is 0 or less. Where the output is NaN the cotangent passes, as in PyTorch.
///
/// # Errors
/// [`KernelError`] where shapes do not match; nothing is written then.
pub fn relu_vjp_in_place<T: Element>(
    output: Located<'_, T>,
    cotangent: ImageMut<'_, T>,
    region: Region,
) -> Result<(), KernelError> {
    output.check("relu output", cotangent.channels(), region)?;
    cotangent.check_region("relu cotangent", region)?;
    for_each_row(
        cotangent,
        region,
        #[inline(always)]
        |row: usize, cotangent: &mut [T]| {
            for (value, &output) in cotangent.iter_mut().zip(output.row(row, region.columns)) {
                *value = if output <= T::ZERO { T::ZERO } else { *value };
            }
        },
    );
    Ok(())
}

/// [`relu_vjp_in_place`] of a ReLU that follows a bias, and [`bias_gradient`](crate::bias_gradient) of the cotangent that this
/// leaves: both while it passes once through memory.
///
/// # Errors
/// [`KernelError`] where shapes do not match; nothing is written then.
pub fn relu_vjp_and_bias_gradient<T: Element>(
    output: Located<'_, T>,
    cotangent: ImageMut<'_, T>,
    region: Region,
    bias_gradient: &mut [f64],
) -> Result<(), KernelError> {
    let channels = cotangent.channels();
    output.check("relu output", channels, region)?;
    cotangent.check_region("relu cotangent", region)?;
    check_length("bias gradient", channels, bias_gradient.len())?;
    if channels == 0 {
        return Ok(());
    }
    for_each_row_and_sum(
        cotangent,
        region,
        bias_gradient,
        #[inline(always)]
        |row: usize, cotangent: &mut [T], sums: &mut [f64]| {
            let outputs = output.row(row, region.columns).chunks_exact(channels);
            for (cotangent, output) in cotangent.chunks_exact_mut(channels).zip(outputs) {
                for ((value, &output), sum) in cotangent.iter_mut().zip(output).zip(&mut *sums) {
                    let masked = if output <= T::ZERO { T::ZERO } else { *value };
                    *value = masked;
                    *sum += masked.to_f64();
                }
            }
        },
    );
    Ok(())
}

/// Adds the cotangent of a ReLU's input to `region` of `input_cotangent`, given the ReLU's output.
///
/// # Errors
/// [`KernelError`] where shapes do not match; nothing is written then.
pub fn relu_vjp<T: Element>(
    output: Located<'_, T>,
    cotangent: Located<'_, T>,
    input_cotangent: ImageMut<'_, T>,
    region: Region,
) -> Result<(), KernelError> {
    output.check("relu output", input_cotangent.channels(), region)?;
    cotangent.check("relu cotangent", input_cotangent.channels(), region)?;
    input_cotangent.check_region("relu input cotangent", region)?;
    for_each_row(
        input_cotangent,
        region,
        #[inline(always)]
        |row: usize, sums: &mut [T]| {
            let output = output.row(row, region.columns);
            let cotangent = cotangent.row(row, region.columns);
            for ((sum, &output), &cotangent) in sums.iter_mut().zip(output).zip(cotangent) {
                *sum += if output <= T::ZERO {
                    T::ZERO
                } else {
                    cotangent
                };
            }
        },
    );
    Ok(())
}

/// Which formula a GELU uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Gelu {
    /// `x/2 (1 + erf(x / sqrt 2))`: PyTorch's default, and what timm's and torchvision's ConvNeXt use.
    #[default]
    Exact,
    /// `x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3)))`.
    Tanh,
}

/// sqrt(2 / pi)
const TANH_SCALE: f64 = std::f64::consts::FRAC_2_SQRT_PI * std::f64::consts::FRAC_1_SQRT_2;
const TANH_CUBIC: f64 = 0.044_715;
/// 1 / sqrt(2 pi)
const NORMAL_DENSITY: f64 =
    std::f64::consts::FRAC_2_SQRT_PI * std::f64::consts::FRAC_1_SQRT_2 / 2.0;

impl Gelu {
    #[inline(always)]
    fn value<T: Element>(self, x: T) -> T {
        let half = T::from_f64(0.5);
        match self {
            Self::Exact => {
                let tail = (x * T::from_f64(std::f64::consts::FRAC_1_SQRT_2)).erf();
                half * x * (T::ONE + tail)
            }
            Self::Tanh => {
                let inner = T::from_f64(TANH_SCALE) * (x + T::from_f64(TANH_CUBIC) * x * x * x);
                half * x * (T::ONE + inner.tanh())
            }
        }
    }

    #[inline(always)]
    fn derivative<T: Element>(self, x: T) -> T {
        let half = T::from_f64(0.5);
        match self {
            Self::Exact => {
                let tail = (x * T::from_f64(std::f64::consts::FRAC_1_SQRT_2)).erf();
                let density = (-(half * x * x)).exp() * T::from_f64(NORMAL_DENSITY);
                half * (T::ONE + tail) + x * density
            }
            Self::Tanh => {
                let square = x * x;
                let inner = T::from_f64(TANH_SCALE) * (x + T::from_f64(TANH_CUBIC) * x * square);
                let tanh = inner.tanh();
                let slope =
                    T::from_f64(TANH_SCALE) * (T::ONE + T::from_f64(3.0 * TANH_CUBIC) * square);
                half * (T::ONE + tanh) + half * x * (T::ONE - tanh * tanh) * slope
            }
        }
    }
}

/// Writes the GELU of `input` into `region` of `output`.
///
/// # Errors
/// [`KernelError`] where shapes do not match; nothing is written then.
pub fn gelu_forward<T: Element>(
    gelu: Gelu,
    input: Located<'_, T>,
    output: ImageMut<'_, T>,
    region: Region,
) -> Result<(), KernelError> {
    input.check("gelu input", output.channels(), region)?;
    output.check_region("gelu output", region)?;
    for_each_row(
        output,
        region,
        #[inline(always)]
        |row: usize, output: &mut [T]| {
            for (value, &input) in output.iter_mut().zip(input.row(row, region.columns)) {
                *value = gelu.value(input);
            }
        },
    );
    Ok(())
}

/// Adds the cotangent of a GELU's input to `region` of `input_cotangent`, given the GELU's input.
///
/// # Errors
/// [`KernelError`] where shapes do not match; nothing is written then.
pub fn gelu_vjp<T: Element>(
    gelu: Gelu,
    input: Located<'_, T>,
    cotangent: Located<'_, T>,
    input_cotangent: ImageMut<'_, T>,
    region: Region,
) -> Result<(), KernelError> {
    input.check("gelu input", input_cotangent.channels(), region)?;
    cotangent.check("gelu cotangent", input_cotangent.channels(), region)?;
    input_cotangent.check_region("gelu input cotangent", region)?;
    for_each_row(
        input_cotangent,
        region,
        #[inline(always)]
        |row: usize, sums: &mut [T]| {
            let input = input.row(row, region.columns);
            let cotangent = cotangent.row(row, region.columns);
            for ((sum, &input), &cotangent) in sums.iter_mut().zip(input).zip(cotangent) {
                *sum += cotangent * gelu.derivative(input);
            }
        },
    );
    Ok(())
}
