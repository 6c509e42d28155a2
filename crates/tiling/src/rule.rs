//! How a layer's outputs depend on its inputs along one axis.

use std::fmt;
use std::sync::Arc;

use crate::span::Span;
use crate::transposed_window::TransposedWindow;
use crate::window::Window;

/// A local dependence that is not one of the built-in ones.
///
/// Any operation that can state these three functions can be streamed. They must agree:
/// `prefix` is monotone in `available`, `prefix(size, size) == output_size(size)`, `needed` is
/// monotone in both ends, and `needed([o, o + 1))`, clamped to the image, ends at or before `a` for each
/// `o < prefix(a, size)`.
pub trait LocalRule: fmt::Debug + Send + Sync {
    /// Number of outputs of an axis of `size` inputs, or `None` if the axis is too short.
    fn output_size(&self, size: i64) -> Option<i64>;
    /// Number of leading outputs that the first `available` of `size` inputs allow.
    fn prefix(&self, available: i64, size: i64) -> i64;
    /// Input span that the non-empty output span reads; it may leave the image.
    fn needed(&self, outputs: Span, size: i64) -> Span;
    /// Input indices from one output to the next, as a numerator and a denominator of at least 1.
    ///
    /// Strides decide which tiles the planner tries and what is reported. Unless the rule [is regular](Self::is_regular), no result
    /// depends on them.
    fn stride(&self) -> (i64, i64) {
        (1, 1)
    }
    /// Whether the rule repeats itself: with a stride of `s / d`, output `o + n * d` reads what output `o` reads, moved by `n * s`,
    /// for every whole number `n`. It is then asked for outputs beyond both ends, as if the axis went on.
    fn is_regular(&self) -> bool {
        false
    }
}

/// Where bilinear upsampling places its samples, as PyTorch's `align_corners` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum AlignCorners {
    /// Pixels are squares and their centres are mapped: output `o` lies at input `(o + 1/2) / factor - 1/2`.
    #[default]
    No,
    /// The centres of first and last pixels coincide: output `o` lies at input `o (N - 1) / (factor N - 1)`.
    Yes,
}

/// The rule of one axis of one edge of a graph: `prefix` and `needed inputs`.
#[derive(Debug, Clone)]
pub enum AxisRule {
    /// Output `o` reads input `o`: activations, frozen norms, merges.
    Pointwise,
    /// A convolution or pooling window.
    Window(Window),
    /// The window of a transposed convolution.
    TransposedWindow(TransposedWindow),
    /// Nearest-neighbour upsampling by a whole factor of at least 1.
    UpsampleNearest(i64),
    /// Bilinear upsampling by a whole factor of at least 1.
    UpsampleBilinear(i64, AlignCorners),
    /// A rule of the user's.
    Custom(Arc<dyn LocalRule>),
}

impl AxisRule {
    /// Number of outputs of an axis of `size` inputs, or `None` if the axis is too short.
    pub fn output_size(&self, size: i64) -> Option<i64> {
        match self {
            Self::Pointwise => Some(size),
            Self::Window(window) => window.output_size(size),
            Self::TransposedWindow(window) => window.output_size(size),
            Self::UpsampleNearest(factor) | Self::UpsampleBilinear(factor, _) => {
                size.checked_mul(*factor)
            }
            Self::Custom(rule) => rule.output_size(size),
        }
    }

    /// Number of leading outputs that the first `available` of `size` inputs allow.
    pub fn prefix(&self, available: i64, size: i64) -> i64 {
        match self {
            Self::Pointwise => available,
            Self::Window(window) => window.prefix(available, size),
            Self::TransposedWindow(window) => window.prefix(available, size),
            Self::UpsampleNearest(factor) => available * factor,
            Self::UpsampleBilinear(factor, align_corners) => {
                let outputs = size * factor;
                if available >= size {
                    outputs
                } else if available < 2 {
                    // Output 0 already reads inputs 0 and 1.
                    0
                } else {
                    let count = match align_corners {
                        // Outputs whose left neighbour is at most `available - 2`.
                        AlignCorners::No => factor * (available - 1) + factor / 2,
                        AlignCorners::Yes => {
                            let numerator = i128::from(available - 1) * i128::from(outputs - 1);
                            let denominator = i128::from(size - 1);
                            let count = (numerator + denominator - 1) / denominator;
                            i64::try_from(count).unwrap_or(outputs)
                        }
                    };
                    count.min(outputs)
                }
            }
            Self::Custom(rule) => rule.prefix(available, size),
        }
    }

