//! Results as they come, so that a second run goes on where the first stopped.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, ensure};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use stream_grad_files::write_whole;
use stream_grad_train::machine::processor;

use super::measured::{RateMeasurement, StepMeasurement};

/// The results of one folder, of a kind `T`.
#[derive(Debug)]
pub(crate) struct Store<T = Comparison> {
    path: PathBuf,
    content: Content<T>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Content<T> {
    /// What all figures of a folder must have in common.
    origin: Origin,
    #[serde(flatten)]
    results: T,
}

/// The results of a comparison of steps.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Comparison {
    steps: BTreeMap<String, Vec<Timed<StepMeasurement>>>,
    rates: BTreeMap<String, Timed<RateMeasurement>>,
}

/// This build and this machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Origin {
    /// A hash of this program.
    pub(crate) build: String,
    pub(crate) processor: String,
    pub(crate) cores: usize,
}

/// A result, and when it came.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Timed<T> {
    /// Seconds since 1970.
    pub(crate) at: u64,
    #[serde(flatten)]
    pub(crate) value: T,
}

impl<T> Timed<T> {
    pub(crate) fn now(value: T) -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        Self {
            at: now.map_or(0, |now| now.as_secs()),
            value,
        }
    }
}

impl Origin {
    /// Of this process.
    pub(crate) fn here() -> anyhow::Result<Self> {
        let program = std::env::current_exe().context("finding this program")?;
        let bytes =
            std::fs::read(&program).with_context(|| format!("reading {}", program.display()))?;
        let mut hasher = DefaultHasher::new();
        bytes.hash(&mut hasher);
        Ok(Self {
            build: format!("{:016x}", hasher.finish()),
            processor: processor(),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
        })
    }
}

impl<T: Default + Serialize + DeserializeOwned> Store<T> {
    /// The results that are in the folder, or none.
    ///
    /// Results of another build or another machine are refused: in one table they would say nothing.
    pub(crate) fn open(folder: &Path, origin: Origin) -> anyhow::Result<Self> {
        std::fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
        let path = folder.join("measurements.json");
        let content = if path.exists() {
            let text =
                std::fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
            let content: Content<T> = serde_json::from_slice(&text)
                .with_context(|| format!("reading {}", path.display()))?;
            ensure!(
                content.origin == origin,
                "{} holds figures of another build or machine: remove it, or give another --output",
                folder.display()
            );
            content
        } else {
            Content {
                origin,
                results: T::default(),
            }
        };
        Ok(Self { path, content })
    }

    pub(crate) fn origin(&self) -> &Origin {
        &self.content.origin
    }

    pub(crate) fn results(&self) -> &T {
        &self.content.results
    }

    /// Changes the results and writes them.
    pub(crate) fn update(&mut self, change: impl FnOnce(&mut T)) -> anyhow::Result<()> {
        change(&mut self.content.results);
        let json = serde_json::to_vec_pretty(&self.content)?;
        Ok(write_whole(&self.path, &json)?)
    }
}

impl Store {
    /// The runs of an entry, in their order.
    pub(crate) fn steps(&self, key: &str) -> &[Timed<StepMeasurement>] {
        self.results().steps.get(key).map_or(&[], Vec::as_slice)
    }

    pub(crate) fn rate(&self, key: &str) -> Option<RateMeasurement> {
        self.results().rates.get(key).map(|timed| timed.value)
    }

    /// First and last time of a result, in seconds since 1970.
    pub(crate) fn period(&self) -> Option<(u64, u64)> {
        let steps = self.results().steps.values().flatten().map(|step| step.at);
        let times = steps.chain(self.results().rates.values().map(|rate| rate.at));
        times.fold(None, |period, at| match period {
            None => Some((at, at)),
            Some((first, last)) => Some((at.min(first), at.max(last))),
        })
    }

    pub(crate) fn add_step(&mut self, key: &str, step: StepMeasurement) -> anyhow::Result<()> {
        self.update(|results| {
            let runs = results.steps.entry(key.to_owned()).or_default();
            runs.push(Timed::now(step));
        })
    }

    pub(crate) fn add_rate(&mut self, key: &str, rate: RateMeasurement) -> anyhow::Result<()> {
        self.update(|results| {
            results.rates.insert(key.to_owned(), Timed::now(rate));
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::measured::Resident;

    fn origin(build: &str) -> Origin {
        Origin {
            build: build.into(),
            processor: "p".into(),
            cores: 2,
        }
    }

    #[test]
    fn results_are_found_again_by_the_same_build_alone() {
        let folder = tempfile::tempdir().unwrap();
        let step = StepMeasurement {
            seconds_forward: 1.0,
            seconds_backward: 2.0,
            resident: Resident {
                before_bytes: Some(3),
                peak_bytes: Some(5),
            },
            plan: None,
            error: None,
        };
        let rate = RateMeasurement {
            flops_per_second: 1e9,
        };
        let mut store: Store = Store::open(folder.path(), origin("a")).unwrap();
        store.add_step("key", step.clone()).unwrap();
        store.add_rate("rate", rate).unwrap();

        let store: Store = Store::open(folder.path(), origin("a")).unwrap();
        assert_eq!(store.steps("key").len(), 1);
        assert_eq!(store.steps("key")[0].value, step);
        assert_eq!(store.rate("rate"), Some(rate));
        assert!(store.steps("other").is_empty() && store.period().is_some());

        let error = <Store>::open(folder.path(), origin("b")).unwrap_err();
        assert!(error.to_string().contains("--output"), "{error}");
    }
}
