//! Tables of slides: `slide,label[,split][,patient][,microns_per_pixel]`, and whatever else.

use std::collections::HashSet;
use std::path::Path;

use stream_grad_files::refuse_input;
use stream_grad_slides::FurtherCell;

use super::columns::Columns;
use super::{ClassNames, DataSettings, Label, Sample, Split, Task, read};
use crate::error::{Result, TrainError};
use crate::files::csv_bytes;

/// Columns that have a meaning here, in the order in which they are written.
pub(super) const KNOWN: [&str; 5] = ["slide", "label", "split", "patient", "microns_per_pixel"];

/// The same for errors.
const EXPECTED: &str = "slide,label[,split][,patient][,microns_per_pixel]";

/// Reads a table with the columns `slide`, `label` and, if present, `split`, `patient` and `microns_per_pixel`, in any order.
/// Further columns are kept in [`Sample::further`] and handed on to the predictions.
///
/// [`SlideTable`](stream_grad_slides::SlideTable) says how a table may be spelled. A slide's path is taken from the table's own folder unless it is absolute. A
/// blank split, patient or scale is unknown; [`assign_splits`](super::assign_splits) draws the splits. Every slide must exist,
/// stand in the table once, under whatever name, and have a label that the task accepts, or none where it is to be predicted.
/// [`check_samples`](super::check_samples) tells what is suspicious but allowed.
///
/// # Errors
/// [`TrainError::Slide`] for a file that is no table or names a slide twice, [`TrainError::NoColumn`], [`TrainError::Cell`],
/// [`TrainError::MissingSlides`], [`TrainError::SplitPatient`], [`TrainError::Classes`] for a table without rows.
pub fn read_table(path: &Path, task: Task) -> Result<Vec<Sample>> {
    Ok(read::read(path, &Columns::default(), &numbered(task))?.samples)
}

/// Settings for a table whose labels are numbers.
fn numbered(task: Task) -> DataSettings {
    DataSettings {
        task,
        classes: ClassNames::numbered(task).into(),
        ..DataSettings::default()
    }
}

/// Writes `samples` as a table that [`read_table`] reads, beside its place first and then renamed.
///
/// Further columns come last, in the order in which samples have them; a sample that lacks one has a blank cell there.
///
/// # Errors
/// [`TrainError::File`], [`TrainError::Csv`], [`TrainError::Column`] for a further column that has the name of a known one, or
/// that a sample has twice; [`TrainError::Destination`] if `path` is one of the slides.
pub fn write_table(path: &Path, samples: &[Sample]) -> Result<()> {
    refuse_input(path, samples.iter().map(|sample| &sample.slide))?;
    crate::files::write_whole(path, &table(path, samples)?)
}

/// The bytes that [`write_table`] writes.
///
/// # Errors
/// As [`write_table`].
pub(crate) fn table(path: &Path, samples: &[Sample]) -> Result<Vec<u8>> {
    let folder = path.parent().unwrap_or_else(|| Path::new(""));
    let has_scales = samples
        .iter()
        .any(|sample| sample.microns_per_pixel.is_some());
    let known = if has_scales { &KNOWN[..] } else { &KNOWN[..4] };
    let further = further_columns(samples.iter().map(|sample| sample.further.as_slice()));
    check_columns(path, samples)?;
    let heading = known.iter().chain(&further);
    let heading = heading.map(|&column| column.to_owned()).collect();
    let rows = samples.iter().map(|sample| {
        let slide = sample.slide.strip_prefix(folder).unwrap_or(&sample.slide);
        let mut row = vec![
            slide.display().to_string(),
            sample
                .label
                .as_ref()
                .map_or_else(String::new, Label::to_string),
            sample.split.map_or("", Split::name).to_owned(),
            sample.patient.clone().unwrap_or_default(),
        ];
        if has_scales {
            let scale = sample.microns_per_pixel;
            row.push(scale.map_or_else(String::new, |scale| scale.get().to_string()));
        }
        row.extend(
            further
                .iter()
                .map(|column| further_cell(&sample.further, column).to_owned()),
        );
        row
    });
    csv_bytes(path, std::iter::once(heading).chain(rows))
}

/// Names of all further columns, in the order in which they are met.
pub(crate) fn further_columns<'a>(rows: impl Iterator<Item = &'a [FurtherCell]>) -> Vec<&'a str> {
    let mut known = HashSet::new();
    rows.flatten()
        .map(|cell| cell.column.as_str())
        .filter(|column| known.insert(*column))
        .collect()
}

