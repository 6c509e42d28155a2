//! What a run writes down as it goes: `steps.csv`, `epochs.csv` and a file of events for TensorBoard.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::tensorboard::EventFile;
use crate::checkpoint::{EpochRecord, Progress};
use crate::error::{Result, TrainError};
use crate::files::write_whole;

/// What a step of the optimiser took and gave.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StepRecord {
    /// Steps of the run so far, this one and those that were left out included.
    pub step: u64,
    /// Epoch, from 0.
    pub epoch: u64,
    /// Step of the epoch, from 0.
    pub step_of_epoch: u64,
    /// Slides that counted.
    pub slides: u64,
    /// Their mean loss.
    pub loss: f64,
    /// Mean Dice over the classes of their pixels, all taken together; absent for other tasks.
    #[serde(default)]
    pub dice: Option<f64>,
    /// Mean intersection over union of the same.
    #[serde(default)]
    pub iou: Option<f64>,
    /// Euclidean norm of the gradients before they are clipped; where it is no number, no step was made.
    pub gradient_norm: f64,
    /// Learning rate.
    pub learning_rate: f64,
    /// Megapixels of the slides that counted, by the seconds that the step took.
    pub megapixels_per_second: f64,
    /// Share of the time in which the step waited for pixels.
    pub waiting_share: f64,
    /// Memory of the process that is resident after the step, in bytes; 0 where the system does not tell.
    pub memory_bytes: u64,
    /// When the step ended, in seconds since 1970 (UTC).
    pub time: f64,
}

/// Seconds since 1970.
pub(super) fn now() -> f64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0.0, |since| since.as_secs_f64())
}

/// Memory of this process that is resident, in bytes.
pub(super) fn resident_bytes() -> u64 {
    memory_stats::memory_stats().map_or(0, |stats| {
        u64::try_from(stats.physical_mem).unwrap_or(u64::MAX)
    })
}

/// The files of a run, with what its checkpoint knows of and no more.
#[derive(Debug)]
pub(super) struct RunLog {
    folder: PathBuf,
    steps: File,
    steps_path: PathBuf,
    events: EventFile,
    last_step: u64,
}

impl RunLog {
    /// Goes on with the files in `folder`, or begins them. What they have of steps and epochs beyond `progress` is dropped: these
    /// come again.
    ///
    /// # Errors
    /// [`TrainError::File`], [`TrainError::Csv`].
    pub(super) fn open(folder: &Path, progress: &Progress) -> Result<Self> {
        std::fs::create_dir_all(folder).map_err(TrainError::file(folder))?;
        let steps_path = folder.join("steps.csv");
        let records = stored(&steps_path, progress);
        write_whole(&steps_path, &csv_bytes(&steps_path, &records)?)?;
        let steps = OpenOptions::new()
            .append(true)
            .open(&steps_path)
            .map_err(TrainError::file(&steps_path))?;
        let mut log = Self {
            folder: folder.to_path_buf(),
            steps,
            steps_path,
            events: EventFile::begin(folder)?,
            last_step: 0,
        };
        let mut epochs = progress.history.iter().peekable();
        for record in &records {
            while let Some(epoch) = epochs.next_if(|epoch| epoch.epoch < record.epoch) {
                log.events.epoch(epoch, log.last_step, record.time)?;
            }
            log.events.step(record)?;
            log.last_step = record.step;
        }
        for epoch in epochs {
            log.events.epoch(epoch, log.last_step, now())?;
        }
        log.write_epochs(&progress.history)?;
        Ok(log)
    }

    /// Writes down a step.
    ///
    /// # Errors
    /// [`TrainError::File`], [`TrainError::Csv`].
    pub(super) fn step(&mut self, record: &StepRecord) -> Result<()> {
        let row = csv_rows(
            &self.steps_path,
            std::slice::from_ref(record),
            Heading::None,
        )?;
        self.steps
            .write_all(&row)
            .map_err(TrainError::file(&self.steps_path))?;
        self.last_step = record.step;
        self.events.step(record)
    }

    /// Writes down an epoch, the last of `history`.
    ///
    /// # Errors
    /// [`TrainError::File`], [`TrainError::Csv`].
    pub(super) fn epoch(&mut self, history: &[EpochRecord]) -> Result<()> {
        if let Some(record) = history.last() {
            self.events.epoch(record, self.last_step, now())?;
        }
        self.write_epochs(history)
    }

    fn write_epochs(&self, history: &[EpochRecord]) -> Result<()> {
        let path = self.folder.join("epochs.csv");
        write_whole(&path, &csv_bytes(&path, history)?)
    }
}

/// The steps of a file that come before `progress`; a line that was cut off, and what follows it, is none.
fn stored(path: &Path, progress: &Progress) -> Vec<StepRecord> {
    let Ok(mut reader) = csv::Reader::from_path(path) else {
        return Vec::new();
    };
    let position = (progress.epoch, progress.groups);
    let records = reader.deserialize::<StepRecord>();
    records
        .map_while(std::result::Result::ok)
        .take_while(|record| (record.epoch, record.step_of_epoch) < position)
        .collect()
}

