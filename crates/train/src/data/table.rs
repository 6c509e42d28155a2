//! Tables of slides: CSV with the columns `slide,label[,split][,patient]`.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

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
/// [`TrainError::Csv`], [`TrainError::Column`], [`TrainError::Cell`], [`TrainError::RepeatedSlide`],
/// [`TrainError::MissingSlides`], [`TrainError::SplitPatient`], [`TrainError::Classes`] for a table without rows.
pub fn read_table(path: &Path, task: Task) -> Result<Vec<Sample>> {
    let mut reader = csv::ReaderBuilder::new()
        .trim(csv::Trim::All)
        .from_path(path)
        .map_err(TrainError::csv(path))?;
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
    check_files(path, &samples)?;
    check_patients(&samples)?;
    Ok(samples)
}

/// Writes `samples` as a table that [`read_table`] reads, beside its place first and then renamed.
///
/// # Errors
/// [`TrainError::File`], [`TrainError::Csv`].
pub fn write_table(path: &Path, samples: &[Sample]) -> Result<()> {
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
}