/// Adds further columns to a heading. One that is called as a column before it, in whatever case, gets `table_` before its name, as
/// often as needed.
pub(crate) fn add_further(heading: &mut Vec<String>, columns: &[&str]) {
    for &column in columns {
        let mut name = column.to_owned();
        while heading
            .iter()
            .any(|taken| taken.to_lowercase() == name.to_lowercase())
        {
            name.insert_str(0, "table_");
        }
        heading.push(name);
    }
}

/// What a row has in a further column; nothing where it lacks it.
pub(crate) fn further_cell<'a>(cells: &'a [FurtherCell], column: &str) -> &'a str {
    let cell = cells.iter().find(|cell| cell.column == column);
    cell.map_or("", |cell| cell.text.as_str())
}

/// Refuses further columns that could not be read back.
fn check_columns(path: &Path, samples: &[Sample]) -> Result<()> {
    for sample in samples {
        let mut names: HashSet<String> = KNOWN.map(str::to_owned).into();
        for cell in &sample.further {
            if !names.insert(cell.column.to_lowercase()) {
                return Err(TrainError::Column {
                    path: path.to_path_buf(),
                    problem: "repeated",
                    column: cell.column.clone(),
                    expected: EXPECTED,
                });
            }
        }
    }
    Ok(())
}

