//! Metrics of each resolution, over resolution and beside what was published.

use maud::{Markup, html};

use super::technical::short;
use crate::error::Result;
use crate::metrics::{Estimate, Metric};
use crate::report::detail::Detail;
use crate::report::folder::RunFolder;
use crate::report::page::{Align, Page, name, table, text};
use crate::report::plot::{Axis, Colour, Figure, Mark, Shape, Stroke};
use crate::report::summary::{ResolutionSummary, Summary, Verdict};

pub(super) fn section(
    run: &RunFolder,
    details: &[Detail<'_>],
    summary: &Summary,
    page: &mut Page,
) -> Result<Markup> {
    let Some(metric) = summary.metric else {
        return Ok(html! {});
    };
    if details.is_empty() && summary.resolutions.is_empty() {
        return Ok(html! {});
    }
    let several = summary
        .resolutions
        .iter()
        .any(|resolution| resolution.trainings.len() > 1);
    Ok(html! {
        @if summary.verdict != Verdict::OneResolution { p { b { (summary.conclusion()) } } }
        @if !details.is_empty() { (metrics(run, details, page)?) }
        @if several { (trainings(summary, metric, page)?) }
        (over_resolution(summary, metric, page)?)
    })
}

fn metrics(run: &RunFolder, details: &[Detail<'_>], page: &mut Page) -> Result<Markup> {
    let mut columns = vec![("Metric", Align::Text)];
    let heads: Vec<String> = details
        .iter()
        .map(|detail| {
            format!(
                "{} ({} slides)",
                detail.title,
                detail.predictions.slides.len()
            )
        })
        .collect();
    columns.extend(heads.iter().map(|head| (head.as_str(), Align::Number)));
    let mut rows: Vec<Vec<Markup>> = Vec::new();
    let first = details.iter().next();
    for (place, (metric, _)) in first
        .iter()
        .flat_map(|detail| detail.metrics.iter().enumerate())
    {
        let mut row = vec![text(metric.title())];
        row.extend(details.iter().map(|detail| match &detail.metrics[place].1 {
            Ok(estimate) => shown(estimate),
            Err(_) => text("–"),
        }));
        rows.push(row);
    }
    let link = page.csv(
        "metrics",
        &[
            "microns_per_pixel",
            "split",
            "slides",
            "metric",
            "value",
            "low",
            "high",
            "dropped_resamples",
            "problem",
        ],
        details.iter().flat_map(|detail| {
            detail.metrics.iter().map(|(metric, estimate)| {
                let mut row = vec![
                    detail
                        .key
                        .microns
                        .map_or_else(String::new, |microns| microns.to_string()),
                    detail.predictions.split.name().to_owned(),
                    detail.predictions.slides.len().to_string(),
                    metric.name().to_owned(),
                ];
                let known = estimate.as_ref().ok();
                let number = |of: fn(&Estimate) -> f64| {
                    known.map_or_else(String::new, |known| of(known).to_string())
                };
                row.extend([
                    number(|known| known.value),
                    number(|known| known.low),
                    number(|known| known.high),
                ]);
                row.push(known.map_or_else(String::new, |known| known.dropped.to_string()));
                row.push(estimate.as_ref().err().cloned().unwrap_or_default());
                row
            })
        }),
    )?;
    let bootstrap = run.bootstrap;
    let confidence = bootstrap.confidence * 100.0;
    let unit = if details.iter().any(|detail| detail.predictions.by_patient) {
        "patients"
    } else {
        "slides, since no patients are known"
    };
    let splits = details.iter().map(|detail| detail.predictions.split.name());
    let split = splits.reduce(|a, b| if a == b { a } else { "test or validation" });
    let caption = format!(
        "On the {} split, with {confidence}% percentile intervals of {} resamples of {unit}",
        split.unwrap_or("test"),
        bootstrap.resamples
    );
    Ok(html! {
        (table(&caption, &link, &columns, &rows))
        (remarks(details))
    })
}

/// A value with its interval on a line of its own.
fn shown(estimate: &Estimate) -> Markup {
    html! {
        (short(estimate.value)) br;
        small {
            @if estimate.low.is_nan() { "no interval" }
            @else { (short(estimate.low)) " to " (short(estimate.high)) }
        }
    }
}

/// What is missing, and which resamples were dropped.
fn remarks(details: &[Detail<'_>]) -> Markup {
    html! {
        @for detail in details {
            @if detail.predictions.split != crate::data::Split::Test {
                p.note { (detail.title) ": no slide of the test split has a label, so that this is the validation split, by which epochs may have been chosen." }
            }
            @for (metric, estimate) in &detail.metrics {
                @match estimate {
                    Err(problem) => p.note { (detail.title) ", " (metric.title()) ": none. " (problem) "." },
                    Ok(estimate) if estimate.dropped > 0 => p {
                        (detail.title) ", " (metric.title()) ": " (estimate.dropped)
                        " resamples were dropped, since the metric has no meaning on them (a class without slides)."
                    },
                    Ok(_) => {}
                }
            }
        }
    }
}

/// The trainings one by one, where there are several of a resolution.
fn trainings(summary: &Summary, metric: Metric, page: &mut Page) -> Result<Markup> {
    let all = || {
        summary
            .resolutions
            .iter()
            .flat_map(|resolution| &resolution.trainings)
    };
    let value = |estimate: Option<Estimate>| estimate.as_ref().map_or_else(|| text("–"), shown);
    let mut rows: Vec<Vec<Markup>> = Vec::new();
    for resolution in &summary.resolutions {
        for training in &resolution.trainings {
            rows.push(vec![name(&training.name), value(training.metric)]);
        }
        if let Some((mean, deviation)) = resolution.spread() {
            let count = resolution.trainings.len();
            rows.push(vec![
                html! { b { "mean ± standard deviation of " (count) } },
                html! { b { (short(mean)) " ± " (short(deviation)) } },
            ]);
        }
    }
    let link = page.csv(
        "trainings",
        &["training", metric.name(), "low", "high"],
        all().filter_map(|training| {
            let estimate = training.metric?;
            let numbers =
                [estimate.value, estimate.low, estimate.high].map(|value| value.to_string());
            Some([training.name.clone()].into_iter().chain(numbers).collect())
        }),
    )?;
    let columns = [("Training", Align::Text), (metric.title(), Align::Number)];
    Ok(table(
        "Each training on its own slides",
        &link,
        &columns,
        &rows,
    ))
}

/// Megapixels and the main metric of a resolution: the mean over its trainings where there are several.
fn point(resolution: &ResolutionSummary, metric: Metric) -> Option<(f64, f64)> {
    let megapixels = resolution.mean_pixels? / 1e6;
    let single = || Some(resolution.metrics.get(metric.name())?.value);
    let value = resolution.spread().map(|(mean, _)| mean).or_else(single)?;
    Some((megapixels, value))
}

fn over_resolution(summary: &Summary, metric: Metric, page: &mut Page) -> Result<Markup> {
    let measured: Vec<(f64, f64)> = summary
        .resolutions
        .iter()
        .filter_map(|resolution| point(resolution, metric))
        .collect();
    if measured.is_empty() || (measured.len() < 2 && summary.published.is_empty()) {
        return Ok(html! {});
    }
    let mut intervals = Vec::new();
    let mut single = Vec::new();
    for resolution in &summary.resolutions {
        let Some((megapixels, value)) = point(resolution, metric) else {
            continue;
        };
        match (resolution.spread(), resolution.metrics.get(metric.name())) {
            (Some((_, deviation)), _) => {
                intervals.push((megapixels, value - deviation, value + deviation));
                let values = resolution
                    .trainings
                    .iter()
                    .filter_map(|training| training.metric);
                single.extend(values.map(|estimate| (megapixels, estimate.value)));
            }
            (None, Some(estimate)) => intervals.push((megapixels, estimate.low, estimate.high)),
            (None, None) => {}
        }
    }
    let has_spread = !single.is_empty();
    let published: Vec<Vec<(f64, f64)>> = summary
        .published
        .iter()
        .map(|row| {
            row.figures
                .iter()
                .map(|figure| (figure.megapixels, figure.value))
                .collect()
        })
        .collect();
    let xs = measured
        .iter()
        .chain(published.iter().flatten())
        .map(|point| point.0);
    let ys = measured
        .iter()
        .chain(published.iter().flatten())
        .chain(&single)
        .map(|point| point.1)
        .collect::<Vec<_>>();
    let ends = intervals.iter().flat_map(|(_, low, high)| [*low, *high]);
    let blue = Colour::BLUE;
    let mut marks = vec![
        (
            Mark::Intervals {
                points: intervals.clone(),
                colour: blue,
            },
            None,
        ),
        (
            Mark::Line {
                points: measured.clone(),
                colour: blue,
                stroke: Stroke::Solid,
            },
            None,
        ),
        (
            Mark::Dots {
                points: measured.clone(),
                colour: blue,
                shape: Shape::Circle,
            },
            Some("measured here".to_owned()),
        ),
        (
            Mark::Dots {
                points: single,
                colour: blue,
                shape: Shape::Faint,
            },
            None,
        ),
    ];
    for (number, points) in (1..).zip(&published) {
        let colour = Colour::series(number);
        let called = if published.len() > 1 {
            format!("published ({number})")
        } else {
            "published".to_owned()
        };
        marks.push((
            Mark::Line {
                points: points.clone(),
                colour,
                stroke: Stroke::Dashed,
            },
            None,
        ));
        marks.push((
            Mark::Dots {
                points: points.clone(),
                colour,
                shape: Shape::Triangle,
            },
            Some(called),
        ));
    }
    let figure = Figure {
        title: format!("{} over the size of the image", metric.title()),
        alt: format!(
            "{} by megapixels, measured: {}",
            metric.title(),
            measured
                .iter()
                .map(|(x, y)| format!("{} at {}", short(*y), short(*x)))
                .collect::<Vec<_>>()
                .join(", ")
        ),
        x: Axis::log("megapixels", xs),
        y: Axis::around(metric.title(), ys.into_iter().chain(ends)),
        marks,
    };
    let mut rows: Vec<[String; 5]> = Vec::new();
    for ((megapixels, value), (_, low, high)) in measured.iter().zip(&intervals) {
        rows.push([
            "measured".to_owned(),
            megapixels.to_string(),
            value.to_string(),
            low.to_string(),
            high.to_string(),
        ]);
    }
    for row in &summary.published {
        for figure in &row.figures {
            rows.push([
                row.source.clone(),
                figure.megapixels.to_string(),
                figure.value.to_string(),
                String::new(),
                String::new(),
            ]);
        }
    }
    let link = page.csv(
        "resolutions",
        &["source", "megapixels", metric.name(), "low", "high"],
        rows.iter().map(|row| row.to_vec()),
    )?;
    let mut caption = if has_spread {
        "Mean over the trainings; bars are one standard deviation, faint dots single trainings."
            .to_owned()
    } else {
        format!("Bars are {:.0}% intervals.", summary.confidence * 100.0)
    };
    let data = summary.data.as_deref().unwrap_or("the slides of this run");
    if !summary.published.is_empty() {
        caption +=
            &format!(" Measured on {data}; published figures are of other slides and networks.");
    }
    let drawn = page.figure("metric-over-resolution", &figure, &caption, link)?;
    Ok(html! {
        div.figures { (drawn) @if !summary.published.is_empty() { div { (side_by_side(summary, metric, &measured)) } } }
    })
}

fn side_by_side(summary: &Summary, metric: Metric, measured: &[(f64, f64)]) -> Markup {
    let row = |source: &str, (megapixels, value): (f64, f64)| {
        vec![text(source), text(short(megapixels)), text(short(value))]
    };
    let own = summary
        .data
        .as_ref()
        .map_or_else(|| "here".to_owned(), |data| format!("here, {data}"));
    let mut rows: Vec<_> = measured.iter().map(|point| row(&own, *point)).collect();
    for published in &summary.published {
        let figures = published.figures.iter();
        rows.extend(
            figures.map(|figure| row(&published.source, (figure.megapixels, figure.value))),
        );
    }
    let columns = [
        ("Where", Align::Text),
        ("Megapixels", Align::Number),
        (metric.title(), Align::Number),
    ];
    table("Measured and published", &html! {}, &columns, &rows)
}
