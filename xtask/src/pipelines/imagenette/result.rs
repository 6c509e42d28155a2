//! What the comparison ends with: curves, differences, JSON, tables.

use std::fmt;
use std::path::Path;

use anyhow::Context;
use serde::Serialize;
use stream_grad_files::write_whole;
use stream_grad_train::checkpoint::EpochRecord;

use super::training::Trained;
use crate::difference::Difference;
use crate::tables::csv_bytes;

/// Names of the tables in the folder of results.
pub(super) const EPOCHS: &str = "imagenette.csv";
pub(super) const CURVES: &str = "curves.csv";
pub(super) const DIFFERENCES: &str = "differences.csv";
pub(super) const COMPARED: &str = "compared.csv";
pub(super) const WEIGHTS: &str = "weights.csv";

/// What the notebook's plots show after 200 epochs of Imagenette.
pub(super) const PUBLISHED: Published = Published {
    source: "StreamingCNN, notebook on Imagenette; TPAMI 2022 (10.1109/TPAMI.2020.3019563)",
    train_loss: 1.0,
    validation_loss: 0.95,
    validation_accuracy: 0.70,
};

/// Figures that are published, read off plots.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct Published {
    pub(super) source: &'static str,
    train_loss: f64,
    validation_loss: f64,
    pub(super) validation_accuracy: f64,
}

/// A curve of the trainings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Curve {
    TrainLoss,
    TrainAccuracy,
    ValidationLoss,
    ValidationAccuracy,
}

impl Curve {
    const ALL: [Self; 4] = [
        Self::TrainLoss,
        Self::TrainAccuracy,
        Self::ValidationLoss,
        Self::ValidationAccuracy,
    ];

    const fn name(self) -> &'static str {
        match self {
            Self::TrainLoss => "training loss",
            Self::TrainAccuracy => "training accuracy",
            Self::ValidationLoss => "validation loss",
            Self::ValidationAccuracy => "validation accuracy",
        }
    }

    fn of(self, record: &EpochRecord) -> Option<f64> {
        match self {
            Self::TrainLoss => Some(record.train_loss),
            Self::TrainAccuracy => record.train_accuracy,
            Self::ValidationLoss => record.validation_loss,
            Self::ValidationAccuracy => record.validation_metric,
        }
    }

    const fn published(self) -> Option<f64> {
        match self {
            Self::TrainLoss => Some(PUBLISHED.train_loss),
            Self::TrainAccuracy => None,
            Self::ValidationLoss => Some(PUBLISHED.validation_loss),
            Self::ValidationAccuracy => Some(PUBLISHED.validation_accuracy),
        }
    }
}

/// Streamed against conventional, epoch by epoch.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct ImagenetteResult {
    streamed: Vec<EpochRecord>,
    conventional: Vec<EpochRecord>,
    /// Of the weights after the last epoch.
    weights: Vec<Difference>,
    /// Pictures that did not count in one of the trainings at least once.
    pub(super) left_out: Vec<String>,
    published: Published,
}

impl ImagenetteResult {
    /// Compares two trainings of as many epochs.
    pub(super) fn new(streamed: &Trained, conventional: &Trained) -> anyhow::Result<Self> {
        let mut weights = Vec::new();
        for (name, whole) in &conventional.weights {
            let own = streamed.weights.get(name);
            let own = own.with_context(|| format!("the streamed training has no `{name}`"))?;
            weights.push(Difference::between(name, whole, own)?);
        }
        let left_out = streamed.left_out.iter().chain(&conventional.left_out);
        let mut left_out: Vec<String> = left_out.map(|path| path.display().to_string()).collect();
        left_out.sort();
        left_out.dedup();
        Ok(Self {
            streamed: streamed.history.clone(),
            conventional: conventional.history.clone(),
            weights,
            left_out,
            published: PUBLISHED,
        })
    }

    /// Writes `imagenette.txt`, `imagenette.json` and the tables.
    pub(super) fn write(&self, folder: &Path) -> anyhow::Result<()> {
        let text = self.to_string();
        write_whole(folder.join("imagenette.txt"), text.as_bytes())?;
        let json = serde_json::to_vec_pretty(self)?;
        write_whole(folder.join("imagenette.json"), &json)?;
        for (name, table) in [
            (EPOCHS, self.epochs()),
            (CURVES, self.curves()),
            (DIFFERENCES, self.differences()),
            (COMPARED, self.compared()),
            (WEIGHTS, self.weights()),
        ] {
            let mut rows = table.into_iter();
            let heading = rows.next().unwrap_or_default();
            write_whole(folder.join(name), &csv_bytes(heading, rows)?)?;
        }
        Ok(())
    }

