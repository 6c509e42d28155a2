//! Tables of slides: CSV with the columns `slide,label[,split][,patient]`.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use stream_grad_files::refuse_input;

use super::{Sample, Split, Task, check_patients};
use crate::error::{Result, TrainError};

/// Where the columns stand.
struct Columns {
    slide: usize,
    label: usize,
    split: Option<usize>,
    patient: Option<usize>,
}

/// Reads a table with the columns `slide`, `label` and, if present, `split` and `patient`, in any order.
///
/// A slide's path is taken from the table's own folder unless it is absolute. An empty split or patient is unknown.
/// Every slide must exist, stand in the table once, and have a label that the task accepts.
///
/// # Errors
/// [`TrainError::File`], [`TrainError::Csv`], [`TrainError::Column`], [`TrainError::Cell`], [`TrainError::RepeatedSlide`],
/// [`TrainError::MissingSlides`], [`TrainError::SplitPatient`], [`TrainError::Classes`] for a table without rows.
pub fn read_table(path: &Path, task: Task) -> Result<Vec<Sample>> {
    let bytes = std::fs::read(path).map_err(TrainError::file(path))?;
    let samples = parse(path, &bytes, task)?;
    check_files(path, &samples)?;
    Ok(samples)
}

/// Parses the content of a table; `path` is for errors and for the folder of the slides, which are not looked for.
fn parse(path: &Path, bytes: &[u8], task: Task) -> Result<Vec<Sample>> {
    let mut reader = csv::ReaderBuilder::new()
        .trim(csv::Trim::All)
        .from_reader(bytes);
    let headings = reader.headers().map_err(TrainError::csv(path))?.clone();
    let columns = Columns::find(path, &headings)?;
    let folder = path.parent().unwrap_or_else(|| Path::new(""));
    let mut samples: Vec<Sample> = Vec::new();
    let mut lines: HashMap<PathBuf, u64> = HashMap::new();
    for record in reader.records() {
        let record = record.map_err(TrainError::csv(path))?;
        let line = record.position().map_or(0, csv::Position::line);
        let sample = columns.sample(path, folder, task, &record, line)?;
        if let Some(first) = lines.insert(sample.slide.clone(), line) {
            return Err(TrainError::RepeatedSlide {
                path: path.to_path_buf(),
                slide: sample.slide,
                first,
                second: line,
            });
        }
        samples.push(sample);
    }
    if samples.is_empty() {
        return Err(TrainError::Classes {
            set: format!("table {}", path.display()),
            expected: "two or more different labels".to_owned(),
            found: "no rows".to_owned(),
        });
    }
    check_patients(&samples)?;
    Ok(samples)
}

/// Writes `samples` as a table that [`read_table`] reads, beside its place first and then renamed.
///
/// # Errors
/// [`TrainError::File`], [`TrainError::Csv`]; [`TrainError::Destination`] if `path` is one of the slides.
pub fn write_table(path: &Path, samples: &[Sample]) -> Result<()> {
    refuse_input(path, samples.iter().map(|sample| &sample.slide))?;
    crate::files::write_whole(path, &table(path, samples)?)
}

/// The bytes that [`write_table`] writes.
///
/// # Errors
/// [`TrainError::File`], [`TrainError::Csv`].
pub(crate) fn table(path: &Path, samples: &[Sample]) -> Result<Vec<u8>> {
    let folder = path.parent().unwrap_or_else(|| Path::new(""));
    let mut writer = csv::Writer::from_writer(Vec::new());
    writer
        .write_record(["slide", "label", "split", "patient"])
        .map_err(TrainError::csv(path))?;
    for sample in samples {
        let slide = sample.slide.strip_prefix(folder).unwrap_or(&sample.slide);
        let (slide, label) = (slide.display().to_string(), sample.label.to_string());
        let split = sample.split.map_or("", Split::name);
        writer
            .write_record([
                &slide,
                &label,
                split,
                sample.patient.as_deref().unwrap_or(""),
            ])
            .map_err(TrainError::csv(path))?;
    }
    writer
        .into_inner()
        .map_err(|error| TrainError::file(path)(error.into_error()))
}

