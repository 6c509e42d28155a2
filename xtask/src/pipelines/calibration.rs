//! Cost models of this machine, in the user's cache folder.
//!
//! A file that cannot be read, or is of another machine or version, is measured anew; one that cannot be written costs the next
//! command three seconds. Neither is an error. What a busy machine measured is replaced by `cargo xtask calibrate`.

use std::path::{Path, PathBuf};

use anyhow::Context;
use etcetera::BaseStrategy;
use serde::{Deserialize, Serialize};
use stream_grad::{CostModel, Net, PlanRequest};
use stream_grad_files::write_whole;

use crate::machine::processor;

/// What a model is worth something for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Origin {
    processor: String,
    threads: usize,
    /// Of the crates.
    version: String,
}

impl Origin {
    fn here(threads: usize) -> Self {
        Self {
            processor: processor(),
            threads,
            version: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }

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

#[derive(Debug, Serialize, Deserialize)]
struct Stored {
    origin: Origin,
    model: CostModel,
}

/// The request with a model of this machine that knows its operations, from the cache or measured now, on `threads` threads.
///
/// # Errors
/// As [`CostModel::calibrate`]: what planning would refuse, too.
pub(crate) fn calibrated(
    net: &Net,
    request: PlanRequest,
    threads: usize,
) -> anyhow::Result<PlanRequest> {
    let model = model(net, &request, threads, cache_folder().as_deref())?;
    Ok(request.cost_model(model))
}

/// A model that knows the operations of the request.
///
/// # Errors
/// As [`CostModel::calibrate`].
pub(crate) fn model(
    net: &Net,
    request: &PlanRequest,
    threads: usize,
    folder: Option<&Path>,
) -> anyhow::Result<CostModel> {
    let cache = Cache::new(folder, threads);
    let mut model = cache.read().unwrap_or_default();
    if !model.covers(net, request) {
        eprintln!("measuring how long this network's operations take here (once, a few seconds)");
        model.calibrate(net, request)?;
        if let Err(error) = cache.write(&model) {
            eprintln!("what was measured is not kept: {error:#}");
        }
    }
    Ok(model)
}

/// The file of a model, if there is a folder for it.
pub(crate) struct Cache {
    origin: Origin,
    pub(crate) path: Option<PathBuf>,
}

impl Cache {
    /// Of the model for so many threads, in `folder`.
    pub(crate) fn new(folder: Option<&Path>, threads: usize) -> Self {
        let origin = Origin::here(threads);
        let path = folder.map(|folder| folder.join(origin.file_name()));
        Self { origin, path }
    }

    /// The model, if there is one that is worth something here.
    pub(crate) fn read(&self) -> Option<CostModel> {
        let bytes = std::fs::read(self.path.as_deref()?).ok()?;
        let stored: Stored = serde_json::from_slice(&bytes).ok()?;
        (stored.origin == self.origin).then_some(stored.model)
    }

    /// Writes a file beside its place and renames it, so that it is whole or not there; two at once do not meet.
    pub(crate) fn write(&self, model: &CostModel) -> anyhow::Result<()> {
        let Some(path) = &self.path else {
            return Ok(());
        };
        let stored = Stored {
            origin: self.origin.clone(),
            model: model.clone(),
        };
        let folder = path.parent().context("a cache without a folder")?;
        let failed = || format!("writing {}", path.display());
        std::fs::create_dir_all(folder).with_context(failed)?;
        Ok(write_whole(path, &serde_json::to_vec_pretty(&stored)?)?)
    }
}

/// This program's folder for what can be made again.
pub(crate) fn cache_folder() -> Option<PathBuf> {
    let strategy = etcetera::choose_base_strategy().ok()?;
    Some(strategy.cache_dir().join("stream-grad"))
}

#[cfg(test)]
mod tests {
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

    #[test]
    fn what_was_measured_is_found_again() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("made");
        let first = model(&net(), &request(), 1, Some(&folder)).unwrap();
        // Measured times differ from run to run: equal ones are the stored ones.
        assert_eq!(model(&net(), &request(), 1, Some(&folder)).unwrap(), first);
        assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 1);
        // Another number of threads has a file of its own.
        model(&net(), &request(), 2, Some(&folder)).unwrap();
        assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 2);
    }

    #[test]
    fn a_cache_of_no_use_is_measured_anew() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::new(Some(folder.path()), 1);
        let path = cache.path.clone().unwrap();
        let older = Origin {
            version: "0.0.0".into(),
            ..cache.origin.clone()
        };
        let stored = Stored {
            origin: older,
            model: CostModel::default(),
        };
        let stale = serde_json::to_vec(&stored).unwrap();
        for content in [&b"no JSON"[..], b"{}", &stale] {
            std::fs::write(&path, content).unwrap();
            assert!(cache.read().is_none());
            let measured = model(&net(), &request(), 1, Some(folder.path())).unwrap();
            assert!(measured.covers(&net(), &request()));
            assert_eq!(cache.read(), Some(measured));
        }
    }

    #[test]
    fn a_folder_that_takes_no_file_is_no_error() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        std::fs::write(&file, "no folder").unwrap();
        for folder in [None, Some(file.as_path())] {
            let model = model(&net(), &request(), 1, folder).unwrap();
            assert!(model.covers(&net(), &request()));
        }
    }
}
