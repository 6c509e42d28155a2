//! A run folder as its report reads it: what is there counts, what is not is left out.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::{Map, Value};

use super::columns::Columns;
use super::notes::Notes;
use super::result::SkippedSlides;
use crate::data::{ClassNames, Label, Split, Task};
use crate::error::{Result, TrainError};
use crate::metrics::{Bootstrap, Confusion, Estimate};
use crate::trainer::Timing;

/// A run folder.
#[derive(Debug)]
pub(super) struct RunFolder {
    pub(super) path: PathBuf,
    pub(super) notes: Notes,
    pub(super) settings: Option<toml::Table>,
    pub(super) task: Option<Task>,
    pub(super) names: ClassNames,
    pub(super) bootstrap: Bootstrap,
    pub(super) samples: Option<Columns>,
    /// Coarsest first, then by seed and fold.
    pub(super) members: Vec<Member>,
}

/// One training of the run: a resolution, a seed and a fold.
#[derive(Debug)]
pub(super) struct Member {
    /// Name of its folder.
    pub(super) name: String,
    pub(super) path: PathBuf,
    pub(super) key: MemberKey,
    pub(super) result: StoredResult,
    pub(super) epochs: Columns,
    pub(super) steps: Columns,
    pub(super) predictions: Vec<Predicted>,
}

/// Which training it is.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default)]
pub(super) struct MemberKey {
    #[serde(rename = "microns_per_pixel")]
    pub(super) microns: Option<f64>,
    pub(super) seed: Option<u64>,
    /// Name of the round of splits, where there are several.
    pub(super) round: Option<String>,
}

/// What `result.json` may say. Unknown entries are kept.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct StoredResult {
    pub(super) key: MemberKey,
    pub(super) microns_per_pixel: Option<f64>,
    pub(super) mean_pixels: Option<f64>,
    pub(super) test: Option<Estimate>,
    pub(super) skipped: SkippedSlides,
    pub(super) bad_regions: BTreeMap<PathBuf, usize>,
    pub(super) seconds: Option<f64>,
    pub(super) planned_bytes: Option<f64>,
    pub(super) training: Option<Timing>,
    pub(super) history: Vec<Value>,
    #[serde(flatten)]
    pub(super) further: Map<String, Value>,
}

/// A line of `predictions.csv`.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Predicted {
    pub(super) slide: PathBuf,
    pub(super) label: Option<Label>,
    pub(super) outputs: Vec<f64>,
    pub(super) split: Option<Split>,
    pub(super) patient: Option<String>,
    /// How often each class was taken for each, where pixels have classes.
    pub(super) confusion: Option<Confusion>,
}

impl RunFolder {
    /// Reads what lies in `path`.
    ///
    /// # Errors
    /// [`TrainError::File`], [`TrainError::Csv`], [`TrainError::Json`], [`TrainError::Settings`] for files that are there and
    /// cannot be read; [`TrainError::NoRun`] for a folder without any of them.
    pub(super) fn read(path: &Path) -> Result<Self> {
        let notes = Notes::read(path)?;
        let settings = settings(&path.join("run.toml"))?;
        let entry = |keys: &[&str]| lookup(settings.as_ref()?, keys);
        let task: Option<Task> = entry(&["data", "task"]).and_then(|task| task.try_into().ok());
        let bootstrap = entry(&["report", "bootstrap"])
            .and_then(|bootstrap| bootstrap.try_into().ok())
            .unwrap_or_default();
        let stated = entry(&["data", "classes"]).and_then(|names| names.try_into().ok());
        let names = class_names(task, [stated, ClassNames::new(notes.classes.clone()).ok()]);
        let samples = Columns::read(&path.join("samples.csv"))?;
        let runs = RunNames::of(settings.as_ref(), samples.as_ref());
        let members = members(path, &runs, (task, &names))?;
        if members.is_empty() && settings.is_none() && notes == Notes::default() {
            return Err(TrainError::NoRun {
                folder: path.to_path_buf(),
            });
        }
        Ok(Self {
            path: path.to_path_buf(),
            notes,
            settings,
            task,
            names,
            bootstrap,
            samples,
            members,
        })
    }

