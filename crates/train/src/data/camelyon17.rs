//! The published layout of CAMELYON17.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::Sample;
use crate::error::{Result, TrainError};

/// Folders below the root that are searched for slides.
const DEPTH: usize = 4;

/// Reads CAMELYON17 as it is published: `stage_labels.csv` (columns `patient,stage`) and slides
/// `patient_XXX_node_Y.tif`, in `training/`, in folders of centres, or anywhere below `root`.
///
/// A slide of the stage `negative` has label 0; `itc`, `micro` and `macro` have label 1. Lines of whole patients
/// (`patient_XXX.zip`) are passed over. Slides without a label (the published test set) are left out. The result is
/// sorted by slide and has patients but no splits.
///
/// # Errors
/// [`TrainError::File`], [`TrainError::Csv`], [`TrainError::Column`], [`TrainError::Cell`] for an unknown stage,
/// [`TrainError::MissingSlides`] if labels have no slide.
pub fn read_camelyon17(root: &Path) -> Result<Vec<Sample>> {
    let mut slides = BTreeMap::new();
    let mut table = None;
    search(root, DEPTH, &mut slides, &mut table)?;
    let table = table.ok_or_else(|| {
        let reason = "no stage_labels.csv in it or in its folders";
        TrainError::file(root)(std::io::Error::new(std::io::ErrorKind::NotFound, reason))
    })?;
    let stages = read_stages(&table)?;
    let total = stages.len();
    let mut missing = Vec::new();
    let mut samples = Vec::with_capacity(total);
    for (name, label) in stages {
        match slides.get(&name) {
            Some(slide) => samples.push(Sample {
                slide: slide.clone(),
                label,
                split: None,
                patient: patient(&name),
            }),
            None => missing.push(name),
        }
    }
    if let Some(first) = missing.first() {
        return Err(TrainError::MissingSlides {
            path: table,
            missing: missing.len(),
            total,
            first: root.join("training").join(first),
        });
    }
    samples.sort_by(|a, b| a.slide.cmp(&b.slide));
    Ok(samples)
}

fn search(
    folder: &Path,
    depth: usize,
    slides: &mut BTreeMap<String, PathBuf>,
    table: &mut Option<PathBuf>,
) -> Result<()> {
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
                search(&path, depth - 1, slides, table)?;
            }
        } else if name == "stage_labels.csv" || name == "stages.csv" {
            *table = Some(path);
        } else if name.contains("_node_") && !name.ends_with("_mask.tif") && !name.ends_with(".xml")
        {
            slides.insert(name, path);
        }
    }
    Ok(())
}

fn read_stages(path: &Path) -> Result<Vec<(String, f64)>> {
    let mut reader = csv::ReaderBuilder::new()
        .trim(csv::Trim::All)
        .from_path(path)
        .map_err(TrainError::csv(path))?;
    let headings = reader.headers().map_err(TrainError::csv(path))?.clone();
    let place = |column: &str| {
        headings
            .iter()
            .position(|heading| heading == column)
            .ok_or_else(|| TrainError::Column {
                path: path.to_path_buf(),
                problem: "missing",
                column: column.to_owned(),
            })
    };
    let (patient, stage) = (place("patient")?, place("stage")?);
    let mut stages = Vec::new();
    for record in reader.records() {
        let record = record.map_err(TrainError::csv(path))?;
        let name = record.get(patient).unwrap_or_default();
        if !name.contains("_node_") {
            continue;
        }
        let label = match record.get(stage).unwrap_or_default() {
            "negative" => 0.0,
            "itc" | "micro" | "macro" => 1.0,
            other => {
                return Err(TrainError::Cell {
                    path: path.to_path_buf(),
                    line: record.position().map_or(0, csv::Position::line),
                    column: "stage",
                    expected: "negative, itc, micro or macro".to_owned(),
                    found: other.to_owned(),
                });
            }
        };
        stages.push((name.to_owned(), label));
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
}
