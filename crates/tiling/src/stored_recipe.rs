//! How recipes are stored.

use serde::{Deserialize, Serialize};

use crate::error::TilingError;
use crate::graph::NodeId;
use crate::recipe::Recipe;
use crate::span::PerAxis;

/// The version that is written.
const VERSION: u32 = 2;

/// A recipe in a file: a version, and what is done one after the other. There is one stage today; a network with norms over the whole
/// image will have one for each part between them. Version 1 had no version and no stages.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct StoredRecipe {
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
    block: PerAxis<u64>,
    segments: u64,
    tile: PerAxis<u64>,
    kept: Vec<NodeId>,
}

impl From<Recipe> for StoredRecipe {
    fn from(recipe: Recipe) -> Self {
        let Recipe {
            image,
            block,
            segments,
            tile,
            kept,
        } = recipe;
        Self {
            version: VERSION,
            stages: vec![Stage {
                image,
                block,
                segments,
                tile,
                kept,
            }],
            version_one: None,
        }
    }
}

impl TryFrom<StoredRecipe> for Recipe {
    type Error = TilingError;

    fn try_from(stored: StoredRecipe) -> Result<Self, TilingError> {
        let StoredRecipe {
            version,
            stages,
            version_one,
        } = stored;
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
            block,
            segments,
            tile,
            kept,
        } = stage;
        Ok(Self {
            image,
            block,
            segments,
            tile,
            kept,
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a helper of a test fails the test")]

    use super::*;

    const STAGE: &str = r#"{"image":{"rows":9,"columns":8},"block":{"rows":3,"columns":2},"segments":2,"tile":{"rows":4,"columns":5},"kept":[1,3]}"#;

    fn recipe() -> Recipe {
        Recipe {
            image: PerAxis::new(9, 8),
            block: PerAxis::new(3, 2),
            segments: 2,
            tile: PerAxis::new(4, 5),
            kept: vec![NodeId(1), NodeId(3)],
        }
    }

    #[test]
    fn a_recipe_is_stored_with_its_version() {
        let text = serde_json::to_string(&recipe()).unwrap();
        assert_eq!(text, format!(r#"{{"version":2,"stages":[{STAGE}]}}"#));
        assert_eq!(serde_json::from_str::<Recipe>(&text).unwrap(), recipe());
    }

    #[test]
    fn a_recipe_from_before_versions_is_read() {
        assert_eq!(serde_json::from_str::<Recipe>(STAGE).unwrap(), recipe());
    }

    #[test]
    fn what_cannot_be_run_says_so() {
        let error = |text: &str| {
            serde_json::from_str::<Recipe>(text)
                .unwrap_err()
                .to_string()
        };
        let newer = error(&format!(
            r#"{{"version":3,"stages":[{STAGE}],"statistics":true}}"#
        ));
        assert!(
            newer.contains("version 3") && newer.contains("up to 2"),
            "{newer}"
        );
        let two = error(&format!(r#"{{"version":2,"stages":[{STAGE},{STAGE}]}}"#));
        assert!(two.contains("2 stages"), "{two}");
        let none = error(r#"{"version":2}"#);
        assert!(none.contains("0 stages"), "{none}");
    }
}