    /// The experiment's title, or the folder's name.
    pub(super) fn title(&self) -> String {
        if !self.notes.title.is_empty() {
            return self.notes.title.clone();
        }
        let whole = self
            .path
            .canonicalize()
            .unwrap_or_else(|_| self.path.clone());
        let name = whole.file_name().map(|name| name.to_string_lossy());
        name.map_or_else(|| "Run".to_owned(), |name| format!("Run {name}"))
    }
}

fn settings(path: &Path) -> Result<Option<toml::Table>> {
    match std::fs::read_to_string(path) {
        Ok(text) => toml::from_str(&text)
            .map(Some)
            .map_err(|error| TrainError::Settings(format!("{}: {error}", path.display()))),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(TrainError::file(path)(error)),
    }
}

fn lookup(table: &toml::Table, keys: &[&str]) -> Option<toml::Value> {
    let (first, rest) = keys.split_first()?;
    let value = table.get(*first)?;
    match value {
        toml::Value::Table(inner) if !rest.is_empty() => lookup(inner, rest),
        value => rest.is_empty().then(|| value.clone()),
    }
}

/// What the trainings of an experiment can be called, as far as its settings and its slides say so.
struct RunNames {
    microns: Option<Vec<f64>>,
    seeds: Option<Range<u64>>,
    /// Columns of the slides' table, of which each round has one.
    columns: Option<Vec<String>>,
}

impl RunNames {
    fn of(settings: Option<&toml::Table>, samples: Option<&Columns>) -> Self {
        let number = |key| {
            settings?
                .get("train")?
                .get(key)?
                .as_integer()?
                .try_into()
                .ok()
        };
        let microns = settings.and_then(|settings| {
            let list = settings.get("data")?.get("microns_per_pixel")?.as_array()?;
            let number = |value: &toml::Value| match value {
                toml::Value::Integer(whole) => whole.to_string().parse().ok(),
                value => value.as_float(),
            };
            list.iter().map(number).collect()
        });
        let seeds = number("seed").and_then(|seed: u64| {
            let seeds: u64 = number("seeds")?;
            Some(seed..seed.saturating_add(seeds))
        });
        Self {
            microns,
            seeds,
            columns: samples.map(|samples| samples.heading.clone()),
        }
    }

    /// Whether a folder of that name is one of the experiment's trainings, and not a copy or something else that lies there.
    fn contains(&self, name: &str) -> bool {
        let key = MemberKey::parse(name);
        let is_known = |microns: f64| {
            let all = self.microns.as_ref();
            all.is_none_or(|all| all.contains(&microns))
        };
        let has_seed = |seed| {
            let all = self.seeds.as_ref();
            all.is_none_or(|all| all.contains(&seed))
        };
        let has_round = |round: &String| {
            let all = self.columns.as_ref();
            all.is_none_or(|all| all.contains(round))
        };
        key.microns.is_some_and(is_known)
            && key.seed.is_none_or(has_seed)
            && key.round.as_ref().is_none_or(has_round)
    }
}