    fn pairs(&self) -> impl Iterator<Item = (&EpochRecord, &EpochRecord)> {
        self.streamed.iter().zip(&self.conventional)
    }

    /// The largest difference of a curve over all epochs.
    fn largest(&self, curve: Curve) -> Option<f64> {
        let differences = self.pairs().filter_map(|pair| difference(curve, pair));
        differences.reduce(f64::max)
    }

    /// The largest difference of a weight, and the largest weight.
    fn largest_of_weights(&self) -> [f64; 2] {
        let largest =
            |value: fn(&Difference) -> f64| self.weights.iter().map(value).fold(0.0, f64::max);
        [
            largest(|weight| weight.largest_difference),
            largest(|weight| weight.largest_magnitude),
        ]
    }

    /// A row for each epoch, with all that both gave.
    fn epochs(&self) -> Vec<Vec<String>> {
        let name = |way: &str, curve: Curve| format!("{way} {}", curve.name()).replace(' ', "_");
        let names = Curve::ALL
            .iter()
            .flat_map(|curve| ["streamed", "conventional"].map(|way| name(way, *curve)));
        let mut rows = vec![std::iter::once("epoch".to_owned()).chain(names).collect()];
        for (streamed, conventional) in self.pairs() {
            let values = Curve::ALL.iter().flat_map(|curve| {
                [streamed, conventional].map(|record| cell(curve.of(record), exact))
            });
            rows.push(std::iter::once(number(streamed)).chain(values).collect());
        }
        rows
    }

    /// A row for each epoch of each training, as plots take it.
    fn curves(&self) -> Vec<Vec<String>> {
        let names = Curve::ALL.iter().map(|curve| curve.name().to_owned());
        let first = ["epoch".to_owned(), "way".to_owned()];
        let mut rows = vec![first.into_iter().chain(names).collect()];
        for (way, history) in [
            ("streamed", &self.streamed),
            ("conventional", &self.conventional),
        ] {
            for record in history {
                let first = [number(record), way.to_owned()];
                let values = Curve::ALL.iter().map(|curve| cell(curve.of(record), exact));
                rows.push(first.into_iter().chain(values).collect());
            }
        }
        rows
    }

    /// A row for each epoch: how far the curves are apart.
    fn differences(&self) -> Vec<Vec<String>> {
        let names = Curve::ALL.iter().map(|curve| curve.name().to_owned());
        let mut rows = vec![std::iter::once("epoch".to_owned()).chain(names).collect()];
        for pair in self.pairs() {
            let values = Curve::ALL
                .iter()
                .map(|curve| cell(difference(*curve, pair), exact));
            rows.push(std::iter::once(number(pair.0)).chain(values).collect());
        }
        rows
    }

    /// What both ended with, and the largest differences.
    fn compared(&self) -> Vec<Vec<String>> {
        let heading = [
            "",
            "streamed, last epoch",
            "conventional, last epoch",
            "largest difference",
            "published",
        ];
        let mut rows = vec![heading.map(str::to_owned).to_vec()];
        for curve in Curve::ALL {
            let last = |history: &[EpochRecord]| {
                cell(history.last().and_then(|record| curve.of(record)), short)
            };
            rows.push(vec![
                curve.name().to_owned(),
                last(&self.streamed),
                last(&self.conventional),
                cell(self.largest(curve), small),
                cell(curve.published(), |value| format!("about {value:.2}")),
            ]);
        }
        let [largest, _] = self.largest_of_weights();
        let mut weights = vec![String::new(); 5];
        weights[0] = "final weights".to_owned();
        weights[3] = small(largest);
        rows.push(weights);
        rows
    }

