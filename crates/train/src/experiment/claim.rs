//! Whose folder it is: one process at a time trains there, and always on the same slides, wherever they lie.

use std::fs::{File, OpenOptions, TryLockError};
use std::path::{Path, PathBuf};

use csv::StringRecord;
use stream_grad_slides::quick_identity;

use crate::data::{self, Sample};
use crate::error::{Result, TrainError};
use crate::files::{csv_bytes, write_whole};

/// What is locked.
const LOCK: &str = ".lock";
/// The slides with their splits.
const SAMPLES: &str = "samples.csv";
/// By what each slide of that table is recognised.
const CONTENTS: &str = "contents.csv";

/// Held while an experiment is open: no other process opens one there. It ends with the process, however that ends.
#[derive(Debug)]
pub(super) struct FolderLock {
    _file: File,
}

impl FolderLock {
    /// Locks `folder`, which is made if it is not there. Where a file system has no locks, nothing is locked.
    pub(super) fn hold(folder: &Path) -> Result<Self> {
        std::fs::create_dir_all(folder).map_err(TrainError::file(folder))?;
        let path = folder.join(LOCK);
        let mut options = OpenOptions::new();
        let file = options.create(true).truncate(false).write(true).open(&path);
        let file = file.map_err(TrainError::file(&path))?;
        match file.try_lock() {
            Err(TryLockError::WouldBlock) => Err(TrainError::InUse {
                folder: folder.to_path_buf(),
            }),
            Ok(()) | Err(TryLockError::Error(_)) => Ok(Self { _file: file }),
        }
    }
}

/// Writes the tables of `samples` into `folder`, or finds those of the same slides there. Slides that lie in another folder than
/// before are the same if all else that is known of them is, their files have the names that they had, and the same content as far
/// as [`quick_identity`] reads it; the table then has the new places.
pub(super) fn claim(folder: &Path, samples: &[Sample]) -> Result<()> {
    let path = folder.join(SAMPLES);
    let table = data::table(&path, samples)?;
    let contents = folder.join(CONTENTS);
    let before = match std::fs::read(&path) {
        Ok(before) => Some(before),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        Err(error) => return Err(TrainError::file(&path)(error)),
    };
    match before {
        Some(before) if before == table => {
            if !contents.exists() {
                write_whole(&contents, &contents_table(&contents, samples)?)?;
            }
            Ok(())
        }
        Some(before) => {
            let difference = match difference(&rows(&path, &before)?, &rows(&path, &table)?) {
                None => moved_difference(&contents, samples)?,
                different => different,
            };
            match difference {
                None => write_whole(&path, &table),
                Some(difference) => Err(TrainError::OtherSlides {
                    folder: folder.to_path_buf(),
                    file: path,
                    difference,
                }),
            }
        }
        None => {
            write_whole(&contents, &contents_table(&contents, samples)?)?;
            write_whole(&path, &table)
        }
    }
}

/// Rows with the heading, of a table whose first column is the slides.
fn rows(path: &Path, table: &[u8]) -> Result<Vec<StringRecord>> {
    let mut reader = csv::ReaderBuilder::new();
    let mut reader = reader.has_headers(false).flexible(true).from_reader(table);
    let rows = reader.records().collect::<std::result::Result<_, _>>();
    rows.map_err(TrainError::csv(path))
}

/// The first difference in anything but the folders of slides and label maps.
fn difference(before: &[StringRecord], now: &[StringRecord]) -> Option<String> {
    let in_short = |row: &StringRecord| {
        let cells: Vec<&str> = row.iter().collect();
        cells.join(",")
    };
    let is_same = |(before, now): (&StringRecord, &StringRecord)| {
        let name = |row: &StringRecord| Path::new(row.get(0)?).file_name().map(ToOwned::to_owned);
        // Label maps move with the slides; no other label has a folder.
        let label = |row: &StringRecord| Path::new(row.get(1)?).file_name().map(ToOwned::to_owned);
        name(before) == name(now)
            && label(before) == label(now)
            && before.iter().skip(2).eq(now.iter().skip(2))
    };
    let rows = before.iter().zip(now).enumerate();
    for (place, (before, now)) in rows {
        if !is_same((before, now)) {
            let line = place + 1;
            return Some(format!(
                "line {line} is `{}` there and `{}` here",
                in_short(before),
                in_short(now)
            ));
        }
    }
    let slides = |rows: &[StringRecord]| rows.len().saturating_sub(1);
    (before.len() != now.len()).then(|| {
        let (before, now) = (slides(before), slides(now));
        format!("there are {before} there and {now} here")
    })
}

/// The first of slides in another folder that is not known to be the one that it was.
fn moved_difference(contents: &Path, samples: &[Sample]) -> Result<Option<String>> {
    let known = match std::fs::read(contents) {
        Ok(table) => rows(contents, &table)?,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(TrainError::file(contents)(error)),
    };
    let mut known = known.iter().skip(1);
    for sample in samples {
        let before = known.next().and_then(|row| row.get(1)).unwrap_or_default();
        let now = identity(&sample.slide);
        if before.is_empty() || now != before {
            let slide = sample.slide.display();
            let what = if now.is_empty() {
                "cannot be read"
            } else {
                "has another content than the slide of that name that the run began with"
            };
            return Ok(Some(format!("{slide} {what}")));
        }
    }
    Ok(None)
}

/// Name and identity of each slide, in the order of the samples.
fn contents_table(path: &Path, samples: &[Sample]) -> Result<Vec<u8>> {
    let heading = ["slide", "content"].map(str::to_owned);
    let rows = samples.iter().map(|sample| {
        let name = file_name(&sample.slide).display().to_string();
        [name, identity(&sample.slide)]
    });
    csv_bytes(path, std::iter::once(heading).chain(rows))
}

/// The slide's file without its folder.
fn file_name(slide: &Path) -> PathBuf {
    slide.file_name().map_or_else(PathBuf::new, PathBuf::from)
}

/// By what a slide is recognised; nothing for one that cannot be read.
fn identity(slide: &Path) -> String {
    quick_identity(slide).unwrap_or_default()
}
