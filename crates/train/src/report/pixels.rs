//! What a report knows of the classes of pixels.

use std::collections::BTreeMap;

use super::folder::{Member, Predicted, RunFolder};
use crate::data::{Split, Task};
use crate::error::{Result, TrainError};
use crate::metrics::{Confusion, Estimate, Groups, MapOutcomes, Metric};

/// The pixels of one resolution: of its first seed, of all folds together; of the test split, or of the validation split where there
/// is no other.
pub(super) struct Pixels {
    /// For headings.
    pub(super) title: String,
    /// For names of files.
    pub(super) slug: String,
    pub(super) split: Split,
    pub(super) outcomes: MapOutcomes,
    groups: Groups,
}

impl Pixels {
    /// Those of trainings of one resolution; `None` for another task, or without predictions.
    pub(super) fn of(run: &RunFolder, members: &[Member]) -> Result<Option<Self>> {
        let (Some(Task::Segmentation { classes }), Some(first)) = (run.task, members.first())
        else {
            return Ok(None);
        };
        let slides = |split: Split| -> Vec<(&Predicted, &Confusion)> {
            members
                .iter()
                .filter(|member| member.key.seed == first.key.seed)
                .flat_map(|member| &member.predictions)
                .filter(|slide| slide.split.unwrap_or(Split::Test) == split)
                .filter_map(|slide| Some((slide, slide.confusion.as_ref()?)))
                .collect()
        };
        let mut found = [Split::Test, Split::Validation]
            .into_iter()
            .map(|split| (split, slides(split)));
        let Some((split, slides)) = found.find(|(_, slides)| !slides.is_empty()) else {
            return Ok(None);
        };
        let resolution = first.key.resolution();
        let groups = slides
            .iter()
            .map(|(slide, _)| (slide.patient.as_deref(), slide.slide.as_path()));
        let confusions = slides.iter().map(|(_, pixels)| (*pixels).clone());
        Ok(Some(Self {
            title: if resolution.is_empty() {
                first.name.clone()
            } else {
                resolution
            },
            slug: match first.key.microns {
                Some(microns) => format!("{microns}-microns"),
                None => first.name.clone(),
            },
            split,
            groups: Groups::by_patient(groups),
            outcomes: MapOutcomes::new(classes, confusions.collect())?,
        }))
    }

    /// A metric of a class, or the mean over all for `None`; none where it has no meaning.
    pub(super) fn estimate(
        &self,
        metric: Metric,
        class: Option<usize>,
        run: &RunFolder,
    ) -> Result<Option<Estimate>> {
        let (groups, bootstrap) = (&self.groups, &run.bootstrap);
        let found = match class {
            Some(class) => self
                .outcomes
                .estimate_class((metric, class), groups, bootstrap),
            None => self.outcomes.estimate(metric, groups, bootstrap),
        };
        match found {
            Ok(estimate) => Ok(Some(estimate)),
            Err(TrainError::Metric { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The task's metrics by name, of those that have a meaning.
    pub(super) fn metrics(&self, run: &RunFolder) -> Result<BTreeMap<String, Estimate>> {
        let mut metrics = BTreeMap::new();
        for metric in [Metric::Dice, Metric::Iou] {
            if let Some(estimate) = self.estimate(metric, None, run)? {
                metrics.insert(metric.name().to_owned(), estimate);
            }
        }
        Ok(metrics)
    }
}
