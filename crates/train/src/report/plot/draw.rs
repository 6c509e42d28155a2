//! Figures drawn with `plotters`.

use std::fmt::Display;
use std::ops::Range;

use plotters::backend::SVGBackend;
use plotters::chart::{ChartBuilder, ChartContext};
use plotters::coord::Shift;
use plotters::coord::cartesian::Cartesian2d;
use plotters::coord::combinators::{IntoLogRange, LogCoord};
use plotters::coord::ranged1d::{DefaultFormatting, KeyPointHint, Ranged, ValueFormatter};
use plotters::coord::types::RangedCoordf64;
use plotters::drawing::{DrawingArea, IntoDrawingArea};
use plotters::element::{Circle, PathElement, Polygon, Rectangle, Text, TriangleMarker};
use plotters::series::DashedLineSeries;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::{Color, FontStyle, IntoFont, RGBColor, ShapeStyle, TextStyle};

use super::{Axis, Colour, Figure, HEIGHT, Mark, Scale, Shape, Stroke, WIDTH, plain};

/// Units of the drawing for a CSS pixel: `plotters` rounds coordinates to whole ones.
pub(super) const FINE: u32 = 8;
/// Size of text in CSS pixels.
pub(super) const TEXT: u32 = 16;
/// Width of a character of text, on average, in CSS pixels.
const CHARACTER: f64 = 7.4;

pub(super) type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Chart<'a, 'b, X, Y> = ChartContext<'a, SVGBackend<'b>, Cartesian2d<X, Y>>;

impl From<Colour> for RGBColor {
    fn from(Colour(red, green, blue): Colour) -> Self {
        Self(red, green, blue)
    }
}

pub(super) fn figure(figure: &Figure) -> Result<String, String> {
    let mut text = String::new();
    let area =
        SVGBackend::with_string(&mut text, (WIDTH * FINE, HEIGHT * FINE)).into_drawing_area();
    draw(figure, &area)?;
    area.present().map_err(words)?;
    drop(area);
    Ok(text)
}

pub(super) fn words(error: impl Display) -> String {
    error.to_string()
}

/// CSS pixels in units of the drawing.
pub(super) fn fine(pixels: u32) -> i32 {
    i32::try_from(pixels * FINE).unwrap_or(i32::MAX)
}

pub(super) fn style(size: u32, colour: Colour) -> TextStyle<'static> {
    let mut style = TextStyle::from(("sans-serif", size * FINE).into_font());
    style.color = RGBColor::from(colour).to_backend_color();
    style
}

/// The title of a figure, at its top left.
pub(super) fn title(area: &Area<'_>, text: &str) -> Result<(), String> {
    let font = ("sans-serif", 17 * FINE).into_font().style(FontStyle::Bold);
    let mut style = TextStyle::from(font);
    style.color = RGBColor::from(Colour::INK).to_backend_color();
    area.draw(&Text::new(plain(text), (fine(8), fine(8)), style))
        .map_err(words)
}

fn draw(figure: &Figure, area: &Area<'_>) -> Result<(), String> {
    title(area, &figure.title)?;
    let used = legend(figure, area)?;
    let mut builder = ChartBuilder::on(area);
    builder
        .margin_top(used)
        .margin_right(fine(18))
        .margin_left(fine(6))
        .margin_bottom(fine(6))
        .x_label_area_size(fine(52))
        .y_label_area_size(fine(72));
    let (linear, log) = (Ticked::linear, Ticked::log);
    let (x, y) = (&figure.x, &figure.y);
    match (x.scale == Scale::Log, y.scale == Scale::Log) {
        (false, false) => fill(builder.build_cartesian_2d(linear(x), linear(y)), figure),
        (true, false) => fill(builder.build_cartesian_2d(log(x), linear(y)), figure),
        (false, true) => fill(builder.build_cartesian_2d(linear(x), log(y)), figure),
        (true, true) => fill(builder.build_cartesian_2d(log(x), log(y)), figure),
    }
}

/// Coordinates of an axis, with the ticks that it chose.
struct Ticked<R> {
    inner: R,
    ticks: Vec<f64>,
}

