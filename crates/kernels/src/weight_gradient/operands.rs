//! What a weight gradient is made of.

use crate::{Convolution, View};

/// What a weight gradient is made of.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Operands<'a, T> {
    pub(crate) convolution: &'a Convolution,
    pub(crate) input: View<'a, T>,
    pub(crate) cotangent: View<'a, T>,
    /// Where the first cotangent's window has its first tap in the input.
    pub(crate) first: [isize; 2],
}
