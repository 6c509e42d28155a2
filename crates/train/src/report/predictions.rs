//! What was predicted for each slide, as a table.

use std::path::Path;

use stream_grad_files::refuse_input;

use super::columns::csv_bytes;
use crate::data::{Label, Split, further_cell, further_columns};
use crate::error::Result;
use crate::files::write_whole;
use crate::trainer::{Evaluation, Prediction};

/// Writes a table of the predictions of several splits: slide, label, split, one column for each output, the patient if one is
/// known, and the further columns of the slides' table.
///
/// A further column that is called as one of those before it, in whatever case, gets `table_` before its name, as often as
/// needed: `logit_0` becomes `table_logit_0`.
///
/// # Errors
/// [`File`](crate::TrainError::File), [`Csv`](crate::TrainError::Csv); [`Destination`](crate::TrainError::Destination) if `path` is one of the slides.
pub fn write_predictions(path: &Path, evaluations: &[(Split, Evaluation)]) -> Result<()> {
    let predictions: Vec<(Split, &Prediction)> = evaluations
        .iter()
        .flat_map(|(split, of)| of.predictions.iter().map(|prediction| (*split, prediction)))
        .collect();
    refuse_input(
        path,
        predictions.iter().map(|(_, prediction)| &prediction.slide),
    )?;
    let outputs = predictions
        .first()
        .map_or(0, |(_, prediction)| prediction.logits.len());
    let has_patients = predictions
        .iter()
        .any(|(_, prediction)| prediction.patient.is_some());
    let further = further_columns(
        predictions
            .iter()
            .map(|(_, prediction)| prediction.further.as_slice()),
    );
    let mut heading = ["slide", "label", "split"].map(str::to_owned).to_vec();
    heading.extend((0..outputs).map(|output| format!("logit_{output}")));
    heading.extend(has_patients.then(|| "patient".to_owned()));
    for column in &further {
        heading.push(free_name(column, &heading));
    }
    let rows = predictions.iter().map(|(split, prediction)| {
        let label = prediction.label.as_ref();
        let mut row = vec![
            prediction.slide.display().to_string(),
            label.map_or_else(String::new, Label::to_string),
            split.name().to_owned(),
        ];
        row.extend(prediction.logits.iter().map(f64::to_string));
        row.extend(has_patients.then(|| prediction.patient.clone().unwrap_or_default()));
        row.extend(
            further
                .iter()
                .map(|column| further_cell(&prediction.further, column).to_owned()),
        );
        row
    });
    write_whole(path, &csv_bytes(path, &heading, rows)?)
}

/// `column`, or a name made of it that is not in `taken`.
fn free_name(column: &str, taken: &[String]) -> String {
    let mut name = column.to_owned();
    while taken
        .iter()
        .any(|taken| taken.to_lowercase() == name.to_lowercase())
    {
        name.insert_str(0, "table_");
    }
    name
}

#[cfg(test)]
mod tests {
    use stream_grad_slides::FurtherCell;

    use super::*;

    #[test]
    fn predictions_have_a_column_for_each_output() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("predictions.csv");
        let prediction = Prediction {
            slide: "a, b.tif".into(),
            label: Some(1.0.into()),
            logits: vec![0.5, -2.0],
            pixels: 4,
            patient: None,
            further: Vec::new(),
        };
        let evaluation = |slide: &str| Evaluation {
            predictions: vec![Prediction {
                slide: slide.into(),
                ..prediction.clone()
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
                slide: slide.into(),
                label: Some(1.0.into()),
                logits: vec![0.5],
                pixels: 4,
                patient: patient.map(str::to_owned),
                further: further.iter().copied().map(cell).collect(),
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
