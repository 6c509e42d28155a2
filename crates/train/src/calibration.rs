//! Cost models of this machine, kept in the user's cache folder.
//!
//! A model is measured on first use, in about three seconds, and then kept by processor, threads and version. Whenever it is
//! used, a [probe](CostModel::probe) of less than half a second tells whether it holds: one that was measured while the machine
//! had other work is measured anew; while the machine has other work, what is kept is used as it is.
//!
//! A file that cannot be read, or is of another machine, version or format, is measured anew; one that cannot be written costs
//! the next run three seconds. Neither is an error.

use std::fmt;
use std::path::{Path, PathBuf};

use etcetera::BaseStrategy;
use serde::{Deserialize, Serialize};
use stream_grad::{CostModel, Net, PlanRequest, Probe, ProbeOutcome, StreamError, cores};

use crate::error::{Result, TrainError};
use crate::files::write_whole;
use crate::machine::processor;

/// Format of the files. Those of format 1 stated none, and nothing of how far measured times lay apart.
const FORMAT: u32 = 2;
/// Medians of so many thousandths of the least times say that a machine had other work.
const UNEVEN: u64 = 1500;

/// What a model is worth something for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Origin {
    processor: String,
    threads: usize,
    /// Of the crates.
    version: String,
}

#[derive(Debug, Serialize, Deserialize)]
struct Stored {
    format: u32,
    origin: Origin,
    model: CostModel,
}

/// What a cache does, for whom it may concern.
#[derive(Debug)]
pub enum CalibrationNotice {
    /// It begins to measure operations that it does not know.
    Measuring,
    /// It begins to measure again, since the stored times are those of a machine with other work.
    MeasuringAgain(Probe),
    /// The machine has other work: the stored times are used, which are those without.
    BusyNow(Probe),
    /// What was measured lies so far apart, median over least in thousandths, that the machine had other work.
    Uneven(u64),
    /// What was measured could not be stored.
    NotKept(TrainError),
}

impl fmt::Display for CalibrationNotice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let milliseconds = |time: std::time::Duration| time.as_secs_f64() * 1e3;
        match self {
            Self::Measuring => write!(
                f,
                "measuring how long this network's operations take here (once, a few seconds)"
            ),
            Self::MeasuringAgain(probe) => write!(
                f,
                "what was stored was measured on a busy machine: it says {:.1} ms where operations take {:.1} ms; measuring again",
                milliseconds(probe.stored),
                milliseconds(probe.now)
            ),
            Self::BusyNow(probe) => write!(
                f,
                "this machine is busy: operations take {:.1} ms, and {:.1} ms when they were measured; predicted times are for a \
                 quiet machine",
                milliseconds(probe.now),
                milliseconds(probe.stored)
            ),
            Self::Uneven(thousandths) => write!(
                f,
                "this machine was busy while operations were measured: half of the times are over {}.{:02} of the least; they \
                 are measured again as soon as they take less",
                thousandths / 1000,
                thousandths % 1000 / 10
            ),
            Self::NotKept(error) => write!(f, "what was measured is not kept: {error}"),
        }
    }
}

/// The file of a cost model, if there is a folder for it.
///
/// ```
/// use stream_grad::{CostModel, PlanRequest};
/// use stream_grad_train::calibration::CostModelCache;
/// let folder = tempfile::tempdir()?;
/// let cache = CostModelCache::new(Some(folder.path()), 1);
/// assert!(cache.read().is_none());
/// cache.write(&CostModel::default())?;
/// assert_eq!(cache.read(), Some(CostModel::default()));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct CostModelCache {
    origin: Origin,
    path: Option<PathBuf>,
}

impl CostModelCache {
    /// Of the model for so many threads, 0 for one for each core, in `folder`; without a folder nothing is kept.
    #[must_use]
    pub fn new(folder: Option<&Path>, threads: usize) -> Self {
        let origin = Origin {
            processor: processor(),
            threads: if threads == 0 { cores() } else { threads },
            version: env!("CARGO_PKG_VERSION").to_owned(),
        };
        let path = folder.map(|folder| folder.join(origin.file_name()));
        Self { origin, path }
    }

    /// Where the model is kept.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    /// The model, if there is one that is worth something here.
    #[must_use]
    pub fn read(&self) -> Option<CostModel> {
        let bytes = std::fs::read(self.path.as_deref()?).ok()?;
        let stored: Stored = serde_json::from_slice(&bytes).ok()?;
        (stored.format == FORMAT && stored.origin == self.origin).then_some(stored.model)
    }

