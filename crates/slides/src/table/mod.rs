//! Tables of slides: the one reader for all of them.

mod copies;
#[cfg(test)]
mod tests;
mod text;

use std::collections::HashMap;
use std::path::{Path, PathBuf};

pub use copies::{CopyKind, SlideCopy, find_copies, quick_identity};
pub use text::{FurtherCell, TextRow, TextTable};

use crate::error::{Result, SlideError};
use crate::geometry::MicronsPerPixel;
use text::malformed;

/// A table with the column `slide`, as [`TextTable`] reads it, and the files that its rows name.
///
/// Paths are taken from the table's own folder unless they are absolute. `microns_per_pixel` has a meaning too; other
/// columns are for the caller, or are handed on ([`TextTable::further`]).
#[derive(Clone, Debug, PartialEq)]
pub struct SlideTable {
    text: TextTable,
    slides: Vec<PathBuf>,
    scales: Vec<Option<MicronsPerPixel>>,
    same_content: Vec<(usize, usize)>,
}

/// What the columns of a [`SlideTable`] are called, and where its slides lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlideColumns<'a> {
    /// Column of the slides' paths, in whatever case; `slide` by default.
    pub slide: &'a str,
    /// Column of the scales of the finest levels, which may lack; `microns_per_pixel` by default, blank for none.
    pub microns_per_pixel: &'a str,
    /// Folder that paths are taken from; by default the table's own.
    pub folder: Option<&'a Path>,
}

impl Default for SlideColumns<'_> {
    fn default() -> Self {
        Self {
            slide: "slide",
            microns_per_pixel: "microns_per_pixel",
            folder: None,
        }
    }
}

/// A row of a [`SlideTable`].
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct SlideRow<'a> {
    /// The slide's file.
    pub slide: &'a Path,
    /// Scale of the slide's finest level, if the table states it.
    pub microns_per_pixel: Option<MicronsPerPixel>,
    /// All cells.
    pub text: &'a TextRow,
}

impl SlideTable {
    /// Reads a table, and refuses one file on two rows, under whatever names ([`CopyKind::OneFile`]). Slides that are not there
    /// are no error, and none is opened as a slide.
    ///
    /// # Errors
    /// [`SlideError::Io`], [`SlideError::Malformed`] with the line.
    ///
    /// # Examples
    /// ```
    /// use stream_grad_slides::SlideTable;
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let folder = tempfile::tempdir()?;
    /// let path = folder.path().join("slides.csv");
    /// std::fs::write(&path, "slide,age\na.svs,61\nb.svs,47\n")?;
    /// let table = SlideTable::read(&path)?;
    /// let ages: Vec<_> = table.rows().filter_map(|row| table.text().cell(row.text, "age")).collect();
    /// assert_eq!(ages, ["61", "47"]);
    ///
    /// std::fs::write(folder.path().join("a.svs"), "pixels")?;
    /// std::fs::write(&path, "slide\na.svs\n./a.svs\n")?;
    /// let error = SlideTable::read(&path).unwrap_err();
    /// assert!(error.to_string().contains("line 3: expected each slide once"));
    /// # Ok(())
    /// # }
    /// ```
    pub fn read(path: impl AsRef<Path>) -> Result<Self> {
        Self::read_with(path, SlideColumns::default())
    }

