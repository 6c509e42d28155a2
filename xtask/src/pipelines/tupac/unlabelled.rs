//! Predictions of slides without truth: the mean over the models of all folds and seeds of a resolution.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use anyhow::Context;
use stream_grad_cli::predict::predict as predict_slides;
use stream_grad_files::write_whole;
use stream_grad_train::data::Sample;
use stream_grad_train::experiment::RunKey;
use stream_grad_train::model::ModelSettings;
use stream_grad_train::model_file::Limits;
use stream_grad_train::predict::Predictor;

use crate::tables::csv_bytes;

/// Name of the table in the folder of results.
pub(super) const TABLE: &str = "test-predictions.csv";
/// Name of a model's own table, in the folder of its training.
const OWN_TABLE: &str = "test-predictions.csv";

/// Predictions by slide.
type Scores = BTreeMap<String, f64>;

/// Predicts `samples` by the model of each training, or goes on with that, and writes the means of each resolution. A slide that
/// could not be read is named, and has blank cells.
pub(super) fn predict(
    folder: &Path,
    trained: &[RunKey],
    (samples, settings): (&[Sample], &ModelSettings),
    stop: &AtomicBool,
) -> anyhow::Result<()> {
    if samples.is_empty() {
        return Ok(());
    }
    let mut resolutions: Vec<(f64, Vec<Scores>)> = Vec::new();
    for key in trained {
        let own = folder.join(key.to_string());
        let model = own.join("model.safetensors");
        let predictor =
            Predictor::open(&model, Limits::new(settings.memory_bytes, settings.threads))?;
        let table = own.join(OWN_TABLE);
        predict_slides(&predictor, samples, &table, stop).with_context(|| key.to_string())?;
        let scores = scores(&table).with_context(|| table.display().to_string())?;
        let microns = key.microns_per_pixel;
        match resolutions.iter_mut().find(|(other, _)| *other == microns) {
            Some((_, models)) => models.push(scores),
            None => resolutions.push((microns, vec![scores])),
        }
    }
    let path = folder.join(TABLE);
    write_whole(&path, &means(samples, &resolutions)?)?;
    println!("Slides without truth are predicted in {}", path.display());
    Ok(())
}

/// What a table of predictions says of each slide.
fn scores(table: &Path) -> anyhow::Result<Scores> {
    let mut reader = csv::Reader::from_path(table)?;
    let headings = reader.headers()?.clone();
    let place = |column: &str| {
        let place = headings.iter().position(|heading| heading == column);
        place.with_context(|| format!("no column `{column}`"))
    };
    let (slide, predicted) = (place("slide")?, place("predicted")?);
    let mut scores = Scores::new();
    for record in reader.records() {
        let record = record?;
        let score = record[predicted].parse().with_context(|| {
            format!(
                "`{}` is predicted of {}",
                &record[predicted], &record[slide]
            )
        })?;
        scores.insert(record[slide].to_owned(), score);
    }
    Ok(scores)
}

/// A row for each slide, a column of means for each resolution.
fn means(samples: &[Sample], resolutions: &[(f64, Vec<Scores>)]) -> anyhow::Result<Vec<u8>> {
    let mut heading = vec!["slide".to_owned(), "patient".to_owned()];
    heading.extend(
        resolutions
            .iter()
            .map(|(microns, _)| format!("predicted_at_{microns}_microns")),
    );
    let rows = samples.iter().map(|sample| {
        let slide = sample.slide.display().to_string();
        let cells = resolutions.iter().map(|(_, models)| {
            let known: Vec<f64> = models
                .iter()
                .filter_map(|scores| scores.get(&slide).copied())
                .collect();
            // Blank, rather than a mean over other models than that of other slides.
            if known.len() < models.len() {
                return String::new();
            }
            (known.iter().sum::<f64>() / known.len() as f64).to_string()
        });
        let mut row = vec![slide.clone(), sample.patient.clone().unwrap_or_default()];
        row.extend(cells);
        row
    });
    csv_bytes(heading, rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn means_are_over_all_models_or_blank() {
        let scores = |values: &[(&str, f64)]| -> Scores {
            let values = values.iter();
            values
                .map(|(slide, score)| ((*slide).to_owned(), *score))
                .collect()
        };
        let samples = [Sample::unlabelled("a.svs"), Sample::unlabelled("b, c.svs")];
        let resolutions = [
            (
                8.0,
                vec![
                    scores(&[("a.svs", 1.0), ("b, c.svs", 4.0)]),
                    scores(&[("a.svs", 2.0)]),
                ],
            ),
            (0.5, vec![scores(&[("a.svs", -3.0), ("b, c.svs", 4.0)])]),
        ];
        let table = String::from_utf8(means(&samples, &resolutions).unwrap()).unwrap();
        assert_eq!(
            table,
            "slide,patient,predicted_at_8_microns,predicted_at_0.5_microns\na.svs,,1.5,-3\n\"b, c.svs\",,,4\n"
        );
    }

    #[test]
    fn a_table_is_read_by_its_columns() {
        let folder = tempfile::tempdir().unwrap();
        let table = folder.path().join("t.csv");
        std::fs::write(&table, "slide,predicted,output_0\na,2.5,9\n").unwrap();
        assert_eq!(
            scores(&table).unwrap(),
            Scores::from([("a".to_owned(), 2.5)])
        );
        for (text, expected) in [
            ("slide,output_0\na,9\n", "no column `predicted`"),
            ("slide,predicted\na,high\n", "`high` is predicted of a"),
        ] {
            std::fs::write(&table, text).unwrap();
            let error = scores(&table).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