    /// A row for each parameter.
    fn weights(&self) -> Vec<Vec<String>> {
        let heading = [
            "parameter",
            "largest magnitude",
            "largest difference",
            "relative L2",
        ];
        let mut rows = vec![heading.map(str::to_owned).to_vec()];
        rows.extend(self.weights.iter().map(|weight| {
            vec![
                weight.name.clone(),
                short(weight.largest_magnitude),
                small(weight.largest_difference),
                small(weight.relative_l2),
            ]
        }));
        rows
    }
}

fn difference(curve: Curve, (streamed, conventional): (&EpochRecord, &EpochRecord)) -> Option<f64> {
    Some((curve.of(streamed)? - curve.of(conventional)?).abs())
}

/// The epoch's number, from 1.
fn number(record: &EpochRecord) -> String {
    (record.epoch + 1).to_string()
}

fn cell(value: Option<f64>, text: impl Fn(f64) -> String) -> String {
    value.map_or_else(String::new, text)
}

fn exact(value: f64) -> String {
    value.to_string()
}

fn short(value: f64) -> String {
    format!("{value:.4}")
}

fn small(value: f64) -> String {
    if value == 0.0 {
        "0".to_owned()
    } else {
        format!("{value:.1e}")
    }
}

impl fmt::Display for ImagenetteResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let epochs = self.pairs().count();
        writeln!(f, "streamed and conventional over {epochs} epochs:")?;
        for row in self.compared() {
            for (place, value) in row.iter().enumerate() {
                let width = [20, 22, 26, 20, 12][place.min(4)];
                if place == 0 {
                    write!(f, "{value:<width$}")?;
                } else {
                    write!(f, "{value:>width$}")?;
                }
            }
            writeln!(f)?;
        }
        let [largest, magnitude] = self.largest_of_weights();
        writeln!(
            f,
            "weights: largest difference {}, largest magnitude {}",
            small(largest),
            short(magnitude)
        )?;
        write!(f, "published: {}", self.published.source)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::collections::BTreeMap;
    use std::path::PathBuf;

    use candle_core::{Device, Tensor};

    use super::*;

    fn trained(accuracy: f64, weight: f32) -> Trained {
        let record = |epoch| EpochRecord {
            epoch,
            train_loss: 2.0 - accuracy,
            train_accuracy: Some(accuracy),
            learning_rate: 1e-3,
            validation_loss: None,
            validation_metric: Some(accuracy / 2.0),
            train_dice: None,
            train_iou: None,
            validation_iou: None,
        };
        Trained {
            history: vec![record(0), record(1)],
            weights: BTreeMap::from([(
                "0.weight".to_owned(),
                Tensor::new(&[weight, -1.0], &Device::Cpu).unwrap(),
            )]),
            left_out: vec![PathBuf::from("broken.jpg")],
        }
    }

    /// Two trainings of two epochs.
    pub(in crate::imagenette) fn result() -> ImagenetteResult {
        ImagenetteResult::new(&trained(0.5, 0.25), &trained(0.75, 0.5)).unwrap()
    }

    #[test]
    fn both_stand_side_by_side_with_their_largest_difference() {
        let folder = tempfile::tempdir().unwrap();
        let result = result();
        result.write(folder.path()).unwrap();
        let lines = |name: &str| -> Vec<String> {
            let text = std::fs::read_to_string(folder.path().join(name)).unwrap();
            text.lines().map(str::to_owned).collect()
        };
        let epochs = lines(EPOCHS);
        assert!(epochs[0].starts_with("epoch,streamed_training_loss,conventional_training_loss,"));
        assert_eq!(epochs[1], "1,1.5,1.25,0.5,0.75,,,0.25,0.375");
        assert_eq!(lines(CURVES)[3], "1,conventional,1.25,0.75,,0.375");
        assert_eq!(lines(DIFFERENCES)[2], "2,0.25,0.25,,0.125");
        let compared = lines(COMPARED);
        assert_eq!(
            compared[4],
            "validation accuracy,0.2500,0.3750,1.2e-1,about 0.70"
        );
        assert_eq!(compared[5], "final weights,,,2.5e-1,");
        assert_eq!(lines(WEIGHTS)[1], "0.weight,1.0000,2.5e-1,2.2e-1");
        assert_eq!(result.left_out, ["broken.jpg"]);
        let text = result.to_string();
        for part in ["over 2 epochs", "about 0.70", "largest difference 2.5e-1"] {
            assert!(text.contains(part), "{text}");
        }
    }
}
