//! What depends on the process: umask, a full disk, and being killed. Each test starts itself anew as that process.

#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a test: a panic is how it fails")]

#[path = "common/child.rs"]
mod child;

use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Child;

use child::{folder_of_child, start};
use stream_grad_files::{FileError, NewFile, NewFolder, write_whole};

/// Waits until the process says that it is ready.
fn wait_until_ready(child: &mut Child) {
    let lines = BufReader::new(child.stdout.as_mut().unwrap()).lines();
    let ready = lines
        .map(Result::unwrap)
        .any(|line| line.ends_with("ready"));
    assert!(ready, "the process ended before it was ready");
}

fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn what_a_killed_process_left_is_removed_by_the_next_and_not_before() {
    if let Some(folder) = folder_of_child() {
        let mut file = NewFile::create(folder.join("a")).unwrap();
        file.write_all(b"half").unwrap();
        let tiles = NewFolder::create(folder.join("tiles")).unwrap();
        std::fs::write(tiles.partial().join("0.png"), "half").unwrap();
        println!("\nready");
        loop {
            std::thread::park();
        }
    }
    let folder = tempfile::tempdir().unwrap();
    // Of others, whatever it is.
    std::fs::write(folder.path().join(".tmpAbCdEf"), "").unwrap();
    let test = "what_a_killed_process_left_is_removed_by_the_next_and_not_before";
    let mut child = start(test, folder.path(), ":");
    wait_until_ready(&mut child);
    write_whole(folder.path().join("b"), b"whole").unwrap();
    drop(NewFolder::create(folder.path().join("other")).unwrap());
    let under_way = names(folder.path());
    assert_eq!(under_way.len(), 4, "{under_way:?}");
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(names(folder.path()), under_way);

    write_whole(folder.path().join("a"), b"whole").unwrap();
    assert_eq!(names(folder.path()), [".tmpAbCdEf", "a", "b"]);
}

#[test]
fn permissions_are_those_of_any_new_file() {
    if let Some(folder) = folder_of_child() {
        write_whole(folder.join("a"), b"").unwrap();
        NewFolder::create(folder.join("tiles"))
            .unwrap()
            .commit()
            .unwrap();
        return;
    }
    for (umask, file, tiles) in [
        ("022", 0o644, 0o755),
        ("027", 0o640, 0o750),
        ("002", 0o664, 0o775),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let test = "permissions_are_those_of_any_new_file";
        let mut child = start(test, folder.path(), &format!("umask {umask}"));
        assert!(child.wait().unwrap().success());
        let mode = |name: &str| {
            let metadata = std::fs::metadata(folder.path().join(name)).unwrap();
            metadata.permissions().mode() & 0o777
        };
        assert_eq!((mode("a"), mode("tiles")), (file, tiles), "umask {umask}");
    }
}

/// A limit on the size of files stands for a full disk: it holds for root, too.
#[test]
fn a_full_disk_is_named_and_what_was_there_stays() {
    if let Some(folder) = folder_of_child() {
        let path = folder.join("a");
        let error = write_whole(&path, &[1; 1 << 20]).unwrap_err();
        assert!(
            matches!(&error, FileError::Io { path: named, source }
                if *named == path && source.kind() == std::io::ErrorKind::FileTooLarge),
            "{error}"
        );
        write_whole(folder.join("small"), b"fits").unwrap();
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    write_whole(folder.path().join("a"), b"old").unwrap();
    let test = "a_full_disk_is_named_and_what_was_there_stays";
    let mut child = start(test, folder.path(), "trap '' XFSZ; ulimit -f 8");
    assert!(child.wait().unwrap().success());
    assert_eq!(std::fs::read(folder.path().join("a")).unwrap(), b"old");
    assert_eq!(names(folder.path()), ["a", "small"]);
}