    /// Replaces what is kept; the file is whole or not there.
    ///
    /// # Errors
    /// [`TrainError::File`] for a folder that takes no file.
    pub fn write(&self, model: &CostModel) -> Result<()> {
        let Some(path) = &self.path else {
            return Ok(());
        };
        let stored = Stored {
            format: FORMAT,
            origin: self.origin.clone(),
            model: model.clone(),
        };
        let json = serde_json::to_vec_pretty(&stored).map_err(TrainError::json(path))?;
        write_whole(path, &json)
    }

    /// A model that knows the operations of `net` as `request` has it computed: the kept one if it holds, or what is measured
    /// now. Threads of the request and of the cache should be the same.
    ///
    /// A run that goes on is not touched by what is measured anew: it keeps its [recipes](crate::trainer::Run).
    ///
    /// # Errors
    /// As [`CostModel::calibrate`]: what planning would refuse, too.
    pub fn model(
        &self,
        net: &Net,
        request: &PlanRequest,
        notice: &mut dyn FnMut(&CalibrationNotice),
    ) -> Result<CostModel> {
        let probe = |model: &CostModel| model.probe(net, request);
        self.probed_model(net, request, &probe, notice)
    }

    fn probed_model(
        &self,
        net: &Net,
        request: &PlanRequest,
        probe: &dyn Fn(&CostModel) -> Result<Probe, StreamError>,
        notice: &mut dyn FnMut(&CalibrationNotice),
    ) -> Result<CostModel> {
        let stored = self.read().unwrap_or_default();
        let mut model = if stored.covers(net, request) {
            let found = probe(&stored)?;
            match found.outcome() {
                ProbeOutcome::Agrees => return Ok(stored),
                ProbeOutcome::BusyNow => {
                    notice(&CalibrationNotice::BusyNow(found));
                    return Ok(stored);
                }
                ProbeOutcome::MeasuredWhileBusy => {
                    notice(&CalibrationNotice::MeasuringAgain(found));
                    stored.without(net, request)
                }
            }
        } else {
            notice(&CalibrationNotice::Measuring);
            stored
        };
        model.calibrate(net, request)?;
        if let Some(spread) = model.spread_per_mille().filter(|&spread| spread > UNEVEN) {
            notice(&CalibrationNotice::Uneven(spread));
        }
        if let Err(error) = self.write(&model) {
            notice(&CalibrationNotice::NotKept(error));
        }
        Ok(model)
    }
}

impl Origin {
    /// A name for its file.
    fn file_name(&self) -> String {
        let letters = self.processor.chars();
        let name: String = letters
            .map(|letter| match letter {
                'a'..='z' | 'A'..='Z' | '0'..='9' => letter.to_ascii_lowercase(),
                _ => '-',
            })
            .take(60)
            .collect();
        format!("cost-{name}-{}-threads.json", self.threads)
    }
}

