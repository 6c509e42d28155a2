//! What a report computes from predictions: metrics, and the curves behind them.

use std::collections::BTreeMap;

use super::folder::{Member, MemberKey, Predicted, RunFolder};
use super::stages::Stages;
use crate::data::{Label, Split, Task};
use crate::error::{Result, TrainError};
use crate::metrics::{
    Band, Bootstrap, Estimate, Groups, Metric, Outcomes, precision_recall_curve, roc_curve,
};

/// Points at which the bands of curves are drawn, from 0 to 1.
const GRID: usize = 101;

/// The predictions of one resolution: of its first seed, of all folds together.
#[derive(Debug)]
pub(super) struct Detail<'a> {
    pub(super) key: MemberKey,
    /// For headings.
    pub(super) title: String,
    /// For names of files.
    pub(super) slug: String,
    /// The trainings whose predictions these are.
    pub(super) members: Vec<&'a Member>,
    pub(super) predictions: Predictions<'a>,
    /// All metrics of the task, or why there is none.
    pub(super) metrics: Vec<(Metric, std::result::Result<Estimate, String>)>,
    /// Stages of the patients, where the classes are those of lymph nodes.
    pub(super) stages: Option<Stages>,
}

/// Predictions of slides with known labels, of one split.
#[derive(Debug)]
pub(super) struct Predictions<'a> {
    pub(super) split: Split,
    pub(super) slides: Vec<&'a Predicted>,
    pub(super) outcomes: Outcomes,
    pub(super) groups: Groups,
    pub(super) by_patient: bool,
}

