//! Many slides: a folder or a table of them.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use crate::error::{Result, SlideError};
use crate::files::folder_of;
use crate::geometry::MicronsPerPixel;
use crate::options::OpenOptions;
use crate::slide::Slide;

/// How the names of slides end, in small letters.
const EXTENSIONS: [&str; 16] = [
    "svs", "tif", "tiff", "ndpi", "vms", "vmu", "scn", "mrxs", "svslide", "bif", "czi", "dcm",
    "qptiff", "png", "jpg", "jpeg",
];

/// A slide that stands in a list.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct ListedSlide {
    /// The file.
    pub path: PathBuf,
    /// Scale of the finest level, if the list states it.
    pub microns_per_pixel: Option<MicronsPerPixel>,
}

impl ListedSlide {
    /// Opens it; a scale in the list is used in place of the file's and the options'.
    ///
    /// # Errors
    /// As [`Slide::open_with`].
    pub fn open(&self, options: &OpenOptions) -> Result<Slide> {
        match self.microns_per_pixel {
            Some(edge) => {
                Slide::open_with(&self.path, &options.clone().with_microns_per_pixel(edge))
            }
            None => Slide::open_with(&self.path, options),
        }
    }
}

/// The slides of a folder (not of folders within it), by name: files that end as slides and pictures do. Hidden files are
/// left out.
///
/// # Errors
/// [`SlideError::Io`].
pub fn slides_in_folder(folder: impl AsRef<Path>) -> Result<Vec<ListedSlide>> {
    let folder = folder.as_ref();
    let failed = |error| SlideError::io(folder, error);
    let mut slides = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let extension = path
            .extension()
            .unwrap_or_default()
            .to_string_lossy()
            .to_lowercase();
        let name = path.file_name().unwrap_or_default();
        let is_hidden = name.as_encoded_bytes().starts_with(b".");
        if EXTENSIONS.contains(&extension.as_str()) && !is_hidden && path.is_file() {
            slides.push(ListedSlide {
                path,
                microns_per_pixel: None,
            });
        }
    }
    slides.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(slides)
}

/// The slides of a CSV table with the column `slide` and, if wanted, `microns_per_pixel`; other columns are for others.
///
/// Paths are taken from the table's own folder unless they are absolute. The files are not opened here.
///
/// # Errors
/// [`SlideError::Io`], [`SlideError::Malformed`] with the line.
///
/// # Examples
/// ```
/// use stream_grad_slides::slides_in_table;
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let folder = tempfile::tempdir()?;
/// let table = folder.path().join("slides.csv");
/// std::fs::write(&table, "slide,label,microns_per_pixel\na.svs,1,\nb.png,0,0.5\n")?;
/// let slides = slides_in_table(&table)?;
/// assert_eq!(slides[0].path, folder.path().join("a.svs"));
/// assert_eq!(slides[1].microns_per_pixel.map(|edge| edge.get()), Some(0.5));
/// # Ok(())
/// # }
/// ```
pub fn slides_in_table(table: impl AsRef<Path>) -> Result<Vec<ListedSlide>> {
    let path = table.as_ref();
    let bytes = std::fs::read(path).map_err(|error| SlideError::io(path, error))?;
    parse(path, &bytes)
}

/// Parses the content of a table; `path` is for errors and for the folder of the slides.
fn parse(path: &Path, bytes: &[u8]) -> Result<Vec<ListedSlide>> {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let mut reader = csv::ReaderBuilder::new()
        .trim(csv::Trim::All)
        .from_reader(bytes);
    let headings = reader
        .headers()
        .map_err(|error| not_csv(path, &error))?
        .clone();
    let column = |name: &str| headings.iter().position(|heading| heading == name);
    let wrong = |line: u64, expected: &str, found: String| SlideError::Malformed {
        path: path.to_path_buf(),
        place: format!("line {line}"),
        expected: expected.to_owned(),
        found,
    };
    let slide_column = column("slide").ok_or_else(|| {
        let found = headings.iter().collect::<Vec<_>>().join(",");
        wrong(1, "a column `slide`", format!("`{found}`"))
    })?;
    let scale_column = column("microns_per_pixel");
    let mut lines: HashMap<PathBuf, u64> = HashMap::new();
    let mut slides = Vec::new();
    for record in reader.records() {
        let record = record.map_err(|error| not_csv(path, &error))?;
        let line = record.position().map_or(0, csv::Position::line);
        let name = record.get(slide_column).unwrap_or_default();
        if name.is_empty() {
            return Err(wrong(line, "the path of a slide", "nothing".to_owned()));
        }
        let slide = folder_of(path).join(name);
        if let Some(first) = lines.insert(slide.clone(), line) {
            let found = format!("`{name}`, which stands on line {first} already");
            return Err(wrong(line, "each slide once", found));
        }
        let scale = scale_column.and_then(|column| record.get(column));
        let microns_per_pixel = scale
            .filter(|text| !text.is_empty())
            .map(|text| {
                let edge = text
                    .parse()
                    .ok()
                    .and_then(|number| MicronsPerPixel::new(number).ok());
                edge.ok_or_else(|| wrong(line, "microns per pixel above 0", format!("`{text}`")))
            })
            .transpose()?;
        slides.push(ListedSlide {
            path: slide,
            microns_per_pixel,
        });
    }
    Ok(slides)
}