/// Whether a table begins with the names of its columns.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Heading {
    Names,
    None,
}

/// A table, whose heading is there even without rows.
fn csv_bytes<T: Serialize + Columns>(path: &Path, rows: &[T]) -> Result<Vec<u8>> {
    if rows.is_empty() {
        return Ok((T::COLUMNS.join(",") + "\n").into_bytes());
    }
    csv_rows(path, rows, Heading::Names)
}

fn csv_rows<T: Serialize>(path: &Path, rows: &[T], heading: Heading) -> Result<Vec<u8>> {
    let mut writer = csv::WriterBuilder::new()
        .has_headers(heading == Heading::Names)
        .from_writer(Vec::new());
    for row in rows {
        writer.serialize(row).map_err(TrainError::csv(path))?;
    }
    writer
        .into_inner()
        .map_err(|error| TrainError::file(path)(error.into_error()))
}

/// Names of a table's columns.
trait Columns {
    const COLUMNS: &'static [&'static str];
}

impl Columns for StepRecord {
    const COLUMNS: &'static [&'static str] = &[
        "step",
        "epoch",
        "step_of_epoch",
        "slides",
        "loss",
        "dice",
        "iou",
        "gradient_norm",
        "learning_rate",
        "megapixels_per_second",
        "waiting_share",
        "memory_bytes",
        "time",
    ];
}

impl Columns for EpochRecord {
    const COLUMNS: &'static [&'static str] = &[
        "epoch",
        "train_loss",
        "train_accuracy",
        "learning_rate",
        "validation_loss",
        "validation_metric",
        "train_dice",
        "train_iou",
        "validation_iou",
    ];
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(step: u64) -> StepRecord {
        StepRecord {
            step,
            epoch: (step - 1) / 4,
            step_of_epoch: (step - 1) % 4,
            slides: 8,
            loss: 1.0 / 3.0,
            dice: step.is_multiple_of(2).then_some(0.5),
            iou: None,
            gradient_norm: if step == 2 { f64::NAN } else { 0.5 },
            learning_rate: 1e-3,
            megapixels_per_second: 12.5,
            waiting_share: 0.25,
            memory_bytes: 1 << 30,
            time: 1e9,
        }
    }

    fn epoch(epoch: u64) -> EpochRecord {
        EpochRecord {
            epoch,
            train_loss: 0.5,
            train_accuracy: None,
            learning_rate: 1e-3,
            validation_loss: None,
            validation_metric: Some(0.75),
            train_dice: Some(0.25),
            train_iou: None,
            validation_iou: None,
        }
    }

    fn lines(path: &Path) -> Vec<String> {
        let text = std::fs::read_to_string(path).unwrap();
        text.lines().map(str::to_owned).collect()
    }

    #[test]
    fn headings_are_those_of_the_rows() {
        let path = Path::new("table");
        for (empty, full) in [
            (
                csv_bytes::<StepRecord>(path, &[]).unwrap(),
                csv_bytes(path, &[step(1)]).unwrap(),
            ),
            (
                csv_bytes::<EpochRecord>(path, &[]).unwrap(),
                csv_bytes(path, &[epoch(1)]).unwrap(),
            ),
        ] {
            assert!(full.starts_with(&empty));
        }
    }

    /// A run that is killed after its checkpoint, in the middle of a line, has each step once in the end.
    #[test]
    fn steps_beyond_the_checkpoint_are_dropped_and_come_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("steps.csv");
        let mut log = RunLog::open(folder.path(), &Progress::default()).unwrap();
        for number in 1..=6 {
            log.step(&step(number)).unwrap();
            if number == 4 {
                log.epoch(&[epoch(0)]).unwrap();
            }
        }
        drop(log);
        let whole = lines(&path);
        assert_eq!(whole.len(), 7);
        let mut text = std::fs::read(&path).unwrap();
        text.truncate(text.len() - 9);
        std::fs::write(&path, text).unwrap();

        let progress = Progress {
            epoch: 1,
            groups: 1,
            history: vec![epoch(0)],
            ..Progress::default()
        };
        let mut log = RunLog::open(folder.path(), &progress).unwrap();
        assert_eq!(lines(&path), whole[..6]);
        log.step(&step(6)).unwrap();
        assert_eq!(lines(&path), whole);
        let epochs = lines(&folder.path().join("epochs.csv"));
        assert_eq!(epochs[1], "0,0.5,,0.001,,0.75,0.25,,");
        let events = std::fs::read_dir(folder.path()).unwrap();
        let events = events.filter(|entry| {
            let name = entry.as_ref().unwrap().file_name();
            name.to_str().unwrap().starts_with("events.out.tfevents")
        });
        assert_eq!(events.count(), 1);
    }
}
