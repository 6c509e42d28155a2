//! What is known, or to be predicted, of a slide.

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::Task;
use crate::error::{Result, TrainError};

/// Stands between the labels of a slide that has several.
pub const SEPARATOR: char = ';';

/// A slide's class, level, score or labels, or where the classes of its pixels are. In JSON a number, a list of truth values, or a
/// text.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Label {
    /// A class or a level, from 0, or a score.
    Number(f64),
    /// For each of several labels, whether the slide has it.
    Set(Vec<bool>),
    /// A file with a class for each pixel: a mask, or annotations.
    Map(PathBuf),
}

impl From<f64> for Label {
    fn from(number: f64) -> Self {
        Self::Number(number)
    }
}

impl From<Vec<bool>> for Label {
    fn from(set: Vec<bool>) -> Self {
        Self::Set(set)
    }
}

/// The number, the places of the labels that a slide has, from 0 (`0;2`, and `;` for none), or the path of its label map.
/// [`Label::parse`] reads it with [numbered](ClassNames::numbered) names.
impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => write!(f, "{number}"),
            Self::Set(set) => f.write_str(&join(
                (0..set.len())
                    .filter(|place| set[*place])
                    .map(|place| place.to_string()),
            )),
            Self::Map(path) => write!(f, "{}", path.display()),
        }
    }
}

/// Names with separators between them; one separator for none.
fn join(names: impl Iterator<Item = String>) -> String {
    let names: Vec<String> = names.collect();
    if names.is_empty() {
        SEPARATOR.to_string()
    } else {
        names.join(&SEPARATOR.to_string())
    }
}

impl Label {
    /// The label of a class or a level.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "class numbers are small")]
    pub fn of_class(class: usize) -> Self {
        Self::Number(class as f64)
    }

    /// The number; `None` for several labels and label maps.
    #[must_use]
    pub fn number(&self) -> Option<f64> {
        match self {
            Self::Number(number) => Some(*number),
            Self::Set(_) | Self::Map(_) => None,
        }
    }

    /// The class or level, where the label is a whole number of 0 or more.
    #[must_use]
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "compared with the number that it came from"
    )]
    pub fn class(&self) -> Option<usize> {
        let number = self.number()?;
        let class = number as usize;
        (class as f64 == number).then_some(class)
    }

    /// Whether it is the highest of two classes, `1`.
    #[must_use]
    pub fn is_positive(&self) -> bool {
        self.class() == Some(1)
    }

    /// Reads a cell of a table; `None` for text that the task does not take, of which [`Task::expected`] says what it does.
    ///
    /// A class or level is one of `names`, spelled as there; where both are numbers, spelled in any way (`1.0` is `1`). Several
    /// labels are names between semicolons, `;` alone for none of them. A score is a finite number. A label map is a path.
    ///
    /// ```
    /// use stream_grad_train::data::{ClassNames, Label, Task};
    ///
    /// let names = ClassNames::new(["negative", "itc", "micro", "macro"])?;
    /// let task = Task::Classification { classes: 4 };
    /// assert_eq!(Label::parse("itc", task, &names), Some(Label::Number(1.0)));
    /// assert_eq!(Label::parse("1", task, &names), None);
    /// assert_eq!(Label::parse("1.0", task, &ClassNames::numbered(task)), Some(Label::Number(1.0)));
    ///
    /// let task = Task::MultiLabel { labels: 3 };
    /// let names = ClassNames::new(["necrosis", "mitosis", "fat"])?;
    /// assert_eq!(Label::parse("fat; necrosis", task, &names), Some(Label::Set(vec![true, false, true])));
    /// # Ok::<(), stream_grad_train::TrainError>(())
    /// ```
    #[must_use]
    pub fn parse(text: &str, task: Task, names: &ClassNames) -> Option<Self> {
        let label = match task {
            Task::Regression => Self::Number(text.trim().parse().ok()?),
            Task::Binary | Task::Classification { .. } | Task::Ordinal { .. } => {
                Self::of_class(names.place(text)?)
            }
            Task::MultiLabel { labels } => {
                let mut set = vec![false; labels];
                if text.trim().is_empty() {
                    return None;
                }
                for name in text.split(SEPARATOR).filter(|name| !name.trim().is_empty()) {
                    *set.get_mut(names.place(name)?)? = true;
                }
                Self::Set(set)
            }
            Task::Segmentation { .. } => Self::Map(text.trim().into()),
        };
        task.accepts(&label).then_some(label)
    }

    /// Reads the cells of a table with one column for each of several labels: `1`, `true`, `yes` or `0`, `false`, `no`, in any
    /// case. The error is the place of the first cell that is none of them.
    ///
    /// # Errors
    /// The place of a cell, from 0.
    ///
    /// ```
    /// use stream_grad_train::data::Label;
    /// assert_eq!(Label::parse_columns(["1", "no"]), Ok(Label::Set(vec![true, false])));
    /// assert_eq!(Label::parse_columns(["1", ""]), Err(1));
    /// ```
    pub fn parse_columns<'a>(
        cells: impl IntoIterator<Item = &'a str>,
    ) -> std::result::Result<Self, usize> {
        let cells = cells.into_iter().enumerate();
        let flag = |(place, cell): (usize, &str)| match cell.trim().to_lowercase().as_str() {
            "1" | "1.0" | "true" | "yes" => Ok(true),
            "0" | "0.0" | "false" | "no" => Ok(false),
            _ => Err(place),
        };
        cells
            .map(flag)
            .collect::<std::result::Result<_, _>>()
            .map(Self::Set)
    }

    /// The text that [`parse`](Self::parse) reads as this label.
    #[must_use]
    pub fn text(&self, task: Task, names: &ClassNames) -> String {
        let name = |place: usize| {
            names
                .get(place)
                .map_or_else(|| place.to_string(), str::to_owned)
        };
        match (self, task) {
            (Self::Number(_), Task::Regression | Task::MultiLabel { .. }) => self.to_string(),
            (Self::Number(_), _) => self.class().map_or_else(|| self.to_string(), name),
            (Self::Map(_), _) => self.to_string(),
            (Self::Set(set), _) => join((0..set.len()).filter(|place| set[*place]).map(name)),
        }
    }
}

