//! Rendering of settings that are made for it.

use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde::{Deserialize, Serialize};

use super::*;

/// Of a run.
#[derive(Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct Run {
    /// How to step.
    step: Step,
    /// Sizes in microns, as [`Vec`]; see [there](https://example.org).
    ///
    /// At least one.
    sizes: Vec<f64>,
    /// Where to offload.
    offload: Option<String>,
    /// How slides are drawn.
    draw: Draw,
    /// Averages.
    average: Option<Average>,
}

/// Kinds of steps.
#[derive(Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
enum Step {
    /// With moments.
    Adam {
        /// Of the first moment.
        beta1: f64,
    },
    /// Without.
    Plain {
        /// From 0 to 1.
        momentum: f64,
    },
    /// Not at all.
    Nothing,
}

/// Kinds of draws.
#[derive(Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Draw {
    /// Each once.
    Shuffled,
    /// As many of each class.
    Balanced,
}

/// Averages of weights.
#[derive(Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
struct Average {
    /// From 0 to 1.
    decay: f64,
}

impl Default for Average {
    fn default() -> Self {
        Self { decay: 0.5 }
    }
}

impl Default for Run {
    fn default() -> Self {
        Self {
            step: Step::Adam { beta1: 0.9 },
            sizes: vec![8.0, 2.0],
            offload: None,
            draw: Draw::Balanced,
            average: None,
        }
    }
}

fn rendered(run: &Run) -> String {
    let generator = SchemaSettings::draft2020_12().for_serialize();
    let schema = generator.into_generator().into_root_schema_for::<Run>();
    render(schema.as_value(), &Table::try_from(run).unwrap())
}

#[test]
fn every_key_stands_under_its_documentation() {
    let expected = r#"# Sizes in microns, as `Vec`; see there.
# At least one.
sizes = [8.0, 2.0]
# Where to offload.
# offload = "..."
# How slides are drawn.
#   "shuffled": Each once.
#   "balanced": As many of each class.
draw = "balanced"

# How to step.
[step]
# "adam": With moments. Its keys: beta1.
# "plain": Without. Its keys: momentum.
# "nothing": Not at all.
kind = "adam"
# Of the first moment.
beta1 = 0.9
# Of "plain":
# From 0 to 1.
# momentum = 0.0

# Averages.
# Absent unless this line and the keys below are made active.
# [average]
# From 0 to 1.
# decay = 0.5
"#;
    assert_eq!(rendered(&Run::default()), expected);
}

#[test]
fn what_is_rendered_is_what_was_given() {
    let other = Run {
        step: Step::Plain { momentum: 0.25 },
        sizes: Vec::new(),
        offload: Some("a \"folder\"".to_owned()),
        draw: Draw::Shuffled,
        average: Some(Average { decay: 0.25 }),
    };
    for run in [Run::default(), other] {
        assert_eq!(toml::from_str::<Run>(&rendered(&run)).unwrap(), run);
    }
}

/// Lines that the renderer made comments are keys once the sign is gone.
#[test]
fn what_is_a_comment_can_be_made_active() {
    let text = rendered(&Run::default());
    let text = text.replace("# offload =", "offload =");
    let text = text.replace("# [average]", "[average]");
    let run: Run = toml::from_str(&text.replace("# decay", "decay")).unwrap();
    assert_eq!(run.offload.as_deref(), Some("..."));
    assert_eq!(run.average, Some(Average::default()));
}

#[test]
fn long_documentation_is_cut_between_words() {
    let mut writer = Writer {
        definitions: None,
        text: String::new(),
    };
    let text = "word ".repeat(50);
    writer.comment(&text);
    assert!(
        writer
            .text
            .lines()
            .all(|line| line.len() <= WIDTH && line.starts_with("# word"))
    );
    assert_eq!(writer.text.replace("# ", "").replace('\n', " "), text);
}
