//! The published layout of CAMELYON17.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use stream_grad_slides::{FurtherCell, TextTable, find_copies};

use super::Sample;
use crate::error::{Result, TrainError};

/// Folders below the root that are searched for slides.
const DEPTH: usize = 4;

/// Reads CAMELYON17 as it is published: `stage_labels.csv` or `stages.csv` (columns `patient,stage`) and slides
/// `patient_XXX_node_Y.tif`, in `training/`, in folders of centres, or anywhere below `root`.
///
/// A slide of the stage `negative` has label 0; `itc`, `micro` and `macro` have label 1. Lines of whole patients
/// (`patient_XXX.zip`) are passed over. Slides without a label (the published test set) are left out. Further columns, such as
/// `center`, are kept. The result is sorted by slide and has patients but no splits.
///
/// Of files of one name in several folders the first by path is taken if their content is the same, as far as [`find_copies`]
/// compares it; otherwise they are refused. The same for the table.
///
/// # Errors
/// [`TrainError::File`], [`TrainError::Slide`] for a table that cannot be read, [`TrainError::Column`], [`TrainError::Cell`] for an
/// unknown stage, [`TrainError::RepeatedSlide`], [`TrainError::TwoFiles`], [`TrainError::MissingSlides`] if labels have no slide.
pub fn read_camelyon17(root: &Path) -> Result<Vec<Sample>> {
    let mut found = Found::default();
    found.search(root, DEPTH)?;
    let table = one_file(&found.tables)?.ok_or_else(|| {
        let reason = "no stage_labels.csv in it or in its folders";
        TrainError::file(root)(std::io::Error::new(std::io::ErrorKind::NotFound, reason))
    })?;
    let stages = read_stages(table)?;
    let total = stages.len();
    let mut missing = Vec::new();
    let mut samples = Vec::with_capacity(total);
    for stage in stages {
        let files = found.slides.get(&stage.slide).map(Vec::as_slice);
        match one_file(files.unwrap_or_default())? {
            Some(slide) => samples.push(Sample {
                patient: patient(&stage.slide),
                further: stage.further,
                ..Sample::new(slide, stage.label)
            }),
            None => missing.push(stage.slide),
        }
    }
    if let Some(first) = missing.first() {
        return Err(TrainError::MissingSlides {
            path: table.to_path_buf(),
            missing: missing.len(),
            total,
            first: root.join("training").join(first),
        });
    }
    samples.sort_by(|a, b| a.slide.cmp(&b.slide));
    Ok(samples)
}

/// What lies in the folders: slides by name, and tables.
#[derive(Default)]
struct Found {
    slides: BTreeMap<String, Vec<PathBuf>>,
    tables: Vec<PathBuf>,
}

impl Found {
    fn search(&mut self, folder: &Path, depth: usize) -> Result<()> {
        for entry in std::fs::read_dir(folder).map_err(TrainError::file(folder))? {
            let path = entry.map_err(TrainError::file(folder))?.path();
            let Some(name) = path
                .file_name()
                .and_then(|name| name.to_str())
                .map(str::to_owned)
            else {
                continue;
            };
            if path.is_dir() {
                if depth > 1 {
                    self.search(&path, depth - 1)?;
                }
            } else if name == "stage_labels.csv" || name == "stages.csv" {
                self.tables.push(path);
            } else if name.contains("_node_")
                && !name.ends_with("_mask.tif")
                && !name.ends_with(".xml")
            {
                self.slides.entry(name).or_default().push(path);
            }
        }
        Ok(())
    }
}

/// The first by path of files that are one, or have one content.
fn one_file(paths: &[PathBuf]) -> Result<Option<&Path>> {
    let mut sorted: Vec<&PathBuf> = paths.iter().collect();
    sorted.sort();
    let copies = find_copies(&sorted);
    let is_copy = |place: usize| copies.iter().any(|copy| copy.second == place);
    match (1..sorted.len()).find(|place| !is_copy(*place)) {
        Some(other) => Err(TrainError::TwoFiles {
            first: sorted[0].clone(),
            second: sorted[other].clone(),
        }),
        None => Ok(sorted.first().map(|path| path.as_path())),
    }
}

/// What the table says of a slide.
struct Stage {
    slide: String,
    label: f64,
    further: Vec<FurtherCell>,
}

fn read_stages(path: &Path) -> Result<Vec<Stage>> {
    let table = TextTable::read(path, "patient")?;
    if table.column("stage").is_none() {
        return Err(TrainError::Column {
            path: path.to_path_buf(),
            problem: "missing",
            column: "stage".to_owned(),
            expected: "patient,stage",
        });
    }
    let mut lines = BTreeMap::new();
    let mut stages = Vec::new();
    for row in table.rows() {
        let slide = table.cell(row, "patient").unwrap_or_default();
        if !slide.contains("_node_") {
            continue;
        }
        if let Some(first) = lines.insert(slide, row.line) {
            return Err(TrainError::RepeatedSlide {
                path: path.to_path_buf(),
                slide: slide.into(),
                first,
                second: row.line,
            });
        }
        let label = match table.cell(row, "stage").unwrap_or_default() {
            "negative" => 0.0,
            "itc" | "micro" | "macro" => 1.0,
            other => {
                return Err(TrainError::Cell {
                    path: path.to_path_buf(),
                    line: row.line,
                    column: "stage",
                    expected: "negative, itc, micro or macro".to_owned(),
                    found: other.to_owned(),
                });
            }
        };
        stages.push(Stage {
            slide: slide.to_owned(),
            label,
            further: table.further(row, &["patient", "stage"]),
        });
    }
    Ok(stages)
}

