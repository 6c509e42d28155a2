//! A front of recipes as a picture: predicted time over memory.

use std::path::Path;

use plotters::backend::SVGBackend;
use plotters::chart::ChartBuilder;
use plotters::coord::Shift;
use plotters::coord::combinators::IntoLogRange;
use plotters::drawing::{DrawingArea, IntoDrawingArea};
use plotters::element::{Circle, EmptyElement, Text};
use plotters::series::LineSeries;
use plotters::style::{BLACK, Color, IntoFont, RGBColor, WHITE};
use stream_grad::FrontRow;

use super::plot::{limits, log_label};
use crate::error::{Result, TrainError};
use crate::files::write_whole;

const SIZE: (u32, u32) = (720, 440);
const FRONT: RGBColor = RGBColor(0, 90, 181);
const CHOSEN: RGBColor = RGBColor(220, 50, 32);
const GIB: f64 = 1_073_741_824.0;

/// Writes an SVG of predicted seconds over the peak in GiB, both on logarithmic axes: each recipe of the front a dot, the chosen
/// one marked, and a line through those that no other with as little memory is faster than.
///
/// # Errors
/// [`TrainError::Plot`], [`TrainError::File`].
pub fn write_front(path: &Path, title: &str, rows: &[FrontRow]) -> Result<()> {
    let mut text = String::new();
    let area = SVGBackend::with_string(&mut text, SIZE).into_drawing_area();
    draw(&area, title, rows).map_err(|reason| TrainError::Plot {
        path: path.to_path_buf(),
        reason,
    })?;
    drop(area);
    write_whole(path, text.as_bytes())
}

/// GiB and seconds.
#[expect(clippy::cast_precision_loss, reason = "a picture")]
fn place(row: &FrontRow) -> (f64, f64) {
    let seconds = row.point.time.0 as f64 / 1e12;
    (row.point.peak.peak() as f64 / GIB, seconds.max(1e-9))
}

fn draw(
    area: &DrawingArea<SVGBackend<'_>, Shift>,
    title: &str,
    rows: &[FrontRow],
) -> Result<(), String> {
    let words = |error: &dyn std::fmt::Display| error.to_string();
    area.fill(&WHITE).map_err(|error| words(&error))?;
    let places: Vec<(f64, f64)> = rows.iter().map(place).collect();
    let (left, right) = limits(places.iter().map(|place| place.0)).unwrap_or((0.1, 10.0));
    let (bottom, top) = limits(places.iter().map(|place| place.1)).unwrap_or((0.1, 10.0));
    let wide = |low: f64, high: f64| ((low / 1.25)..(high * 1.25)).log_scale();
    let mut chart = ChartBuilder::on(area)
        .caption(title, ("sans-serif", 18))
        .margin(12)
        .x_label_area_size(40)
        .y_label_area_size(60)
        .build_cartesian_2d(wide(left, right), wide(bottom, top))
        .map_err(|error| words(&error))?;
    chart
        .configure_mesh()
        .max_light_lines(0)
        .bold_line_style(BLACK.mix(0.15))
        .x_label_formatter(&|value| log_label(*value))
        .y_label_formatter(&|value| log_label(*value))
        .x_desc("peak memory in GiB")
        .y_desc("predicted seconds")
        .draw()
        .map_err(|error| words(&error))?;
    chart
        .draw_series(LineSeries::new(envelope(&places), &FRONT))
        .map_err(|error| words(&error))?;
    let dots = places
        .iter()
        .map(|&place| Circle::new(place, 3, FRONT.filled()));
    chart.draw_series(dots).map_err(|error| words(&error))?;
    let chosen = rows.iter().filter(|row| row.chosen).map(|row| {
        let style = ("sans-serif", 13).into_font().color(&CHOSEN);
        EmptyElement::at(place(row))
            + Circle::new((0, 0), 5, CHOSEN.filled())
            + Text::new("chosen", (8, -14), style)
    });
    chart.draw_series(chosen).map_err(|error| words(&error))?;
    area.present().map_err(|error| words(&error))
}

/// The stairs under the places, which come by rising memory.
fn envelope(places: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let mut stairs: Vec<(f64, f64)> = Vec::new();
    for &(memory, seconds) in places {
        if let Some(&(_, before)) = stairs.last() {
            if seconds >= before {
                continue;
            }
            stairs.push((memory, before));
        }
        stairs.push((memory, seconds));
    }
    stairs
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device};
    use candle_nn::VarMap;
    use stream_grad::{ByteCount, PlanRequest, front_rows};
    use stream_grad_models::{resnet18, seeded};

    use super::*;

    #[test]
    fn a_picture_has_a_dot_for_each_recipe_and_one_that_is_chosen() {
        let net = resnet18(seeded(&VarMap::new(), 0, DType::F32, &Device::Cpu)).unwrap();
        let request = PlanRequest::new(1024, 1024);
        let bounded = request.clone().memory(ByteCount::mib(300));
        let plan = net.plan(bounded).unwrap();
        let rows = front_rows(&net.front(&request).unwrap(), &plan, Some(12));
        assert!(rows.len() <= 12 && rows.len() > 4, "{}", rows.len());
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("front.svg");
        write_front(&path, "resnet18 & more", &rows).unwrap();
        let svg = std::fs::read_to_string(&path).unwrap();
        assert!(svg.starts_with("<svg") && svg.contains("resnet18 &amp; more"));
        assert_eq!(svg.matches("<circle").count(), rows.len() + 1);
        assert_eq!(svg.matches("chosen").count(), 1);
        // One recipe alone is a picture, too.
        write_front(&path, "one", &rows[..1]).unwrap();
        write_front(&path, "none", &[]).unwrap();
    }

    #[test]
    fn stairs_leave_out_what_is_slower_with_more() {
        let places = [(1.0, 8.0), (2.0, 9.0), (3.0, 4.0)];
        assert_eq!(envelope(&places), [(1.0, 8.0), (3.0, 8.0), (3.0, 4.0)]);
    }
}
