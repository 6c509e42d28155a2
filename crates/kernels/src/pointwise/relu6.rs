//! `min(max(x, 0), 6)`.

use super::{Function, VjpOperand};
use crate::activation::relu6_vjp;
use crate::{Activation, Element};

#[derive(Clone, Copy)]
pub(super) struct Relu6;

impl Function for Relu6 {
    const OPERAND: VjpOperand = VjpOperand::Output;

    #[inline(always)]
    fn value<T: Element>(self, x: T) -> T {
        Activation::Relu6.apply(x)
    }

    #[inline(always)]
    fn vjp<T: Element>(self, output: T, cotangent: T) -> T {
        relu6_vjp(output, cotangent)
    }
}