    /// As [`read`](Self::read), with columns of other names.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn read_with(path: impl AsRef<Path>, columns: SlideColumns<'_>) -> Result<Self> {
        let path = path.as_ref();
        let bytes = std::fs::read(path).map_err(|error| SlideError::io(path, error))?;
        let mut table = Self::parse_with(path, &bytes, columns)?;
        for copy in find_copies(&table.slides) {
            match copy.kind {
                CopyKind::OneFile => return Err(table.repeated(copy.first, copy.second)),
                CopyKind::SameContent => table.same_content.push((copy.first, copy.second)),
            }
        }
        Ok(table)
    }

    /// Parses the content of a table. `path` names it in errors, and its folder is that of the slides. The slides are not looked for: a
    /// file that two rows name is found only where the names are the same but for a `.` in them.
    ///
    /// # Errors
    /// [`SlideError::Malformed`] with the line.
    pub fn parse(path: impl AsRef<Path>, bytes: &[u8]) -> Result<Self> {
        Self::parse_with(path, bytes, SlideColumns::default())
    }

    /// As [`parse`](Self::parse), with columns of other names.
    ///
    /// # Errors
    /// As [`parse`](Self::parse).
    ///
    /// # Examples
    /// ```
    /// use std::path::Path;
    /// use stream_grad_slides::{SlideColumns, SlideTable};
    /// # fn main() -> Result<(), stream_grad_slides::SlideError> {
    /// let columns = SlideColumns { slide: "FILENAME", folder: Some(Path::new("slides")), ..SlideColumns::default() };
    /// let table = SlideTable::parse_with("t.csv", b"PATIENT,FILENAME\np1,a.svs\n", columns)?;
    /// assert_eq!(table.rows().next().map(|row| row.slide), Some(Path::new("slides/a.svs")));
    /// # Ok(())
    /// # }
    /// ```
    pub fn parse_with(
        path: impl AsRef<Path>,
        bytes: &[u8],
        columns: SlideColumns<'_>,
    ) -> Result<Self> {
        let path = path.as_ref();
        let text = TextTable::parse(path, bytes, columns.slide)?;
        let folder = columns
            .folder
            .or_else(|| path.parent())
            .unwrap_or_else(|| Path::new(""));
        let mut table = Self {
            slides: Vec::with_capacity(text.rows().len()),
            scales: Vec::with_capacity(text.rows().len()),
            same_content: Vec::new(),
            text,
        };
        let mut places: HashMap<PathBuf, usize> = HashMap::new();
        for place in 0..table.text.rows().len() {
            let row = &table.text.rows()[place];
            let wrong =
                |expected: &str, found| Err(malformed(path, row.line, expected.to_owned(), found));
            let Some(name) = table.text.cell(row, columns.slide) else {
                return wrong("the path of a slide", "nothing".to_owned());
            };
            let slide = folder.join(name);
            let scale = match table.text.cell(row, columns.microns_per_pixel) {
                None => None,
                Some(text) => {
                    let number = text.parse().ok();
                    match number.and_then(|number| MicronsPerPixel::new(number).ok()) {
                        Some(scale) => Some(scale),
                        None => {
                            let found = format!("`{text}`");
                            return wrong("microns per pixel above 0", found);
                        }
                    }
                }
            };
            table.scales.push(scale);
            table.slides.push(slide);
            let spelled = table.slides[place].strip_prefix(".");
            let spelled = spelled.unwrap_or(&table.slides[place]).to_path_buf();
            if let Some(first) = places.insert(spelled, place) {
                return Err(table.repeated(first, place));
            }
        }
        Ok(table)
    }

    /// All cells.
    #[must_use]
    pub fn text(&self) -> &TextTable {
        &self.text
    }

    /// All rows that are not blank.
    pub fn rows(&self) -> impl ExactSizeIterator<Item = SlideRow<'_>> {
        let rows = self.text.rows().iter().enumerate();
        rows.map(|(place, text)| SlideRow {
            slide: &self.slides[place],
            microns_per_pixel: self.scales[place],
            text,
        })
    }

    /// Pairs of rows, by place, whose files have one content under two names ([`CopyKind::SameContent`]); none where the table
    /// was parsed and not read.
    #[must_use]
    pub fn same_content(&self) -> &[(usize, usize)] {
        &self.same_content
    }

    /// The error for two rows that name one file.
    fn repeated(&self, first: usize, second: usize) -> SlideError {
        let line = |place: usize| self.text.rows()[place].line;
        let (known, slide) = (&self.slides[first], &self.slides[second]);
        let found = if known == slide {
            format!(
                "`{}`, which stands on line {} already",
                slide.display(),
                line(first)
            )
        } else {
            format!(
                "`{}`, which is the file of line {} (`{}`)",
                slide.display(),
                line(first),
                known.display()
            )
        };
        malformed(
            self.text.path(),
            line(second),
            "each slide once".to_owned(),
            found,
        )
    }
}
