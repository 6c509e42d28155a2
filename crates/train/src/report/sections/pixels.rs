//! Dice and IoU of the classes of pixels, and which class was taken for which.

use maud::{Markup, html};

use super::technical::short;
use crate::error::Result;
use crate::metrics::{Estimate, Metric};
use crate::report::folder::RunFolder;
use crate::report::page::{Align, Page, table, text};
use crate::report::pixels::Pixels;
use crate::report::plot::Matrix;

/// A table and a matrix for each resolution; nothing for other tasks.
pub(super) fn section(run: &RunFolder, page: &mut Page) -> Result<Markup> {
    let mut parts = Vec::new();
    for members in run
        .members
        .chunk_by(|a, b| a.key.microns == b.key.microns && a.key.microns.is_some())
    {
        if let Some(pixels) = Pixels::of(run, members)? {
            parts.push(part(&pixels, run, page)?);
        }
    }
    if parts.is_empty() {
        return Ok(html! {});
    }
    let resampled = "Pixels of all slides are counted together, and a score is made of the counts. Intervals resample patients, or \
                     slides where no patients are known. The mean is over the classes that are in the truth or predicted; of the \
                     others there is nothing to measure.";
    Ok(html! {
        p { (resampled) }
        @for part in parts { (part) }
    })
}

fn part(pixels: &Pixels, run: &RunFolder, page: &mut Page) -> Result<Markup> {
    let scores = scores(pixels, run, page)?;
    let matrix = confusion(pixels, run, page)?;
    Ok(html! {
        (scores)
        div.figures { (matrix) }
    })
}

fn scores(pixels: &Pixels, run: &RunFolder, page: &mut Page) -> Result<Markup> {
    let sum = pixels.outcomes.sum();
    let mut rows = Vec::new();
    let mut cells: Vec<Vec<Markup>> = Vec::new();
    let classes = (0..pixels.outcomes.classes()).map(Some);
    for class in classes.chain([None]) {
        let name = match class {
            Some(class) => run.names.get(class).unwrap_or_default().to_owned(),
            None => "mean".to_owned(),
        };
        let counts = class.map(|class| (sum.of_truth(class), sum.of_prediction(class)));
        let (truth, predicted) = counts.unwrap_or((sum.pixels(), sum.pixels()));
        let mut row = vec![name.clone(), truth.to_string(), predicted.to_string()];
        let mut cell = vec![
            text(&name),
            text(truth.to_string()),
            text(predicted.to_string()),
        ];
        for metric in [Metric::Dice, Metric::Iou] {
            let estimate = pixels.estimate(metric, class, run)?;
            let numbers = estimate.map(|one| [one.value, one.low, one.high]);
            row.extend(match numbers {
                Some(numbers) => numbers.map(|number| number.to_string()),
                None => Default::default(),
            });
            cell.push(shown(estimate));
        }
        rows.push(row);
        cells.push(cell);
    }
    let heading = [
        "class",
        "truth",
        "predicted",
        "dice",
        "dice_low",
        "dice_high",
        "iou",
        "iou_low",
        "iou_high",
    ];
    let link = page.csv(&format!("pixels-{}", pixels.slug), &heading, rows)?;
    let columns = [
        ("Class", Align::Text),
        ("Pixels", Align::Number),
        ("Predicted", Align::Number),
        ("Dice", Align::Number),
        ("IoU", Align::Number),
    ];
    let caption = format!(
        "Classes of the pixels of {} slides of the {} split, at {}",
        pixels.outcomes.len(),
        pixels.split.name(),
        pixels.title
    );
    Ok(table(&caption, &link, &columns, &cells))
}

fn confusion(pixels: &Pixels, run: &RunFolder, page: &mut Page) -> Result<Markup> {
    let sum = pixels.outcomes.sum();
    let classes = 0..pixels.outcomes.classes();
    let names: Vec<String> = run.names.iter().map(str::to_owned).collect();
    let name = format!("pixel-confusion-{}", pixels.slug);
    let mut heading = vec!["truth"];
    heading.extend(names.iter().map(String::as_str));
    let counts = |truth: usize| {
        let predicted = 0..pixels.outcomes.classes();
        predicted
            .map(|predicted| sum.count(truth, predicted))
            .collect::<Vec<u64>>()
    };
    let rows = classes.clone().zip(&names).map(|(truth, name)| {
        let counts = counts(truth).into_iter().map(|count| count.to_string());
        [name.clone()].into_iter().chain(counts).collect()
    });
    let link = page.csv(&name, &heading, rows)?;
    if names.len() > Matrix::MOST {
        return Ok(html! { p { "Confusion of " (names.len()) " classes: " (link) "." } });
    }
    let percent = |truth: usize| {
        let all = u128::from(sum.of_truth(truth).max(1));
        let share = |count: u64| (u128::from(count) * 200 + all) / (2 * all);
        let shares = counts(truth).into_iter().map(share);
        shares
            .map(|share| usize::try_from(share).unwrap_or(usize::MAX))
            .collect()
    };
    let matrix = Matrix {
        title: format!("Confusion of pixels, {}", pixels.title),
        alt: "Confusion matrix of pixels, in percent of each true class".to_owned(),
        names,
        counts: classes.map(percent).collect(),
    };
    let caption = "Pixels by true and predicted class, in percent of each true class; the table has their numbers.";
    page.matrix(&name, &matrix, caption, link)
}

fn shown(estimate: Option<Estimate>) -> Markup {
    html! {
        @match estimate {
            None => "undefined",
            Some(one) => {
                (short(one.value)) br;
                small {
                    @if one.low.is_nan() { "no interval" }
                    @else { (short(one.low)) " to " (short(one.high)) }
                }
            }
        }
    }
}
