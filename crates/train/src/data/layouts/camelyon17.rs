//! The published layouts of CAMELYON17.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use stream_grad_slides::{FurtherCell, TextTable};

use super::contents::{Contents, name, one_file};
use super::{Layout, data_set, wrong_task};
use crate::data::{DataSet, Label, NodeStage, PatientStage, Sample, Split, Task, patient_stage};
use crate::error::{Result, TrainError};

/// Names of the table, older and newer.
const TABLES: &[&str] = &["stage_labels.csv", "stages.csv"];
/// Patients from this number are the challenge's test set.
const FIRST_TEST_PATIENT: u32 = 100;

pub(super) fn recognises(contents: &Contents) -> bool {
    !contents.named(TABLES).is_empty() || !slides(contents).is_empty()
}

/// Reads slides with the stages of `stage_labels.csv` or `stages.csv` (columns `patient,stage`).
///
/// With two classes, `itc`, `micro` and `macro` are 1. The stages of whole patients (`patient_XXX.zip`) are the further column
/// `patient_stage`. Slides that the table does not name are to predict. Other columns, such as `center`, are kept; without one,
/// the folder `center_N` says the centre. The result is sorted by slide.
///
/// Of files of one name in several folders the first by path is taken if their content is the same, as far as
/// [`find_copies`](stream_grad_slides::find_copies) compares it; otherwise they are refused. The same for the table.
pub(super) fn read(contents: &Contents, task: Task) -> Result<DataSet> {
    let classes: &[&str] = match task {
        Task::Binary => &["negative", "metastasis"],
        Task::Classification { classes: 4 } | Task::Ordinal { levels: 4 } => &NodeStage::NAMES,
        _ => {
            let expected = "binary, or classification or ordinal of 4";
            return Err(wrong_task(Layout::Camelyon17, expected, task));
        }
    };
    let path = contents.table(TABLES)?;
    let table = Stages::read(path)?;
    let mut found = slides(contents);
    let mut missing = Vec::new();
    let mut samples = Vec::new();
    for row in &table.slides {
        let Some(slide) = one_file(&found.remove(row.slide.as_str()).unwrap_or_default())? else {
            missing.push(&row.slide);
            continue;
        };
        let label = match task {
            Task::Binary => Label::of_class(usize::from(row.stage > NodeStage::Negative)),
            _ => row.stage.label(),
        };
        samples.push(sample(slide, Some(label), row.further.clone(), &table));
    }
    if let Some(first) = missing.first() {
        return Err(TrainError::MissingSlides {
            path: path.to_path_buf(),
            missing: missing.len(),
            total: table.slides.len(),
            first: contents.root().join(first),
        });
    }
    let known = samples.len();
    for files in found.into_values() {
        if let Some(slide) = one_file(&files)? {
            samples.push(sample(slide, None, Vec::new(), &table));
        }
    }
    samples.sort_by(|a, b| a.slide.cmp(&b.slide));
    let patients: std::collections::BTreeSet<_> = samples
        .iter()
        .filter_map(|sample| sample.patient.as_ref())
        .collect();
    let line = format!(
        "CAMELYON17, {} slides of {} patients, stages for {known}",
        samples.len(),
        patients.len()
    );
    let mut data = data_set(line, samples, task, classes)?;
    data.notices.extend(table.disagreements());
    Ok(data)
}

/// Slides by name.
fn slides(contents: &Contents) -> BTreeMap<&str, Vec<&Path>> {
    let mut slides: BTreeMap<&str, Vec<&Path>> = BTreeMap::new();
    for path in contents.files() {
        let name = name(path);
        if patient(name).is_some() && !name.ends_with("_mask.tif") && !name.ends_with(".xml") {
            slides.entry(name).or_default().push(path);
        }
    }
    slides
}

fn sample(
    slide: &Path,
    label: Option<Label>,
    mut further: Vec<FurtherCell>,
    table: &Stages,
) -> Sample {
    let patient = patient(name(slide));
    let cell = |column: &str, text: &str| FurtherCell {
        column: column.to_owned(),
        text: text.to_owned(),
    };
    if !further
        .iter()
        .any(|cell| cell.column.to_lowercase() == "center")
    {
        let folders = slide.iter().filter_map(|part| part.to_str());
        if let Some(centre) = folders
            .filter_map(|name| name.strip_prefix("center_"))
            .next_back()
        {
            further.push(cell("center", centre));
        }
    }
    if let Some(stage) = patient.and_then(|patient| table.patients.get(patient)) {
        further.push(cell("patient_stage", &stage.to_string()));
    }
    let number: Option<u32> =
        patient.and_then(|patient| patient.trim_start_matches("patient_").parse().ok());
    let is_test = label.is_none() || number.is_some_and(|number| number >= FIRST_TEST_PATIENT);
    Sample {
        label,
        split: is_test.then_some(Split::Test),
        patient: patient.map(str::to_owned),
        further,
        ..Sample::unlabelled(slide)
    }
}

