//! Stains that are made alike on all slides.

use std::path::Path;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use stream_grad_slides::{MacenkoProfile, ReinhardProfile, Slide, StainNormalizer, StainProfile};

use crate::error::{Result, TrainError};

/// Whether stains are made alike on all slides, and by which method: `stain = { kind = "macenko" }`.
///
/// Each slide has one profile, estimated from its tissue whatever the scale that is trained at, so that a pixel's new colour
/// depends on its old one alone. A slide whose profile cannot be estimated counts as one that cannot be read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum StainSettings {
    /// Colours are as they are read.
    #[default]
    AsRead,
    /// By colours and amounts of haematoxylin and eosin.
    Macenko {
        /// What slides come to look like.
        #[serde(default = "StainSettings::macenko_reference")]
        reference: MacenkoProfile,
    },
    /// By mean and spread of colours.
    Reinhard {
        /// What slides come to look like.
        #[serde(default = "StainSettings::reinhard_reference")]
        reference: ReinhardProfile,
    },
}

impl StainSettings {
    const fn macenko_reference() -> MacenkoProfile {
        MacenkoProfile::REFERENCE
    }

    const fn reinhard_reference() -> ReinhardProfile {
        ReinhardProfile::REFERENCE
    }

    fn reference(&self) -> Option<StainProfile> {
        match self {
            Self::AsRead => None,
            Self::Macenko { reference } => Some(StainProfile::Macenko(*reference)),
            Self::Reinhard { reference } => Some(StainProfile::Reinhard(*reference)),
        }
    }

    pub(super) fn check(&self) -> Result<()> {
        match self.reference() {
            Some(reference) if reference.normalizer_to(&reference).is_err() => {
                Err(TrainError::setting(
                    "data.read.stain.reference",
                    "a profile that a stain can have",
                    format!("{reference:?}"),
                ))
            }
            _ => Ok(()),
        }
    }

    /// What gives pixels of `slide` the reference's colours. The slide's profile is kept in `folder`, if there is one.
    pub(super) fn normalizer(
        &self,
        slide: &Slide,
        folder: Option<&Path>,
    ) -> Result<Option<StainNormalizer>> {
        let Some(reference) = self.reference() else {
            return Ok(None);
        };
        let method = reference.method();
        let profile = match folder {
            Some(folder) => StainProfile::of_slide_cached(slide, method, folder)?,
            None => StainProfile::of_slide(slide, method)?,
        };
        Ok(Some(profile.normalizer_to(&reference)?))
    }
}