fn members(
    folder: &Path,
    runs: &RunNames,
    (task, names): (Option<Task>, &ClassNames),
) -> Result<Vec<Member>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(TrainError::file(folder))? {
        let path = entry.map_err(TrainError::file(folder))?.path();
        let name = path
            .file_name()
            .map_or_else(String::new, |name| name.to_string_lossy().into_owned());
        let holds = |file: &str| path.join(file).is_file();
        if !runs.contains(&name)
            || !(holds("result.json") || holds("predictions.csv") || holds("epochs.csv"))
        {
            continue;
        }
        let result = stored(&path.join("result.json"))?;
        let (stored, called) = (&result.key, MemberKey::parse(&name));
        let key = MemberKey {
            microns: result
                .microns_per_pixel
                .or(stored.microns)
                .or(called.microns),
            // A run of one seed is not called by it.
            seed: called.seed.or(stored.seed),
            round: stored.round.clone().or(called.round),
        };
        let epochs = match Columns::read(&path.join("epochs.csv"))? {
            Some(epochs) => epochs,
            None => Columns::from_json(&result.history),
        };
        found.push(Member {
            key,
            epochs,
            steps: Columns::read(&path.join("steps.csv"))?.unwrap_or_default(),
            predictions: predictions(&path.join("predictions.csv"), task, names)?,
            result,
            name,
            path,
        });
    }
    let microns = |member: &Member| member.key.microns.unwrap_or(f64::INFINITY);
    found.sort_by(|a, b| {
        let coarsest = microns(b).total_cmp(&microns(a));
        coarsest
            .then(a.key.seed.cmp(&b.key.seed))
            // So that 2 comes before 10.
            .then(a.name.len().cmp(&b.name.len()))
            .then_with(|| a.name.cmp(&b.name))
    });
    Ok(found)
}

