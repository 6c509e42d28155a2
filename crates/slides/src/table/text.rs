//! A table as text: which characters, which separator, which cells.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::{Result, SlideError};

/// Separators that spreadsheets write, in the order in which they are tried.
const SEPARATORS: [u8; 3] = [b',', b';', b'\t'];

/// A table as text, whichever spreadsheet wrote it.
///
/// What is unambiguous is read:
///
/// - UTF-8, with or without a byte order mark, and UTF-16 with one;
/// - commas, semicolons or tabs between cells: the first of these by which the heading has the column that the caller needs;
///   a first line `sep=;` is passed over;
/// - lines that end with CR LF, LF or CR; lines whose cells are all blank are passed over;
/// - known columns in any case (`Slide`). A column without a name is called `Unnamed: 0`, by its place from 0, as pandas does.
///
/// Cells are trimmed. Everything else is refused with its line: bytes that are not text, a line with more or fewer cells than
/// the heading, two columns whose names differ in case alone.
#[derive(Clone, Debug, PartialEq)]
pub struct TextTable {
    path: PathBuf,
    columns: Vec<String>,
    rows: Vec<TextRow>,
}

/// A row of a [`TextTable`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TextRow {
    /// Line on which it begins, the heading being on line 1.
    pub line: u64,
    /// As many cells as there are columns.
    pub cells: Vec<String>,
}

/// A cell of a column that has no meaning to this project: it is kept, and handed on to what is made of the table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FurtherCell {
    /// Name of the column, as it stands in the table.
    pub column: String,
    /// What stands in the cell; may be blank.
    pub text: String,
}

impl TextTable {
    /// Reads a table that has the column `needed`.
    ///
    /// # Errors
    /// [`SlideError::Io`], [`SlideError::Malformed`] with the line.
    pub fn read(path: impl AsRef<Path>, needed: &str) -> Result<Self> {
        let path = path.as_ref();
        let bytes = std::fs::read(path).map_err(|error| SlideError::io(path, error))?;
        Self::parse(path, &bytes, needed)
    }

    /// Parses the content of a table that has the column `needed`; `path` is for errors.
    ///
    /// # Errors
    /// [`SlideError::Malformed`] with the line.
    ///
    /// # Examples
    /// ```
    /// use stream_grad_slides::TextTable;
    /// # fn main() -> Result<(), stream_grad_slides::SlideError> {
    /// let table = TextTable::parse("t.csv", b"\xef\xbb\xbfPatient;Stage\r\np1;pN0\r\n;\r\n", "patient")?;
    /// assert_eq!(table.column("stage"), Some(1));
    /// assert_eq!(table.rows()[0].cells, ["p1", "pN0"]);
    /// assert_eq!(table.rows().len(), 1);
    /// # Ok(())
    /// # }
    /// ```
    pub fn parse(path: impl AsRef<Path>, bytes: &[u8], needed: &str) -> Result<Self> {
        let path = path.as_ref();
        let text = decode(path, bytes)?;
        let (text, first_line) = without_separator_line(&text);
        let separator = separator(text, needed).ok_or_else(|| {
            let names = names(&widest_heading(text));
            malformed(
                path,
                first_line,
                format!("a column `{needed}`"),
                quoted(&nearest_first(needed, &names)),
            )
        })?;
        let mut records = reader(text, separator).into_records();
        let headings = match records.next() {
            Some(record) => record.map_err(|error| not_csv(path, &error))?,
            None => csv::StringRecord::new(),
        };
        let columns = names(&headings);
        check_names(path, first_line, &columns)?;
        let mut rows = Vec::new();
        for record in records {
            let record = record.map_err(|error| not_csv(path, &error))?;
            if record.iter().all(str::is_empty) {
                continue;
            }
            let line = line_of_record(text, &record) + first_line - 1;
            if record.len() != columns.len() {
                let expected = format!(
                    "CSV with {} fields in each line, as in the heading",
                    columns.len()
                );
                let found = format!("found record with {} fields", record.len());
                return Err(malformed(path, line, expected, found));
            }
            let cells = record.iter().map(str::to_owned).collect();
            rows.push(TextRow { line, cells });
        }
        let mut table = Self {
            path: path.to_path_buf(),
            columns,
            rows,
        };
        table.drop_empty_columns(&headings);
        Ok(table)
    }