pub(super) fn check_files(path: &Path, samples: &[Sample]) -> Result<()> {
    let mut missing = samples.iter().filter(|sample| !sample.slide.is_file());
    match missing.next() {
        None => Ok(()),
        Some(first) => Err(TrainError::MissingSlides {
            path: path.to_path_buf(),
            missing: 1 + missing.count(),
            total: samples.len(),
            first: first.slide.clone(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;
    use stream_grad_slides::SlideTable;
    use tempfile::TempDir;

    use super::super::check_patients;
    use super::*;

    fn table(text: &str) -> (TempDir, Result<Vec<Sample>>) {
        let folder = tempfile::tempdir().unwrap();
        for name in ["a.tif", "b.tif", "c.tif"] {
            std::fs::write(folder.path().join(name), "").unwrap();
        }
        let path = folder.path().join("slides.csv");
        std::fs::write(&path, text).unwrap();
        let samples = read_table(&path, Task::Binary);
        (folder, samples)
    }

    fn message(text: &str) -> String {
        table(text).1.unwrap_err().to_string()
    }

    #[test]
    fn reads_columns_in_any_order() {
        let (folder, samples) = table("label,slide,patient,split\n1,a.tif,p1,test\n0,b.tif,,\n");
        let samples = samples.unwrap();
        assert_eq!(samples[0].slide, folder.path().join("a.tif"));
        assert_eq!(
            (samples[0].label.clone(), samples[0].split),
            (Some(Label::Number(1.0)), Some(Split::Test))
        );
        assert_eq!(
            (samples[0].patient.as_deref(), samples[1].patient.as_deref()),
            (Some("p1"), None)
        );
        assert_eq!(samples[1].split, None);
    }

    #[test]
    fn further_columns_are_kept_in_order() {
        let (folder, samples) = table(
            "Age,Slide,LABEL,Microns_Per_Pixel,note\n61,a.tif,1.0,0.25,\"a, b\"\n,b.tif,0,,\n",
        );
        let samples = samples.unwrap();
        let cells = |sample: &Sample| -> Vec<(String, String)> {
            let cells = sample.further.iter();
            cells
                .map(|cell| (cell.column.clone(), cell.text.clone()))
                .collect()
        };
        let owned = |cells: [(&str, &str); 2]| cells.map(|(a, b)| (a.to_owned(), b.to_owned()));
        assert_eq!(cells(&samples[0]), owned([("Age", "61"), ("note", "a, b")]));
        assert_eq!(cells(&samples[1]), owned([("Age", ""), ("note", "")]));
        let scales = samples
            .iter()
            .map(|sample| sample.microns_per_pixel.map(|edge| edge.get()));
        assert_eq!(scales.collect::<Vec<_>>(), [Some(0.25), None]);

        let path = folder.path().join("again.csv");
        write_table(&path, &samples).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(
            text.starts_with("slide,label,split,patient,microns_per_pixel,Age,note\n"),
            "{text}"
        );
        assert_eq!(read_table(&path, Task::Binary).unwrap(), samples);
    }

    /// What was stored before there were further columns is read, and what has none is stored as before.
    #[test]
    fn samples_without_further_columns_are_stored_as_ever() {
        let json = r#"{"slide":"a.tif","label":1.0,"split":"test","patient":null}"#;
        let sample = Sample {
            split: Some(Split::Test),
            ..Sample::new("a.tif", 1.0)
        };
        assert_eq!(serde_json::from_str::<Sample>(json).unwrap(), sample);
        assert_eq!(serde_json::to_string(&sample).unwrap(), json);
        let bytes = super::table(Path::new("t.csv"), &[sample]).unwrap();
        assert_eq!(bytes, b"slide,label,split,patient\na.tif,1,test,\n");
    }

    #[test]
    fn a_further_column_called_as_a_known_one_is_not_written() {
        for columns in [&["Patient"][..], &["age", "Age"]] {
            let cell = |column: &&str| FurtherCell {
                column: (*column).to_owned(),
                text: String::new(),
            };
            let sample = Sample {
                further: columns.iter().map(cell).collect(),
                ..Sample::new("a.tif", 1.0)
            };
            let error = super::table(Path::new("t.csv"), &[sample]).unwrap_err();
            assert!(error.to_string().contains("repeated column"), "{error}");
        }
    }

    /// One file under two names is found in the table's own folder too, whatever the working folder is.
    #[test]
    fn one_file_under_two_names_is_refused() {
        let message = message("slide,label,split\na.tif,1,test\nb.tif,0,train\n./a.tif,1,train\n");
        for part in ["line 4", "line 2", "a.tif"] {
            assert!(message.contains(part), "{part:?} in {message:?}");
        }
    }

    #[test]
    fn a_blank_label_is_to_be_predicted_and_written_as_one() {
        let (folder, samples) = table("slide,label\na.tif,1\nb.tif,\n");
        let samples = samples.unwrap();
        assert_eq!(samples[0].label, Some(Label::Number(1.0)));
        assert_eq!(samples[1].label, None);
        let path = folder.path().join("again.csv");
        write_table(&path, &samples).unwrap();
        assert_eq!(read_table(&path, Task::Binary).unwrap(), samples);
    }

    #[test]
    fn a_written_table_is_read_back() {
        let (folder, samples) =
            table("slide,label,split,patient\na.tif,1,train,\"p, 1\"\nb.tif,0,validation,p2\n");
        let samples = samples.unwrap();
        let path = folder.path().join("again.csv");
        write_table(&path, &samples).unwrap();
        assert_eq!(read_table(&path, Task::Binary).unwrap(), samples);
    }

    #[test]
    fn bad_tables_are_refused_by_name_and_line() {
        for (text, parts) in [
            ("slide,split\na.tif,test\n", vec!["missing column `label`"]),
            (
                "slide,label,label\na.tif,1,1\n",
                vec!["repeated column `label`"],
            ),
            (
                "slide,label\na.tif,1\nb.tif,2\n",
                vec!["line 3", "from 0 to 1", "`2`"],
            ),
            ("slide,label\na.tif,yes\n", vec!["line 2", "`yes`"]),
            ("slide,label\na.tif,NA\n", vec!["line 2", "`NA`"]),
            ("slide,label\na.tif,nan\n", vec!["line 2", "`nan`"]),
            (
                "slide,label,patient\na.tif,1,p\nb.tif,0,NA\n",
                vec!["line 3", "`patient`", "`NA`", "nothing where it is unknown"],
            ),
            (
                "slide,label,split\na.tif,1,NA\n",
                vec![
                    "line 2",
                    "`split`",
                    "`NA`",
                    "nothing where it is to be drawn",
                ],
            ),
            (
                "slide,label,microns_per_pixel\na.tif,1,0\n",
                vec!["line 2", "microns per pixel", "`0`"],
            ),
            (
                "slide,label,split\na.tif,1,later\n",
                vec!["`later`", "train, validation or test"],
            ),
            (
                "slide,label\na.tif,1\nb.tif,0\na.tif,1\n",
                vec!["a.tif", "line 2", "line 4"],
            ),
            (
                "slide,label\na.tif,1\nx.tif,0\ny.tif,0\n",
                vec!["2 of 3", "x.tif"],
            ),
            #[cfg(not(windows))]
            (
                "slide,label\nx\\a.tif,1\n",
                vec!["1 of 1", "folders end with `/`"],
            ),
            ("slide,label\n", vec!["no rows"]),
            (
                "slide,label\na.tif,1,3\n",
                vec!["found record with 3 fields"],
            ),
            (
                "slide,label,split,patient\na.tif,1,train,p\nb.tif,0,test,p\n",
                vec!["`p`", "train", "test"],
            ),
        ] {
            let message = message(text);
            for part in parts {
                assert!(message.contains(part), "{part:?} in {message:?}");
            }
        }
    }

    /// How many cases the reader is tried with: 20,000, or as many as `TRAIN_FUZZ_CASES` says.
    fn cases() -> ProptestConfig {
        let cases = std::env::var("TRAIN_FUZZ_CASES").ok();
        ProptestConfig::with_cases(cases.and_then(|text| text.parse().ok()).unwrap_or(20_000))
    }

    /// What is accepted obeys the rules, and a table written of it is read as the same.
    fn accepted_is_usable(bytes: &[u8], task: Task) {
        let path = Path::new("tables/t.csv");
        let parse = |bytes: &[u8]| {
            let table = SlideTable::parse(path, bytes)?;
            let data = read::parse(&table, &Columns::default(), &numbered(task))?;
            Ok::<_, TrainError>(data.samples)
        };
        let Ok(samples) = parse(bytes) else {
            return;
        };
        assert!(!samples.is_empty());
        let labels = samples.iter().filter_map(|sample| sample.label.as_ref());
        assert!(labels.into_iter().all(|label| task.accepts(label)));
        assert!(check_patients(&samples).is_ok());
        for sample in &samples {
            let columns: HashSet<String> = sample
                .further
                .iter()
                .map(|cell| cell.column.to_lowercase())
                .collect();
            assert_eq!(columns.len(), sample.further.len());
            assert!(KNOWN.iter().all(|known| !columns.contains(*known)));
        }
        let slides: HashSet<&Path> = samples
            .iter()
            .map(|sample| sample.slide.as_path())
            .collect();
        assert_eq!(slides.len(), samples.len());
        let written = super::table(path, &samples).unwrap();
        assert_eq!(parse(&written).unwrap(), samples);
    }

    proptest! {
        #![proptest_config(cases())]

        #[test]
        fn no_table_makes_the_reader_panic(
            noise in proptest::collection::vec(any::<u8>(), 0..60),
            parts in proptest::collection::vec(proptest::sample::select(vec![
                "slide", "Label", "split", "patient", "age", ";", "\t", "\r", "sep=;\n", "microns_per_pixel", ",", ",", "\n", "\n", "\r\n", "\"", "a.svs", "b.svs", "/c.svs", "0", "1", "1.0", "0.5",
                "-0", "NaN", "inf", "1e999", "test", "Val", "later", "p", "\u{feff}", "\0", " ", "é",
            ]), 0..40),
            rows in proptest::collection::vec((
                proptest::sample::select(vec!["a", "b", "c d", "/e", "\"f,g\"", ""]),
                proptest::sample::select(vec!["0", "1", "0.25", "2", "x", "0;1", ";", ""]),
                proptest::sample::select(vec!["", "train", "test"]),
                proptest::sample::select(vec!["", "p", "\"q\n\"", "P", "NA"]),
                proptest::sample::select(vec!["", "x", "\"y,\r z\"", "0.5"]),
            ), 0..4),
            further in proptest::sample::select(vec!["age", "", "\"a;slide;b\"", "Microns_Per_Pixel", "ÄGE", "Unnamed: 5"]),
        ) {
            let text = parts.concat();
            let rows: String = rows
                .into_iter()
                .map(|(slide, label, split, patient, more)| format!("{slide},{label},{split},{patient},{more},{more}\n"))
                .collect();
            for task in [
                Task::Binary,
                Task::Classification { classes: 3 },
                Task::MultiLabel { labels: 2 },
                Task::Ordinal { levels: 3 },
                Task::Regression,
                Task::Segmentation { classes: 2 },
            ] {
                accepted_is_usable(&noise, task);
                accepted_is_usable(text.as_bytes(), task);
                accepted_is_usable(format!("slide,label\n{text}").as_bytes(), task);
                accepted_is_usable(format!("slide,label,split,patient,{further},\n{rows}").as_bytes(), task);
            }
        }
    }
}