fn stored(path: &Path) -> Result<StoredResult> {
    match std::fs::read(path) {
        Ok(json) => serde_json::from_slice(&json).map_err(TrainError::json(path)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(StoredResult::default()),
        Err(error) => Err(TrainError::file(path)(error)),
    }
}

impl MemberKey {
    /// Reads `8-microns`, `0.5-microns-seed-1-fold-2` and the like; what is not there is not known.
    fn parse(name: &str) -> Self {
        let Some((microns, rest)) = name.split_once("-microns") else {
            return Self::default();
        };
        let after_seed = rest.strip_prefix("-seed-");
        let (seed, rest) = match after_seed {
            Some(after) => after
                .split_once('-')
                .map_or((after, ""), |(seed, round)| (seed, round)),
            None => ("", rest.trim_start_matches('-')),
        };
        Self {
            microns: microns.parse().ok(),
            seed: seed.parse().ok(),
            round: (!rest.is_empty()).then(|| rest.to_owned()),
        }
    }

    /// The resolution for people.
    pub(super) fn resolution(&self) -> String {
        self.microns
            .map_or_else(String::new, |microns| format!("{microns} µm/px"))
    }
}

fn predictions(path: &Path, task: Option<Task>, names: &ClassNames) -> Result<Vec<Predicted>> {
    let Some(table) = Columns::read(path)? else {
        return Ok(Vec::new());
    };
    let outputs: Vec<usize> = (0..)
        .map_while(|output| table.place(&format!("logit_{output}")))
        .collect();
    let pairs = pairs_of_classes(&table, task);
    let [slide, label, split, patient] =
        ["slide", "label", "split", "patient"].map(|name| table.place(name));
    let text = |row: &[String], place: Option<usize>| {
        let cell = Columns::cell(row, place?).trim();
        (!cell.is_empty()).then(|| cell.to_owned())
    };
    let row = |row: &Vec<String>| {
        let number = |place: &usize| Columns::cell(row, *place).parse().ok();
        let count = |place: &usize| Columns::cell(row, *place).parse().ok();
        let counts = pairs.iter().map(count).collect::<Option<Vec<u64>>>();
        Some(Predicted {
            slide: text(row, slide)?.into(),
            label: text(row, label).and_then(|label| read_label(&label, task?, names)),
            outputs: outputs.iter().map(number).collect::<Option<_>>()?,
            split: text(row, split).and_then(|name| Split::parse(&name)),
            patient: text(row, patient),
            confusion: match task {
                Some(Task::Segmentation { classes }) => {
                    counts.and_then(|counts| Confusion::from_counts(classes, counts))
                }
                _ => None,
            },
        })
    };
    Ok(table.rows.iter().filter_map(row).collect())
}

/// Columns with the numbers of pixels of each class that were taken for each; empty for other tasks.
fn pairs_of_classes(table: &Columns, task: Option<Task>) -> Vec<usize> {
    let Some(Task::Segmentation { classes }) = task else {
        return Vec::new();
    };
    let pairs = (0..classes).flat_map(|truth| (0..classes).map(move |found| (truth, found)));
    pairs
        .filter_map(|(truth, found)| table.place(&format!("pixels_{truth}_{found}")))
        .collect()
}

/// The first of `stated` that has as many names as the task has classes; numbers otherwise.
fn class_names(task: Option<Task>, stated: [Option<ClassNames>; 2]) -> ClassNames {
    let Some(task) = task else {
        return ClassNames::default();
    };
    let fitting = |names: &ClassNames| !names.is_empty() && names.check(task).is_ok();
    let mut stated = stated.into_iter().flatten().filter(fitting);
    stated.next().unwrap_or_else(|| ClassNames::numbered(task))
}

/// A label by number, as runs write them, or else by name.
pub(super) fn read_label(text: &str, task: Task, names: &ClassNames) -> Option<Label> {
    let numbered = Label::parse(text, task, &ClassNames::numbered(task));
    numbered.or_else(|| Label::parse(text, task, names))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_folders_say_which_training_it_is() {
        let key = |microns, seed, round: Option<&str>| MemberKey {
            microns,
            seed,
            round: round.map(str::to_owned),
        };
        for (name, expected) in [
            ("8-microns", key(Some(8.0), None, None)),
            ("0.5-microns-seed-1", key(Some(0.5), Some(1), None)),
            (
                "2-microns-seed-3-fold-10",
                key(Some(2.0), Some(3), Some("fold-10")),
            ),
            (
                "2-microns-center-a-b",
                key(Some(2.0), None, Some("center-a-b")),
            ),
            ("masks", key(None, None, None)),
            ("x-microns", key(None, None, None)),
        ] {
            assert_eq!(MemberKey::parse(name), expected, "{name}");
        }
        assert_eq!(key(Some(0.5), None, None).resolution(), "0.5 µm/px");
    }

    #[test]
    fn folders_that_are_called_otherwise_are_no_trainings() {
        let settings = "[data]\nmicrons_per_pixel = [8, 0.5]\n[train]\nseed = 4\nseeds = 2\n";
        let settings: toml::Table = settings.parse().unwrap();
        let samples = Columns {
            heading: ["slide", "fold-1"].map(str::to_owned).to_vec(),
            rows: Vec::new(),
        };
        let runs = RunNames::of(Some(&settings), Some(&samples));
        for name in ["8-microns", "0.5-microns-seed-5", "8-microns-seed-4-fold-1"] {
            assert!(runs.contains(name), "{name}");
        }
        for name in [
            "8-microns copy",
            "4-microns",
            "8-microns-seed-6",
            "8-microns-fold-9",
            "8-microns-old",
            "streamed",
        ] {
            assert!(!runs.contains(name), "{name}");
        }
        // Nothing is known of an older folder, but how trainings are called.
        let runs = RunNames::of(None, None);
        assert!(runs.contains("4-microns-fold-9") && !runs.contains("masks"));
    }

    /// Runs write classes as numbers: with grades called 1 to 3, `1` is the second.
    #[test]
    fn labels_are_numbers_before_they_are_names() {
        let task = Task::Ordinal { levels: 3 };
        let names = class_names(Some(task), [None, ClassNames::new(["1", "2", "3"]).ok()]);
        assert_eq!(read_label("1", task, &names), Some(Label::Number(1.0)));
        assert_eq!(read_label("3", task, &names), Some(Label::Number(2.0)));
        let others = ClassNames::new(["low", "mid"]).ok();
        assert_eq!(
            class_names(Some(task), [others, None]),
            ClassNames::numbered(task)
        );
    }

    #[test]
    fn an_empty_folder_is_no_run() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        let error = RunFolder::read(path).unwrap_err();
        assert!(
            matches!(&error, TrainError::NoRun { folder } if folder == path),
            "{error}"
        );
        let path = path.join("nowhere");
        let error = RunFolder::read(&path).unwrap_err().to_string();
        assert!(error.starts_with(&path.display().to_string()), "{error}");
    }
}
