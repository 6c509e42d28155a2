//! Figures of reports: what is drawn, in one look.
//!
//! A figure is a title, a legend in a strip of its own, and marks over two axes. Colours are those of Okabe and Ito, which
//! print and which colour-blind people can tell apart; marks differ in shape or stroke, too.

mod draw;
mod matrix;
mod ticks;

use std::path::Path;

pub(super) use matrix::Matrix;
pub(super) use ticks::log_label;

use crate::error::{Result, TrainError};

/// Width of a figure in CSS pixels.
const WIDTH: u32 = 520;
/// Height of a figure in CSS pixels.
const HEIGHT: u32 = 380;

/// A colour of the palette.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Colour(pub(super) u8, pub(super) u8, pub(super) u8);

impl Colour {
    pub(super) const BLUE: Self = Self(0, 114, 178);
    pub(super) const VERMILLION: Self = Self(213, 94, 0);
    pub(super) const GREY: Self = Self(130, 130, 130);
    const INK: Self = Self(34, 34, 34);
    const QUIET: Self = Self(92, 92, 92);
    const RULE: Self = Self(222, 222, 222);

    /// The colour of the series of that number.
    pub(super) fn series(number: usize) -> Self {
        const SERIES: [Colour; 7] = [
            Colour::BLUE,
            Colour::VERMILLION,
            Colour(0, 158, 115),
            Colour(204, 121, 167),
            Colour(230, 159, 0),
            Colour(86, 180, 233),
            Colour(90, 90, 90),
        ];
        SERIES[number % SERIES.len()]
    }
}

/// How many series can be told apart by colour.
pub(super) const SERIES: usize = 7;

/// How an axis counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scale {
    Linear,
    /// Numbers stand at whole values only.
    Whole,
    /// Values above 0 only.
    Log,
}

/// An axis.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Axis {
    label: String,
    low: f64,
    high: f64,
    scale: Scale,
}

impl Axis {
    /// An axis from `low` to `high`.
    pub(super) fn fixed(label: impl Into<String>, low: f64, high: f64) -> Self {
        let label = label.into();
        Self {
            label,
            low,
            high,
            scale: Scale::Linear,
        }
    }

    /// A linear axis that holds the finite `values`, and some room.
    pub(super) fn around(label: impl Into<String>, values: impl Iterator<Item = f64>) -> Self {
        let (low, high) = limits(values).unwrap_or((0.0, 1.0));
        let room = if high > low {
            (high - low) * 0.05
        } else {
            high.abs().max(1.0) * 0.05
        };
        Self::fixed(label, low - room, high + room)
    }

    /// The same for things that are counted, such as epochs.
    pub(super) fn counting(label: impl Into<String>, values: impl Iterator<Item = f64>) -> Self {
        Self {
            scale: Scale::Whole,
            ..Self::around(label, values)
        }
    }

    /// A logarithmic axis that holds the finite `values` above 0, and some room.
    pub(super) fn log(label: impl Into<String>, values: impl Iterator<Item = f64>) -> Self {
        let (low, high) = limits(values.filter(|value| *value > 0.0)).unwrap_or((0.1, 10.0));
        Self {
            scale: Scale::Log,
            ..Self::fixed(label, low / 1.35, high * 1.35)
        }
    }
}

/// How a line is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stroke {
    Solid,
    Dashed,
    Thin,
}

/// How a dot is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    Circle,
    /// A circle for each of many slides, through which others show.
    Faint,
    Triangle,
}

/// Something drawn over the axes. Points that are not finite, or not above 0 on a logarithmic axis, are left out.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Mark {
    /// Points joined in their order.
    Line {
        points: Vec<(f64, f64)>,
        colour: Colour,
        stroke: Stroke,
    },
    /// x, lower and upper end.
    Band {
        points: Vec<(f64, f64, f64)>,
        colour: Colour,
    },
    /// x, lower and upper end.
    Intervals {
        points: Vec<(f64, f64, f64)>,
        colour: Colour,
    },
    /// Points.
    Dots {
        points: Vec<(f64, f64)>,
        colour: Colour,
        shape: Shape,
    },
}

/// A figure.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Figure {
    /// A few words.
    pub(super) title: String,
    /// What it shows, for those who do not see it.
    pub(super) alt: String,
    pub(super) x: Axis,
    pub(super) y: Axis,
    /// What is drawn, the first lowest, and the names in the legend.
    pub(super) marks: Vec<(Mark, Option<String>)>,
}

impl Figure {
    /// The figure as a document of SVG. `path` is only named in errors.
    pub(super) fn svg(&self, path: &Path) -> Result<String> {
        let body = draw::figure(self).map_err(plot_error(path))?;
        Ok(document(&self.title, &self.alt, (WIDTH, HEIGHT), &body))
    }
}

fn plot_error(path: &Path) -> impl FnOnce(String) -> TrainError {
    let path = path.to_path_buf();
    move |reason| TrainError::Plot { path, reason }
}

/// What `plotters` drew, with a head that scales and that has words for those who do not see it.
fn document(title: &str, alt: &str, (width, height): (u32, u32), drawn: &str) -> String {
    let body = drawn.split_once('>').map_or(drawn, |(_, body)| body);
    let (w, h) = (width * draw::FINE, height * draw::FINE);
    let head = maud::html! {
        title { (plain(title)) }
        desc { (plain(alt)) }
    };
    let label = maud::html! { span aria-label=(plain(alt)) {} }.into_string();
    let label = label
        .trim_start_matches("<span ")
        .trim_end_matches("></span>");
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" viewBox=\"0 0 {w} {h}\" role=\"img\" {label}>\n{}{body}",
        head.into_string()
    )
}

/// Text without characters that XML does not take.
fn plain(text: &str) -> String {
    text.chars()
        .map(|character| {
            if character.is_control() || matches!(character, '\u{fffe}' | '\u{ffff}') {
                '\u{fffd}'
            } else {
                character
            }
        })
        .collect()
}

/// Smallest and largest of finite values.
pub(super) fn limits(values: impl Iterator<Item = f64>) -> Option<(f64, f64)> {
    values
        .filter(|value| value.is_finite())
        .map(|value| (value, value))
        .reduce(|a, b| (a.0.min(b.0), a.1.max(b.1)))
}

#[cfg(test)]
mod tests;
