//! Curves, calibration, confusion, and scores beside the truth, of each resolution.

use maud::{Markup, html};

use super::technical::short;
use crate::data::{Split, Task};
use crate::error::{Result, TrainError};
use crate::metrics::{Metric, calibration_curve, confusion_matrix};
use crate::report::detail::{CurveKind, Curves, Detail, curves};
use crate::report::folder::RunFolder;
use crate::report::page::Page;
use crate::report::plot::{Axis, Colour, Figure, Mark, Matrix, SERIES, Shape, Stroke};

pub(super) fn section(run: &RunFolder, details: &[Detail<'_>], page: &mut Page) -> Result<Markup> {
    let mut parts = Vec::new();
    for detail in details {
        let view = View { run, detail };
        let figures = view.figures(page)?;
        let split = detail.predictions.split.name();
        let folds = detail.members.len();
        let seed = detail.key.seed;
        parts.push(html! {
            h3 {
                (detail.title)
                @if detail.predictions.split != Split::Test { ", " (split) " split" }
            }
            @if folds > 1 { p { "Slides of all " (folds) " folds together, each predicted by the training that did not learn from it." } }
            @if let Some(seed) = seed { p { "Of the trainings with seed " (seed) "." } }
            div.figures { @for figure in figures { (figure) } }
        });
    }
    Ok(html! { @for part in parts { (part) } })
}

struct View<'a> {
    run: &'a RunFolder,
    detail: &'a Detail<'a>,
}