    /// Drops columns that have neither a name nor a cell: spreadsheets write separators for what was once touched.
    fn drop_empty_columns(&mut self, headings: &csv::StringRecord) {
        for place in (0..self.columns.len()).rev() {
            let is_empty = |row: &TextRow| row.cells[place].is_empty();
            if headings.get(place) == Some("") && self.rows.iter().all(is_empty) {
                self.columns.remove(place);
                for row in &mut self.rows {
                    row.cells.remove(place);
                }
            }
        }
    }

    /// The table's file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Names of the columns as they stand in the heading.
    #[must_use]
    pub fn columns(&self) -> &[String] {
        &self.columns
    }

    /// All rows that are not blank.
    #[must_use]
    pub fn rows(&self) -> &[TextRow] {
        &self.rows
    }

    /// Place of the column `name`, in whatever case.
    #[must_use]
    pub fn column(&self, name: &str) -> Option<usize> {
        let name = name.to_lowercase();
        self.columns
            .iter()
            .position(|column| column.to_lowercase() == name)
    }

    /// Names of all columns, those first that are spelled most like `name`: for an error that lists what there is.
    #[must_use]
    pub fn nearest_columns(&self, name: &str) -> Vec<&str> {
        nearest_first(name, &self.columns)
    }

    /// What stands in `row` in the column `name`; `None` where there is no such column, or nothing in the cell.
    #[must_use]
    pub fn cell<'a>(&self, row: &'a TextRow, name: &str) -> Option<&'a str> {
        let cell = row.cells.get(self.column(name)?)?;
        Some(cell.as_str()).filter(|cell| !cell.is_empty())
    }

    /// The cells of `row` in all columns but `known`, in the order of the columns.
    #[must_use]
    pub fn further(&self, row: &TextRow, known: &[&str]) -> Vec<FurtherCell> {
        self.columns
            .iter()
            .zip(&row.cells)
            .filter(|(column, _)| !known.contains(&column.to_lowercase().as_str()))
            .map(|(column, text)| FurtherCell {
                column: column.clone(),
                text: text.clone(),
            })
            .collect()
    }
}

/// The error for what stands on a line of a table.
pub(super) fn malformed(path: &Path, line: u64, expected: String, found: String) -> SlideError {
    SlideError::Malformed {
        path: path.to_path_buf(),
        place: format!("line {line}"),
        expected,
        found,
    }
}

/// The characters of a file, with LF where only CR ends lines: the reader counts LF.
fn decode(path: &Path, bytes: &[u8]) -> Result<String> {
    let (encoding, mark) = encoding_rs::Encoding::for_bom(bytes).unwrap_or((encoding_rs::UTF_8, 0));
    let bytes = &bytes[mark..];
    let text = encoding
        .decode_without_bom_handling_and_without_replacement(bytes)
        .ok_or_else(|| {
            let line = match std::str::from_utf8(bytes) {
                Err(error) if encoding == encoding_rs::UTF_8 => line_of(bytes, error.valid_up_to()),
                _ => 1,
            };
            let expected = "UTF-8, or UTF-16 with a byte order mark".to_owned();
            let found = format!("bytes that are not {}", encoding.name());
            malformed(path, line, expected, found)
        })?;
    if let Some(place) = text.find('\0') {
        let found = "a NUL (UTF-16 without a byte order mark, or no text)".to_owned();
        let line = line_of(text.as_bytes(), place);
        return Err(malformed(path, line, "text".to_owned(), found));
    }
    if text.contains('\n') {
        Ok(text.into_owned())
    } else {
        Ok(text.replace('\r', "\n"))
    }
}

