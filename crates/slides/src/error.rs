//! The one error type of the crate.

use std::path::{Path, PathBuf};

use stream_grad_files::FileError;

use crate::geometry::{Level, Region};
use crate::numbers::wide;

/// What can go wrong with a slide, its pixels or a file that is being written.
///
/// Every variant names the file, so that a run over thousands of slides can say which one to look at.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SlideError {
    /// No reader could make sense of the file.
    #[error("cannot open slide {}: {reason}", path.display())]
    CannotOpen {
        /// The file that was to be opened.
        path: PathBuf,
        /// What the readers said.
        reason: String,
    },
    /// Microns per pixel were asked for, but the file states none and the caller gave none.
    #[error("slide {} states no microns per pixel and none were given", path.display())]
    NoScale {
        /// The slide without a scale.
        path: PathBuf,
    },
    /// A scale that is not a finite number above zero.
    #[error("{quantity} must be a finite number above zero, found {found}")]
    InvalidScale {
        /// Which quantity: microns per pixel, downsample, objective power.
        quantity: &'static str,
        /// The value that was given.
        found: f64,
    },
    /// More threads than there is use for.
    #[error("{threads} threads on {cores} cores: expected at most {most}, four for each core")]
    TooManyThreads {
        /// How many threads were asked for.
        threads: usize,
        /// Cores that this process may use.
        cores: usize,
        /// The most threads that are let to work.
        most: usize,
    },
    /// A level that the slide does not have.
    #[error("slide {} has levels 0 to {}, level {} was asked for", path.display(), levels.saturating_sub(1), level.0)]
    NoSuchLevel {
        /// The slide.
        path: PathBuf,
        /// The level that was asked for.
        level: Level,
        /// How many levels there are.
        levels: usize,
    },
    /// An associated image that the slide does not have.
    #[error("slide {} has no associated image {name:?}; it has {known:?}", path.display())]
    NoSuchImage {
        /// The slide.
        path: PathBuf,
        /// The name that was asked for.
        name: String,
        /// The names there are.
        known: Vec<String>,
    },
    /// Pixels could not be read or decoded; the slide can still be read elsewhere.
    #[error("reading {} level {} {region} failed: {reason}", path.display(), level.0)]
    RegionFailed {
        /// The slide.
        path: PathBuf,
        /// The level that was read.
        level: Level,
        /// The block of pixels, in the level's own pixels.
        region: Region,
        /// What the decoder said.
        reason: String,
    },
    /// An associated image could not be decoded.
    #[error("reading associated image {name:?} of {} failed: {reason}", path.display())]
    ImageFailed {
        /// The slide.
        path: PathBuf,
        /// The associated image.
        name: String,
        /// What the decoder said.
        reason: String,
    },
    /// The stain of a slide cannot be estimated.
    #[error("slide {}: its stain cannot be estimated: {reason}", path.display())]
    NoStain {
        /// The slide.
        path: PathBuf,
        /// What is missing.
        reason: String,
    },
    /// Something larger than the caller's [`Limits`](crate::Limits) allow, or than a format can hold.
    #[error("{}: {what} needs {needed}, the limit is {limit}", path.display())]
    LimitExceeded {
        /// The file.
        path: PathBuf,
        /// What was too large, with its unit.
        what: &'static str,
        /// What it needs.
        needed: u64,
        /// What is allowed.
        limit: u64,
    },
    /// A buffer whose length does not match the pixels asked for.
    #[error("{what} needs {expected}, found {found}")]
    BufferLength {
        /// Which buffer, with what it is counted in.
        what: &'static str,
        /// The length that is needed.
        expected: u64,
        /// The length that was given.
        found: u64,
    },
    /// A request that makes no sense whatever the file, such as an empty image or a tile edge that JPEG cannot hold.
    #[error("{what} must be {expected}, found {found}")]
    InvalidArgument {
        /// Which argument.
        what: &'static str,
        /// The rule it breaks.
        expected: &'static str,
        /// The value that was given.
        found: String,
    },
    /// A file whose kind of pixels is understood but not supported.
    #[error("{}: {what} is not supported", path.display())]
    Unsupported {
        /// The file.
        path: PathBuf,
        /// What is not supported.
        what: String,
    },
    /// A file of annotations, a table or another text that does not hold what it should.
    #[error("{}, {place}: expected {expected}, found {found}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Where in the file.
        place: String,
        /// What should stand there.
        expected: String,
        /// What stands there.
        found: String,
    },
    /// An image that was finished before all its rows were written, or given more rows than it has.
    #[error("{}: {expected} rows were declared, {found} were given", path.display())]
    RowCount {
        /// The file that was being written.
        path: PathBuf,
        /// Rows declared at the start.
        expected: u64,
        /// Rows given.
        found: u64,
    },
    /// A file or folder that was written to, or finished, after a write had failed.
    #[error("{}: an earlier write failed, so nothing more can be written", path.display())]
    AfterFailure {
        /// What was being written.
        path: PathBuf,
    },
    /// A tile could not be compressed.
    #[error("compressing a tile of {} failed: {reason}", path.display())]
    Encode {
        /// The file that was being written.
        path: PathBuf,
        /// What the encoder said.
        reason: String,
    },
    /// The file system refused, for example because the disk is full.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        #[source]
        source: std::io::Error,
    },
    /// A destination that cannot be written to, such as a device or an input.
    #[error(transparent)]
    Destination(FileError),
}

/// Results of this crate.
pub type Result<T, E = SlideError> = std::result::Result<T, E>;

impl SlideError {
    pub(crate) fn file(error: FileError) -> Self {
        match error {
            FileError::Io { path, source } => Self::Io { path, source },
            other => Self::Destination(other),
        }
    }

    pub(crate) fn io(path: &Path, source: std::io::Error) -> Self {
        Self::Io {
            path: path.to_path_buf(),
            source,
        }
    }

    pub(crate) fn cannot_open(path: &Path, reason: impl ToString) -> Self {
        Self::CannotOpen {
            path: path.to_path_buf(),
            reason: reason.to_string(),
        }
    }
}

/// Checks that `found` bytes hold exactly `height x width` RGB pixels.
pub(crate) fn check_rgb_length(height: u64, width: u64, found: usize) -> Result<()> {
    let expected = height.saturating_mul(width).saturating_mul(3);
    if u64::try_from(found) == Ok(expected) {
        return Ok(());
    }
    Err(SlideError::BufferLength {
        what: "a buffer of RGB, in bytes (height x width x 3),",
        expected,
        found: wide(found),
    })
}

/// Refuses what needs more than a limit.
pub(crate) fn check_limit(path: &Path, what: &'static str, needed: u64, limit: u64) -> Result<()> {
    if needed <= limit {
        return Ok(());
    }
    Err(SlideError::LimitExceeded {
        path: path.to_path_buf(),
        what,
        needed,
        limit,
    })
}
