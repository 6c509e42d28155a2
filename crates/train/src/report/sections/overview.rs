//! The head of the page, and what was asked.

use maud::{Markup, html};

use crate::data::Task;
use crate::report::folder::RunFolder;
use crate::report::summary::Summary;

/// Title, origin, and the main metric of each resolution.
pub(in crate::report) fn head(run: &RunFolder, summary: &Summary) -> Markup {
    let cards: Vec<_> = summary
        .resolutions
        .iter()
        .filter_map(|resolution| {
            let metric = summary.metric?;
            Some((resolution, metric, resolution.metrics.get(metric.name())?))
        })
        .collect();
    html! {
        h1 { (run.title()) }
        @if let Some(data) = &summary.data { p { (data) } }
        @if !cards.is_empty() {
            dl.cards {
                @for (resolution, metric, estimate) in cards {
                    div.card {
                        dt {
                            (metric.title())
                            @if let Some(microns) = resolution.microns_per_pixel { " at " (microns) " µm/px" }
                        }
                        dd {
                            span.value { (format!("{:.3}", estimate.value)) }
                            span.interval {
                                @if estimate.low.is_nan() { " no interval" }
                                @else { (format!(" {:.3} to {:.3}", estimate.low, estimate.high)) }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// The question, the task, and what a reader must know.
pub(super) fn asked(run: &RunFolder) -> Markup {
    let task = run.task.map(|task| in_words(task, run));
    html! {
        @if !run.notes.asked.is_empty() { p { (run.notes.asked) } }
        @if let Some(task) = task { p { "Predicted from each slide: " (task) "." } }
        @for remark in &run.notes.remarks { p.note { (remark) } }
    }
}

fn in_words(task: Task, run: &RunFolder) -> String {
    let names: Vec<&str> = run.names.iter().collect();
    let named = names.join(", ");
    match task {
        Task::Binary => format!("one of two classes ({named}), the second being the positive one"),
        Task::Classification { classes } => format!("one of {classes} classes ({named})"),
        Task::MultiLabel { labels } => format!("any of {labels} labels ({named})"),
        Task::Ordinal { levels } => {
            format!("one of {levels} levels ({named}), which have an order")
        }
        Task::Regression => "a number".to_owned(),
        Task::Segmentation { classes } => {
            format!(
                "for each pixel, one of {classes} classes ({named}), the first being the background"
            )
        }
    }
}
