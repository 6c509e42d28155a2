//! What was predicted for each slide, as a table.

use std::path::Path;

use stream_grad_files::refuse_input;

use crate::data::{Label, Sample, Split, add_further, further_cell, further_columns};
use crate::error::Result;
use crate::files::{csv_bytes, write_whole};
use crate::trainer::{Evaluation, MapEvaluation};

/// Writes a table of the predictions of several splits: slide, label, split, one column for each output, the patient if one is
/// known, and the further columns of the slides' table.
///
/// A further column that is called as one of those before it, in whatever case, gets `table_` before its name, as often as
/// needed: `logit_0` becomes `table_logit_0`.
///
/// # Errors
/// [`File`](crate::TrainError::File), [`Csv`](crate::TrainError::Csv); [`Destination`](crate::TrainError::Destination) if `path` is one of the slides.
pub fn write_predictions(path: &Path, evaluations: &[(Split, Evaluation)]) -> Result<()> {
    let lines = evaluations.iter().flat_map(|(split, of)| {
        of.predictions.iter().map(|prediction| Line {
            sample: &prediction.sample,
            split: *split,
            values: prediction.logits.iter().map(f64::to_string).collect(),
        })
    });
    let lines: Vec<Line<'_>> = lines.collect();
    let outputs = lines.first().map_or(0, |line| line.values.len());
    let names = (0..outputs).map(|output| format!("logit_{output}"));
    write_lines(path, names, &lines)
}

/// The same of pixels of `classes` classes: slide, label map, split, loss, a column for each pair of classes (`pixels_1_0` is the number
/// of pixels of class 1 that were taken for class 0), the patient if one is known, and the further columns.
///
/// # Errors
/// As [`write_predictions`].
pub fn write_map_predictions(
    path: &Path,
    classes: usize,
    evaluations: &[(Split, MapEvaluation)],
) -> Result<()> {
    let lines = evaluations.iter().flat_map(|(split, of)| {
        of.predictions.iter().map(|prediction| {
            let mut values = vec![prediction.loss.to_string()];
            values.extend(prediction.confusion.counts().iter().map(u64::to_string));
            Line {
                sample: &prediction.sample,
                split: *split,
                values,
            }
        })
    });
    let lines: Vec<Line<'_>> = lines.collect();
    let pairs = (0..classes)
        .flat_map(|truth| (0..classes).map(move |predicted| format!("pixels_{truth}_{predicted}")));
    write_lines(
        path,
        std::iter::once("loss".to_owned()).chain(pairs),
        &lines,
    )
}

/// A slide of a table of predictions.
struct Line<'a> {
    sample: &'a Sample,
    /// In which it was evaluated.
    split: Split,
    /// What was predicted.
    values: Vec<String>,
}

fn write_lines(path: &Path, names: impl Iterator<Item = String>, lines: &[Line<'_>]) -> Result<()> {
    refuse_input(path, lines.iter().map(|line| &line.sample.slide))?;
    let has_patients = lines.iter().any(|line| line.sample.patient.is_some());
    let further = further_columns(lines.iter().map(|line| line.sample.further.as_slice()));
    let mut heading = ["slide", "label", "split"].map(str::to_owned).to_vec();
    heading.extend(names);
    heading.extend(has_patients.then(|| "patient".to_owned()));
    add_further(&mut heading, &further);
    let rows = lines.iter().map(|line| {
        let sample = line.sample;
        let label = sample.label.as_ref();
        let mut row = vec![
            sample.slide.display().to_string(),
            label.map_or_else(String::new, Label::to_string),
            line.split.name().to_owned(),
        ];
        row.extend(line.values.iter().cloned());
        row.extend(has_patients.then(|| sample.patient.clone().unwrap_or_default()));
        row.extend(
            further
                .iter()
                .map(|column| further_cell(&sample.further, column).to_owned()),
        );
        row
    });
    let rows = std::iter::once(heading).chain(rows);
    write_whole(path, &csv_bytes(path, rows)?)
}

#[cfg(test)]
mod tests {
    use stream_grad_slides::FurtherCell;

    use super::*;
    use crate::metrics::Confusion;
    use crate::trainer::{MapPrediction, Prediction};

    #[test]
    fn maps_have_a_column_for_each_pair_of_classes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("predictions.csv");
        let evaluation = MapEvaluation {
            predictions: vec![MapPrediction {
                sample: Sample {
                    patient: Some("p".to_owned()),
                    ..Sample::new("a.tif", Label::Map("masks/a.png".into()))
                },
                pixels: 8,
                loss: 0.25,
                confusion: Confusion::from_counts(2, vec![4, 1, 0, 3]).unwrap(),
            }],
            skipped: Vec::new(),
        };
        write_map_predictions(&path, 2, &[(Split::Test, evaluation)]).unwrap();
        assert_eq!(
            std::fs::read_to_string(&path).unwrap(),
            "slide,label,split,loss,pixels_0_0,pixels_0_1,pixels_1_0,pixels_1_1,patient\n\
             a.tif,masks/a.png,test,0.25,4,1,0,3,p\n"
        );
    }

    #[test]
    fn predictions_have_a_column_for_each_output() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("predictions.csv");
        let evaluation = |slide: &str| Evaluation {
            predictions: vec![Prediction {
                sample: Sample::new(slide, 1.0),
                pixels: 4,
                logits: vec![0.5, -2.0],
            }],
            skipped: Vec::new(),
        };
        let evaluations = [
            (Split::Validation, evaluation("v.tif")),
            (Split::Test, evaluation("a, b.tif")),
        ];
        write_predictions(&path, &evaluations).unwrap();
        assert_eq!(
            std::fs::read_to_string(&path).unwrap(),
            "slide,label,split,logit_0,logit_1\nv.tif,1,validation,0.5,-2\n\"a, b.tif\",1,test,0.5,-2\n"
        );
    }

    #[test]
    fn predictions_end_with_what_the_table_had_besides() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("predictions.csv");
        let cell = |(column, text): (&str, &str)| FurtherCell {
            column: column.to_owned(),
            text: text.to_owned(),
        };
        let prediction =
            |slide: &str, patient: Option<&str>, further: &[(&str, &str)]| Prediction {
                sample: Sample {
                    patient: patient.map(str::to_owned),
                    further: further.iter().copied().map(cell).collect(),
                    ..Sample::new(slide, 1.0)
                },
                pixels: 4,
                logits: vec![0.5],
            };
        // Two slides of one stem, columns that clash with the table's own and with each other, and one that a slide lacks.
        let predictions = vec![
            prediction(
                "c0/n0.tif",
                Some("p1"),
                &[
                    ("age", "61"),
                    ("Logit_0", "0.1"),
                    ("table_logit_0", "x"),
                    ("prediction", "a, b"),
                ],
            ),
            prediction("c1/n0.tif", None, &[("age", "47"), ("site", "3")]),
        ];
        let evaluation = Evaluation {
            predictions,
            skipped: Vec::new(),
        };
        write_predictions(&path, &[(Split::Test, evaluation)]).unwrap();
        assert_eq!(
            std::fs::read_to_string(&path).unwrap(),
            "slide,label,split,logit_0,patient,age,table_Logit_0,table_table_logit_0,prediction,site\n\
             c0/n0.tif,1,test,0.5,p1,61,0.1,x,\"a, b\",\n\
             c1/n0.tif,1,test,0.5,,47,,,,3\n"
        );
    }
}
