//! Jobs for processes of their own: written as JSON, and what they measured read back.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::process::{Ended, run_logged};

/// Why something has no (further) measurement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Refusal {
    Failed(String),
    /// `stop` was set.
    Stopped,
}

impl Refusal {
    /// A failure in the words of its error.
    pub(crate) fn failed(error: impl Into<anyhow::Error>) -> Self {
        Self::Failed(format!("{:#}", error.into()))
    }
}

/// Runs jobs one after another.
#[derive(Debug)]
pub(crate) struct Worker<'a> {
    folder: PathBuf,
    stop: &'a AtomicBool,
}

impl<'a> Worker<'a> {
    /// Jobs, their results and their logs are files of `folder`, which is made. A job ends when `stop` is set.
    pub(crate) fn new(folder: PathBuf, stop: &'a AtomicBool) -> anyhow::Result<Self> {
        std::fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
        Ok(Self { folder, stop })
    }

    /// Where further files of jobs may lie.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// A process of this program in which candle has so many threads; a step's own are in its job.
    pub(crate) fn own_command(candle_threads: usize) -> Result<Command, Refusal> {
        let program = std::env::current_exe().map_err(Refusal::failed)?;
        let mut command = Command::new(program);
        command.arg("compare-step");
        command.env("RAYON_NUM_THREADS", candle_threads.to_string());
        Ok(command)
    }

    /// Runs a command with a job, and reads what it measured.
    pub(crate) fn measure<T: DeserializeOwned>(
        &self,
        mut command: Command,
        job: &impl Serialize,
    ) -> Result<T, Refusal> {
        let [job_path, result, log] =
            ["job.json", "measured.json", "log.txt"].map(|name| self.folder.join(name));
        let text = serde_json::to_vec_pretty(job).map_err(Refusal::failed)?;
        std::fs::write(&job_path, text).map_err(Refusal::failed)?;
        let _ = std::fs::remove_file(&result);
        command.args([&job_path, &result]);
        match run_logged(&mut command, &log, self.stop).map_err(Refusal::failed)? {
            Ended::Well => {}
            Ended::Badly(reason) => return Err(Refusal::Failed(reason)),
            Ended::Stopped => return Err(Refusal::Stopped),
        }
        if self.stop.load(Ordering::Relaxed) {
            return Err(Refusal::Stopped);
        }
        let text = std::fs::read(&result).map_err(Refusal::failed)?;
        serde_json::from_slice(&text).map_err(Refusal::failed)
    }
}
