//! `min(max(x, 0), 6)`.

use super::{Function, VjpOperand};
use crate::Element;

#[derive(Clone, Copy)]
pub(super) struct Relu6;

impl Function for Relu6 {
    const OPERAND: VjpOperand = VjpOperand::Output;

    #[inline(always)]
    fn value<T: Element>(self, x: T) -> T {
        let six = T::from_f64(6.0);
        // A NaN is neither below nor above.
        let x = if x < T::ZERO { T::ZERO } else { x };
        if x > six { six } else { x }
    }

    #[inline(always)]
    fn vjp<T: Element>(self, output: T, cotangent: T) -> T {
        // Of a NaN the derivative is 0, as in PyTorch; a ReLU's is 1.
        if output > T::ZERO && output < T::from_f64(6.0) {
            cotangent
        } else {
            T::ZERO
        }
    }
}
