//! Which gradients are wanted.

use stream_grad_tiling::Maps;

/// Which parameters get gradients.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Trainable {
    /// Every parameter that can be: in candle's terms, each `Var`.
    #[default]
    Variables,
    /// None: only the input gradient is computed, if it is wanted.
    Nothing,
    /// Those with these names, as far as they can be.
    Only(Vec<String>),
}

impl Trainable {
    pub(crate) fn includes(&self, name: &str) -> bool {
        match self {
            Self::Variables => true,
            Self::Nothing => false,
            Self::Only(names) => names.iter().any(|included| included == name),
        }
    }
}

/// Whether the gradient of the image is computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum InputGradient {
    /// It is not.
    #[default]
    Skipped,
    /// It is, as a whole tensor: saliency, for instance.
    Wanted,
    /// It is, and handed to a sink tile by tile, so that no memory for the whole is planned:
    /// [`Exchange`](crate::Exchange).
    Streamed,
}

impl InputGradient {
    /// Whether it is computed at all.
    #[must_use]
    pub const fn is_computed(self) -> bool {
        !matches!(self, Self::Skipped)
    }

    /// Who holds it.
    #[must_use]
    pub const fn maps(self) -> Maps {
        match self {
            Self::Skipped | Self::Wanted => Maps::Whole,
            Self::Streamed => Maps::Streamed,
        }
    }
}
