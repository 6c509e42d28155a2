//! NHWC convolution, pooling and normalisation kernels on slices, with exact VJPs.
//!
//! Everything works on one image at a time, held in a *buffer*: a contiguous slice in height x width x channels order
//! ([`Image`], [`ImageMut`]). Whatever lies outside an input buffer is padding. Operators compute a [`Region`] of their
//! output buffer and touch nothing else of it; where a region's windows lie in the input is said by the position of the
//! first one. That is all a caller needs who streams a large image tile by tile.
//!
//! Convolutions gather their operands in place: no im2col matrix, no padded copies, no hidden scratch. The instruction set
//! (AVX-512, AVX2, NEON, or none) is chosen at run time. Work is cut by geometry and run in the caller's rayon pool;
//! results are bitwise independent of the number of threads.
//!
//! Gradients are *added* to their destination. Gradients of parameters are summed in `f64`.

mod convolution;
mod element;
mod error;
mod gather;
mod image;
mod weight_gradient;
mod weights;
mod window;

pub use convolution::{Activation, Epilogue, Residual, conv_data_gradient, conv_forward};
pub use element::Element;
pub use error::KernelError;
pub use image::{Image, ImageMut, Position, Region};
pub use weight_gradient::{conv_weight_gradient, weight_gradient_to_oihw};
pub use weights::{DataGradientWeights, ForwardWeights};
pub use window::{Convolution, Window};
