//! Stages of patients from the predicted classes of their lymph nodes, as CAMELYON17 judges them.

use super::folder::{Predicted, RunFolder};
use crate::data::{ClassNames, Label, NodeStage, PatientStage, Sample, Task, patient_stages};
use crate::metrics::{Bootstrap, Estimate, Groups, KappaWeights, cohen_kappa_score};

/// True and predicted stages of the patients of one resolution.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Stages {
    /// Name, true and predicted stage, in the order of names.
    pub(super) patients: Vec<(String, PatientStage, PatientStage)>,
    /// Quadratically weighted kappa over the patients, which the interval resamples, or why there is none.
    pub(super) kappa: Result<Estimate, String>,
}

impl Stages {
    /// Of the slides of a run whose classes are those of [`NodeStage`]; `None` for other classes, and where no patients are known.
    pub(super) fn of(run: &RunFolder, slides: &[&Predicted]) -> Option<Self> {
        let task = run.task.filter(|task| are_node_stages(*task, &run.names))?;
        let slides: Vec<(Sample, Label)> = slides
            .iter()
            .filter_map(|slide| {
                let sample = Sample {
                    patient: slide.patient.clone(),
                    ..Sample::new(&slide.slide, slide.label.clone()?)
                };
                Some((sample, task.predicted(&slide.outputs)))
            })
            .collect();
        let patients = patient_stages(slides.iter().map(|(sample, label)| (sample, label)));
        (!patients.is_empty()).then(|| Self {
            kappa: kappa(&patients, &run.bootstrap),
            patients,
        })
    }

    /// How often each stage was taken for each, by rank: rows are the truth.
    pub(super) fn counts(&self) -> Vec<Vec<usize>> {
        let stages = PatientStage::ALL.len();
        let mut counts = vec![vec![0; stages]; stages];
        for (_, truth, predicted) in &self.patients {
            counts[truth.rank()][predicted.rank()] += 1;
        }
        counts
    }
}

fn are_node_stages(task: Task, names: &ClassNames) -> bool {
    matches!(task, Task::Classification { .. } | Task::Ordinal { .. })
        && names.iter().eq(NodeStage::NAMES)
}

fn kappa(
    patients: &[(String, PatientStage, PatientStage)],
    bootstrap: &Bootstrap,
) -> Result<Estimate, String> {
    let groups = Groups::new(0..patients.len());
    let estimate = bootstrap.estimate(&groups, |places| {
        let ranks = places.iter().map(|place| {
            let (_, truth, predicted) = &patients[*place];
            (truth.rank(), predicted.rank())
        });
        let (truth, predicted): (Vec<_>, Vec<_>) = ranks.unzip();
        let stages = PatientStage::ALL.len();
        cohen_kappa_score(&truth, &predicted, stages, KappaWeights::Quadratic)
    });
    estimate.map_err(|error| error.to_string())
}
