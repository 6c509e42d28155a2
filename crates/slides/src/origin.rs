//! What a file kept beside a run was made of.

use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use serde::Serialize;

use crate::slide::Slide;

/// A slide's file as it is now, and the options with which something was made of it. Compared as JSON, so that numbers are
/// never parsed again.
#[derive(Serialize)]
pub(crate) struct Origin<'a, Options> {
    /// Counted up when the way in which it is made changes.
    version: u32,
    path: PathBuf,
    bytes: u64,
    modified_ns: u128,
    /// The scale may be the caller's.
    scale: Option<(f64, f64)>,
    /// Whether colours are those of the file's profile, turned into sRGB.
    srgb: bool,
    options: &'a Options,
}

impl<'a, Options: Serialize> Origin<'a, Options> {
    /// None for what is no file.
    pub(crate) fn of(slide: &Slide, version: u32, options: &'a Options) -> Option<Self> {
        let path = slide.path().canonicalize().ok()?;
        let metadata = std::fs::metadata(&path).ok()?;
        let modified = metadata.modified().ok()?.duration_since(UNIX_EPOCH).ok()?;
        Some(Self {
            version,
            path,
            bytes: metadata.len(),
            modified_ns: modified.as_nanos(),
            scale: slide
                .scale()
                .ok()
                .map(|scale| (scale.x.get(), scale.y.get())),
            srgb: slide.is_in_srgb(),
            options,
        })
    }

    /// Where it is kept: slides of one name in different folders get different files.
    pub(crate) fn file_in(&self, folder: &Path, extension: &str) -> PathBuf {
        let stem = self.path.file_stem().unwrap_or_default().to_string_lossy();
        let place = crc32fast::hash(self.path.as_os_str().as_encoded_bytes());
        folder.join(format!("{stem}-{place:08x}.{extension}"))
    }
}
