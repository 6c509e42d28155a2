//! The Gaussian error linear unit.

use super::{Function, VjpOperand};
use crate::Element;

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

impl Function for Gelu {
    const OPERAND: VjpOperand = VjpOperand::Input;

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
    fn vjp<T: Element>(self, x: T, cotangent: T) -> T {
        let half = T::from_f64(0.5);
        let derivative = match self {
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
        };
        cotangent * derivative
    }
}