impl View<'_> {
    fn figures(&self, page: &mut Page) -> Result<Vec<Markup>> {
        let task = self.detail.predictions.outcomes.task();
        let mut figures = Vec::new();
        let ranked = matches!(
            task,
            Task::Binary | Task::Classification { .. } | Task::MultiLabel { .. }
        );
        if ranked {
            for kind in [CurveKind::Roc, CurveKind::PrecisionRecall] {
                figures.extend(self.curve(kind, page)?);
            }
        }
        if task != Task::Regression {
            figures.push(self.calibration(page)?);
        }
        match task {
            Task::Binary | Task::Classification { .. } => figures.push(self.confusion(page)?),
            Task::Ordinal { .. } => {
                figures.push(self.confusion(page)?);
                figures.push(self.scores(page)?);
            }
            Task::Regression => figures.push(self.scores(page)?),
            Task::MultiLabel { .. } | Task::Segmentation { .. } => {}
        }
        Ok(figures)
    }

    fn class(&self, class: usize) -> String {
        let name = self.run.names.get(class);
        name.map_or_else(|| class.to_string(), str::to_owned)
    }

    fn title(&self, what: &str) -> String {
        format!("{what}, {}", self.detail.title)
    }

    /// A curve with its band; `None` where a class has no slides.
    fn curve(&self, kind: CurveKind, page: &mut Page) -> Result<Option<Markup>> {
        let found = match curves(kind, &self.detail.predictions, &self.run.bootstrap) {
            Err(TrainError::Metric { .. }) => return Ok(None),
            found => found?,
        };
        let (what, x, y, metric, file) = match kind {
            CurveKind::Roc => (
                "ROC",
                "false-positive rate",
                "true-positive rate",
                Metric::RocAuc,
                "roc",
            ),
            CurveKind::PrecisionRecall => (
                "Precision and recall",
                "recall",
                "precision",
                Metric::AveragePrecision,
                "precision-recall",
            ),
        };
        let estimate = self
            .detail
            .metrics
            .iter()
            .find(|(other, _)| *other == metric);
        let value = estimate.and_then(|(_, estimate)| Some(short(estimate.as_ref().ok()?.value)));
        let labelled = |what: &str| match &value {
            Some(value) => format!("{what}, {} {value}", metric.title()),
            None => what.to_owned(),
        };
        let marks = self.curve_marks(kind, &found, &labelled);
        let figure = Figure {
            title: self.title(what),
            alt: format!("{what} curve. {}", labelled(what)),
            x: Axis::fixed(x, 0.0, 1.0),
            y: Axis::fixed(y, 0.0, 1.0),
            marks,
        };
        let mut rows = Vec::new();
        for (class, points) in &found.classes {
            rows.extend(points.iter().map(|(x, y)| {
                vec![
                    self.class(*class),
                    x.to_string(),
                    y.to_string(),
                    String::new(),
                    String::new(),
                ]
            }));
        }
        for ((x, mean), (_, low, high)) in found.mean.iter().zip(found.band_points()) {
            rows.push(vec![
                "(mean)".to_owned(),
                x.to_string(),
                mean.to_string(),
                low.to_string(),
                high.to_string(),
            ]);
        }
        let name = format!("{file}-{}", self.detail.slug);
        let link = page.csv(&name, &["class", x, y, "low", "high"], rows)?;
        let mut caption = format!(
            "The band holds {:.0}% of the resamples at each point.",
            self.run.bootstrap.confidence * 100.0
        );
        if found.classes.len() > 1 {
            caption += " Each class or label against the rest; the band is that of the mean.";
        }
        if kind == CurveKind::Roc {
            caption += " Dashed: chance.";
        }
        page.figure(&name, &figure, &caption, link).map(Some)
    }

    fn curve_marks(
        &self,
        kind: CurveKind,
        found: &Curves,
        labelled: &dyn Fn(&str) -> String,
    ) -> Vec<(Mark, Option<String>)> {
        let blue = Colour::BLUE;
        let band = Mark::Band {
            points: found.band_points(),
            colour: blue,
        };
        let mut marks = vec![(band, None)];
        if kind == CurveKind::Roc {
            let points = vec![(0.0, 0.0), (1.0, 1.0)];
            marks.push((
                Mark::Line {
                    points,
                    colour: Colour::GREY,
                    stroke: Stroke::Dashed,
                },
                None,
            ));
        }
        if let [(class, points)] = found.classes.as_slice() {
            let line = Mark::Line {
                points: points.clone(),
                colour: blue,
                stroke: Stroke::Solid,
            };
            marks.push((line, Some(labelled(&self.class(*class)))));
            return marks;
        }
        let few = found.classes.len() < SERIES;
        for (place, (class, points)) in found.classes.iter().enumerate() {
            // The first colour is that of the mean.
            let colour = if few {
                Colour::series(place + 1)
            } else {
                Colour::GREY
            };
            let line = Mark::Line {
                points: points.clone(),
                colour,
                stroke: Stroke::Thin,
            };
            marks.push((line, few.then(|| self.class(*class))));
        }
        let mean = Mark::Line {
            points: found.mean.clone(),
            colour: blue,
            stroke: Stroke::Solid,
        };
        marks.push((mean, Some(labelled("mean"))));
        marks
    }

    fn calibration(&self, page: &mut Page) -> Result<Markup> {
        let predictions = &self.detail.predictions;
        let (right, probabilities) = predictions.outcomes.claims(&predictions.everything());
        let bins = calibration_curve(&right, &probabilities, Metric::BINS)?;
        let points: Vec<(f64, f64)> = bins
            .iter()
            .map(|bin| (bin.prob_pred, bin.prob_true))
            .collect();
        let diagonal = Mark::Line {
            points: vec![(0.0, 0.0), (1.0, 1.0)],
            colour: Colour::GREY,
            stroke: Stroke::Dashed,
        };
        let colour = Colour::BLUE;
        #[expect(clippy::cast_precision_loss, reason = "numbers of slides")]
        let intervals = bins
            .iter()
            .map(|bin| {
                let (low, high) = wilson(bin.prob_true, bin.examples as f64);
                (bin.prob_pred, low, high)
            })
            .collect();
        let figure = Figure {
            title: self.title("Calibration"),
            alt: format!(
                "Share that came true by predicted probability, {} bins",
                bins.len()
            ),
            x: Axis::fixed("predicted probability", 0.0, 1.0),
            y: Axis::fixed("share that came true", 0.0, 1.0),
            marks: vec![
                (diagonal, None),
                (
                    Mark::Intervals {
                        points: intervals,
                        colour,
                    },
                    None,
                ),
                (
                    Mark::Line {
                        points: points.clone(),
                        colour,
                        stroke: Stroke::Thin,
                    },
                    None,
                ),
                (
                    Mark::Dots {
                        points,
                        colour,
                        shape: Shape::Circle,
                    },
                    None,
                ),
            ],
        };
        let name = format!("calibration-{}", self.detail.slug);
        let rows = bins.iter().map(|bin| {
            vec![
                bin.prob_pred.to_string(),
                bin.prob_true.to_string(),
                bin.examples.to_string(),
            ]
        });
        let link = page.csv(&name, &["prob_pred", "prob_true", "examples"], rows)?;
        let what = match predictions.outcomes.task() {
            Task::Binary => "Of the positive class",
            Task::MultiLabel { .. } => "Of all labels",
            _ => "Of the predicted class",
        };
        let caption = format!(
            "{what}, in {} bins of equal width. Bars are 95% intervals of a share (Wilson), slides taken as independent. Dashed: as stated.",
            Metric::BINS
        );
        page.figure(&name, &figure, &caption, link)
    }

    fn confusion(&self, page: &mut Page) -> Result<Markup> {
        let predictions = &self.detail.predictions;
        let (truth, predicted) = predictions.outcomes.classes(&predictions.everything());
        let classes = predictions.outcomes.task().classes().unwrap_or(0);
        let counts = confusion_matrix(&truth, &predicted, classes)?;
        let names: Vec<String> = (0..classes).map(|class| self.class(class)).collect();
        let name = format!("confusion-{}", self.detail.slug);
        let mut heading = vec!["truth"];
        heading.extend(names.iter().map(String::as_str));
        let rows = counts.iter().zip(&names).map(|(counts, name)| {
            let counts = counts.iter().map(ToString::to_string);
            [name.clone()].into_iter().chain(counts).collect()
        });
        let link = page.csv(&name, &heading, rows)?;
        if classes > Matrix::MOST {
            return Ok(html! { p { "Confusion of " (classes) " classes: " (link) "." } });
        }
        let right: usize = (0..classes).map(|class| counts[class][class]).sum();
        let matrix = Matrix {
            title: self.title("Confusion"),
            alt: format!(
                "Confusion matrix; {right} of {} slides are right",
                truth.len()
            ),
            names,
            counts,
        };
        let caption = "Slides by true and predicted class; shades are shares of each row.";
        page.matrix(&name, &matrix, caption, link)
    }

    fn scores(&self, page: &mut Page) -> Result<Markup> {
        let predictions = &self.detail.predictions;
        let (truth, predicted) = predictions.outcomes.numbers(&predictions.everything());
        let both = || truth.iter().chain(&predicted).copied();
        let is_level = predictions.outcomes.task() != Task::Regression;
        let apart = |place: usize| {
            // Levels would lie on each other: slides are put beside one another, in their order.
            #[expect(clippy::cast_precision_loss, reason = "a remainder")]
            let step = (place * 7 % 13) as f64 / 13.0 - 6.0 / 13.0;
            if is_level { 0.3 * step } else { 0.0 }
        };
        let points: Vec<(f64, f64)> = truth
            .iter()
            .zip(&predicted)
            .enumerate()
            .map(|(place, (truth, predicted))| (truth + apart(place), *predicted))
            .collect();
        let axis = |label| match is_level {
            true => Axis::counting(label, both()),
            false => Axis::around(label, both()),
        };
        let ends = crate::report::plot::limits(both()).unwrap_or((0.0, 1.0));
        let diagonal = Mark::Line {
            points: vec![(ends.0, ends.0), (ends.1, ends.1)],
            colour: Colour::GREY,
            stroke: Stroke::Dashed,
        };
        let figure = Figure {
            title: self.title("Predicted and true"),
            alt: format!("Predicted by true values of {} slides", truth.len()),
            x: axis(if is_level { "level, from 0" } else { "truth" }),
            y: axis(if is_level {
                "expected level"
            } else {
                "prediction"
            }),
            marks: vec![
                (diagonal, None),
                (
                    Mark::Dots {
                        points,
                        colour: Colour::BLUE,
                        shape: Shape::Faint,
                    },
                    None,
                ),
            ],
        };
        let name = format!("scores-{}", self.detail.slug);
        let rows = predictions
            .slides
            .iter()
            .zip(truth.iter().zip(&predicted))
            .map(|(slide, (truth, predicted))| {
                vec![
                    slide.slide.display().to_string(),
                    truth.to_string(),
                    predicted.to_string(),
                ]
            });
        let link = page.csv(&name, &["slide", "truth", "prediction"], rows)?;
        let caption = if is_level {
            "A dot for each slide, those of a level beside one another. Dashed: as it should be."
        } else {
            "A dot for each slide. Dashed: as it should be."
        };
        page.figure(&name, &figure, caption, link)
    }
}

/// 95% interval of a share of `count` (Wilson's score interval).
fn wilson(share: f64, count: f64) -> (f64, f64) {
    const Z: f64 = 1.959_963_984_540_054;
    let square = Z * Z / count;
    let middle = (share + square / 2.0) / (1.0 + square);
    let half = (share * (1.0 - share) * square + square * square / 4.0).sqrt() / (1.0 + square);
    ((middle - half).max(0.0), (middle + half).min(1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `statsmodels.stats.proportion.proportion_confint(7, 20, method="wilson")`.
    #[test]
    fn intervals_of_shares() {
        let (low, high) = wilson(0.35, 20.0);
        assert!(
            (low - 0.181_192).abs() < 1e-5 && (high - 0.567_146).abs() < 1e-5,
            "{low} {high}"
        );
        assert_eq!(wilson(0.0, 5.0).0, 0.0);
    }
}