/// Names of classes, labels or levels, in the order of their numbers.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(try_from = "Vec<String>", into = "Vec<String>")]
pub struct ClassNames(Vec<String>);

impl ClassNames {
    /// Names in the order of their numbers, without blanks at their ends.
    ///
    /// # Errors
    /// [`TrainError::Setting`] for a name that is blank, stands there twice, or has a semicolon, which stands between labels.
    pub fn new(names: impl IntoIterator<Item = impl Into<String>>) -> Result<Self> {
        let names = names.into_iter().map(|name| name.into().trim().to_owned());
        let mut known = Self(Vec::new());
        for name in names {
            let problem = if name.is_empty() || name.contains(SEPARATOR) {
                "names that are not blank and have no semicolon"
            } else if known.place(&name).is_some() {
                "each name once, numbers in one spelling"
            } else {
                known.0.push(name);
                continue;
            };
            return Err(TrainError::setting("classes", problem, format!("`{name}`")));
        }
        Ok(known)
    }

    /// `0`, `1` and so on, as many as the task has; none for regression.
    #[must_use]
    pub fn numbered(task: Task) -> Self {
        Self(
            (0..task.classes().unwrap_or(0))
                .map(|class| class.to_string())
                .collect(),
        )
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All names.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }

    /// The name of a class.
    #[must_use]
    pub fn get(&self, class: usize) -> Option<&str> {
        self.0.get(class).map(String::as_str)
    }

    /// The class of that name, or of the name that is the same number.
    #[must_use]
    pub fn place(&self, text: &str) -> Option<usize> {
        let text = text.trim();
        let number = |text: &str| text.parse::<f64>().ok().filter(|number| number.is_finite());
        self.0.iter().position(|name| name == text).or_else(|| {
            let wanted = number(text)?;
            self.0.iter().position(|name| number(name) == Some(wanted))
        })
    }

    /// Checks that there are as many as the task has.
    ///
    /// # Errors
    /// [`TrainError::Setting`].
    pub fn check(&self, task: Task) -> Result<()> {
        let expected = task.classes().unwrap_or(0);
        if self.len() == expected {
            return Ok(());
        }
        let found = format!("{} ({self})", self.len());
        Err(TrainError::setting(
            "classes",
            format!("{expected} names"),
            found,
        ))
    }
}

