//! How many slides there are, by split, class, centre and patient.

use std::collections::{BTreeMap, BTreeSet};

use maud::{Markup, html};

use crate::data::{Label, Split, Task};
use crate::error::Result;
use crate::report::columns::Columns;
use crate::report::folder::{RunFolder, read_label};
use crate::report::page::{Align, Page, table, text};

/// Further columns that say where a slide comes from.
const CENTRES: [&str; 6] = [
    "center",
    "centre",
    "site",
    "hospital",
    "institution",
    "scanner",
];

/// What slides are called that have none of several labels.
const NO_LABEL: &str = "(none of them)";

/// More values than that are not counted one by one.
const MOST: usize = 40;

pub(super) fn section(run: &RunFolder, page: &mut Page) -> Result<Markup> {
    let Some(samples) = run
        .samples
        .as_ref()
        .filter(|samples| !samples.rows.is_empty())
    else {
        return Ok(html! {});
    };
    let label = samples
        .place("label")
        .filter(|_| !matches!(run.task, Some(Task::Regression | Task::Segmentation { .. })));
    let centre = samples
        .heading
        .iter()
        .position(|name| CENTRES.contains(&name.to_lowercase().as_str()));
    let patients = samples
        .place("patient")
        .map(|place| distinct(samples, place));
    let splits = split_column(run, samples);
    let round = splits
        .and_then(|place| samples.heading.get(place))
        .filter(|name| *name != "split");
    Ok(html! {
        p {
            (samples.rows.len()) " slides"
            @if let Some(patients) = patients.filter(|patients| *patients > 0) { " of " (patients) " patients" }
            "."
            @if let Some(round) = round { " Splits are those of the first round, " (round) "; samples.csv has the others." }
        }
        @if let Some(place) = label { (counts(run, samples, ("label", place), page)?) }
        @else { (scores(samples, splits)) }
        @if let Some(place) = centre { (counts(run, samples, (&samples.heading[place], place), page)?) }
    })
}

fn distinct(samples: &Columns, place: usize) -> usize {
    let cells = samples
        .rows
        .iter()
        .map(|row| Columns::cell(row, place).trim());
    cells
        .filter(|cell| !cell.is_empty())
        .collect::<BTreeSet<_>>()
        .len()
}

/// The column of splits: of a run of several rounds, that of the first.
fn split_column(run: &RunFolder, samples: &Columns) -> Option<usize> {
    let holds = |place: &usize| {
        samples
            .rows
            .iter()
            .any(|row| !Columns::cell(row, *place).is_empty())
    };
    let rounds = run
        .members
        .iter()
        .filter_map(|member| samples.place(member.key.round.as_ref()?));
    samples.place("split").into_iter().chain(rounds).find(holds)
}

/// Place of the split that a sample is in, in their order; of a sample without one the last.
fn split(splits: Option<usize>, row: &[String]) -> usize {
    let name = splits.map_or("", |place| Columns::cell(row, place));
    let split = Split::parse(name.trim());
    Split::ALL
        .iter()
        .position(|other| Some(*other) == split)
        .unwrap_or(Split::ALL.len())
}

/// Slides by the values of a column, and by split.
fn counts(
    run: &RunFolder,
    samples: &Columns,
    (name, place): (&str, usize),
    page: &mut Page,
) -> Result<Markup> {
    let splits = split_column(run, samples);
    let mut counted: BTreeMap<String, [usize; 4]> = BTreeMap::new();
    for row in &samples.rows {
        let cell = Columns::cell(row, place).trim();
        let task = run.task.filter(|_| name == "label");
        let label = task.and_then(|task| Some((task, read_label(cell, task, &run.names)?)));
        let values = match label {
            _ if cell.is_empty() => vec!["(none)".to_owned()],
            Some((_, Label::Set(set))) if !set.contains(&true) => vec![NO_LABEL.to_owned()],
            // A slide counts for each of its labels.
            Some((_, Label::Set(set))) => {
                let has = run.names.iter().zip(set).filter(|(_, has)| *has);
                has.map(|(name, _)| name.to_owned()).collect()
            }
            Some((task, label)) => vec![label.text(task, &run.names)],
            None => vec![cell.to_owned()],
        };
        for value in values {
            counted.entry(value).or_default()[split(splits, row)] += 1;
        }
    }
    let names = ["train", "validation", "test", "no split"];
    let used: Vec<usize> = (0..4)
        .filter(|split| counted.values().any(|counts| counts[*split] > 0))
        .collect();
    let mut order: Vec<(String, [usize; 4])> = counted.into_iter().collect();
    order.sort_by_key(|(value, _)| run.names.place(value).unwrap_or(usize::MAX));
    let mut heading = vec![name];
    heading.extend(names);
    let link = page.csv(
        &format!("slides-by-{}", file_name(name)),
        &heading,
        order.iter().map(|(value, counts)| {
            let counts = counts.iter().map(ToString::to_string);
            [value.clone()].into_iter().chain(counts).collect()
        }),
    )?;
    let mut columns = vec![(name, Align::Text)];
    columns.extend(used.iter().map(|split| (names[*split], Align::Number)));
    columns.push(("all", Align::Number));
    let row = |(value, counts): &(String, [usize; 4])| {
        let mut cells = vec![text(value)];
        cells.extend(used.iter().map(|split| text(counts[*split].to_string())));
        cells.push(text(counts.iter().sum::<usize>().to_string()));
        cells
    };
    let left_out = order.len().saturating_sub(MOST);
    let rows: Vec<_> = order.iter().take(MOST).map(row).collect();
    let mut caption = format!("Slides by {name} and split");
    if name == "label" && matches!(run.task, Some(Task::MultiLabel { .. })) {
        caption += "; one of several labels counts for each";
    }
    Ok(html! {
        (table(&caption, &link, &columns, &rows))
        @if left_out > 0 { p { "And " (left_out) " more, in the CSV." } }
    })
}

/// Scores by split: how many, and their range.
fn scores(samples: &Columns, splits: Option<usize>) -> Markup {
    let Some(labels) = samples.numbers("label") else {
        return html! {};
    };
    let mut of_split: [Vec<f64>; 4] = Default::default();
    for (row, label) in samples.rows.iter().zip(labels) {
        of_split[split(splits, row)].extend(label);
    }
    let rows: Vec<_> = ["train", "validation", "test", "no split"]
        .iter()
        .zip(of_split)
        .filter(|(_, values)| !values.is_empty())
        .map(|(name, mut values)| {
            values.sort_by(f64::total_cmp);
            let at = |share: usize| values[(values.len() - 1) * share / 4];
            let mut cells = vec![text(name), text(values.len().to_string())];
            cells.extend([0, 1, 2, 3, 4].map(|share| text(super::technical::short(at(share)))));
            cells
        })
        .collect();
    let columns = [
        "slides",
        "least",
        "quarter",
        "median",
        "three quarters",
        "most",
    ];
    let mut heading = vec![("split", Align::Text)];
    heading.extend(columns.map(|name| (name, Align::Number)));
    table("Labels by split", &html! {}, &heading, &rows)
}

/// A name of which a file may be called.
pub(super) fn file_name(name: &str) -> String {
    let legal = |character: char| match character {
        'a'..='z' | '0'..='9' | '-' | '.' => character,
        'A'..='Z' => character.to_ascii_lowercase(),
        _ => '-',
    };
    name.chars().map(legal).take(60).collect()
}
