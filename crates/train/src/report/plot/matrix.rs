//! A confusion matrix as a picture.

use std::path::Path;

use plotters::backend::SVGBackend;
use plotters::drawing::IntoDrawingArea;
use plotters::element::{Rectangle, Text};
use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::{Color, FontTransform, RGBColor};

use super::draw::{FINE, TEXT, fine, style, title, words};
use super::{Colour, HEIGHT, WIDTH, document, plain, plot_error};
use crate::error::Result;

/// How often each class was taken for each.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::report) struct Matrix {
    pub(in crate::report) title: String,
    pub(in crate::report) alt: String,
    /// Names of the rows and columns.
    pub(in crate::report) names: Vec<String>,
    /// Rows are the truth, columns the predictions.
    pub(in crate::report) counts: Vec<Vec<usize>>,
}

impl Matrix {
    /// More classes than that have no room for their numbers.
    pub(in crate::report) const MOST: usize = 12;

    /// The picture as a document of SVG. `path` is only named in errors.
    pub(in crate::report) fn svg(&self, path: &Path) -> Result<String> {
        let body = self.draw().map_err(plot_error(path))?;
        Ok(document(&self.title, &self.alt, (WIDTH, HEIGHT), &body))
    }

    #[expect(clippy::cast_precision_loss, reason = "numbers of slides")]
    fn draw(&self) -> std::result::Result<String, String> {
        const LEFT: u32 = 140;
        const TOP: u32 = 64;
        let mut svg = String::new();
        let area =
            SVGBackend::with_string(&mut svg, (WIDTH * FINE, HEIGHT * FINE)).into_drawing_area();
        title(&area, &self.title)?;
        let classes = u32::try_from(self.names.len().max(1)).unwrap_or(u32::MAX);
        let cell = ((HEIGHT - TOP - 16) / classes).min((WIDTH - LEFT - 16) / classes);
        let text = |text: String, place: (u32, u32), (h, v): (HPos, VPos), colour: Colour| {
            let style = style(TEXT, colour).pos(Pos::new(h, v));
            Text::new(plain(&text), (fine(place.0), fine(place.1)), style)
        };
        let middle = cell * classes / 2;
        let centred = (HPos::Center, VPos::Center);
        let predicted = text(
            "predicted".into(),
            (LEFT + middle, 34),
            centred,
            Colour::QUIET,
        );
        area.draw(&predicted).map_err(words)?;
        let turned = style(TEXT, Colour::QUIET)
            .pos(Pos::new(HPos::Center, VPos::Center))
            .transform(FontTransform::Rotate270);
        let truth = Text::new("truth".to_owned(), (fine(14), fine(TOP + middle)), turned);
        area.draw(&truth).map_err(words)?;
        for (row, (name, counts)) in (0_u32..).zip(self.names.iter().zip(&self.counts)) {
            let top = TOP + row * cell;
            let side = text(
                shortened(name, 12),
                (LEFT - 8, top + cell / 2),
                (HPos::Right, VPos::Center),
                Colour::INK,
            );
            area.draw(&side).map_err(words)?;
            let along = LEFT + row * cell + cell / 2;
            // A character is about half as wide as it is high.
            let fitting = usize::try_from(2 * cell / TEXT).unwrap_or(1).max(1);
            let head = text(shortened(name, fitting), (along, 52), centred, Colour::INK);
            area.draw(&head).map_err(words)?;
            let total = counts.iter().sum::<usize>().max(1);
            for (column, count) in (0_u32..).zip(counts) {
                let left = LEFT + column * cell;
                let share = *count as f64 / total as f64;
                let corners = [
                    (fine(left) + 4, fine(top) + 4),
                    (fine(left + cell) - 4, fine(top + cell) - 4),
                ];
                let shade = RGBColor::from(Colour::BLUE).mix(0.06 + 0.84 * share);
                area.draw(&Rectangle::new(corners, shade.filled()))
                    .map_err(words)?;
                let colour = if share > 0.85 {
                    Colour(255, 255, 255)
                } else {
                    Colour::INK
                };
                let (x, y) = (left + cell / 2, top + cell / 2);
                let has_room = cell >= 64;
                let number = text(
                    count.to_string(),
                    (x, if has_room { y - 9 } else { y }),
                    centred,
                    colour,
                );
                area.draw(&number).map_err(words)?;
                if has_room {
                    let part = text(
                        format!("{:.0}%", share * 100.0),
                        (x, y + 11),
                        centred,
                        colour,
                    );
                    area.draw(&part).map_err(words)?;
                }
            }
        }
        area.present().map_err(words)?;
        drop(area);
        Ok(svg)
    }
}

/// The first characters of a name, where all of them do not fit.
fn shortened(name: &str, most: usize) -> String {
    if name.chars().count() <= most {
        return name.to_owned();
    }
    name.chars()
        .take(most.saturating_sub(1))
        .chain(['…'])
        .collect()
}
