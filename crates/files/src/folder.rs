//! A folder under way.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::abandoned;
use crate::destination::folder_of;
use crate::error::{FileError, Result};
use crate::partial::{beside, hold};

/// Names that are tried before giving up: each is lost only to a process that cleans up at the same moment.
const TRIES: usize = 100;

/// A folder that is filled beside its destination, and put there by [`commit`](Self::commit). Nothing is replaced.
///
/// Dropped earlier it leaves nothing. See the [crate](crate) for permissions and what killed processes leave.
#[derive(Debug)]
pub struct NewFolder {
    destination: PathBuf,
    folder: TempDir,
    /// Holds the lock, where the system can open folders.
    _lock: Option<File>,
}

impl NewFolder {
    /// Begins a folder that will stand at `path`, beside which there must be a folder.
    ///
    /// # Errors
    /// [`FileError::Destination`] if something is there; [`FileError::Io`].
    pub fn create(path: impl AsRef<Path>) -> Result<Self> {
        let destination = path.as_ref().to_path_buf();
        if fs::symlink_metadata(&destination).is_ok() {
            return Err(FileError::Destination {
                path: destination,
                expected: "a folder that does not exist yet",
                found: "one that does, or a file",
            });
        }
        abandoned::remove(folder_of(&destination));
        let (folder, lock) = make(&destination).map_err(FileError::io(&destination))?;
        Ok(Self {
            destination,
            folder,
            _lock: lock,
        })
    }

    /// The folder as it is called until it is complete.
    #[must_use]
    pub fn partial(&self) -> &Path {
        self.folder.path()
    }

    /// Puts the folder in its place.
    ///
    /// # Errors
    /// [`FileError::Io`], if something has come to stand there among others.
    pub fn commit(self) -> Result<()> {
        fs::rename(self.folder.path(), &self.destination)
            .map_err(FileError::io(&self.destination))?;
        // It has been moved away: there is nothing to remove.
        let _ = self.folder.keep();
        Ok(())
    }
}

fn make(destination: &Path) -> io::Result<(TempDir, Option<File>)> {
    for _ in 0..TRIES {
        let folder = beside(destination, |builder| {
            builder.tempdir_in(folder_of(destination))
        })?;
        let Ok(lock) = File::open(folder.path()) else {
            if folder.path().is_dir() {
                return Ok((folder, None));
            }
            continue;
        };
        match hold(&lock, folder.path()) {
            Ok(()) => return Ok((folder, Some(lock))),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::ErrorKind::AlreadyExists.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_appears_whole_or_not_at_all() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("tiles");
        let folder = NewFolder::create(&path).unwrap();
        fs::write(folder.partial().join("a"), "").unwrap();
        // Another one is under way, and neither takes the other's for abandoned.
        let other = NewFolder::create(&path).unwrap();
        fs::write(folder.partial().join("b"), "").unwrap();
        drop(other);
        assert!(!path.exists());
        folder.commit().unwrap();
        assert_eq!(fs::read_dir(&path).unwrap().count(), 2);
        assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 1);
        assert_eq!(
            NewFolder::create(&path).unwrap_err().to_string(),
            format!(
                "{}: expected a folder that does not exist yet, found one that does, or a file",
                path.display()
            )
        );
    }
}
