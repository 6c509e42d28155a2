//! `calibrate` as a person would call it.

#![expect(clippy::unwrap_used, reason = "a failure is the test's message")]

use std::path::Path;
use std::process::Command;

fn calibrate(cache: &Path) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_stream-grad"));
    let output = command
        .env("XDG_CACHE_HOME", cache)
        .args(["calibrate", "--model", "numerics", "--threads", "1"])
        .output()
        .unwrap();
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{message}");
    String::from_utf8(output.stdout).unwrap()
}

/// The only file of the cache.
fn stored(cache: &Path) -> String {
    let files = std::fs::read_dir(cache.join("stream-grad")).unwrap();
    let files: Vec<_> = files.map(|file| file.unwrap().path()).collect();
    assert_eq!(files.len(), 1);
    std::fs::read_to_string(&files[0]).unwrap()
}

#[test]
fn what_was_stored_is_shown_and_replaced() {
    let cache = tempfile::tempdir().unwrap();
    let text = calibrate(cache.path());
    assert!(
        text.contains("direct convolution") && text.contains("(-)"),
        "{text}"
    );
    let first = stored(cache.path());
    let text = calibrate(cache.path());
    assert!(!text.contains("(-)"), "{text}");
    // Measured times differ from run to run.
    assert_ne!(stored(cache.path()), first);
    let place = cache.path().join("stream-grad");
    assert!(text.contains(place.to_str().unwrap()), "{text}");
}
