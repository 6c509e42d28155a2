//! Where a file that is called by some path has to be put.

use std::fs::{self, FileType};
use std::io;
use std::path::{Path, PathBuf};

use crate::error::{FileError, Result};

/// As many links as Linux follows.
const LINKS: usize = 40;

/// The folder that `path` lies in.
#[must_use]
pub fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

/// The path to which a file is renamed that is to stand at `path`: what it links to, by way of any number of links.
pub(crate) fn follow(path: &Path) -> Result<PathBuf> {
    let mut place = path.to_path_buf();
    for _ in 0..LINKS {
        match fs::symlink_metadata(&place) {
            Ok(metadata) if metadata.file_type().is_symlink() => {
                let target = fs::read_link(&place).map_err(FileError::io(path))?;
                place = folder_of(&place).join(target);
            }
            Ok(metadata) => return regular(path, metadata.file_type()).map(|()| place),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return named(path, place),
            Err(error) => return Err(FileError::io(path)(error)),
        }
    }
    Err(unfit(path, "a circle of links"))
}

fn named(path: &Path, place: PathBuf) -> Result<PathBuf> {
    match place.file_name() {
        Some(_) => Ok(place),
        None => Err(unfit(path, "a path without a name")),
    }
}

fn regular(path: &Path, found: FileType) -> Result<()> {
    if found.is_file() {
        return Ok(());
    }
    let found = if found.is_dir() {
        "a folder"
    } else {
        "a device or a pipe"
    };
    Err(unfit(path, found))
}

fn unfit(path: &Path, found: &'static str) -> FileError {
    FileError::Destination {
        path: path.to_path_buf(),
        expected: "a file, or nothing yet",
        found,
    }
}

#[cfg(all(test, unix))]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn links_are_followed_to_what_is_there_or_not() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::create_dir(at("far")).unwrap();
        symlink("far/b", at("a")).unwrap();
        assert_eq!(follow(&at("a")).unwrap(), at("far/b"));
        symlink("../c", at("far/b")).unwrap();
        assert_eq!(follow(&at("a")).unwrap(), at("far/../c"));
        fs::write(at("c"), "").unwrap();
        assert_eq!(follow(&at("a")).unwrap(), at("far/../c"));
    }

    #[test]
    fn what_is_no_file_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        symlink("b", at("a")).unwrap();
        symlink("a", at("b")).unwrap();
        let found = |path: &Path| follow(path).unwrap_err().to_string();
        assert!(found(&at("a")).contains("circle"));
        assert!(found(folder.path()).contains("a folder"));
        assert!(found(Path::new("/dev/null")).contains("a device"));
        assert!(found(Path::new("")).contains("without a name"));
    }
}
