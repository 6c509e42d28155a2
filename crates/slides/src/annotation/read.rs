//! How a file is read, and what is told of it.

use std::path::{Path, PathBuf};

use super::{Annotations, GeoJsonFrame};
use crate::error::{Result, SlideError};

/// What happens where a part of a file cannot be used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Strictness {
    /// The part is listed in [`AnnotationFile::passed_over`], and the rest is read.
    #[default]
    PassOver,
    /// The file is refused.
    Refuse,
}

/// How annotations are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct AnnotationOptions {
    /// From where coordinates count, if the file is GeoJSON. ASAP's XML counts from level 0.
    pub geojson_frame: GeoJsonFrame,
    /// What happens where a part of the file cannot be used: it is passed over by default.
    pub strictness: Strictness,
}

impl AnnotationOptions {
    /// The frame has no default: neither is right for all files.
    #[must_use]
    pub const fn new(geojson_frame: GeoJsonFrame) -> Self {
        Self {
            geojson_frame,
            strictness: Strictness::PassOver,
        }
    }

    /// Sets what happens where a part of the file cannot be used.
    #[must_use]
    pub const fn with_strictness(mut self, strictness: Strictness) -> Self {
        self.strictness = strictness;
        self
    }
}

/// What was read of a file.
#[derive(Clone, Debug, PartialEq)]
#[must_use]
pub struct AnnotationFile {
    /// What could be used, in the order of the file.
    pub annotations: Annotations,
    /// What could not, in the order of the file.
    pub passed_over: Vec<PassedOver>,
}

/// A part of a file that could not be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{place}: expected {expected}, found {found}")]
pub struct PassedOver {
    /// Where: `feature 3, polygon 0` of GeoJSON, `byte 812, line 9, annotation 2` of XML, all counted from 0 but lines. Bytes
    /// are those of the text as UTF-8.
    pub place: String,
    /// What should stand there.
    pub expected: String,
    /// What stands there.
    pub found: String,
}

/// Keeps what is passed over, or refuses it.
pub(super) struct Notes<'a> {
    path: &'a Path,
    strictness: Strictness,
    passed_over: Vec<PassedOver>,
}

impl<'a> Notes<'a> {
    pub(super) const fn new(path: &'a Path, strictness: Strictness) -> Self {
        Self {
            path,
            strictness,
            passed_over: Vec::new(),
        }
    }

    /// A part that cannot be used.
    pub(super) fn pass_over(
        &mut self,
        place: impl Into<String>,
        expected: impl Into<String>,
        found: impl ToString,
    ) -> Result<()> {
        match self.strictness {
            Strictness::Refuse => Err(self.refuse(place, expected, found)),
            Strictness::PassOver => {
                self.passed_over.push(PassedOver {
                    place: place.into(),
                    expected: expected.into(),
                    found: found.to_string(),
                });
                Ok(())
            }
        }
    }

    /// What leaves nothing to be used of the file.
    pub(super) fn refuse(
        &self,
        place: impl Into<String>,
        expected: impl Into<String>,
        found: impl ToString,
    ) -> SlideError {
        SlideError::Malformed {
            path: PathBuf::from(self.path),
            place: place.into(),
            expected: expected.into(),
            found: found.to_string(),
        }
    }

    pub(super) fn into_passed_over(self) -> Vec<PassedOver> {
        self.passed_over
    }
}
