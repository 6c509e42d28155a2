//! Tests that start themselves anew as a process of their own, which may be killed.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// Tells a process that a test started it, and where it may write.
const FOLDER: &str = "STREAM_GRAD_TEST_FOLDER";

/// Where the process may write, if a test started it.
pub(crate) fn folder_of_child() -> Option<PathBuf> {
    std::env::var_os(FOLDER).map(PathBuf::from)
}

/// Starts the test of that name in a process of its own, after the shell has done `first`.
pub(crate) fn start(test: &str, folder: &Path, first: &str) -> Child {
    Command::new("sh")
        .args(["-c", &format!("{first}; exec \"$0\" \"$@\"")])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(FOLDER, folder)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}