impl Columns {
    fn find(path: &Path, headings: &csv::StringRecord) -> Result<Self> {
        let refuse = |problem, column: &str| {
            Err(TrainError::Column {
                path: path.to_path_buf(),
                problem,
                column: column.to_owned(),
            })
        };
        let mut places: HashMap<&str, usize> = HashMap::new();
        for (place, heading) in headings.iter().enumerate() {
            let heading = heading.trim_start_matches('\u{feff}');
            if !["slide", "label", "split", "patient"].contains(&heading) {
                return refuse("unknown", heading);
            }
            if places.insert(heading, place).is_some() {
                return refuse("repeated", heading);
            }
        }
        let Some(&slide) = places.get("slide") else {
            return refuse("missing", "slide");
        };
        let Some(&label) = places.get("label") else {
            return refuse("missing", "label");
        };
        Ok(Self {
            slide,
            label,
            split: places.get("split").copied(),
            patient: places.get("patient").copied(),
        })
    }

    fn sample(
        &self,
        path: &Path,
        folder: &Path,
        task: Task,
        record: &csv::StringRecord,
        line: u64,
    ) -> Result<Sample> {
        let cell = |column, expected: &str, found: &str| TrainError::Cell {
            path: path.to_path_buf(),
            line,
            column,
            expected: expected.to_owned(),
            found: found.to_owned(),
        };
        let slide = record.get(self.slide).unwrap_or_default();
        if slide.is_empty() {
            return Err(cell("slide", "a path", slide));
        }
        let label = record.get(self.label).unwrap_or_default();
        let number = label
            .parse::<f64>()
            .ok()
            .filter(|number| task.accepts(*number));
        let number = number.ok_or_else(|| cell("label", &task.labels(), label))?;
        let optional = |place: Option<usize>| {
            place
                .and_then(|place| record.get(place))
                .filter(|value| !value.is_empty())
        };
        let split = match optional(self.split) {
            None => None,
            Some(name) => Some(
                Split::parse(name)
                    .ok_or_else(|| cell("split", "train, validation or test", name))?,
            ),
        };
        Ok(Sample {
            slide: folder.join(slide),
            label: number,
            split,
            patient: optional(self.patient).map(str::to_owned),
        })
    }
}

fn check_files(path: &Path, samples: &[Sample]) -> Result<()> {
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
    use tempfile::TempDir;

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
            (samples[0].label, samples[0].split),
            (1.0, Some(Split::Test))
        );
        assert_eq!(
            (samples[0].patient.as_deref(), samples[1].patient.as_deref()),
            (Some("p1"), None)
        );
        assert_eq!(samples[1].split, None);
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
            (
                "slide,label,stain\na.tif,1,HE\n",
                vec!["unknown column `stain`"],
            ),
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
        let Ok(samples) = parse(path, bytes, task) else {
            return;
        };
        assert!(!samples.is_empty());
        assert!(samples.iter().all(|sample| task.accepts(sample.label)));
        assert!(check_patients(&samples).is_ok());
        let slides: HashSet<&Path> = samples
            .iter()
            .map(|sample| sample.slide.as_path())
            .collect();
        assert_eq!(slides.len(), samples.len());
        let written = super::table(path, &samples).unwrap();
        assert_eq!(parse(path, &written, task).unwrap(), samples);
    }

    proptest! {
        #![proptest_config(cases())]

        #[test]
        fn no_table_makes_the_reader_panic(
            noise in proptest::collection::vec(any::<u8>(), 0..60),
            parts in proptest::collection::vec(proptest::sample::select(vec![
                "slide", "label", "split", "patient", ",", ",", "\n", "\n", "\r\n", "\"", "a.svs", "b.svs", "/c.svs", "0", "1", "1.0", "0.5",
                "-0", "NaN", "inf", "1e999", "test", "Val", "later", "p", "\u{feff}", "\0", " ", "é",
            ]), 0..40),
            rows in proptest::collection::vec((
                proptest::sample::select(vec!["a", "b", "c d", "/e", "\"f,g\"", ""]),
                proptest::sample::select(vec!["0", "1", "0.25", "2", "x"]),
                proptest::sample::select(vec!["", "train", "test"]),
                proptest::sample::select(vec!["", "p", "\"q\n\""]),
            ), 0..4),
        ) {
            let text = parts.concat();
            let rows: String = rows
                .into_iter()
                .map(|(slide, label, split, patient)| format!("{slide},{label},{split},{patient}\n"))
                .collect();
            for task in [Task::Binary, Task::Classification { classes: 3 }, Task::Regression] {
                accepted_is_usable(&noise, task);
                accepted_is_usable(text.as_bytes(), task);
                accepted_is_usable(format!("slide,label\n{text}").as_bytes(), task);
                accepted_is_usable(format!("slide,label,split,patient\n{rows}").as_bytes(), task);
            }
        }
    }
}
