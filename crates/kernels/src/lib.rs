//! NHWC convolution, pooling and normalisation kernels on slices, with exact VJPs.
//!
//! Everything works on one image at a time, cut into rectangles of its planes. A [`View`] says what a buffer holds of a plane:
//! a rectangle in that plane's own coordinates, in height x width x channels order. A kernel computes all of the view that it
//! writes, and reads what that takes of the others: the part of a plane that is to be computed is the part of a view
//! ([`ViewMut::part`]). Where a view of an input ends, padding begins. That is all a caller needs who streams a large image tile by
//! tile.
//!
//! Convolutions gather their operands in place: no im2col matrix, no padded copies. Weight gradients pack a few positions at a
//! time, on the stack. Data gradients of few input channels scatter their products instead of gathering. Where it gains, 3 x 3
//! convolutions are computed by Winograd's F(2 x 2, 3 x 3), unless direct arithmetic is asked for ([`Arithmetic`]). What memory
//! else they need is the caller's scratch. The instruction set (AVX-512, AVX2, NEON, or none) is chosen at run time. Work is
//! cut by geometry and run in the caller's rayon pool; results are bitwise independent of the number of threads.
//!
//! Gradients are *added* to their destination. Gradients of parameters are summed in `f64`.
//!
//! What is stored and what is computed in are two types ([`Storage`]): `bf16` is computed in `f32` and rounded once, when a result is
//! stored. Its products take terms in pairs, by AVX512-BF16 where the processor has that, and with the same bits where not.

mod activation;
mod affine;
mod blocks;
mod bounds;
mod conv_transpose;
mod convolution;
mod element;
mod elementwise;
mod error;
mod gather;
mod instructions;
mod integers;
mod layer_norm;
mod math;
mod memory;
#[cfg(feature = "oracle")]
pub mod oracle;
mod parallel;
mod pointwise;
mod pooling;
mod prefetch;
mod rows;
mod scatter;
mod shared;
mod stack;
mod stored;
mod upsample;
mod view;
mod weight_gradient;
mod weights;
mod window;
mod winograd;

pub use activation::{Activation, activation_vjp_and_bias_gradient, activation_vjp_in_place};
pub use affine::{
    affine_forward, affine_parameter_gradient, affine_vjp, affine_vjp_in_place, bias_gradient,
};
pub use conv_transpose::{
    ConvTranspose, TransposedWeights, conv_transpose_data_gradient, conv_transpose_forward,
    conv_transpose_weight_gradient,
};
pub use convolution::{Epilogue, conv_data_gradient, conv_forward};
pub use element::Element;
pub use element::storage::Storage;
pub use elementwise::{
    accumulate, accumulate_channels, add, copy, copy_channels, fill, multiply, multiply_vjp,
};
pub use error::KernelError;
pub use half::bf16;
#[cfg(feature = "oracle")]
pub use instructions::forced::{ForcedInstructions, InstructionSet};
pub use layer_norm::{
    LayerNorm, layer_norm_forward, layer_norm_parameter_gradient, layer_norm_vjp,
};
pub use memory::{take_pages, zeros};
pub use parallel::{LoopClock, LoopTimes, parallel_for};
pub use pointwise::{Gelu, Pointwise, VjpOperand, pointwise_forward, pointwise_vjp};
pub use pooling::{
    AveragePool, CountIncludePad, avg_pool_forward, avg_pool_vjp, max_pool_forward, max_pool_vjp,
};
pub use rows::parameter_gradient_scratch_bytes;
pub use stream_grad_tiling::{AlignCorners, PerAxis, Rect, Span};
pub use upsample::{Interpolation, Upsample, upsample_forward, upsample_vjp};
pub use view::{Existing, PlaneView, View, ViewMut};
pub use weight_gradient::{conv_weight_gradient, weight_gradient_to_oihw};
pub use weights::{DataGradientWeights, ForwardWeights};
pub use window::{Arithmetic, Convolution, Padding, Window};