/// The names with commas between them.
impl fmt::Display for ClassNames {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join(", "))
    }
}

impl TryFrom<Vec<String>> for ClassNames {
    type Error = TrainError;

    fn try_from(names: Vec<String>) -> Result<Self> {
        Self::new(names)
    }
}

impl From<ClassNames> for Vec<String> {
    fn from(names: ClassNames) -> Self {
        names.0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_that_cannot_be_told_apart_are_refused() {
        let (once, plain) = (
            "each name once, numbers in one spelling",
            "names that are not blank and have no semicolon",
        );
        for (names, expected, found) in [
            (["a", " a"], once, "a"),
            (["1", "1.0"], once, "1.0"),
            (["", "a"], plain, ""),
            (["a;b", "c"], plain, "a;b"),
        ] {
            assert_eq!(
                ClassNames::new(names).unwrap_err().to_string(),
                format!("setting `classes`: expected {expected}, found `{found}`")
            );
        }
        assert!(
            ClassNames::new(["1", "2"])
                .unwrap()
                .check(Task::Binary)
                .is_ok()
        );
        let error = ClassNames::new(["a", "b", "c"])
            .unwrap()
            .check(Task::Binary);
        assert!(error.unwrap_err().to_string().contains("3 (a, b, c)"));
    }

    #[test]
    fn classes_are_read_by_name_and_by_number() {
        let task = Task::Ordinal { levels: 3 };
        let grades = ClassNames::new(["1", "2", "3"]).unwrap();
        for (text, expected) in [
            ("1", Some(0.0)),
            (" 3.0", Some(2.0)),
            ("0", None),
            ("x", None),
            ("", None),
        ] {
            assert_eq!(
                Label::parse(text, task, &grades),
                expected.map(Label::Number),
                "{text}"
            );
        }
        let numbered = ClassNames::numbered(Task::Binary);
        for text in ["-1", "0.5", "2", "nan", "inf", "yes"] {
            assert_eq!(Label::parse(text, Task::Binary, &numbered), None, "{text}");
        }
        assert_eq!(
            Label::parse("-0", Task::Binary, &numbered),
            Some(Label::Number(0.0))
        );
        assert_eq!(Label::parse("1e999", Task::Regression, &numbered), None);
        assert_eq!(
            Label::parse("-2.5", Task::Regression, &numbered),
            Some(Label::Number(-2.5))
        );
    }

    #[test]
    fn labels_are_stored_as_numbers_and_lists() {
        let json = |label: &Label| serde_json::to_string(label).unwrap();
        for (label, text) in [
            (Label::Number(1.0), "1.0"),
            (Label::Set(vec![true, false]), "[true,false]"),
            (Label::Map("a/mask.png".into()), "\"a/mask.png\""),
        ] {
            assert_eq!(json(&label), text);
            assert_eq!(serde_json::from_str::<Label>(text).unwrap(), label);
        }
        assert_eq!(
            serde_json::from_str::<Label>("1").unwrap(),
            Label::Number(1.0)
        );
        assert_eq!(serde_json::from_str::<Option<Label>>("null").unwrap(), None);
    }

    proptest! {
        /// What is written is read as the same, by name and by number.
        #[test]
        fn text_is_read_back(
            names in proptest::collection::hash_set("[a-z0-9 .]{1,4}", 2..6),
            set in proptest::collection::vec(any::<bool>(), 6),
            score in -1e300..1e300_f64,
        ) {
            let Ok(names) = ClassNames::new(names) else { return Ok(()); };
            let count = names.len();
            let mut labels = vec![
                (Task::MultiLabel { labels: count }, Label::Set(set[..count].to_vec())),
                (Task::Regression, Label::Number(score)),
                (Task::Segmentation { classes: count }, Label::Map(format!("{score}/mask.tif").into())),
            ];
            for class in 0..count {
                labels.push((Task::Classification { classes: count }, Label::of_class(class)));
                labels.push((Task::Ordinal { levels: count }, Label::of_class(class)));
            }
            for (task, label) in labels {
                prop_assert!(task.accepts(&label));
                prop_assert_eq!(Label::parse(&label.text(task, &names), task, &names), Some(label.clone()));
                let numbered = ClassNames::numbered(task);
                prop_assert_eq!(Label::parse(&label.to_string(), task, &numbered), Some(label));
            }
        }
    }
}