impl Ticked<RangedCoordf64> {
    fn linear(axis: &Axis) -> Self {
        Self {
            inner: (axis.low..axis.high).into(),
            ticks: axis.ticks(),
        }
    }
}

impl Ticked<LogCoord<f64>> {
    fn log(axis: &Axis) -> Self {
        Self {
            inner: (axis.low..axis.high).log_scale().into(),
            ticks: axis.ticks(),
        }
    }
}

impl<R: Ranged<ValueType = f64>> Ranged for Ticked<R> {
    type FormatOption = DefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, limit: (i32, i32)) -> i32 {
        self.inner.map(value, limit)
    }

    fn key_points<H: KeyPointHint>(&self, hint: H) -> Vec<f64> {
        if hint.weight().allow_light_points() {
            Vec::new()
        } else {
            self.ticks.clone()
        }
    }

    fn range(&self) -> Range<f64> {
        self.inner.range()
    }
}

/// Draws the legend under the title, and says where the axes may begin.
fn legend(figure: &Figure, area: &Area<'_>) -> Result<i32, String> {
    const ROW: u32 = 22;
    const KEY: u32 = 26;
    let (mut left, mut top) = (8, 34);
    let mut any = false;
    for (mark, name) in &figure.marks {
        let Some(name) = name else { continue };
        let wide = KEY + 8 + text_width(name) + 14;
        if any && left + wide > WIDTH {
            (left, top) = (8, top + ROW);
        }
        any = true;
        key(mark, area, (fine(left), fine(top + 8)), fine(KEY))?;
        let place = (fine(left + KEY + 6), fine(top + 9));
        let style = style(TEXT - 1, Colour::INK).pos(Pos::new(HPos::Left, VPos::Center));
        area.draw(&Text::new(plain(name), place, style))
            .map_err(words)?;
        left += wide;
    }
    Ok(fine(if any { top + ROW + 6 } else { 36 }))
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "lengths of names"
)]
fn text_width(text: &str) -> u32 {
    (text.chars().count() as f64 * CHARACTER) as u32
}

/// A mark's sign in the legend.
fn key(mark: &Mark, area: &Area<'_>, (x, y): (i32, i32), width: i32) -> Result<(), String> {
    match mark {
        Mark::Line { colour, stroke, .. } => {
            let dash = width / 3;
            let pieces = match stroke {
                Stroke::Dashed => vec![(x, x + dash), (x + width - dash, x + width)],
                Stroke::Solid | Stroke::Thin => vec![(x, x + width)],
            };
            for (from, to) in pieces {
                let path = PathElement::new(vec![(from, y), (to, y)], line(*colour, *stroke));
                area.draw(&path).map_err(words)?;
            }
            Ok(())
        }
        Mark::Band { colour, .. } => {
            let corners = [(x, y - fine(6)), (x + width, y + fine(6))];
            let style = RGBColor::from(*colour).mix(0.2).filled();
            area.draw(&Rectangle::new(corners, style)).map_err(words)
        }
        Mark::Intervals { colour, .. } => {
            let path = PathElement::new(vec![(x, y), (x + width, y)], line(*colour, Stroke::Solid));
            area.draw(&path).map_err(words)
        }
        Mark::Dots { colour, shape, .. } => {
            let (place, style) = ((x + width / 2, y), RGBColor::from(*colour).filled());
            match shape {
                Shape::Triangle => area
                    .draw(&TriangleMarker::new(place, fine(6), style))
                    .map_err(words),
                Shape::Circle | Shape::Faint => area
                    .draw(&Circle::new(place, fine(5), style))
                    .map_err(words),
            }
        }
    }
}

fn line(colour: Colour, stroke: Stroke) -> ShapeStyle {
    let colour = RGBColor::from(colour);
    match stroke {
        Stroke::Solid | Stroke::Dashed => colour.stroke_width(2 * FINE),
        Stroke::Thin => colour.mix(0.8).stroke_width(FINE * 5 / 4),
    }
}