fn patient(slide: &str) -> Option<String> {
    slide.find("_node_").map(|end| slide[..end].to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(table: &str, slides: &[&str]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(root.path().join("training/center_0")).unwrap();
        std::fs::write(root.path().join("stage_labels.csv"), table).unwrap();
        for slide in slides {
            std::fs::write(root.path().join("training").join(slide), "").unwrap();
        }
        root
    }

    #[test]
    fn reads_flat_and_centre_folders() {
        let table = "patient,stage\npatient_000.zip,pN1\npatient_000_node_0.tif,negative\npatient_000_node_1.tif,macro\npatient_001_node_0.tif,itc\n";
        let slides = [
            "patient_000_node_0.tif",
            "patient_000_node_1.tif",
            "center_0/patient_001_node_0.tif",
            "patient_099_node_0.tif",
            "patient_000_node_0_mask.tif",
        ];
        let root = layout(table, &slides);
        let samples = read_camelyon17(root.path()).unwrap();
        let mut labels: Vec<_> = samples
            .iter()
            .map(|s| (s.patient.clone().unwrap(), s.label))
            .collect();
        labels.sort_by(|a, b| a.partial_cmp(b).unwrap());
        let expected = [
            ("patient_000", 0.0),
            ("patient_000", 1.0),
            ("patient_001", 1.0),
        ];
        assert_eq!(
            labels,
            expected.map(|(patient, label)| (patient.to_owned(), label))
        );
    }

    #[test]
    fn faults_are_named() {
        let root = layout(
            "patient,stage\npatient_000_node_0.tif,negative\npatient_000_node_1.tif,macro\n",
            &["patient_000_node_0.tif"],
        );
        let message = read_camelyon17(root.path()).unwrap_err().to_string();
        assert!(
            message.contains("1 of 2") && message.contains("patient_000_node_1.tif"),
            "{message}"
        );
        let root = layout(
            "patient,stage\npatient_000_node_0.tif,huge\n",
            &["patient_000_node_0.tif"],
        );
        let message = read_camelyon17(root.path()).unwrap_err().to_string();
        assert!(
            message.contains("line 2") && message.contains("huge"),
            "{message}"
        );
        let empty = tempfile::tempdir().unwrap();
        assert!(
            read_camelyon17(empty.path())
                .unwrap_err()
                .to_string()
                .contains("stage_labels.csv")
        );
    }

    /// Writes `files` (path and content) below a root with a table of one slide.
    fn with_files(files: &[(&str, &str)]) -> (tempfile::TempDir, Result<Vec<Sample>>) {
        let table = "patient;stage;center\r\npatient_000_node_0.tif;macro;2\r\n";
        let root = layout(table, &[]);
        for (name, content) in files {
            let path = root.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, content).unwrap();
        }
        let samples = read_camelyon17(root.path());
        (root, samples)
    }

    #[test]
    fn one_name_in_two_folders_is_one_slide_or_refused() {
        let first = ("training/center_0/patient_000_node_0.tif", "pixels");
        let (root, samples) = with_files(&[("training/patient_000_node_0.tif", "pixels"), first]);
        let samples = samples.unwrap();
        assert_eq!(samples.len(), 1);
        assert_eq!(samples[0].slide, root.path().join(first.0));

        let (_, samples) = with_files(&[
            ("training/center_1/patient_000_node_0.tif", "others"),
            first,
        ]);
        let message = samples.unwrap_err().to_string();
        for part in ["center_0", "center_1", "differ in content"] {
            assert!(message.contains(part), "{part:?} in {message:?}");
        }
        // Empty files are no copies of each other.
        let empty = [
            ("training/a/patient_000_node_0.tif", ""),
            ("training/b/patient_000_node_0.tif", ""),
        ];
        assert!(with_files(&empty).1.is_err());
    }

    #[cfg(unix)]
    #[test]
    fn a_linked_folder_is_no_second_slide() {
        let name = "training/center_0/patient_000_node_0.tif";
        let (root, _) = with_files(&[(name, "pixels")]);
        std::os::unix::fs::symlink("training", root.path().join("zz")).unwrap();
        let samples = read_camelyon17(root.path()).unwrap();
        assert_eq!(samples[0].slide, root.path().join(name));
    }

    #[test]
    fn further_columns_are_kept() {
        let (_, samples) = with_files(&[("patient_000_node_0.tif", "pixels")]);
        let further = samples.unwrap().remove(0).further;
        assert_eq!(
            (further[0].column.as_str(), further[0].text.as_str()),
            ("center", "2")
        );
        assert_eq!(further.len(), 1);
    }

    #[test]
    fn two_tables_and_a_slide_with_two_stages_are_refused() {
        let slide = ("patient_000_node_0.tif", "pixels");
        let other = "patient,stage\npatient_000_node_0.tif,negative\n";
        let (_, samples) = with_files(&[slide, ("training/stages.csv", other)]);
        let message = samples.unwrap_err().to_string();
        for part in ["stages.csv", "stage_labels.csv", "differ in content"] {
            assert!(message.contains(part), "{part:?} in {message:?}");
        }
        let (_, samples) = with_files(&[
            slide,
            (
                "stage_labels.csv",
                "patient,stage\npatient_000_node_0.tif,itc\npatient_000_node_0.tif,negative\n",
            ),
        ]);
        let message = samples.unwrap_err().to_string();
        for part in ["line 2", "line 3", "patient_000_node_0.tif"] {
            assert!(message.contains(part), "{part:?} in {message:?}");
        }
    }
}
