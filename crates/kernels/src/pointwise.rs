//! Functions of single values, a file for each, and their VJPs.

mod gelu;
mod relu;
mod relu6;
mod sigmoid;
mod silu;

use crate::elementwise::from_two;
use crate::rows::for_each_row;
use crate::stored::add_to;
use crate::{Element, KernelError, Storage, View, ViewMut};

pub use gelu::Gelu;

/// A function of single values. Where an input is NaN its output is, too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Pointwise {
    /// `max(x, 0)`, with derivative 0 at 0.
    Relu,
    /// `min(max(x, 0), 6)`, with derivative 0 at 0 and 6: `PyTorch`'s `ReLU6`.
    Relu6,
    /// `1 / (1 + exp(-x))`.
    Sigmoid,
    /// `x / (1 + exp(-x))`: `PyTorch`'s `SiLU`, which is Swish.
    Silu,
    /// The normal distribution function times `x`, by either formula.
    Gelu(Gelu),
}

/// What a VJP reads besides the cotangent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum VjpOperand {
    /// The function's input.
    Input,
    /// Its output.
    Output,
}

impl Pointwise {
    /// What the function's VJP reads.
    #[must_use]
    pub const fn vjp_operand(self) -> VjpOperand {
        match self {
            Self::Relu => relu::Relu::OPERAND,
            Self::Relu6 => relu6::Relu6::OPERAND,
            Self::Sigmoid => sigmoid::Sigmoid::OPERAND,
            Self::Silu => silu::Silu::OPERAND,
            Self::Gelu(_) => Gelu::OPERAND,
        }
    }
}

/// One function, as the loops below need it.
trait Function: Copy + Sync {
    /// What [`Self::vjp`] reads.
    const OPERAND: VjpOperand;

    /// The function of `x`.
    fn value<T: Element>(self, x: T) -> T;

    /// The cotangent of the input: that of the output times the derivative, given what the VJP reads.
    fn vjp<T: Element>(self, read: T, cotangent: T) -> T;
}

/// Evaluates `$work` with `$one` for whichever function it is, so that loops are compiled for each.
macro_rules! of_one {
    ($function:expr, $one:ident => $work:expr) => {
        match $function {
            Pointwise::Relu => {
                let $one = relu::Relu;
                $work
            }
            Pointwise::Relu6 => {
                let $one = relu6::Relu6;
                $work
            }
            Pointwise::Sigmoid => {
                let $one = sigmoid::Sigmoid;
                $work
            }
            Pointwise::Silu => {
                let $one = silu::Silu;
                $work
            }
            Pointwise::Gelu($one) => $work,
        }
    };
}

/// Writes the function of `input` to `output`.
///
/// # Errors
/// [`KernelError`] where shapes do not match; nothing is written then.
///
/// # Examples
/// ```
/// use stream_grad_kernels::{Pointwise, Rect, View, ViewMut, pointwise_forward};
///
/// let (input, mut output) = ([-1.0_f32, 2.0, 8.0], [0.0; 3]);
/// let row = Rect::whole(1, 3);
/// let x = View::new(&input, row, 1)?;
/// pointwise_forward(Pointwise::Relu6, x, ViewMut::new(&mut output, row, 1)?)?;
/// assert_eq!(output, [0.0, 2.0, 6.0]);
/// # Ok::<(), stream_grad_kernels::KernelError>(())
/// ```
pub fn pointwise_forward<E: Storage>(
    function: Pointwise,
    input: View<'_, E>,
    output: ViewMut<'_, E>,
) -> Result<(), KernelError> {
    let input = input.operand("pointwise input", output.channels(), output.rect())?;
    of_one!(function, function => for_each_row(
        output,
        #[inline(always)]
        |row: usize, output: &mut [E]| {
            for (value, &input) in output.iter_mut().zip(input.row(row)) {
                *value = E::narrow(function.value(input.widen()));
            }
        },
    ));
    Ok(())
}

/// Adds the cotangent of the function's input to `input_cotangent`, given what its VJP reads ([`Pointwise::vjp_operand`]). Where the
/// derivative of a ReLU is 0, so is that cotangent, whatever the output's.
///
/// # Errors
/// [`KernelError`] where shapes do not match; nothing is written then.
pub fn pointwise_vjp<E: Storage>(
    function: Pointwise,
    read: View<'_, E>,
    cotangent: View<'_, E>,
    input_cotangent: ViewMut<'_, E>,
) -> Result<(), KernelError> {
    of_one!(function, function => from_two(
        ("pointwise operand", read),
        ("pointwise cotangent", cotangent),
        input_cotangent,
        #[inline(always)]
        |sum, read, cotangent| add_to(sum, function.vjp(read, cotangent)),
    ))
}
