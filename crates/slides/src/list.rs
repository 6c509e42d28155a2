//! Many slides: a folder or a table of them.

use std::path::{Path, PathBuf};

use crate::error::{Result, SlideError};
use crate::geometry::MicronsPerPixel;
use crate::options::OpenOptions;
use crate::slide::Slide;
use crate::table::{FurtherCell, SlideTable};

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
    /// What else the list states, in its order.
    pub further: Vec<FurtherCell>,
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

/// Whether a file is a slide or a picture by the end of its name; it is not looked at.
#[must_use]
pub fn is_slide_name(path: impl AsRef<Path>) -> bool {
    let extension = path.as_ref().extension().unwrap_or_default();
    EXTENSIONS.contains(&extension.to_string_lossy().to_lowercase().as_str())
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
        let name = path.file_name().unwrap_or_default();
        let is_hidden = name.as_encoded_bytes().starts_with(b".");
        if is_slide_name(&path) && !is_hidden && path.is_file() {
            slides.push(ListedSlide {
                path,
                microns_per_pixel: None,
                further: Vec::new(),
            });
        }
    }
    slides.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(slides)
}

/// The slides of a table with the column `slide` and, if wanted, `microns_per_pixel`; other columns are kept.
///
/// [`SlideTable`] says which tables are read. Paths are taken from the table's own folder unless they are absolute, and a file
/// may stand there once, under whatever names. The files are not opened as slides here. Two files of one content are told as
/// a warning of `tracing`; [`SlideTable::same_content`] returns them.
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
/// assert_eq!((slides[0].further[0].column.as_str(), slides[0].further[0].text.as_str()), ("label", "1"));
/// assert_eq!(slides[1].microns_per_pixel.map(|edge| edge.get()), Some(0.5));
/// # Ok(())
/// # }
/// ```
pub fn slides_in_table(table: impl AsRef<Path>) -> Result<Vec<ListedSlide>> {
    let table = SlideTable::read(table)?;
    let slides = listed(&table);
    for &(first, second) in table.same_content() {
        let (first, second) = (slides[first].path.display(), slides[second].path.display());
        tracing::warn!(%first, %second, "two slides have one content");
    }
    Ok(slides)
}

fn listed(table: &SlideTable) -> Vec<ListedSlide> {
    let known = ["slide", "microns_per_pixel"];
    table
        .rows()
        .map(|row| ListedSlide {
            path: row.slide.to_path_buf(),
            microns_per_pixel: row.microns_per_pixel,
            further: table.text().further(row.text, &known),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &[u8]) -> Result<Vec<ListedSlide>> {
        SlideTable::parse("tables/t.csv", text).map(|table| listed(&table))
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
        assert_eq!(
            read(b"slide\n\xff\xfe\n").unwrap_err().to_string(),
            "tables/t.csv, line 2: expected UTF-8, or UTF-16 with a byte order mark, found bytes that are not UTF-8"
        );
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
        let missing = folder.path().join("no");
        assert!(matches!(
            slides_in_folder(&missing),
            Err(SlideError::Io { path, source })
                if path == missing && source.kind() == std::io::ErrorKind::NotFound
        ));
        // An empty file is listed; opening it says what is wrong with it.
        let refused = slides[0].open(&OpenOptions::default()).unwrap_err();
        assert!(
            matches!(&refused, SlideError::CannotOpen { path, .. } if *path == slides[0].path),
            "{refused}"
        );
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