fn not_csv(path: &Path, error: &csv::Error) -> SlideError {
    SlideError::Malformed {
        path: path.to_path_buf(),
        place: error.position().map_or_else(
            || "line 1".to_owned(),
            |position| format!("line {}", position.line()),
        ),
        expected: "CSV with as many fields in each line".to_owned(),
        found: error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &[u8]) -> Result<Vec<ListedSlide>> {
        parse(Path::new("tables/t.csv"), text)
    }

    #[test]
    fn tables_name_slides_and_scales() {
        let slides =
            read(b"\xef\xbb\xbflabel, slide ,microns_per_pixel\n1, a.svs ,0.25\n0,/b c.png,\n")
                .unwrap();
        assert_eq!(slides[0].path, Path::new("tables/a.svs"));
        assert_eq!(
            slides[0].microns_per_pixel,
            Some(MicronsPerPixel::new(0.25).unwrap())
        );
        assert_eq!(
            (slides[1].path.as_path(), slides[1].microns_per_pixel),
            (Path::new("/b c.png"), None)
        );
        assert_eq!(read(b"slide\n").unwrap(), []);
    }

    #[test]
    fn what_is_wrong_is_named_with_its_line() {
        for (text, line, expected) in [
            ("", "line 1", "a column `slide`"),
            ("file,label\na,1\n", "line 1", "a column `slide`"),
            ("slide\na\n\nb\na\n", "line 5", "each slide once"),
            ("slide,label\na,1\n,1\n", "line 3", "the path"),
            ("slide,label\na\n", "line 2", "CSV"),
            (
                "slide,microns_per_pixel\na,-1\n",
                "line 2",
                "microns per pixel",
            ),
            (
                "slide,microns_per_pixel\na,many\n",
                "line 2",
                "microns per pixel",
            ),
        ] {
            let error = read(text.as_bytes()).unwrap_err();
            let SlideError::Malformed {
                place,
                expected: rule,
                ..
            } = &error
            else {
                panic!("{error}")
            };
            assert!(
                place == line && rule.starts_with(expected),
                "{text:?}: {error}"
            );
        }
        assert!(read(b"slide\n\xff\xfe\n").is_err(), "not UTF-8");
    }

    #[test]
    fn folders_hold_slides_and_other_things() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["b.SVS", "a.tiff", "notes.txt", ".hidden.png", "c.jpeg"] {
            std::fs::write(folder.path().join(name), "").unwrap();
        }
        std::fs::create_dir(folder.path().join("d.png")).unwrap();
        let slides = slides_in_folder(folder.path()).unwrap();
        let names: Vec<_> = slides
            .iter()
            .map(|slide| slide.path.file_name().unwrap())
            .collect();
        assert_eq!(names, ["a.tiff", "b.SVS", "c.jpeg"]);
        assert!(slides_in_folder(folder.path().join("no")).is_err());
        // An empty file is listed; opening it says what is wrong with it.
        assert!(slides[0].open(&OpenOptions::default()).is_err());
    }

    fn cases() -> ProptestConfig {
        let cases = std::env::var("SLIDES_FUZZ_CASES").ok();
        ProptestConfig::with_cases(cases.and_then(|text| text.parse().ok()).unwrap_or(20_000))
    }

    proptest! {
        #![proptest_config(cases())]

        #[test]
        fn no_table_makes_the_reader_panic(
            noise in proptest::collection::vec(any::<u8>(), 0..60),
            parts in proptest::collection::vec(proptest::sample::select(vec![
                "slide", "microns_per_pixel", "label", ",", "\n", "\r\n", "\"", "a.svs", "0.5", "NaN", "1e999", "\u{feff}", "\0", " ", "é",
            ]), 0..40),
        ) {
            let _ = read(&noise);
            let text = parts.concat();
            for text in [text.clone(), format!("slide,microns_per_pixel\n{text}")] {
                if let Ok(slides) = read(text.as_bytes()) {
                    prop_assert!(slides.iter().all(|slide| slide.path.starts_with("tables") || slide.path.is_absolute()));
                }
            }
        }
    }
}
