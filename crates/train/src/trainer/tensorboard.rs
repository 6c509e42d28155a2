//! Scalars in the format of TensorBoard's event files.
//!
//! A file is a series of records: the length of a message (eight bytes, the least first), a checksum of these, the message, a checksum of
//! it. A message is an `Event` of TensorFlow's `event.proto`; of its fields, those that scalars need are declared here.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use prost::Message;

use super::log::{StepRecord, now};
use crate::checkpoint::EpochRecord;
use crate::error::{Result, TrainError};

/// What the name of each of these files begins with: TensorBoard looks for it.
const PREFIX: &str = "events.out.tfevents.";

#[derive(Clone, PartialEq, Message)]
struct Event {
    #[prost(double, tag = "1")]
    wall_time: f64,
    #[prost(int64, tag = "2")]
    step: i64,
    #[prost(oneof = "What", tags = "3, 5")]
    what: Option<What>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum What {
    #[prost(string, tag = "3")]
    FileVersion(String),
    #[prost(message, tag = "5")]
    Summary(Summary),
}

#[derive(Clone, PartialEq, Message)]
struct Summary {
    #[prost(message, repeated, tag = "1")]
    value: Vec<Value>,
}

#[derive(Clone, PartialEq, Message)]
struct Value {
    #[prost(string, tag = "1")]
    tag: String,
    /// One of several kinds of value, and so written even where it is 0.
    #[prost(float, optional, tag = "2")]
    simple_value: Option<f32>,
}

/// The file of a run.
#[derive(Debug)]
pub(super) struct EventFile {
    path: PathBuf,
    file: File,
}

impl EventFile {
    /// Begins a file in `folder`, in place of those that are there.
    ///
    /// # Errors
    /// [`TrainError::File`].
    pub(super) fn begin(folder: &Path) -> Result<Self> {
        for entry in std::fs::read_dir(folder).map_err(TrainError::file(folder))? {
            let path = entry.map_err(TrainError::file(folder))?.path();
            let name = path.file_name().and_then(|name| name.to_str());
            if name.is_some_and(|name| name.starts_with(PREFIX)) {
                std::fs::remove_file(&path).map_err(TrainError::file(&path))?;
            }
        }
        let time = now();
        let path = folder.join(format!("{PREFIX}{time:.0}.stream-grad"));
        let file = File::create(&path).map_err(TrainError::file(&path))?;
        let mut events = Self { path, file };
        events.write(&Event {
            wall_time: time,
            step: 0,
            what: Some(What::FileVersion("brain.Event:2".to_owned())),
        })?;
        Ok(events)
    }

    /// Writes a step's scalars.
    ///
    /// # Errors
    /// [`TrainError::File`].
    pub(super) fn step(&mut self, record: &StepRecord) -> Result<()> {
        #[expect(clippy::cast_precision_loss, reason = "a number to plot")]
        let memory = record.memory_bytes as f64;
        self.scalars(
            (record.step, record.time),
            &[
                ("train/loss", Some(record.loss)),
                ("train/dice", record.dice),
                ("train/iou", record.iou),
                ("train/gradient_norm", Some(record.gradient_norm)),
                ("train/learning_rate", Some(record.learning_rate)),
                (
                    "speed/megapixels_per_second",
                    Some(record.megapixels_per_second),
                ),
                ("speed/waiting_share", Some(record.waiting_share)),
                ("speed/memory_bytes", Some(memory)),
            ],
        )
    }

    /// Writes an epoch's scalars, at the number of its last step.
    ///
    /// # Errors
    /// [`TrainError::File`].
    pub(super) fn epoch(&mut self, record: &EpochRecord, step: u64, time: f64) -> Result<()> {
        self.scalars(
            (step, time),
            &[
                ("epoch/train_loss", Some(record.train_loss)),
                ("epoch/train_accuracy", record.train_accuracy),
                ("epoch/train_dice", record.train_dice),
                ("epoch/train_iou", record.train_iou),
                ("validation/loss", record.validation_loss),
                ("validation/metric", record.validation_metric),
                ("validation/iou", record.validation_iou),
            ],
        )
    }

    fn scalars(
        &mut self,
        (step, wall_time): (u64, f64),
        scalars: &[(&str, Option<f64>)],
    ) -> Result<()> {
        let value = |(tag, value): &(&str, Option<f64>)| {
            #[expect(clippy::cast_possible_truncation, reason = "rounding to f32 is meant")]
            let value = (*value)? as f32;
            Some(Value {
                tag: (*tag).to_owned(),
                simple_value: Some(value),
            })
        };
        self.write(&Event {
            wall_time,
            step: i64::try_from(step).unwrap_or(i64::MAX),
            what: Some(What::Summary(Summary {
                value: scalars.iter().filter_map(value).collect(),
            })),
        })
    }

    fn write(&mut self, event: &Event) -> Result<()> {
        self.file
            .write_all(&record(&event.encode_to_vec()))
            .map_err(TrainError::file(&self.path))
    }
}

fn record(message: &[u8]) -> Vec<u8> {
    let length = (message.len() as u64).to_le_bytes();
    let parts = [
        &length[..],
        &masked(&length).to_le_bytes(),
        message,
        &masked(message).to_le_bytes(),
    ];
    parts.concat()
}

/// The checksum of TensorFlow's records: CRC-32C, rotated and shifted, so that one of bytes that hold checksums is no trivial one.
fn masked(bytes: &[u8]) -> u32 {
    const CASTAGNOLI: crc::Crc<u32> = crc::Crc::<u32>::new(&crc::CRC_32_ISCSI);
    let checksum = CASTAGNOLI.checksum(bytes);
    checksum.rotate_right(15).wrapping_add(0xa282_ead8)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first record of every file that TensorBoard's own writer makes, but for its time, which is 0 here.
    #[test]
    fn records_are_those_of_tensorboard() {
        let event = Event {
            wall_time: 0.0,
            step: 0,
            what: Some(What::FileVersion("brain.Event:2".to_owned())),
        };
        let golden = include_str!("../../tests/golden/event_records.txt");
        let records: Vec<String> = golden
            .lines()
            .filter(|line| !line.starts_with('#'))
            .map(str::to_owned)
            .collect();
        let hex =
            |bytes: Vec<u8>| -> String { bytes.iter().map(|byte| format!("{byte:02x}")).collect() };
        assert_eq!(hex(record(&event.encode_to_vec())), records[0]);
        let scalar = |tag: &str, value| Value {
            tag: tag.to_owned(),
            simple_value: Some(value),
        };
        let event = Event {
            wall_time: 1.5e9,
            step: 7,
            what: Some(What::Summary(Summary {
                value: vec![scalar("train/loss", 0.0), scalar("validation/loss", 0.25)],
            })),
        };
        assert_eq!(hex(record(&event.encode_to_vec())), records[1]);
    }
}
