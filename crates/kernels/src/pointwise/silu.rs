//! `x / (1 + exp(-x))`.

use super::{Function, VjpOperand};
use crate::Element;

#[derive(Clone, Copy)]
pub(super) struct Silu;

impl Function for Silu {
    const OPERAND: VjpOperand = VjpOperand::Input;

    #[inline(always)]
    fn value<T: Element>(self, x: T) -> T {
        x / (T::ONE + (-x).exp())
    }

    #[inline(always)]
    fn vjp<T: Element>(self, input: T, cotangent: T) -> T {
        let sigmoid = T::ONE / (T::ONE + (-input).exp());
        cotangent * sigmoid * (T::ONE + input * (T::ONE - sigmoid))
    }
}
