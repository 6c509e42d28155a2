//! The page: its frame, and the figures and tables that it is made of.

use std::path::{Path, PathBuf};

use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::plot::{Figure, Matrix};
use crate::error::Result;
use crate::files::csv_bytes;

const STYLE: &str = include_str!("style.css");

/// A page in the making, and the files that come with it.
#[derive(Debug, Default)]
pub(super) struct Page {
    figures: usize,
    /// Places relative to the run folder, and what is in them.
    pub(super) files: Vec<(PathBuf, Vec<u8>)>,
}

impl Page {
    /// A figure with its caption, which is a file in `figures`, too. `data` links to its table.
    pub(super) fn figure(
        &mut self,
        name: &str,
        figure: &Figure,
        caption: &str,
        data: Markup,
    ) -> Result<Markup> {
        let path = Path::new("figures").join(format!("{name}.svg"));
        let svg = figure.svg(&path)?;
        Ok(self.svg(path, svg, caption, data))
    }

    /// A confusion matrix as a figure.
    pub(super) fn matrix(
        &mut self,
        name: &str,
        matrix: &Matrix,
        caption: &str,
        data: Markup,
    ) -> Result<Markup> {
        let path = Path::new("figures").join(format!("{name}.svg"));
        let svg = matrix.svg(&path)?;
        Ok(self.svg(path, svg, caption, data))
    }

    fn svg(&mut self, path: PathBuf, svg: String, caption: &str, data: Markup) -> Markup {
        self.figures += 1;
        let link = path.display().to_string();
        self.files.push((path, svg.clone().into_bytes()));
        html! {
            figure {
                // What `plot` made: text in it is escaped.
                (PreEscaped(svg))
                figcaption {
                    b { "Figure " (self.figures) ". " } (caption)
                    span.files { " " a href=(link) { "SVG" } " " (data) }
                }
            }
        }
    }

    /// Stores a table as CSV in `tables` and gives a link to it.
    pub(super) fn csv(
        &mut self,
        name: &str,
        heading: &[&str],
        rows: impl IntoIterator<Item = Vec<String>>,
    ) -> Result<Markup> {
        let path = Path::new("tables").join(format!("{name}.csv"));
        let heading = heading.iter().map(|&column| column.to_owned()).collect();
        let bytes = csv_bytes(&path, std::iter::once(heading).chain(rows))?;
        let link = path.display().to_string();
        self.files.push((path, bytes));
        Ok(html! { a href=(link) { "CSV" } })
    }
}

/// Rows of a table that is not to be cut at the end of a page of paper.
const TOGETHER: usize = 14;

/// How a column stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Align {
    Text,
    Number,
}

/// A table. Every row has as many cells as there are columns.
/// `data` links to the same as CSV.
pub(super) fn table(
    caption: &str,
    data: &Markup,
    columns: &[(&str, Align)],
    rows: &[Vec<Markup>],
) -> Markup {
    let class = |place: usize| match columns.get(place) {
        Some((_, Align::Number)) => Some("number"),
        _ => None,
    };
    html! {
        div.wide.short[rows.len() <= TOGETHER] {
            table {
                caption {
                    (caption)
                    @if !data.0.is_empty() { span.files { " " (data) } }
                }
                thead {
                    tr {
                        @for (place, (name, _)) in columns.iter().enumerate() {
                            th scope="col" class=[class(place)] { (name) }
                        }
                    }
                }
                tbody {
                    @for row in rows {
                        tr {
                            @for (place, cell) in row.iter().enumerate() {
                                td class=[class(place)] { (cell) }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// The name of a training, on one line.
pub(super) fn name(name: &str) -> Markup {
    html! { span.name { (name) } }
}

/// A cell of text.
pub(super) fn text(text: impl AsRef<str>) -> Markup {
    html! { (text.as_ref()) }
}

/// A section with its heading; nothing where `body` is empty.
pub(super) fn section(id: &str, heading: &str, body: &Markup) -> Markup {
    if body.0.is_empty() {
        return html! {};
    }
    html! { section id=(id) { h2 { (heading) } (body) } }
}

/// The whole document. `sections` are ids and headings for the contents.
pub(super) fn document(title: &str, head: &Markup, sections: &[(&str, &str, Markup)]) -> String {
    let shown = || sections.iter().filter(|(_, _, body)| !body.0.is_empty());
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { (title) }
                style { (PreEscaped(STYLE)) }
            }
            body {
                header { (head) }
                @if shown().nth(1).is_some() {
                    nav aria-label="Contents" {
                        ul { @for (id, heading, _) in shown() { li { a href={ "#" (id) } { (heading) } } } }
                    }
                }
                main { @for (id, heading, body) in sections { (section(id, heading, body)) } }
                footer {
                    "Made by stream-grad " (env!("CARGO_PKG_VERSION"))
                    " from the run folder alone; stream-grad report makes it anew."
                }
            }
        }
    }
    .into_string()
}
