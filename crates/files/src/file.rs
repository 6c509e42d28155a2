//! A file under way, and whole files at once.

use std::fs::{self, File, Permissions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use crate::abandoned;
use crate::destination::{folder_of, follow};
use crate::error::{FileError, Result};
use crate::partial::{beside, hold};

/// A file that is written beside its destination, and put there by [`commit`](Self::commit).
///
/// Dropped earlier it leaves nothing, and what stood at the destination stays. See the [crate](crate) for permissions, links
/// and what killed processes leave.
#[derive(Debug)]
pub struct NewFile {
    /// As the caller called it.
    path: PathBuf,
    /// Where that is, links followed.
    destination: PathBuf,
    file: NamedTempFile<File>,
}

impl NewFile {
    /// Begins a file that will stand at `path`, whose folder must exist, and removes what killed processes left in that folder.
    ///
    /// # Errors
    /// [`FileError::Destination`] if a folder, a device or a pipe is there; [`FileError::Io`] if the folder takes no file.
    pub fn create(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref().to_path_buf();
        let destination = follow(&path)?;
        let folder = folder_of(&destination);
        abandoned::remove(folder);
        let file = beside(&destination, |builder| {
            builder.make_in(folder, |partial| {
                let file = File::options()
                    .read(true)
                    .write(true)
                    .create_new(true)
                    .open(partial)?;
                hold(&file, partial)?;
                Ok(file)
            })
        });
        let file = file.map_err(FileError::io(&path))?;
        Ok(Self {
            path,
            destination,
            file,
        })
    }

    /// Where the file will stand.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The file itself, for reading and writing at positions.
    #[must_use]
    pub fn file(&self) -> &File {
        self.file.as_file()
    }

    /// Flushes the file to the disk, and puts it in its place.
    ///
    /// # Errors
    /// [`FileError::Io`]; what stood at the destination is then as it was.
    pub fn commit(self) -> Result<()> {
        let Self {
            path,
            destination,
            file,
        } = self;
        if let Some(permissions) = replaced(&destination).map_err(FileError::io(&path))? {
            file.as_file()
                .set_permissions(permissions)
                .map_err(FileError::io(&path))?;
        }
        file.as_file().sync_all().map_err(FileError::io(&path))?;
        file.persist(&destination)
            .map_err(|error| FileError::io(&path)(error.error))?;
        Ok(())
    }
}

/// The permissions of what is replaced.
fn replaced(destination: &Path) -> io::Result<Option<Permissions>> {
    match fs::metadata(destination) {
        Ok(metadata) => Ok(Some(metadata.permissions())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

impl Write for NewFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.as_file_mut().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.as_file_mut().flush()
    }
}

impl Read for NewFile {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        self.file.as_file_mut().read(bytes)
    }
}

impl Seek for NewFile {
    fn seek(&mut self, position: SeekFrom) -> io::Result<u64> {
        self.file.as_file_mut().seek(position)
    }
}

/// Writes a whole file as [`NewFile`] does. A device or a pipe, such as `/dev/stdout`, is written to.
///
/// # Errors
/// As [`NewFile::create`] and [`NewFile::commit`].
pub fn write_whole(path: impl AsRef<Path>, bytes: &[u8]) -> Result<()> {
    let path = path.as_ref();
    let found = fs::metadata(path);
    if found.is_ok_and(|found| !found.is_file() && !found.is_dir()) {
        let written = File::options()
            .write(true)
            .open(path)
            .and_then(|mut device| device.write_all(bytes));
        return written.map_err(FileError::io(path));
    }
    let mut file = NewFile::create(path)?;
    file.write_all(bytes).map_err(FileError::io(path))?;
    file.commit()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap();
        entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect()
    }

    #[test]
    fn a_file_appears_whole_or_not_at_all() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        let mut file = NewFile::create(&path).unwrap();
        file.write_all(b"new").unwrap();
        assert!(!path.exists());
        drop(file);
        assert!(names(folder.path()).is_empty());

        write_whole(&path, b"old").unwrap();
        let mut file = NewFile::create(&path).unwrap();
        file.write_all(b"new").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"old");
        file.commit().unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(names(folder.path()), ["a"]);
    }

    /// Two at once do not meet: neither takes the other's for abandoned.
    #[test]
    fn what_is_being_written_is_not_removed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        let mut first = NewFile::create(&path).unwrap();
        let mut second = NewFile::create(&path).unwrap();
        first.write_all(b"first").unwrap();
        second.write_all(b"second").unwrap();
        first.commit().unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"first");
        second.commit().unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"second");
        assert_eq!(names(folder.path()), ["a"]);
    }

    #[test]
    fn many_writers_of_one_file_do_not_meet() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        std::thread::scope(|scope| {
            for writer in 0..8_u8 {
                let path = &path;
                scope.spawn(move || {
                    for _ in 0..50 {
                        write_whole(path, &[writer; 1000]).unwrap();
                    }
                });
            }
        });
        let content = fs::read(&path).unwrap();
        assert_eq!(content, [content[0]; 1000]);
        assert_eq!(names(folder.path()), ["a"]);
    }

    #[test]
    fn a_folder_is_not_replaced_and_a_missing_one_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().join("inner");
        fs::create_dir(&inner).unwrap();
        let error = write_whole(&inner, b"").unwrap_err().to_string();
        assert!(
            error.contains("inner") && error.contains("a folder"),
            "{error}"
        );
        let error = write_whole(folder.path().join("missing/a"), b"").unwrap_err();
        assert!(
            matches!(&error, FileError::Io { path, source }
                if path.starts_with(folder.path().join("missing")) && source.kind() == io::ErrorKind::NotFound),
            "{error}"
        );
        assert_eq!(names(folder.path()), ["inner"]);
    }

    #[cfg(unix)]
    #[test]
    fn permissions_of_a_replaced_file_stay() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        write_whole(&path, b"old").unwrap();
        for mode in [0o640, 0o604] {
            fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            write_whole(&path, b"new").unwrap();
            let found = fs::metadata(&path).unwrap().permissions().mode();
            assert_eq!(found & 0o777, mode);
        }
    }

    #[cfg(unix)]
    #[test]
    fn a_link_stays_and_its_target_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let (link, target) = (folder.path().join("link"), folder.path().join("far/target"));
        fs::create_dir(folder.path().join("far")).unwrap();
        std::os::unix::fs::symlink("far/target", &link).unwrap();
        for content in [b"first", b"other"] {
            write_whole(&link, content).unwrap();
            assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
            assert_eq!(fs::read(&target).unwrap(), content);
        }
    }

    /// As root a rename would take the device's place.
    #[cfg(unix)]
    #[test]
    fn a_device_is_written_to_and_never_replaced() {
        let refused = NewFile::create("/dev/null").unwrap_err();
        assert!(
            matches!(&refused, FileError::Destination { path, .. } if path == Path::new("/dev/null")),
            "{refused}"
        );
        write_whole("/dev/null", b"gone").unwrap();
        assert!(!fs::metadata("/dev/null").unwrap().is_file());
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_full_device_is_named() {
        let error = write_whole("/dev/full", b"bytes").unwrap_err();
        let full = matches!(&error, FileError::Io { source, .. } if source.kind() == io::ErrorKind::StorageFull);
        assert!(full && error.to_string().contains("/dev/full"), "{error}");
    }
}
