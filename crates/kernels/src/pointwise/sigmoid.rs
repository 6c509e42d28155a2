//! `1 / (1 + exp(-x))`.

use super::{Function, VjpOperand};
use crate::Element;

#[derive(Clone, Copy)]
pub(super) struct Sigmoid;

impl Function for Sigmoid {
    const OPERAND: VjpOperand = VjpOperand::Output;

    #[inline(always)]
    fn value<T: Element>(self, x: T) -> T {
        T::ONE / (T::ONE + (-x).exp())
    }

    #[inline(always)]
    fn vjp<T: Element>(self, output: T, cotangent: T) -> T {
        cotangent * (T::ONE - output) * output
    }
}
