//! Names and locks of what is under way.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::path::Path;

use same_file::Handle;
use tempfile::Builder;

/// What the name of everything under way ends with.
const SUFFIX: &str = ".stream-grad-partial";
/// Random characters before that.
const RANDOM: usize = 8;
/// The most bytes of the destination's name that the name has, so that it is no longer than file systems take.
const STEM: usize = 200;

/// What stands before the random characters in the name of something that will be called `name`.
fn prefix(name: &OsStr) -> OsString {
    let name = name.to_string_lossy();
    let end = (0..=STEM.min(name.len()))
        .rev()
        .find(|&end| name.is_char_boundary(end));
    format!(".{}.", &name[..end.unwrap_or(0)]).into()
}

/// Whether something of that name is, or was, under way.
pub(crate) fn is_partial(name: &OsStr) -> bool {
    let stem = name
        .to_str()
        .and_then(|name| name.strip_prefix('.'))
        .and_then(|name| name.strip_suffix(SUFFIX))
        .and_then(|name| name.rsplit_once('.'));
    stem.is_some_and(|(_, random)| {
        random.len() == RANDOM && random.bytes().all(|byte| byte.is_ascii_alphanumeric())
    })
}

/// Calls `make` with the settings for a name beside `destination`.
pub(crate) fn beside<T>(
    destination: &Path,
    make: impl FnOnce(&Builder<'_, '_>) -> io::Result<T>,
) -> io::Result<T> {
    let prefix = prefix(destination.file_name().unwrap_or_default());
    let mut builder = Builder::new();
    builder.prefix(&prefix).suffix(SUFFIX).rand_bytes(RANDOM);
    make(&builder)
}

/// Locks what was just made at `path`. It may be gone by then: another process may have taken it for abandoned.
///
/// # Errors
/// [`io::ErrorKind::AlreadyExists`] if it is gone, or is being removed: another name is to be tried.
pub(crate) fn hold(file: &File, path: &Path) -> io::Result<()> {
    match lock(file) {
        Lock::Held if is_at(file, path) => Ok(()),
        Lock::Impossible => Ok(()),
        Lock::Held | Lock::Taken => Err(io::ErrorKind::AlreadyExists.into()),
    }
}

/// How trying to lock something ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lock {
    /// It is locked, until the file is closed.
    Held,
    /// Someone else holds it.
    Taken,
    /// This file system has no locks.
    Impossible,
}

pub(crate) fn lock(file: &File) -> Lock {
    match file.try_lock() {
        Ok(()) => Lock::Held,
        Err(std::fs::TryLockError::WouldBlock) => Lock::Taken,
        Err(std::fs::TryLockError::Error(_)) => Lock::Impossible,
    }
}

/// Whether `file` is what stands at `path`.
pub(crate) fn is_at(file: &File, path: &Path) -> bool {
    let opened = file.try_clone().and_then(Handle::from_file);
    matches!((opened, Handle::from_path(path)), (Ok(opened), Ok(there)) if opened == there)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_told_from_others() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["a", "a.tif", "ä.b.c", &"ö".repeat(127)] {
            let path = folder.path().join(name);
            let made = beside(&path, |builder| builder.tempfile_in(folder.path())).unwrap();
            let made = made.path().file_name().unwrap();
            assert!(is_partial(made), "{made:?}");
        }
        for name in [
            "a.tif",
            ".tmpAbC123",
            ".a.tif.partial",
            ".a.stream-grad-partial",
            ".a.1234567.stream-grad-partial",
            ".a.1234567_.stream-grad-partial",
            "a.12345678.stream-grad-partial",
            ".a.12345678.stream-grad-partial.bak",
        ] {
            assert!(!is_partial(OsStr::new(name)), "{name}");
        }
    }
}
