//! `max(x, 0)`.

use super::{Function, VjpOperand};
use crate::activation::relu_vjp;
use crate::{Activation, Element};

#[derive(Clone, Copy)]
pub(super) struct Relu;

impl Function for Relu {
    const OPERAND: VjpOperand = VjpOperand::Output;

    #[inline(always)]
    fn value<T: Element>(self, x: T) -> T {
        Activation::Relu.apply(x)
    }

    #[inline(always)]
    fn vjp<T: Element>(self, output: T, cotangent: T) -> T {
        relu_vjp(output, cotangent)
    }
}