    /// Input span that the output span reads; it may leave `[0, size)` where there is padding.
    /// An empty output span needs nothing.
    pub fn needed(&self, outputs: Span, size: i64) -> Span {
        if outputs.is_empty() {
            return Span::default();
        }
        match self {
            Self::Pointwise => outputs,
            Self::Window(window) => window.needed(outputs),
            Self::TransposedWindow(window) => window.needed(outputs),
            Self::UpsampleNearest(factor) => Span::new(
                outputs.lo.div_euclid(*factor),
                (outputs.hi - 1).div_euclid(*factor) + 1,
            ),
            Self::UpsampleBilinear(factor, align_corners) => {
                let left =
                    |output: i64| bilinear_left_neighbour(output, *factor, *align_corners, size);
                Span::new(left(outputs.lo), (left(outputs.hi - 1) + 2).min(size))
            }
            Self::Custom(rule) => rule.needed(outputs, size),
        }
    }

    /// Input span that the output span reads, clamped to the image `[0, size)`.
    pub fn needed_in_image(&self, outputs: Span, size: i64) -> Span {
        if outputs.is_empty() {
            return Span::default();
        }
        self.needed(outputs, size).intersect(Span::new(0, size))
    }

    /// The rule's stride as a fraction of input indices per output index.
    pub fn stride(&self) -> (i64, i64) {
        match self {
            Self::Pointwise => (1, 1),
            Self::Custom(rule) => rule.stride(),
            Self::Window(window) => (window.stride(), 1),
            Self::TransposedWindow(window) => (1, window.stride()),
            Self::UpsampleNearest(factor) | Self::UpsampleBilinear(factor, _) => (1, *factor),
        }
    }

    /// Whether the rule repeats itself away from the ends of the axis: with a stride of `s / d`, output `o + n * d` reads what output
    /// `o` reads, moved by `n * s`.
    ///
    /// ```
    /// use stream_grad_tiling::{AlignCorners, AxisRule};
    /// assert!(AxisRule::UpsampleBilinear(2, AlignCorners::No).is_regular());
    /// // Outputs lie (N - 1) / (2 N - 1) inputs apart.
    /// assert!(!AxisRule::UpsampleBilinear(2, AlignCorners::Yes).is_regular());
    /// ```
    pub fn is_regular(&self) -> bool {
        match self {
            Self::Custom(rule) => rule.is_regular(),
            Self::UpsampleBilinear(_, align_corners) => *align_corners == AlignCorners::No,
            Self::Pointwise
            | Self::Window(_)
            | Self::TransposedWindow(_)
            | Self::UpsampleNearest(_) => true,
        }
    }

    /// What the non-empty output span would read if the axis went on beyond its ends.
    pub(crate) fn unbounded(&self, outputs: Span, size: i64) -> Span {
        let Self::UpsampleBilinear(factor, align_corners) = self else {
            return self.needed(outputs, size);
        };
        let left = |output: i64| match align_corners {
            AlignCorners::No => (2 * output + 1 - factor).div_euclid(2 * factor),
            AlignCorners::Yes => {
                let position = i128::from(output) * i128::from(size - 1);
                let step = i128::from((size * factor - 1).max(1));
                i64::try_from(position.div_euclid(step)).unwrap_or(output)
            }
        };
        Span::new(left(outputs.lo), left(outputs.hi - 1) + 2)
    }
}

/// Index of the left (or upper) of the two inputs that bilinear output `output` blends.
///
/// Exact in integers, so that planning and arithmetic cannot disagree by a rounding.
pub fn bilinear_left_neighbour(
    output: i64,
    factor: i64,
    align_corners: AlignCorners,
    size: i64,
) -> i64 {
    match align_corners {
        AlignCorners::No => (2 * output + 1 - factor).div_euclid(2 * factor).max(0),
        AlignCorners::Yes if size < 2 => 0,
        AlignCorners::Yes => {
            let position =
                i128::from(output) * i128::from(size - 1) / i128::from((size * factor - 1).max(1));
            i64::try_from(position).unwrap_or(size - 1)
        }
    }
    .min(size - 1)
}
