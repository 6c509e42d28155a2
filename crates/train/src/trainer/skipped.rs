//! Slides that do not count, and why.

use std::fmt;
use std::path::{Path, PathBuf};

use stream_grad::StreamError;
use stream_grad::tiling::TilingError;

use crate::data::Split;
use crate::error::{Result, TrainError};
use crate::source::ImageLoader;

/// What slides are asked for. Its text is a name for it, such as `epoch 3`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// An epoch of a training, from 0.
    Epoch(u64),
    /// The evaluation of a split.
    Evaluation(Split),
    /// A prediction.
    Prediction,
}

/// Why a slide did not count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SkipReason {
    /// It could not be opened or read, or is not of a size that the network takes: the error, and what to do where that is known.
    Broken(String),
    /// Its loss, a gradient or an output was no finite number.
    NotFinite,
}

/// A slide that did not count. Its text is a line for whoever watches: the slide, why, and what becomes of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Skipped {
    /// The slide.
    pub slide: PathBuf,
    /// What it was asked for.
    pub phase: Phase,
    /// Why it did not count.
    pub reason: SkipReason,
}

impl Phase {
    /// What a slide gave, or why it does not count; `answer` is `None` where something is no finite number.
    ///
    /// # Errors
    /// An error that must stop the run, as [`ImageLoader::stops_at`] says.
    pub(crate) fn check<T>(
        self,
        slide: &Path,
        answer: Result<Option<T>>,
        loader: &dyn ImageLoader,
    ) -> Result<std::result::Result<T, Skipped>> {
        let reason = match answer {
            Ok(Some(value)) => return Ok(Ok(value)),
            Ok(None) => SkipReason::NotFinite,
            Err(error) if loader.stops_at(&error) => return Err(error),
            Err(error) => SkipReason::Broken(format!("{error}{}", self.advice(&error))),
        };
        Ok(Err(Skipped {
            slide: slide.to_path_buf(),
            phase: self,
            reason,
        }))
    }

    /// What to do about an error, where that is known. A prediction reads slides at the scale of the training.
    const fn advice(self, error: &TrainError) -> &'static str {
        let TrainError::Stream(StreamError::Geometry(error)) = error else {
            return "";
        };
        match (error, self) {
            (TilingError::InputTooSmall { .. }, Self::Prediction) => {
                "; the slide is too small for this network: leave it out"
            }
            (TilingError::InputTooSmall { .. }, _) => {
                "; the slide is too small for this network: read it at fewer microns per pixel, or leave it out"
            }
            (TilingError::BudgetTooSmall { .. }, Self::Prediction) => "; predict with more memory",
            (TilingError::BudgetTooSmall { .. }, _) => {
                "; raise `memory_bytes` in [model], or read the slide at more microns per pixel"
            }
            _ => "",
        }
    }
}

impl Skipped {
    /// The error of a phase of which none of the `count` slides counted, this one being the last.
    pub(crate) fn all_failed(&self, count: usize) -> TrainError {
        TrainError::AllSlidesFailed {
            phase: self.phase.to_string(),
            count,
            slide: self.slide.clone(),
            last: self.reason.to_string(),
        }
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Epoch(epoch) => write!(f, "epoch {}", epoch.saturating_add(1)),
            Self::Evaluation(split) => write!(f, "the {} split", split.name()),
            Self::Prediction => f.write_str("the prediction"),
        }
    }
}

impl fmt::Display for SkipReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Broken(reason) => f.write_str(reason),
            Self::NotFinite => f.write_str("its loss, a gradient or an output is no finite number"),
        }
    }
}

impl fmt::Display for Skipped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            slide,
            phase,
            reason,
        } = self;
        write!(f, "skipped {}: {reason}; ", slide.display())?;
        match (phase, reason) {
            (Phase::Epoch(_), SkipReason::Broken(_)) => {
                f.write_str("it is tried again in every epoch")
            }
            (Phase::Epoch(_), SkipReason::NotFinite) => {
                f.write_str("the weights stay as they are, and the rest of the run leaves it out")
            }
            (Phase::Evaluation(_), _) => write!(f, "{phase} is evaluated without it"),
            (Phase::Prediction, _) => f.write_str(
                "it has no row in the table, and is tried again when the prediction is run again",
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use stream_grad::TileSource;
    use stream_grad::tiling::Axis;

    use super::*;

    /// Stops at settings alone.
    struct Nothing;

    impl ImageLoader for Nothing {
        fn expect(&self, _: &[&Path]) {}

        fn load(&self, slide: &Path) -> Result<Arc<dyn TileSource>> {
            Err(TrainError::file(slide)(std::io::Error::from(
                std::io::ErrorKind::NotFound,
            )))
        }

        fn stops_at(&self, error: &TrainError) -> bool {
            matches!(error, TrainError::Settings(_))
        }
    }

    const PHASES: [Phase; 3] = [
        Phase::Epoch(1),
        Phase::Evaluation(Split::Test),
        Phase::Prediction,
    ];

    fn skipped(phase: Phase, answer: Result<Option<u8>>) -> Skipped {
        let found = phase.check(Path::new("a.svs"), answer, &Nothing);
        found.unwrap().unwrap_err()
    }

    #[test]
    fn answers_are_values_reasons_or_ends() {
        for phase in PHASES {
            let check = |answer| phase.check(Path::new("a.svs"), answer, &Nothing);
            assert_eq!(check(Ok(Some(3))).unwrap(), Ok(3));
            let reason = skipped(phase, Ok(None)).reason;
            assert_eq!(reason, SkipReason::NotFinite);
            let error = TrainError::file(Path::new("b.svs"))(std::io::Error::other("odd"));
            let told = error.to_string();
            let reason = skipped(phase, Err(error)).reason;
            assert_eq!(reason, SkipReason::Broken(told));
            check(Err(TrainError::Settings("odd".to_owned()))).unwrap_err();
        }
    }

    #[test]
    fn a_slide_that_is_too_small_is_told_what_to_do() {
        let told = PHASES.map(|phase| {
            let error = TilingError::InputTooSmall {
                layer: "pool".to_owned(),
                axis: Axis::Rows,
                found: 1,
                needed: 3,
                padded: 1,
            };
            let error = TrainError::Stream(StreamError::Geometry(error));
            skipped(phase, Err(error)).to_string()
        });
        for told in &told {
            for part in ["a.svs", "pool", "needs at least 3", "leave it out"] {
                assert!(told.contains(part), "{part:?} in {told}");
            }
        }
        let is_advised = told.each_ref().map(|told| told.contains("fewer microns"));
        assert_eq!(is_advised, [true, true, false]);
    }

    #[test]
    fn what_becomes_of_a_slide_is_right_for_each_phase() {
        let told = |phase| skipped(phase, Ok(None)).to_string();
        let [epoch, evaluation, prediction] = PHASES.map(told);
        assert!(
            epoch.ends_with("the rest of the run leaves it out"),
            "{epoch}"
        );
        assert!(
            evaluation.ends_with("the test split is evaluated without it"),
            "{evaluation}"
        );
        assert!(
            prediction.contains("it has no row in the table"),
            "{prediction}"
        );
        for told in [evaluation, prediction] {
            assert!(
                !told.contains("epoch") && !told.contains("weights"),
                "{told}"
            );
        }
    }
}
