//! Time against peak resident memory, as SVG.

use anyhow::anyhow;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::report::Group;

const SIZE: (u32, u32) = (900, 520);
const OWN: RGBColor = RGBColor(0, 90, 181);
const PEER: RGBColor = RGBColor(220, 50, 32);
/// Pixels from one label to the next.
const LABEL_HEIGHT: i32 = 14;
const GIB: f64 = 1_073_741_824.0;

/// A point of the plot.
struct Point<'a> {
    gib: f64,
    seconds: f64,
    label: &'a str,
    colour: RGBColor,
}

/// The plot of one image; `None` if nothing was measured that can be drawn.
pub(crate) fn svg(group: &Group) -> anyhow::Result<Option<String>> {
    let points = group.rows.iter().filter_map(|row| {
        Some(Point {
            gib: row.peak_bytes()? as f64 / GIB,
            seconds: row.median_seconds?,
            label: &row.contender,
            colour: if row.own { OWN } else { PEER },
        })
    });
    let points: Vec<Point<'_>> = points.collect();
    if points.is_empty() {
        return Ok(None);
    }
    let mut text = String::new();
    let area = SVGBackend::with_string(&mut text, SIZE).into_drawing_area();
    // The error's type borrows the text, so it goes on as words.
    draw(&area, &group.title, &points).map_err(|error| anyhow!("drawing a plot: {error}"))?;
    drop(area);
    Ok(Some(text))
}

type Area<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;

fn draw(area: &Area<'_>, title: &str, points: &[Point<'_>]) -> Result<(), String> {
    let words = |error: &dyn std::fmt::Display| error.to_string();
    area.fill(&WHITE).map_err(|error| words(&error))?;
    // Room for labels at the right.
    let right = points.iter().map(|point| point.gib).fold(0.0, f64::max) * 1.3;
    let top = points.iter().map(|point| point.seconds).fold(0.0, f64::max) * 1.15;
    let mut chart = ChartBuilder::on(area)
        .caption(
            format!("{title}: forward and backward of one image"),
            ("sans-serif", 18),
        )
        .margin(12)
        .x_label_area_size(40)
        .y_label_area_size(56)
        .build_cartesian_2d(0.0..right, 0.0..top)
        .map_err(|error| words(&error))?;
    chart
        .configure_mesh()
        .x_desc("peak resident memory in GiB")
        .y_desc("seconds, median")
        .draw()
        .map_err(|error| words(&error))?;
    let places = points.iter().map(|point| {
        let (_, y) = chart.backend_coord(&(point.gib, point.seconds));
        y
    });
    let places: Vec<i32> = places.collect();
    for (point, offset) in points.iter().zip(label_offsets(&places)) {
        let style = ("sans-serif", 13).into_font().color(&point.colour);
        let style = style.pos(Pos::new(HPos::Left, VPos::Center));
        let element = EmptyElement::at((point.gib, point.seconds))
            + Circle::new((0, 0), 4, point.colour.filled())
            + Text::new(point.label.to_owned(), (8, offset), style);
        chart
            .draw_series(std::iter::once(element))
            .map_err(|error| words(&error))?;
    }
    area.present().map_err(|error| words(&error))
}

/// How far each label is moved down, so that those of points at about the same height do not lie on each other.
fn label_offsets(heights: &[i32]) -> Vec<i32> {
    let mut order: Vec<usize> = (0..heights.len()).collect();
    order.sort_by_key(|&index| heights[index]);
    let mut offsets = vec![0; heights.len()];
    let mut free = i32::MIN;
    for index in order {
        let place = heights[index].max(free);
        offsets[index] = place - heights[index];
        free = place + LABEL_HEIGHT;
    }
    offsets
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_keep_their_distance() {
        let heights = [100, 20, 104, 102];
        let offsets = label_offsets(&heights);
        let mut labels: Vec<i32> = heights.iter().zip(&offsets).map(|(a, b)| a + b).collect();
        labels.sort_unstable();
        assert_eq!(offsets[1], 0);
        assert!(
            labels
                .windows(2)
                .all(|pair| pair[1] - pair[0] >= LABEL_HEIGHT)
        );
    }
}