impl<'a> Predictions<'a> {
    /// Those of the test split, or of the validation split where there are no others; `None` without any.
    pub(super) fn of(task: Task, members: &[&'a Member]) -> Result<Option<Self>> {
        let known = |split: Split| {
            members
                .iter()
                .flat_map(|member| &member.predictions)
                .filter(|slide| slide.label.is_some() && slide.outputs.len() == task.outputs())
                .filter(|slide| slide.split.unwrap_or(Split::Test) == split)
                .collect::<Vec<_>>()
        };
        for split in [Split::Test, Split::Validation] {
            let slides = known(split);
            if slides.is_empty() {
                continue;
            }
            return Self::new(task, split, slides).map(Some);
        }
        Ok(None)
    }

    fn new(task: Task, split: Split, slides: Vec<&'a Predicted>) -> Result<Self> {
        let pairs = slides.iter().filter_map(|slide| {
            let label: &Label = slide.label.as_ref()?;
            Some((label, slide.outputs.as_slice()))
        });
        Ok(Self {
            split,
            outcomes: Outcomes::new(task, pairs)?,
            by_patient: slides.iter().any(|slide| slide.patient.is_some()),
            groups: Groups::by_patient(
                slides
                    .iter()
                    .map(|slide| (slide.patient.as_deref(), slide.slide.as_path())),
            ),
            slides,
        })
    }

    /// The metric of the second less that of the first, on the slides that both have, which are drawn together; `None` without
    /// such slides, or where the metric has no meaning.
    pub(super) fn difference(
        [first, second]: [&Self; 2],
        metric: Metric,
        bootstrap: &Bootstrap,
    ) -> Result<Option<Estimate>> {
        let mut known = BTreeMap::new();
        for slide in &first.slides {
            known.insert(slide.slide.as_path(), *slide);
        }
        let (before, after): (Vec<&Predicted>, Vec<&Predicted>) = second
            .slides
            .iter()
            .filter_map(|slide| Some((known.remove(slide.slide.as_path())?, *slide)))
            .unzip();
        if before.is_empty() {
            return Ok(None);
        }
        let task = first.outcomes.task();
        let [before, after] = [before, after].map(|slides| Self::new(task, second.split, slides));
        let (before, after) = (before?.outcomes, after?);
        let difference = bootstrap.estimate(&after.groups, |places| {
            let after = after.outcomes.metric_at(metric, places)?;
            Ok(after - before.metric_at(metric, places)?)
        });
        match difference {
            Ok(difference) => Ok(Some(difference)),
            Err(TrainError::Metric { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub(super) fn everything(&self) -> Vec<usize> {
        (0..self.slides.len()).collect()
    }

    pub(super) fn estimate(
        &self,
        metric: Metric,
        bootstrap: &Bootstrap,
    ) -> std::result::Result<Estimate, String> {
        self.outcomes
            .estimate(metric, &self.groups, bootstrap)
            .map_err(|error| error.to_string())
    }
}

/// The details of each resolution that has predictions, coarsest first.
pub(super) fn details(run: &RunFolder) -> Result<Vec<Detail<'_>>> {
    let Some(task) = run.task else {
        return Ok(Vec::new());
    };
    let mut details = Vec::new();
    for members in run
        .members
        .chunk_by(|a, b| a.key.microns == b.key.microns && a.key.microns.is_some())
    {
        let Some(first) = members.first() else {
            continue;
        };
        let of_seed: Vec<&Member> = members
            .iter()
            .filter(|member| member.key.seed == first.key.seed)
            .collect();
        let Some(predictions) = Predictions::of(task, &of_seed)? else {
            continue;
        };
        let metrics = Metric::of(task)
            .iter()
            .map(|metric| (*metric, predictions.estimate(*metric, &run.bootstrap)))
            .collect();
        let resolution = first.key.resolution();
        details.push(Detail {
            key: first.key.clone(),
            title: if resolution.is_empty() {
                first.name.clone()
            } else {
                resolution
            },
            slug: match first.key.microns {
                Some(microns) => format!("{microns}-microns"),
                None => first.name.clone(),
            },
            members: of_seed,
            stages: Stages::of(run, &predictions.slides),
            predictions,
            metrics,
        });
    }
    Ok(details)
}

/// A curve for each class or label against the rest, their mean, and its band.
#[derive(Debug)]
pub(super) struct Curves {
    /// Class and its curve.
    pub(super) classes: Vec<(usize, Vec<(f64, f64)>)>,
    /// The mean over the classes, on the grid.
    pub(super) mean: Vec<(f64, f64)>,
    pub(super) band: Band,
}

impl Curves {
    /// x, low and high.
    pub(super) fn band_points(&self) -> Vec<(f64, f64, f64)> {
        let ends = self.band.low.iter().zip(&self.band.high);
        grid()
            .zip(ends)
            .map(|(x, (low, high))| (x, *low, *high))
            .collect()
    }
}

/// A kind of curve of two classes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CurveKind {
    Roc,
    PrecisionRecall,
}

impl CurveKind {
    /// The curve's points, by rising x.
    fn points(self, labels: &[bool], scores: &[f64]) -> Result<Vec<(f64, f64)>> {
        match self {
            Self::Roc => {
                let curve = roc_curve(labels, scores)?;
                Ok(curve.fpr.into_iter().zip(curve.tpr).collect())
            }
            Self::PrecisionRecall => {
                let curve = precision_recall_curve(labels, scores)?;
                let mut points: Vec<(f64, f64)> = Vec::new();
                // Precision belongs to the step of recall that leads up to it; from left to right, as average precision sums.
                for (recall, precision) in curve.recall.iter().zip(&curve.precision).rev().skip(1) {
                    let before = points.last().map_or(0.0, |point| point.0);
                    if *recall > before {
                        points.extend([(before, *precision), (*recall, *precision)]);
                    }
                }
                Ok(points)
            }
        }
    }

    /// Heights of a curve on the grid.
    fn on_grid(self, points: &[(f64, f64)]) -> Vec<f64> {
        grid()
            .map(|x| match self {
                Self::Roc => interpolated(points, x),
                Self::PrecisionRecall => {
                    let next = points.iter().find(|point| point.0 >= x && point.0 > 0.0);
                    next.or(points.last()).map_or(f64::NAN, |point| point.1)
                }
            })
            .collect()
    }
}

#[expect(clippy::cast_precision_loss, reason = "a hundred points")]
fn grid() -> impl Iterator<Item = f64> {
    (0..GRID).map(|point| point as f64 / (GRID - 1) as f64)
}

/// Height at `x` of a line through points by rising x; of several at one x the last.
fn interpolated(points: &[(f64, f64)], x: f64) -> f64 {
    let after = points.partition_point(|point| point.0 <= x);
    match (
        after.checked_sub(1).map(|before| points[before]),
        points.get(after),
    ) {
        (Some(a), Some(b)) => a.1 + (b.1 - a.1) * (x - a.0) / (b.0 - a.0),
        (Some(a), None) => a.1,
        (None, Some(b)) => b.1,
        (None, None) => f64::NAN,
    }
}

/// The curves of `predictions`, or an error that says why there are none.
pub(super) fn curves(
    kind: CurveKind,
    predictions: &Predictions<'_>,
    bootstrap: &Bootstrap,
) -> Result<Curves> {
    let on_grid = |places: &[usize]| -> Result<Vec<f64>> {
        let mut sum = vec![0.0; GRID];
        let rankings = predictions.outcomes.rankings(places);
        let share = rankings.iter().fold(0.0, |count, _| count + 1.0);
        for (labels, scores) in &rankings {
            let points = kind.points(labels, scores)?;
            for (sum, height) in sum.iter_mut().zip(kind.on_grid(&points)) {
                *sum += height / share;
            }
        }
        Ok(sum)
    };
    let everything = predictions.everything();
    let rankings = predictions.outcomes.rankings(&everything);
    let first = usize::from(rankings.len() == 1 && predictions.outcomes.task() == Task::Binary);
    let classes = (first..)
        .zip(rankings)
        .map(|(class, (labels, scores))| Ok((class, kind.points(&labels, &scores)?)))
        .collect::<Result<Vec<_>>>()?;
    Ok(Curves {
        classes,
        mean: grid().zip(on_grid(&everything)?).collect(),
        band: bootstrap.band(&predictions.groups, on_grid)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn curves_are_read_between_their_points() {
        let roc = CurveKind::Roc
            .points(&[true, false, true, false], &[4.0, 3.0, 2.0, 1.0])
            .unwrap();
        assert_eq!(
            roc,
            [(0.0, 0.0), (0.0, 0.5), (0.5, 0.5), (0.5, 1.0), (1.0, 1.0)]
        );
        let heights = CurveKind::Roc.on_grid(&roc);
        assert_eq!(
            (heights[0], heights[49], heights[50], heights[100]),
            (0.5, 0.5, 1.0, 1.0)
        );
        let tied = [(0.0, 0.0), (1.0, 1.0)];
        assert_eq!(interpolated(&tied, 0.25), 0.25);
    }

    /// The area under the steps is the average precision.
    #[test]
    fn precision_belongs_to_the_recall_that_it_leads_to() {
        let labels = [true, false, true, false, true];
        let scores = [5.0, 4.0, 3.0, 2.0, 1.0];
        let points = CurveKind::PrecisionRecall.points(&labels, &scores).unwrap();
        let area: f64 = points
            .chunks(2)
            .map(|step| (step[1].0 - step[0].0) * step[0].1)
            .sum();
        let expected = crate::metrics::average_precision_score(&labels, &scores).unwrap();
        assert!((area - expected).abs() < 1e-14);
        let heights = CurveKind::PrecisionRecall.on_grid(&points);
        assert_eq!((heights[0], heights[100]), (1.0, 0.6));
        assert!((heights[50] - 2.0 / 3.0).abs() < 1e-14);
    }
}
