//! Colour maps.

use serde::{Deserialize, Serialize};

use crate::geometry::Rgb;

/// Colours for values, all of them even in lightness (but turbo) and legible without red and green.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ColorMap {
    /// Violet, green, yellow.
    #[default]
    Viridis,
    /// Black, violet, orange, yellow.
    Inferno,
    /// Black, violet, pink, cream.
    Magma,
    /// Blue, pink, yellow.
    Plasma,
    /// The rainbow, smoother than jet.
    Turbo,
    /// White to red.
    Reds,
}

impl ColorMap {
    /// The colour of a value from 0 to 1; values outside have the nearer end's, NaN the first.
    #[must_use]
    pub fn color(self, value: f64) -> Rgb {
        let gradient = match self {
            Self::Viridis => colorous::VIRIDIS,
            Self::Inferno => colorous::INFERNO,
            Self::Magma => colorous::MAGMA,
            Self::Plasma => colorous::PLASMA,
            Self::Turbo => colorous::TURBO,
            Self::Reds => colorous::REDS,
        };
        let value = if value.is_nan() {
            0.0
        } else {
            value.clamp(0.0, 1.0)
        };
        let color = gradient.eval_continuous(value);
        Rgb([color.r, color.g, color.b])
    }

    /// 256 colours from the lowest to the highest value.
    pub(super) fn table(self) -> [Rgb; 256] {
        let mut table = [Rgb::WHITE; 256];
        for (color, step) in table.iter_mut().zip(0..=u8::MAX) {
            *color = self.color(f64::from(step) / 255.0);
        }
        table
    }
}
