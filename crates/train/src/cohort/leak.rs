//! What a linear model makes of colour and cellularity: near chance, or the labels leak.

use std::fmt;

use nalgebra::{DMatrix, DVector};
use rayon::iter::{IntoParallelRefIterator, ParallelIterator};
use stream_grad_slides::{MicronsPerPixel, Slide, Target, separate_hed};

use crate::data::{Label, Sample, Split, Task, cross_validation};
use crate::error::{Result, TrainError};
use crate::metrics::{roc_auc_score, spearmanr};

/// Grey levels of a histogram of each channel.
const BINS: usize = 16;
/// Amounts of haematoxylin, in units of [`separate_hed`], above which a pixel counts as nucleus: faint to dark.
const NUCLEUS: [f32; 3] = [0.04, 0.08, 0.12];
/// Weight of the penalty, as a share of the features' variances. The slides' number is that of the features, so none is small.
const RIDGE: f64 = 0.1;
/// Parts of the cross-validation.
const FOLDS: usize = 5;

/// How well a linear model on colour and cellularity predicts the labels at one resolution.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LeakCheck {
    /// The resolution.
    pub microns_per_pixel: f64,
    /// Its measure: `AUC`, of which 0.5 is chance, or `Spearman`, of which 0 is.
    pub metric: &'static str,
    /// Cross-validated measure on histograms of red, green and blue.
    pub colour: f64,
    /// The same on the amount of haematoxylin, its spread, and the share of pixels that are nuclei.
    pub cellularity: f64,
    /// Slides with a label.
    pub slides: usize,
}

impl fmt::Display for LeakCheck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let chance = if self.metric == "AUC" { 0.5 } else { 0.0 };
        write!(
            f,
            "a linear model at {} microns per pixel, {} slides, cross-validated: {} of {:.2} by colour, {:.2} by cellularity \
             (chance is {chance})",
            self.microns_per_pixel, self.slides, self.metric, self.colour, self.cellularity
        )
    }
}

/// Fits ridge regressions of the labels on each slide's colour histogram and on its cellularity, at each resolution, and measures
/// their predictions of the patients that they did not see, in five parts: the AUC of two classes, Spearman's correlation of
/// everything else that is a number. Splits are passed over, and so are slides without a label.
///
/// What comes of chance alone has a standard deviation of about `1 / sqrt(slides)` around Spearman 0, and of `0.58 /
/// sqrt(slides)` around an AUC of 0.5 (with as many of either class).
///
/// # Errors
/// [`TrainError::Slide`]; [`TrainError::Setting`] for fewer patients than parts; [`TrainError::Metric`] for labels that are all the
/// same or that are no numbers.
pub fn leak_check(
    samples: &[Sample],
    task: Task,
    microns_per_pixel: &[f64],
    seed: u64,
) -> Result<Vec<LeakCheck>> {
    let samples: Vec<Sample> = samples
        .iter()
        .filter(|sample| sample.label.is_some())
        .map(|sample| Sample {
            split: None,
            ..sample.clone()
        })
        .collect();
    let labels = samples
        .iter()
        .map(|sample| {
            let number = sample.label.as_ref().and_then(Label::number);
            number.ok_or_else(|| TrainError::Metric {
                metric: "the check of a leak",
                expected: "a class or a number for each slide",
                found: format!("several labels for {}", sample.slide.display()),
            })
        })
        .collect::<Result<Vec<f64>>>()?;
    let parts: Vec<Vec<bool>> = cross_validation(&samples, task, FOLDS, seed)?
        .iter()
        .map(|fold| {
            let is_test = |sample: &Sample| sample.split == Some(Split::Test);
            fold.samples.iter().map(is_test).collect()
        })
        .collect();
    let is_binary = task == Task::Binary;
    let measure = |features: &[&[f64]]| -> Result<f64> {
        let predicted = cross_validated(features, &labels, &parts)?;
        if is_binary {
            let truth: Vec<bool> = labels.iter().map(|label| *label > 0.5).collect();
            roc_auc_score(&truth, &predicted)
        } else {
            spearmanr(&labels, &predicted)
        }
    };
    let mut checks = Vec::with_capacity(microns_per_pixel.len());
    for &microns in microns_per_pixel {
        let scale = Target::MicronsPerPixel(MicronsPerPixel::new(microns)?);
        let features: Vec<Features> = samples
            .par_iter()
            .map(|sample| Features::of(sample, scale))
            .collect::<Result<_>>()?;
        let colour: Vec<&[f64]> = features.iter().map(|f| f.colour.as_slice()).collect();
        let cellularity: Vec<&[f64]> = features.iter().map(|f| f.cellularity.as_slice()).collect();
        checks.push(LeakCheck {
            microns_per_pixel: microns,
            metric: if is_binary { "AUC" } else { "Spearman" },
            colour: measure(&colour)?,
            cellularity: measure(&cellularity)?,
            slides: samples.len(),
        });
    }
    Ok(checks)
}

/// What the linear models see of a slide.
struct Features {
    colour: Vec<f64>,
    cellularity: Vec<f64>,
}

