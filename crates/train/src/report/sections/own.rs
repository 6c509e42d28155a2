//! Plots and tables of the experiment's own.

use maud::{Markup, html};

use crate::error::{Result, TrainError};
use crate::report::columns::Columns;
use crate::report::folder::RunFolder;
use crate::report::notes::{AxisScale, PlotNote, TableNote};
use crate::report::page::{Align, Page, table, text};
use crate::report::plot::{Axis, Colour, Figure, Mark, Shape, Stroke};

use super::data::file_name;
use super::technical::short;

const STROKES: [Stroke; 3] = [Stroke::Solid, Stroke::Dashed, Stroke::Thin];

/// A line of a plot.
struct Line {
    name: String,
    colour: Colour,
    stroke: Stroke,
    points: Vec<(f64, f64)>,
}

pub(super) fn section(run: &RunFolder, page: &mut Page) -> Result<Markup> {
    let mut figures = Vec::new();
    for (number, note) in (1..).zip(&run.notes.plots) {
        figures.push(plot(run, number, note, page)?);
    }
    let tables = run
        .notes
        .tables
        .iter()
        .map(|note| own_table(run, note))
        .collect::<Result<Vec<_>>>()?;
    Ok(html! {
        @if !figures.is_empty() { div.figures { @for figure in figures { (figure) } } }
        @for table in tables { (table) }
    })
}

fn read(run: &RunFolder, file: &std::path::Path) -> Result<Columns> {
    let path = run.path.join(file);
    Columns::read(&path)?
        .ok_or_else(|| TrainError::file(&path)(std::io::ErrorKind::NotFound.into()))
}

fn column<'a>(
    run: &RunFolder,
    note: &PlotNote,
    table: &'a Columns,
    name: &'a str,
) -> Result<usize> {
    table.place(name).ok_or_else(|| TrainError::Column {
        path: run.path.join(&note.file),
        problem: "missing",
        column: name.to_owned(),
        expected: "the columns that experiment.json names",
    })
}

fn plot(run: &RunFolder, number: usize, note: &PlotNote, page: &mut Page) -> Result<Markup> {
    let table = read(run, &note.file)?;
    let x = column(run, note, &table, &note.x)?;
    let mut lines: Vec<Line> = Vec::new();
    let mut names: Vec<String> = Vec::new();
    let series = match &note.series {
        Some(series) => Some(column(run, note, &table, series)?),
        None => None,
    };
    for (stroke, heading) in STROKES.into_iter().cycle().zip(&note.y) {
        let y = column(run, note, &table, heading)?;
        for row in &table.rows {
            let cell = |place| Columns::cell(row, place);
            // Colours are by series, strokes by column; where there are no series colours are by column.
            let coloured = series.map_or(heading.as_str(), cell);
            let name = match series {
                Some(_) if note.y.len() > 1 => format!("{coloured}, {heading}"),
                _ => coloured.to_owned(),
            };
            let colour = place_of(&mut names, coloured);
            let line = lines
                .iter()
                .position(|other| other.name == name)
                .unwrap_or_else(|| {
                    let stroke = if series.is_some() {
                        stroke
                    } else {
                        Stroke::Solid
                    };
                    lines.push(Line {
                        name,
                        colour: Colour::series(colour),
                        stroke,
                        points: Vec::new(),
                    });
                    lines.len() - 1
                });
            if let (Ok(x), Ok(y)) = (cell(x).trim().parse(), cell(y).trim().parse()) {
                lines[line].points.push((x, y));
            }
        }
    }
    let points = || lines.iter().flat_map(|line| &line.points);
    let axis = |label: &str, scale, values: Vec<f64>| match scale {
        AxisScale::Linear => Axis::around(label, values.into_iter()),
        AxisScale::Log => Axis::log(label, values.into_iter()),
    };
    let mut marks = Vec::new();
    for Line {
        name,
        colour,
        stroke,
        points,
    } in &lines
    {
        let line = Mark::Line {
            points: points.clone(),
            colour: *colour,
            stroke: *stroke,
        };
        marks.push((line, (lines.len() > 1).then(|| name.clone())));
        if points.len() <= 12 {
            marks.push((
                Mark::Dots {
                    points: points.clone(),
                    colour: *colour,
                    shape: Shape::Circle,
                },
                None,
            ));
        }
    }
    let figure = Figure {
        title: note.title.clone(),
        alt: if note.caption.is_empty() {
            note.title.clone()
        } else {
            note.caption.clone()
        },
        x: axis(
            &note.x,
            note.x_scale,
            points().map(|point| point.0).collect(),
        ),
        y: axis(
            &note.y_label,
            note.y_scale,
            points().map(|point| point.1).collect(),
        ),
        marks,
    };
    let name = format!("plot-{number}-{}", file_name(&note.title));
    let link = html! { a href=(note.file.display()) { "CSV" } };
    page.figure(&name, &figure, &note.caption, link)
}

/// Place of a name in a list, to which it is added if it is new.
fn place_of(names: &mut Vec<String>, name: &str) -> usize {
    names
        .iter()
        .position(|other| other == name)
        .unwrap_or_else(|| {
            names.push(name.to_owned());
            names.len() - 1
        })
}

/// A number with more decimals than anyone reads is shortened; the CSV has them.
fn shown(cell: &str) -> Markup {
    match cell.trim().parse::<f64>() {
        Ok(number) if cell.contains('.') && cell.len() > 8 => text(short(number)),
        _ => text(cell),
    }
}

fn own_table(run: &RunFolder, note: &TableNote) -> Result<Markup> {
    let content = read(run, &note.file)?;
    let is_number = |place: usize| {
        let cells = content
            .rows
            .iter()
            .map(|row| Columns::cell(row, place).trim());
        let mut cells = cells.filter(|cell| !cell.is_empty()).peekable();
        cells.peek().is_some() && cells.all(|cell| cell.parse::<f64>().is_ok())
    };
    let align = |place| {
        if is_number(place) {
            Align::Number
        } else {
            Align::Text
        }
    };
    let columns: Vec<_> = content
        .heading
        .iter()
        .enumerate()
        .map(|(place, name)| (name.as_str(), align(place)))
        .collect();
    let cells = |row: &Vec<String>| {
        let places = 0..columns.len();
        places
            .map(|place| shown(Columns::cell(row, place)))
            .collect()
    };
    let rows: Vec<Vec<Markup>> = content.rows.iter().map(cells).collect();
    Ok(html! {
        @if !note.title.is_empty() { h3 { (note.title) } }
        (table(&note.caption, &html! { a href=(note.file.display()) { "CSV" } }, &columns, &rows))
    })
}
