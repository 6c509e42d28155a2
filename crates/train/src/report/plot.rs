//! The metric over the size of the image, measured and published.

use std::path::Path;

use plotters::backend::SVGBackend;
use plotters::chart::{ChartBuilder, ChartContext};
use plotters::coord::Shift;
use plotters::coord::combinators::IntoLogRange;
use plotters::coord::types::RangedCoordf64;
use plotters::coord::{cartesian::Cartesian2d, combinators::LogCoord};
use plotters::drawing::{DrawingArea, IntoDrawingArea};
use plotters::element::{Circle, PathElement, TriangleMarker};
use plotters::series::LineSeries;
use plotters::style::{BLACK, Color, RGBColor, WHITE};

use super::Report;
use crate::error::{Result, TrainError};

const SIZE: (u32, u32) = (720, 440);
const MEASURED: RGBColor = RGBColor(0, 90, 181);
const PUBLISHED: [RGBColor; 2] = [RGBColor(220, 50, 32), RGBColor(120, 120, 120)];

type Chart<'a, 'b> = ChartContext<'a, SVGBackend<'b>, Cartesian2d<LogCoord<f64>, RangedCoordf64>>;

impl Report {
    /// The plot as SVG. `path` is only named in errors.
    pub(super) fn svg(&self, path: &Path) -> Result<String> {
        let mut text = String::new();
        let area = SVGBackend::with_string(&mut text, SIZE).into_drawing_area();
        self.draw(&area).map_err(|reason| TrainError::Plot {
            path: path.to_path_buf(),
            reason,
        })?;
        drop(area);
        Ok(text)
    }

    fn draw(&self, area: &DrawingArea<SVGBackend<'_>, Shift>) -> Result<(), String> {
        let words = |error: &dyn std::fmt::Display| error.to_string();
        area.fill(&WHITE).map_err(|error| words(&error))?;
        let measured = self.results.iter().flat_map(|result| {
            [
                (result.mean_pixels / 1e6, result.test.low),
                (result.mean_pixels / 1e6, result.test.high),
            ]
        });
        let published = self.published.iter().flat_map(|row| {
            row.figures
                .iter()
                .map(|figure| (figure.megapixels, figure.value))
        });
        let points: Vec<(f64, f64)> = measured.chain(published).collect();
        let (left, right) = limits(points.iter().map(|point| point.0)).unwrap_or((0.1, 10.0));
        let (bottom, top) = limits(points.iter().map(|point| point.1)).unwrap_or((0.0, 1.0));
        let range = (bottom - 0.03)..(top + 0.03);
        let mut chart: Chart<'_, '_> = ChartBuilder::on(area)
            .caption(
                format!("{} ({})", self.title, self.data.label()),
                ("sans-serif", 18),
            )
            .margin(12)
            .x_label_area_size(40)
            .y_label_area_size(52)
            .build_cartesian_2d(((left / 1.5)..(right * 1.5)).log_scale(), range)
            .map_err(|error| words(&error))?;
        chart
            .configure_mesh()
            .x_desc("megapixels")
            .y_desc(self.metric.as_str())
            .draw()
            .map_err(|error| words(&error))?;
        self.draw_measured(&mut chart)
            .map_err(|error| words(&error))?;
        self.draw_published(&mut chart)
            .map_err(|error| words(&error))?;
        chart
            .configure_series_labels()
            .background_style(WHITE.mix(0.8))
            .border_style(BLACK)
            .draw()
            .map_err(|error| words(&error))?;
        area.present().map_err(|error| words(&error))
    }

    fn draw_measured(
        &self,
        chart: &mut Chart<'_, '_>,
    ) -> Result<(), impl std::fmt::Display + use<>> {
        let mut results: Vec<_> = self
            .results
            .iter()
            .map(|result| (result.mean_pixels / 1e6, result.test))
            .collect();
        results.sort_by(|a, b| a.0.total_cmp(&b.0));
        let line = LineSeries::new(
            results.iter().map(|(size, test)| (*size, test.value)),
            &MEASURED,
        );
        chart
            .draw_series(line)?
            .label(format!("measured, {}", self.data.label()))
            .legend(|(x, y)| PathElement::new(vec![(x, y), (x + 18, y)], MEASURED));
        chart.draw_series(
            results
                .iter()
                .map(|(size, test)| Circle::new((*size, test.value), 4, MEASURED.filled())),
        )?;
        let bars = results.iter().map(|(size, test)| {
            PathElement::new(vec![(*size, test.low), (*size, test.high)], MEASURED)
        });
        chart.draw_series(bars).map(|_| ())
    }

    fn draw_published(
        &self,
        chart: &mut Chart<'_, '_>,
    ) -> Result<(), impl std::fmt::Display + use<>> {
        for (row, colour) in self.published.iter().zip(PUBLISHED.into_iter().cycle()) {
            let points = || {
                row.figures
                    .iter()
                    .map(|figure| (figure.megapixels, figure.value))
            };
            chart
                .draw_series(LineSeries::new(points(), &colour))?
                .label(format!("published, {}", row.source))
                .legend(move |(x, y)| PathElement::new(vec![(x, y), (x + 18, y)], colour));
            chart.draw_series(
                points().map(|point| TriangleMarker::new(point, 5, colour.filled())),
            )?;
        }
        Ok::<(), plotters::drawing::DrawingAreaErrorKind<std::io::Error>>(())
    }
}

/// Smallest and largest of finite values.
pub(super) fn limits(values: impl Iterator<Item = f64>) -> Option<(f64, f64)> {
    values
        .filter(|value| value.is_finite())
        .map(|value| (value, value))
        .reduce(|a, b| (a.0.min(b.0), a.1.max(b.1)))
}