/// The user's folder for what can be made again, such as `~/.cache/stream-grad`.
#[must_use]
pub fn cache_folder() -> Option<PathBuf> {
    let strategy = etcetera::choose_base_strategy().ok()?;
    Some(strategy.cache_dir().join("stream-grad"))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use candle_core::{DType, Device};
    use candle_nn::VarMap;
    use stream_grad::{Conv2d, NetBuilder};
    use stream_grad_models::seeded;

    use super::*;

    fn net() -> Net {
        let builder = seeded(&VarMap::new(), 0, DType::F32, &Device::Cpu);
        let mut net = NetBuilder::new(3);
        let conv = Conv2d::new(3, 4, 3).stride(4);
        let x = net.conv2d(net.input(), conv, builder.pp("conv")).unwrap();
        net.build(x).unwrap()
    }

    fn request() -> PlanRequest {
        PlanRequest::new(100, 100).threads(1)
    }

    fn found(stored: u64, now: u64) -> Probe {
        Probe {
            stored: Duration::from_millis(stored),
            now: Duration::from_millis(now),
        }
    }

    /// The model that a cache gives if a probe says so, and what it tells.
    fn probed(cache: &CostModelCache, probe: Probe) -> (CostModel, Vec<String>) {
        let mut told = Vec::new();
        let mut notice = |notice: &CalibrationNotice| {
            if !matches!(notice, CalibrationNotice::Uneven(_)) {
                told.push(notice.to_string());
            }
        };
        let model = cache.probed_model(&net(), &request(), &|_| Ok(probe), &mut notice);
        (model.unwrap(), told)
    }

    #[test]
    fn what_was_measured_is_found_again() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("made");
        let cache = CostModelCache::new(Some(&folder), 1);
        let (first, told) = probed(&cache, found(1, 1));
        assert!(told[0].starts_with("measuring"), "{told:?}");
        // Measured times differ from run to run: equal ones are the stored ones.
        assert_eq!(probed(&cache, found(1, 1)), (first, Vec::new()));
        assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 1);
        // Another number of threads has a file of its own.
        let other = CostModelCache::new(Some(&folder), 2);
        probed(&other, found(1, 1));
        assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 2);
    }

    #[test]
    fn what_a_busy_machine_measured_is_measured_again() {
        let folder = tempfile::tempdir().unwrap();
        let cache = CostModelCache::new(Some(folder.path()), 1);
        let (first, _) = probed(&cache, found(1, 1));
        let (again, told) = probed(&cache, found(700, 101));
        assert!(
            told[0].contains("700.0 ms") && told[0].contains("101.0 ms"),
            "{told:?}"
        );
        assert_ne!(again, first);
        assert_eq!(cache.read(), Some(again.clone()));
        // On a machine that is busy now nothing is measured.
        let (kept, told) = probed(&cache, found(101, 700));
        assert!(told[0].starts_with("this machine is busy"), "{told:?}");
        assert_eq!(kept, again);
    }

    /// All times a hundred times as long: no other work makes up for that.
    #[test]
    fn the_probe_itself_finds_a_slow_model() {
        let folder = tempfile::tempdir().unwrap();
        let cache = CostModelCache::new(Some(folder.path()), 1);
        let (model, _) = probed(&cache, found(1, 1));
        let mut json = serde_json::to_value(&model).unwrap();
        for operation in json["operations"].as_object_mut().unwrap().values_mut() {
            for sweep in ["forward", "vjp"] {
                for point in operation["time"][sweep].as_array_mut().unwrap() {
                    point[1] = (100 * point[1].as_u64().unwrap() + 100).into();
                }
            }
        }
        let slow: CostModel = serde_json::from_value(json).unwrap();
        cache.write(&slow).unwrap();
        let mut told = Vec::new();
        let mut notice = |notice: &CalibrationNotice| told.push(notice.to_string());
        let measured = cache.model(&net(), &request(), &mut notice).unwrap();
        assert!(told[0].contains("measuring again"), "{told:?}");
        assert!(measured != slow && cache.read() == Some(measured));
    }

    #[test]
    fn a_cache_of_no_use_is_measured_anew() {
        let folder = tempfile::tempdir().unwrap();
        let cache = CostModelCache::new(Some(folder.path()), 1);
        let path = cache.path().unwrap();
        let stored = |format: u32, version: &str| {
            let origin = Origin {
                version: version.to_owned(),
                ..cache.origin.clone()
            };
            let model = CostModel::default();
            serde_json::to_value(Stored {
                format,
                origin,
                model,
            })
            .unwrap()
        };
        let version = &cache.origin.version;
        let mut first = stored(1, version);
        first.as_object_mut().unwrap().remove("format");
        // A model without the spread of its times.
        let mut older = stored(FORMAT, version);
        older["model"]["operations"] = serde_json::json!({
            "f32 relu: 4; both gradients":
                { "time": { "forward": [[1, 1]], "vjp": [[1, 1]] }, "forward_work": 1, "vjp_work": 1 }
        });
        let useless = [
            "no JSON".to_owned(),
            "{}".to_owned(),
            stored(FORMAT, "0.0.0").to_string(),
            stored(FORMAT + 1, version).to_string(),
            first.to_string(),
            older.to_string(),
        ];
        for content in useless {
            std::fs::write(path, &content).unwrap();
            assert!(cache.read().is_none(), "{content}");
        }
        let (measured, _) = probed(&cache, found(1, 1));
        assert!(measured.covers(&net(), &request()));
        assert_eq!(cache.read(), Some(measured));
    }

    #[test]
    fn a_folder_that_takes_no_file_is_no_error() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        std::fs::write(&file, "no folder").unwrap();
        for (folder, notices) in [(None, 1), (Some(file.as_path()), 2)] {
            let cache = CostModelCache::new(folder, 1);
            let (model, told) = probed(&cache, found(1, 1));
            assert!(model.covers(&net(), &request()));
            assert_eq!(told.len(), notices, "{told:?}");
        }
    }
}