/// The line that the byte at `place` stands on.
fn line_of(bytes: &[u8], place: usize) -> u64 {
    bytes
        .iter()
        .take(place)
        .fold(1, |line, byte| line + u64::from(*byte == b'\n'))
}

/// The line on which a record begins. The reader tells where it stood before the record: before blank lines, and within a CR LF.
fn line_of_record(text: &str, record: &csv::StringRecord) -> u64 {
    record.position().map_or(1, |position| {
        let start = usize::try_from(position.byte()).unwrap_or(usize::MAX);
        let rest = text.as_bytes().get(start..).unwrap_or_default();
        let ends = rest.iter().take_while(|byte| b"\r\n".contains(byte));
        ends.fold(position.line(), |line, byte| {
            line + u64::from(*byte == b'\n')
        })
    })
}

/// What follows a first line that tells a spreadsheet the separator, and the line on which it begins.
fn without_separator_line(text: &str) -> (&str, u64) {
    match text.split_once('\n') {
        Some((first, rest))
            if first.trim_end().len() == 5 && first.to_lowercase().starts_with("sep=") =>
        {
            (rest, 2)
        }
        _ => (text, 1),
    }
}

/// The first separator by which the heading has the column `needed`.
fn separator(text: &str, needed: &str) -> Option<u8> {
    SEPARATORS.into_iter().find(|separator| {
        let heading = reader(text, *separator).into_records().next();
        heading.is_some_and(|heading| {
            heading.is_ok_and(|heading| {
                heading
                    .iter()
                    .any(|name| name.to_lowercase() == needed.to_lowercase())
            })
        })
    })
}

/// The heading by the separator that cuts it into most cells.
fn widest_heading(text: &str) -> csv::StringRecord {
    let heading = |separator| reader(text, separator).into_records().next()?.ok();
    let headings = SEPARATORS.into_iter().rev().filter_map(heading);
    headings
        .max_by_key(csv::StringRecord::len)
        .unwrap_or_default()
}

/// `names`, those first that are spelled most like `name`.
fn nearest_first<'a>(name: &str, names: &'a [String]) -> Vec<&'a str> {
    let name = name.to_lowercase();
    let mut sorted: Vec<&str> = names.iter().map(String::as_str).collect();
    // Jaro and Winkler's measure is for names: it counts a common beginning, and is not put off by what follows.
    let likeness = |other: &str| strsim::jaro_winkler(&name, &other.to_lowercase());
    sorted.sort_by(|a, b| likeness(b).total_cmp(&likeness(a)));
    sorted
}

/// Names for an error.
fn quoted(names: &[&str]) -> String {
    if names.is_empty() {
        return "no columns".to_owned();
    }
    let names: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
    names.join(", ")
}

fn reader(text: &str, separator: u8) -> csv::Reader<&[u8]> {
    csv::ReaderBuilder::new()
        .delimiter(separator)
        .trim(csv::Trim::All)
        .has_headers(false)
        .flexible(true)
        .from_reader(text.as_bytes())
}

/// Names of columns; those without one are named by their place.
fn names(headings: &csv::StringRecord) -> Vec<String> {
    headings
        .iter()
        .enumerate()
        .map(|(place, name)| match name {
            "" => format!("Unnamed: {place}"),
            name => name.to_owned(),
        })
        .collect()
}

/// Refuses two columns of one name, in whatever case.
fn check_names(path: &Path, line: u64, columns: &[String]) -> Result<()> {
    let mut places = HashMap::new();
    for (place, name) in columns.iter().enumerate() {
        if let Some(first) = places.insert(name.to_lowercase(), place) {
            let places = (first + 1, place + 1);
            let found = format!(
                "the repeated column `{name}` (columns {} and {})",
                places.0, places.1
            );
            let expected = "each column once, in whatever case".to_owned();
            return Err(malformed(path, line, expected, found));
        }
    }
    Ok(())
}

fn not_csv(path: &Path, error: &csv::Error) -> SlideError {
    let line = error.position().map_or(1, csv::Position::line);
    malformed(path, line, "CSV".to_owned(), error.to_string())
}
