//! Losses, the metric on the way, and the learning rate.

use maud::{Markup, html};

use crate::error::Result;
use crate::metrics::Metric;
use crate::report::columns::Columns;
use crate::report::folder::{Member, RunFolder};
use crate::report::page::Page;
use crate::report::plot::{Axis, Colour, Figure, Mark, Scale, Stroke};

/// What a figure of a training shows.
struct Course<'a> {
    file: &'a str,
    title: &'a str,
    caption: &'a str,
    x: &'a str,
    y: &'a str,
    y_scale: Scale,
    /// Columns, and how each is drawn.
    columns: &'a [(&'a str, Stroke, &'a str)],
}

pub(super) fn section(run: &RunFolder, page: &mut Page) -> Result<Markup> {
    let by_epoch = |member: &Member| counted_from_one(&member.epochs);
    let by_step = |member: &Member| member.steps.clone();
    let mut figures = Vec::new();
    let courses = [
        Course {
            file: "loss",
            title: "Loss",
            caption: "Solid: validation split. Dashed: training split, each slide as it was when it came, augmented.",
            x: "epoch",
            y: "loss",
            y_scale: Scale::Linear,
            columns: &[
                ("validation_loss", Stroke::Solid, "validation"),
                ("train_loss", Stroke::Dashed, "training"),
            ],
        },
        Course {
            file: "validation-metric",
            title: "Metric on the validation split",
            caption: "The best epoch is chosen by this, where one is chosen.",
            x: "epoch",
            y: run.task.map_or("metric", |task| Metric::main(task).title()),
            y_scale: Scale::Linear,
            columns: &[("validation_metric", Stroke::Solid, "")],
        },
    ];
    for course in courses {
        figures.extend(draw(run, &course, by_epoch, page)?);
    }
    let rate = |x| Course {
        file: "learning-rate",
        title: "Learning rate",
        caption: "Of the last step of each epoch, or of each step where these are stored.",
        x,
        y: "learning rate",
        y_scale: Scale::Linear,
        columns: &[("learning_rate", Stroke::Solid, "")],
    };
    match draw(run, &rate("step"), by_step, page)? {
        Some(figure) => figures.push(figure),
        None => figures.extend(draw(run, &rate("epoch"), by_epoch, page)?),
    }
    let norm = Course {
        file: "gradient-norm",
        title: "Norm of the gradient",
        caption: "Before clipping.",
        x: "step",
        y: "norm",
        y_scale: Scale::Log,
        columns: &[("gradient_norm", Stroke::Thin, "")],
    };
    figures.extend(draw(run, &norm, by_step, page)?);
    let speed = Course {
        file: "speed",
        title: "Speed",
        caption: "Megapixels of the slides that counted, by the seconds that the step took.",
        x: "step",
        y: "megapixels per second",
        y_scale: Scale::Linear,
        columns: &[("megapixels_per_second", Stroke::Thin, "")],
    };
    figures.extend(draw(run, &speed, by_step, page)?);
    let waiting = Course {
        file: "waiting",
        title: "Waiting for pixels",
        caption: "Share of the time of each step.",
        x: "step",
        y: "share",
        y_scale: Scale::Linear,
        columns: &[("waiting_share", Stroke::Thin, "")],
    };
    figures.extend(draw(run, &waiting, by_step, page)?);
    if figures.is_empty() {
        return Ok(html! {});
    }
    Ok(html! { div.figures { @for figure in figures { (figure) } } })
}

/// Histories count epochs from 0, people from 1.
fn counted_from_one(epochs: &Columns) -> Columns {
    let mut epochs = epochs.clone();
    let from_zero = epochs
        .numbers("epoch")
        .is_some_and(|numbers| numbers.contains(&Some(0.0)));
    if let Some(place) = epochs.place("epoch").filter(|_| from_zero) {
        for cell in epochs.rows.iter_mut().filter_map(|row| row.get_mut(place)) {
            if let Ok(number) = cell.parse::<u64>() {
                *cell = (number + 1).to_string();
            }
        }
    }
    epochs
}

fn draw(
    run: &RunFolder,
    course: &Course<'_>,
    columns: impl Fn(&Member) -> Columns,
    page: &mut Page,
) -> Result<Option<Markup>> {
    let mut resolutions: Vec<Option<f64>> = Vec::new();
    let first = run.members.first().map(|member| member.key.microns);
    let several = run
        .members
        .iter()
        .any(|member| Some(member.key.microns) != first);
    let (mut marks, mut rows, mut named) = (Vec::new(), Vec::new(), Vec::new());
    for member in &run.members {
        let microns = member.key.microns;
        if !resolutions.contains(&microns) {
            resolutions.push(microns);
        }
        let number = resolutions
            .iter()
            .position(|other| *other == microns)
            .unwrap_or(0);
        let colour = Colour::series(number);
        let table = columns(member);
        for (column, stroke, what) in course.columns {
            let points = table.points(course.x, column);
            for (x, y) in &points {
                rows.push(vec![
                    member.name.clone(),
                    (*column).to_owned(),
                    x.to_string(),
                    y.to_string(),
                ]);
            }
            if !points.iter().any(|point| point.1.is_finite()) {
                continue;
            }
            // Of several resolutions colours are named, of one the strokes; the caption says what the strokes are.
            let name = match (several, course.columns.len()) {
                (true, _) | (false, 1) => member.key.resolution(),
                (false, _) => (*what).to_owned(),
            };
            let is_new = !name.is_empty() && !named.contains(&name);
            if is_new {
                named.push(name.clone());
            }
            marks.push((
                Mark::Line {
                    points,
                    colour,
                    stroke: *stroke,
                },
                is_new.then_some(name),
            ));
        }
    }
    let points = || {
        marks.iter().flat_map(|(mark, _)| match mark {
            Mark::Line { points, .. } => points.as_slice(),
            _ => &[],
        })
    };
    if points().next().is_none() {
        return Ok(None);
    }
    let y = match course.y_scale {
        Scale::Linear | Scale::Whole => Axis::around(course.y, points().map(|point| point.1)),
        Scale::Log => Axis::log(course.y, points().map(|point| point.1)),
    };
    let figure = Figure {
        title: course.title.to_owned(),
        alt: format!("{} by {}, {} lines", course.title, course.x, marks.len()),
        x: Axis::counting(course.x, points().map(|point| point.0)),
        y,
        marks: marks.clone(),
    };
    let link = page.csv(course.file, &["training", "what", course.x, course.y], rows)?;
    page.figure(course.file, &figure, course.caption, link)
        .map(Some)
}