impl Features {
    fn of(sample: &Sample, scale: Target) -> Result<Self> {
        let image = Slide::open(&sample.slide)?.view(scale)?.to_image()?;
        let pixels = f64::from(image.width()) * f64::from(image.height());
        let mut colour = vec![0.0; 3 * BINS];
        for pixel in image.pixels() {
            for (channel, level) in pixel.0.into_iter().enumerate() {
                colour[channel * BINS + usize::from(level) * BINS / 256] += 1.0 / pixels;
            }
        }
        let rgb = image.into_raw();
        let mut stains = vec![0.0; rgb.len()];
        separate_hed(&rgb, &mut stains)?;
        let amounts = stains.chunks_exact(3).map(|amounts| amounts[0]);
        let mean = amounts.clone().map(f64::from).sum::<f64>() / pixels;
        let squares = amounts.clone().map(|amount| f64::from(amount).powi(2));
        let spread = (squares.sum::<f64>() / pixels - mean * mean)
            .max(0.0)
            .sqrt();
        let mut cellularity = vec![mean, spread];
        for least in NUCLEUS {
            let mut share = 0.0;
            for _ in amounts.clone().filter(|amount| *amount > least) {
                share += 1.0 / pixels;
            }
            cellularity.push(share);
        }
        Ok(Self {
            colour,
            cellularity,
        })
    }
}

/// Predictions for each slide by a model of the others' parts.
fn cross_validated(features: &[&[f64]], labels: &[f64], parts: &[Vec<bool>]) -> Result<Vec<f64>> {
    let mut predicted = vec![0.0; labels.len()];
    for is_test in parts {
        let of = |wanted: bool| (0..labels.len()).filter(move |place| is_test[*place] == wanted);
        let train: Vec<&[f64]> = of(false).map(|place| features[place]).collect();
        let train_labels: Vec<f64> = of(false).map(|place| labels[place]).collect();
        let model = Ridge::fit(&train, &train_labels)?;
        for place in of(true) {
            predicted[place] = model.predict(features[place]);
        }
    }
    Ok(predicted)
}

/// Ridge regression on standardised features.
struct Ridge {
    mean: Vec<f64>,
    deviation: Vec<f64>,
    weights: DVector<f64>,
    intercept: f64,
}

impl Ridge {
    fn fit(rows: &[&[f64]], labels: &[f64]) -> Result<Self> {
        let columns = rows.first().map_or(0, |row| row.len());
        let average = |values: &mut dyn Iterator<Item = f64>| {
            let (sum, count) =
                values.fold((0.0, 0.0), |(sum, count), value| (sum + value, count + 1.0));
            sum / f64::max(count, 1.0)
        };
        let mean: Vec<f64> = (0..columns)
            .map(|column| average(&mut rows.iter().map(|row| row[column])))
            .collect();
        let deviation: Vec<f64> = (0..columns)
            .map(|column| {
                let squares = rows.iter().map(|row| (row[column] - mean[column]).powi(2));
                // A feature that does not vary counts for nothing.
                average(&mut squares.into_iter()).sqrt().max(1e-9)
            })
            .collect();
        let intercept = average(&mut labels.iter().copied());
        let matrix = DMatrix::from_fn(rows.len(), columns, |row, column| {
            (rows[row][column] - mean[column]) / deviation[column]
        });
        let targets = DVector::from_iterator(labels.len(), labels.iter().map(|y| y - intercept));
        let mut normal = matrix.tr_mul(&matrix);
        let penalty = RIDGE * average(&mut normal.diagonal().iter().copied()).max(1e-9);
        for place in 0..columns {
            normal[(place, place)] += penalty;
        }
        let cholesky = normal.cholesky().ok_or_else(|| TrainError::Metric {
            metric: "the check of a leak",
            expected: "finite features",
            found: "features that are not".to_owned(),
        })?;
        Ok(Self {
            weights: cholesky.solve(&matrix.tr_mul(&targets)),
            mean,
            deviation,
            intercept,
        })
    }

    fn predict(&self, row: &[f64]) -> f64 {
        let standard = row.iter().zip(&self.mean).zip(&self.deviation);
        let terms = standard
            .zip(self.weights.iter())
            .map(|(((value, mean), deviation), weight)| weight * (value - mean) / deviation);
        self.intercept + terms.sum::<f64>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// With hardly any penalty the model finds the line that the labels lie on.
    #[test]
    fn a_line_is_found() {
        let rows: Vec<[f64; 2]> = (0..30_u16)
            .map(|place| [f64::from(place), f64::from(place * place % 7)])
            .collect();
        let labels: Vec<f64> = rows.iter().map(|row| 3.0 + 2.0 * row[0] - row[1]).collect();
        let rows: Vec<&[f64]> = rows.iter().map(<[f64; 2]>::as_slice).collect();
        let parts: Vec<Vec<bool>> = (0..3)
            .map(|part| (0..30).map(|place| place % 3 == part).collect())
            .collect();
        let predicted = cross_validated(&rows, &labels, &parts).unwrap();
        assert!(spearmanr(&labels, &predicted).unwrap() > 0.99);
    }
}
