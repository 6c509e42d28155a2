//! How recipes are written to files.

use serde::{Deserialize, Serialize};

use crate::error::TilingError;
use crate::graph::NodeId;
use crate::recipe::{Recipe, Reuse, Weights};
use crate::span::PerAxis;

/// The version that is written.
const VERSION: u32 = 5;

/// A recipe in a file: a version, and what is done one after the other. There is one stage today; a network with norms over the whole
/// image will have one for each part between them. Version 1 had no version and no stages; before version 3 the output's blocks were
/// `block` and the stored nodes `kept`; before version 4 every tile was computed; before version 5 weights
/// were held.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct RecipeFile {
    #[serde(default = "first_version")]
    version: u32,
    #[serde(default)]
    stages: Vec<Stage>,
    #[serde(flatten, skip_serializing)]
    version_one: Option<Stage>,
}

const fn first_version() -> u32 {
    1
}

/// How a part of a network is streamed.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Stage {
    image: PerAxis<u64>,
    #[serde(alias = "block")]
    output_block: PerAxis<u64>,
    segments: u64,
    tile: PerAxis<u64>,
    #[serde(alias = "kept")]
    stored: Vec<NodeId>,
    #[serde(default)]
    reuse: Reuse,
    #[serde(default)]
    weights: Weights,
}

impl From<Recipe> for RecipeFile {
    fn from(recipe: Recipe) -> Self {
        let Recipe {
            image,
            output_block,
            segments,
            tile,
            stored,
            reuse,
            weights,
        } = recipe;
        Self {
            version: VERSION,
            stages: vec![Stage {
                image,
                output_block,
                segments,
                tile,
                stored,
                reuse,
                weights,
            }],
            version_one: None,
        }
    }
}

impl TryFrom<RecipeFile> for Recipe {
    type Error = TilingError;

    fn try_from(file: RecipeFile) -> Result<Self, TilingError> {
        let RecipeFile {
            version,
            stages,
            version_one,
        } = file;
        if version > VERSION {
            return Err(TilingError::RecipeVersion {
                found: version,
                newest: VERSION,
            });
        }
        let stages = match version_one {
            Some(stage) if version == 1 => vec![stage],
            _ => stages,
        };
        let [stage] =
            <[Stage; 1]>::try_from(stages).map_err(|stages| TilingError::RecipeStages {
                found: stages.len(),
            })?;
        let Stage {
            image,
            output_block,
            segments,
            tile,
            stored,
            reuse,
            weights,
        } = stage;
        Ok(Self {
            image,
            output_block,
            segments,
            tile,
            stored,
            reuse,
            weights,
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a helper of a test fails the test")]

    use super::*;

    const STAGE: &str = r#"{"image":{"rows":9,"columns":8},"output_block":{"rows":3,"columns":2},"segments":2,"tile":{"rows":4,"columns":5},"stored":[1,3]}"#;
    const OLD_STAGE: &str = r#"{"image":{"rows":9,"columns":8},"block":{"rows":3,"columns":2},"segments":2,"tile":{"rows":4,"columns":5},"kept":[1,3]}"#;

    fn recipe() -> Recipe {
        Recipe {
            image: PerAxis::new(9, 8),
            output_block: PerAxis::new(3, 2),
            segments: 2,
            tile: PerAxis::new(4, 5),
            stored: vec![NodeId(1), NodeId(3)],
            reuse: Reuse::Nothing,
            weights: Weights::Held,
        }
    }

    #[test]
    fn a_recipe_is_stored_with_its_version() {
        for (reuse, weights) in [
            (Reuse::Nothing, Weights::Held),
            (Reuse::OneColor, Weights::Held),
            (Reuse::Nothing, Weights::PackedOnUse),
        ] {
            let recipe = Recipe {
                reuse,
                weights,
                ..recipe()
            };
            let text = serde_json::to_string(&recipe).unwrap();
            let stage = STAGE.strip_suffix('}').unwrap();
            let last = format!(r#""reuse":"{reuse:?}","weights":"{weights:?}""#);
            assert_eq!(
                text,
                format!(r#"{{"version":5,"stages":[{stage},{last}}}]}}"#)
            );
            assert_eq!(serde_json::from_str::<Recipe>(&text).unwrap(), recipe);
        }
    }

    #[test]
    fn recipes_of_older_versions_are_read() {
        let second = format!(r#"{{"version":2,"stages":[{OLD_STAGE}]}}"#);
        let third = format!(r#"{{"version":3,"stages":[{STAGE}]}}"#);
        for text in [OLD_STAGE, &second, &third] {
            assert_eq!(serde_json::from_str::<Recipe>(text).unwrap(), recipe());
        }
        let stage = STAGE.strip_suffix('}').unwrap();
        let fourth = format!(r#"{{"version":4,"stages":[{stage},"reuse":"OneColor"}}]}}"#);
        let read = serde_json::from_str::<Recipe>(&fourth).unwrap();
        assert_eq!((read.reuse, read.weights), (Reuse::OneColor, Weights::Held));
    }

    #[test]
    fn what_cannot_be_run_says_so() {
        let error = |text: &str| {
            serde_json::from_str::<Recipe>(text)
                .unwrap_err()
                .to_string()
        };
        let newer = error(&format!(
            r#"{{"version":6,"stages":[{STAGE}],"statistics":true}}"#
        ));
        assert!(
            newer.contains("version 6") && newer.contains("up to 5"),
            "{newer}"
        );
        let two = error(&format!(r#"{{"version":5,"stages":[{STAGE},{STAGE}]}}"#));
        assert!(two.contains("2 stages"), "{two}");
        let none = error(r#"{"version":5}"#);
        assert!(none.contains("0 stages"), "{none}");
    }
}
