//! Removing what a process left that was killed while it wrote.

use std::fs::{self, DirEntry, File};
use std::io;
use std::path::Path;

use crate::partial::{Lock, is_at, is_partial, lock};

/// Removes what is under way in `folder` without anyone who holds it. What cannot be looked at or removed stays.
pub(crate) fn remove(folder: &Path) {
    let Ok(entries) = fs::read_dir(folder) else {
        // Whatever is wrong with the folder shows when something is written to it.
        return;
    };
    for entry in entries.flatten() {
        if is_partial(&entry.file_name()) {
            // Of several that try at once one succeeds.
            let _ = remove_unless_held(&entry);
        }
    }
}

fn remove_unless_held(entry: &DirEntry) -> io::Result<()> {
    let (kind, path) = (entry.file_type()?, entry.path());
    if kind.is_dir() {
        let folder = File::open(&path)?;
        if lock(&folder) == Lock::Held && is_at(&folder, &path) {
            return fs::remove_dir_all(&path);
        }
    } else if kind.is_file() {
        // Some file systems lock only what is open for writing.
        let file = File::options().read(true).write(true).open(&path)?;
        if lock(&file) == Lock::Held && is_at(&file, &path) {
            return fs::remove_file(&path);
        }
    }
    Ok(())
}
