//! What a weight gradient is made of.

use crate::{Convolution, Storage, View};

/// What a weight gradient is made of.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Operands<'a, E: Storage> {
    pub(crate) convolution: &'a Convolution,
    pub(crate) input: View<'a, E>,
    pub(crate) cotangent: View<'a, E>,
    /// Where the first cotangent's window has its first tap in the input.
    pub(crate) first: [isize; 2],
}