fn patient(slide: &str) -> Option<&str> {
    slide.find("_node_").map(|end| &slide[..end])
}

/// What the table says.
struct Stages {
    path: PathBuf,
    slides: Vec<Row>,
    patients: BTreeMap<String, PatientStage>,
}

struct Row {
    slide: String,
    stage: NodeStage,
    further: Vec<FurtherCell>,
}

impl Stages {
    fn read(path: &Path) -> Result<Self> {
        let table = TextTable::read(path, "patient")?;
        if table.column("stage").is_none() {
            return Err(TrainError::Column {
                path: path.to_path_buf(),
                problem: "missing",
                column: "stage".to_owned(),
                expected: "patient,stage",
            });
        }
        let mut stages = Self {
            path: path.to_path_buf(),
            slides: Vec::new(),
            patients: BTreeMap::new(),
        };
        let mut lines = BTreeMap::new();
        for row in table.rows() {
            let name = table.cell(row, "patient").unwrap_or_default();
            if let Some(first) = lines.insert(name, row.line) {
                return Err(TrainError::RepeatedSlide {
                    path: path.to_path_buf(),
                    slide: name.into(),
                    first,
                    second: row.line,
                });
            }
            let text = table.cell(row, "stage").unwrap_or_default();
            if patient(name).is_some() {
                let stage = NodeStage::parse(text).ok_or_else(|| TrainError::Cell {
                    path: path.to_path_buf(),
                    line: row.line,
                    column: "stage".to_owned(),
                    expected: "negative, itc, micro or macro".to_owned(),
                    found: text.to_owned(),
                })?;
                stages.slides.push(Row {
                    slide: name.to_owned(),
                    stage,
                    further: table.further(row, &["patient", "stage"]),
                });
            } else if let Some(stage) = PatientStage::parse(text) {
                let patient = name.trim_end_matches(".zip").to_owned();
                stages.patients.insert(patient, stage);
            }
        }
        Ok(stages)
    }

    /// Patients whose stage is not that of their slides, in one line.
    fn disagreements(&self) -> Option<String> {
        let mut slides: BTreeMap<&str, Vec<NodeStage>> = BTreeMap::new();
        for row in &self.slides {
            if let Some(patient) = patient(&row.slide) {
                slides.entry(patient).or_default().push(row.stage);
            }
        }
        let differs = |(patient, published): (&String, &PatientStage)| {
            let of_slides = patient_stage(slides.get(patient.as_str())?)?;
            (of_slides != *published)
                .then(|| format!("{patient} ({published}, and {of_slides} by its slides)"))
        };
        let patients: Vec<String> = self.patients.iter().filter_map(differs).collect();
        (!patients.is_empty()).then(|| {
            let table = name(&self.path);
            format!(
                "stages of patients in {table} that differ: {}",
                patients.join(", ")
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All slides, with two classes.
    fn read_camelyon17(root: &Path) -> Result<Vec<Sample>> {
        Ok(read(&Contents::of(root)?, Task::Binary)?.samples)
    }

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
        let unlabelled: Vec<&Sample> = samples.iter().filter(|s| s.label.is_none()).collect();
        assert_eq!(unlabelled.len(), 1);
        assert_eq!(unlabelled[0].patient.as_deref(), Some("patient_099"));
        assert_eq!(unlabelled[0].split, Some(Split::Test));
        let mut labels: Vec<_> = samples
            .iter()
            .filter(|s| s.label.is_some())
            .map(|s| {
                (
                    s.patient.clone().unwrap(),
                    s.label.as_ref().and_then(Label::number).unwrap(),
                )
            })
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
        let (first, second) = (
            "training/a/patient_000_node_0.tif",
            "training/b/patient_000_node_0.tif",
        );
        let (_root, samples) = with_files(&[(first, ""), (second, "")]);
        let error = samples.unwrap_err();
        assert!(
            matches!(&error, TrainError::TwoFiles { first: a, second: b } if a.ends_with(first) && b.ends_with(second)),
            "{error}"
        );
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
