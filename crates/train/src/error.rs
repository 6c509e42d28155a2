//! Everything that data sets, training and reports can refuse.

use std::path::{Path, PathBuf};

use stream_grad::StreamError;
use stream_grad_files::FileError;
use stream_grad_models::ModelError;
use stream_grad_slides::SlideError;

use crate::change::Change;

/// What this crate's functions return.
pub type Result<T, E = TrainError> = std::result::Result<T, E>;

/// Why something was refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrainError {
    /// A setting that cannot be used.
    #[error("setting `{setting}`: expected {expected}, found {found}")]
    Setting {
        /// Which setting, with the sections it lies in.
        setting: String,
        /// What is legal.
        expected: String,
        /// What was found.
        found: String,
    },
    /// Settings that are no valid TOML, or have a value of another kind than its key takes.
    #[error("settings: {0}")]
    Settings(String),
    /// A key that no setting has.
    #[error("line {line}: {table} has no key `{key}`; {nearest}")]
    UnknownKey {
        /// Line of the text, from 1.
        line: usize,
        /// The table, in words.
        table: String,
        /// The key.
        key: String,
        /// The key that looks most alike, and its table.
        nearest: String,
    },
    /// Something in a file of settings that was refused.
    #[error("{}: {source}", path.display())]
    InFile {
        /// The file.
        path: PathBuf,
        /// What was refused.
        source: Box<TrainError>,
    },
    /// A destination that cannot be written to, such as a device or an input.
    #[error(transparent)]
    Destination(FileError),
    /// A file or folder could not be read or written.
    #[error("{}: {source}", path.display())]
    File {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A CSV that is not well formed.
    #[error("table {}: {source}", path.display())]
    Csv {
        /// The table.
        path: PathBuf,
        /// What the reader said.
        source: csv::Error,
    },
    /// A table without a column that is needed, or with one twice.
    #[error("table {}: {problem} column `{column}`; expected {expected}, each once, and whatever others", path.display())]
    Column {
        /// The table.
        path: PathBuf,
        /// Missing or repeated.
        problem: &'static str,
        /// Name of the column.
        column: String,
        /// All columns that have a meaning, those that may lack in brackets.
        expected: &'static str,
    },
    /// A table without a column that the settings name, or that is needed by default.
    #[error("table {}: missing column `{column}` (`{setting}` says which to take); it has {}", path.display(), quoted(columns))]
    NoColumn {
        /// The table.
        path: PathBuf,
        /// Name of the column.
        column: String,
        /// The setting of `[data]` that names it.
        setting: &'static str,
        /// The columns that it has, those first whose names are most alike.
        columns: Vec<String>,
    },
    /// A folder or a file that does not lie or look as a published data set.
    #[error("{}: expected {expected}, found {found}", path.display())]
    Layout {
        /// The folder or file.
        path: PathBuf,
        /// What is legal.
        expected: String,
        /// What was found.
        found: String,
    },
    /// A value in a table that cannot be used.
    #[error("table {}, line {line}, column `{column}`: expected {expected}, found `{found}`", path.display())]
    Cell {
        /// The table.
        path: PathBuf,
        /// Line, the heading being line 1.
        line: u64,
        /// Name of the column.
        column: String,
        /// What is legal.
        expected: String,
        /// What was found.
        found: String,
    },
    /// A slide that stands in a table twice.
    #[error("table {}: slide {} stands on line {first} and again on line {second}", path.display(), slide.display())]
    RepeatedSlide {
        /// The table.
        path: PathBuf,
        /// The slide.
        slide: PathBuf,
        /// Its first line.
        first: u64,
        /// Its second line.
        second: u64,
    },
    /// Slides that are one file under two names.
    #[error("slides {} and {} are one file; expected each slide once", first.display(), second.display())]
    OneFile {
        /// One name.
        first: PathBuf,
        /// The other.
        second: PathBuf,
    },
    /// Two files of which one is meant, such as those of one name in two folders.
    #[error("{} and {} may both be meant, and differ in content; expected one of them", first.display(), second.display())]
    TwoFiles {
        /// One file.
        first: PathBuf,
        /// The other.
        second: PathBuf,
    },
    /// Samples that have a split where none may be given, or none where one is needed.
    #[error("{place}: expected {expected}, found {count} of {total} {found}, the first is {}", first.display())]
    Splits {
        /// What needs it.
        place: &'static str,
        /// What is needed.
        expected: &'static str,
        /// How many samples are not so.
        count: usize,
        /// How many samples there are.
        total: usize,
        /// How they are.
        found: &'static str,
        /// The first of them.
        first: PathBuf,
    },
    /// Slides of a table that are not on disk.
    #[error("table {}: {missing} of {total} slides are missing, the first is {}{}", path.display(), first.display(), separators(first))]
    MissingSlides {
        /// The table.
        path: PathBuf,
        /// How many are missing.
        missing: usize,
        /// How many the table names.
        total: usize,
        /// The first that is missing.
        first: PathBuf,
    },
    /// Label maps of a table that are not on disk.
    #[error("table {}: {missing} of {total} masks or annotations are missing, the first is {}{}", path.display(), first.display(), separators(first))]
    MissingMaps {
        /// The table.
        path: PathBuf,
        /// How many are missing.
        missing: usize,
        /// How many the table names.
        total: usize,
        /// The first that is missing.
        first: PathBuf,
    },
    /// A label map that does not fit its slide, or the classes of the task.
    #[error("label map {} of slide {}: expected {expected}, found {found}", map.display(), slide.display())]
    LabelMap {
        /// The mask, or the file of annotations.
        map: PathBuf,
        /// The slide.
        slide: PathBuf,
        /// What is legal.
        expected: String,
        /// What was found.
        found: String,
    },
    /// A patient whose slides lie in more than one split.
    #[error(
        "patient `{patient}` has slides in the splits {first} and {second}; expected one split for each patient"
    )]
    SplitPatient {
        /// The patient.
        patient: String,
        /// One split.
        first: &'static str,
        /// Another split.
        second: &'static str,
    },
    /// Nothing to train or to test on.
    #[error("{set}: expected slides of {expected}, found {found}")]
    Classes {
        /// Which table or split.
        set: String,
        /// What is needed.
        expected: String,
        /// What is there.
        found: String,
    },
    /// A metric of values on which it has no meaning.
    #[error("{metric}: expected {expected}, found {found}")]
    Metric {
        /// Which metric.
        metric: &'static str,
        /// What it needs.
        expected: &'static str,
        /// What was given.
        found: String,
    },
    /// A slide could not be opened or read.
    #[error(transparent)]
    Slide(#[from] SlideError),
    /// Not one slide of an epoch, an evaluation or a prediction could be used.
    #[error("all {count} slides of {phase} failed, the last ({}) with: {last}", slide.display())]
    AllSlidesFailed {
        /// What was being done.
        phase: String,
        /// How many slides.
        count: usize,
        /// The last slide.
        slide: PathBuf,
        /// Why it failed.
        last: String,
    },
    /// Planning or streaming failed.
    #[error(transparent)]
    Stream(#[from] StreamError),
    /// A model could not be built, or its head was misused.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// Candle refused an operation.
    #[error("tensor operation: {0}")]
    Tensor(#[from] candle_core::Error),
    /// A gradient, or an optimiser's or checkpoint's tensor, that does not belong to the model.
    #[error("tensor `{name}`: expected {expected}, found {found}")]
    State {
        /// Name of the tensor.
        name: String,
        /// What is needed.
        expected: String,
        /// What was found.
        found: String,
    },
    /// A checkpoint that does not belong to this run or is damaged.
    #[error("checkpoint {}: expected {expected}, found {found}", path.display())]
    Checkpoint {
        /// The checkpoint.
        path: PathBuf,
        /// What is needed.
        expected: String,
        /// What was found.
        found: String,
    },
    /// A file that is no model, or a damaged one.
    #[error("model {}: expected {expected}, found {found}", path.display())]
    ModelFile {
        /// The file.
        path: PathBuf,
        /// What is needed.
        expected: String,
        /// What was found.
        found: String,
    },
    /// A checkpoint of a later release.
    #[error("checkpoint {} is of version {found}; this release reads version {newest} and older: go on with the release that wrote it", path.display())]
    NewerCheckpoint {
        /// The checkpoint.
        path: PathBuf,
        /// The newest version that is read.
        newest: u64,
        /// Its version.
        found: u64,
    },
    /// A checkpoint, or a model made of one, that could not be written. Those before it are whole.
    #[error("{}: its {bytes} bytes could not be written. The checkpoints before it are whole: make room, and the same command goes on from there: {source}", path.display())]
    CheckpointNotWritten {
        /// The checkpoint.
        path: PathBuf,
        /// How many bytes it has.
        bytes: usize,
        /// What the system said.
        source: std::io::Error,
    },
    /// A folder of checkpoints of which none is whole.
    #[error("none of the {count} checkpoints in {} can be used, the newest ({}) since: {last}. Delete the folder to train anew", folder.display(), newest.display())]
    NoCheckpoint {
        /// The folder.
        folder: PathBuf,
        /// How many there are.
        count: usize,
        /// The newest.
        newest: PathBuf,
        /// Why it cannot be used.
        last: String,
    },
    /// A folder in which another process trains.
    #[error("{}: another process trains in this folder: wait until it ends, or give another folder", folder.display())]
    InUse {
        /// The folder.
        folder: PathBuf,
    },
    /// A folder that holds a run of other slides.
    #[error("{} holds a run with other slides: {difference}. Give another folder, or the slides of {}", folder.display(), file.display())]
    OtherSlides {
        /// The folder.
        folder: PathBuf,
        /// The table that holds them.
        file: PathBuf,
        /// What differs first.
        difference: String,
    },
    /// A folder or a table that holds what another model or program made.
    #[error("{} holds a run with other {what}: give another folder, or the same {what} ({})", folder.display(), file.display())]
    OtherRun {
        /// The folder.
        folder: PathBuf,
        /// What differs.
        what: &'static str,
        /// The file that says so.
        file: PathBuf,
    },
    /// A table that this program did not make, or that lacks the file which says by which model.
    #[error("{}: expected a table of this program, with {} beside it, or no file yet: give another place", path.display(), origin.display())]
    OtherTable {
        /// The table.
        path: PathBuf,
        /// The file that is not there.
        origin: PathBuf,
    },
    /// A folder that a report was to be made of, and that holds no run.
    #[error("{}: expected a run folder, with run.toml, experiment.json or a training's result.json, found none of them", folder.display())]
    NoRun {
        /// The folder.
        folder: PathBuf,
    },
    /// A folder that holds a run of other settings.
    #[error("{} holds a run with other settings: {}. Give another folder, or the settings of {}", folder.display(), list(changes), file.display())]
    OtherSettings {
        /// The folder.
        folder: PathBuf,
        /// The file that holds them.
        file: PathBuf,
        /// What differs.
        changes: Vec<Change>,
    },
    /// A file of JSON that cannot be read or written.
    #[error("{}: {source}", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// What the reader or writer said.
        source: serde_json::Error,
    },
    /// A plot could not be drawn.
    #[error("plot {}: {reason}", path.display())]
    Plot {
        /// The file.
        path: PathBuf,
        /// What the plotter said.
        reason: String,
    },
    /// The rest of the machine refused: threads, thread pools.
    #[error("{what}: {reason}")]
    System {
        /// What was wanted.
        what: &'static str,
        /// What the system said.
        reason: String,
    },
}

impl From<FileError> for TrainError {
    fn from(error: FileError) -> Self {
        match error {
            FileError::Io { path, source } => Self::File { path, source },
            other => Self::Destination(other),
        }
    }
}

fn list(changes: &[Change]) -> String {
    let changes: Vec<String> = changes.iter().map(Change::to_string).collect();
    changes.join("; ")
}

/// Names between quotes.
fn quoted(names: &[String]) -> String {
    if names.is_empty() {
        return "no others".to_owned();
    }
    let names: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
    names.join(", ")
}

/// A hint for paths of another system.
fn separators(path: &Path) -> &'static str {
    if !cfg!(windows) && path.as_os_str().as_encoded_bytes().contains(&b'\\') {
        " (on this system folders end with `/`, not with `\\`)"
    } else {
        ""
    }
}

/// Refuses a setting of more threads than there is [use for](stream_grad::check_threads).
pub(crate) fn check_threads(setting: &str, threads: usize) -> Result<()> {
    stream_grad::check_threads(threads).map_err(|error| match error {
        StreamError::TooManyThreads { cores, most, .. } => TrainError::setting(
            setting,
            format!("at most {most} threads, four for each of {cores} cores"),
            threads,
        ),
        error => error.into(),
    })
}

impl TrainError {
    pub(crate) fn setting(
        setting: impl Into<String>,
        expected: impl Into<String>,
        found: impl ToString,
    ) -> Self {
        Self::Setting {
            setting: setting.into(),
            expected: expected.into(),
            found: found.to_string(),
        }
    }

    pub(crate) fn file(path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self::File { path, source }
    }

    pub(crate) fn in_file(path: &Path) -> impl FnOnce(Self) -> Self {
        let path = path.to_path_buf();
        move |source| Self::InFile {
            path,
            source: Box::new(source),
        }
    }

    pub(crate) fn csv(path: &Path) -> impl FnOnce(csv::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self::Csv { path, source }
    }

    pub(crate) fn json(path: &Path) -> impl FnOnce(serde_json::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self::Json { path, source }
    }
}