/// Axes, and all marks on them.
fn fill<X, Y, E: Display>(
    chart: Result<Chart<'_, '_, X, Y>, E>,
    figure: &Figure,
) -> Result<(), String>
where
    X: Ranged<ValueType = f64> + ValueFormatter<f64>,
    Y: Ranged<ValueType = f64> + ValueFormatter<f64>,
{
    let mut chart = chart.map_err(words)?;
    let text = style(TEXT, Colour::INK);
    chart
        .configure_mesh()
        .disable_x_mesh()
        .max_light_lines(0)
        .bold_line_style(RGBColor::from(Colour::RULE).stroke_width(FINE))
        .axis_style(RGBColor::from(Colour::GREY).stroke_width(FINE))
        .set_all_tick_mark_size(fine(4))
        .label_style(text.clone())
        .axis_desc_style(text)
        .x_label_formatter(&|value| figure.x.label(*value))
        .y_label_formatter(&|value| figure.y.label(*value))
        .x_desc(plain(&figure.x.label))
        .y_desc(plain(&figure.y.label))
        .draw()
        .map_err(words)?;
    for (mark, _) in &figure.marks {
        draw_mark(&mut chart, mark, figure)?;
    }
    Ok(())
}

fn draw_mark<X, Y>(
    chart: &mut Chart<'_, '_, X, Y>,
    mark: &Mark,
    figure: &Figure,
) -> Result<(), String>
where
    X: Ranged<ValueType = f64>,
    Y: Ranged<ValueType = f64>,
{
    let legal =
        |axis: &Axis, value: f64| value.is_finite() && (axis.scale != Scale::Log || value > 0.0);
    let shown = |points: &[(f64, f64)]| -> Vec<(f64, f64)> {
        let points = points.iter().copied();
        points
            .filter(|point| legal(&figure.x, point.0) && legal(&figure.y, point.1))
            .collect()
    };
    let shown_ends = |points: &[(f64, f64, f64)]| -> Vec<(f64, f64, f64)> {
        let points = points.iter().copied();
        points
            .filter(|(x, low, high)| {
                legal(&figure.x, *x) && legal(&figure.y, *low) && legal(&figure.y, *high)
            })
            .collect()
    };
    match mark {
        Mark::Line {
            points,
            colour,
            stroke,
        } => {
            let style = line(*colour, *stroke);
            let points = shown(points);
            if let [point] = points.as_slice() {
                // A line of one point would not be seen.
                let dot = Circle::new(*point, fine(4), RGBColor::from(*colour).filled());
                chart.draw_series([dot]).map_err(words)?;
            } else if *stroke == Stroke::Dashed {
                let dashes = DashedLineSeries::new(points, fine(7), fine(5), style);
                chart.draw_series(dashes).map_err(words)?;
            } else {
                let path = PathElement::new(points, style);
                chart.draw_series([path]).map_err(words)?;
            }
        }
        Mark::Band { points, colour } => {
            let points = shown_ends(points);
            let upper = points.iter().map(|(x, _, high)| (*x, *high));
            let lower = points.iter().rev().map(|(x, low, _)| (*x, *low));
            let outline: Vec<(f64, f64)> = upper.chain(lower).collect();
            let style = RGBColor::from(*colour).mix(0.2).filled();
            if outline.len() > 2 {
                chart
                    .draw_series([Polygon::new(outline, style)])
                    .map_err(words)?;
            }
        }
        Mark::Intervals { points, colour } => {
            let style = line(*colour, Stroke::Solid);
            let bars = shown_ends(points)
                .into_iter()
                .map(|(x, low, high)| PathElement::new(vec![(x, low), (x, high)], style));
            chart.draw_series(bars).map_err(words)?;
        }
        Mark::Dots {
            points,
            colour,
            shape,
        } => {
            let points = shown(points).into_iter();
            let full = RGBColor::from(*colour).filled();
            let faint = RGBColor::from(*colour).mix(0.55).filled();
            match shape {
                Shape::Triangle => chart
                    .draw_series(points.map(|point| TriangleMarker::new(point, fine(6), full)))
                    .map_err(words)?,
                Shape::Circle => chart
                    .draw_series(points.map(|point| Circle::new(point, fine(4), full)))
                    .map_err(words)?,
                Shape::Faint => chart
                    .draw_series(points.map(|point| Circle::new(point, fine(3), faint)))
                    .map_err(words)?,
            };
        }
    }
    Ok(())
}
