//! `reproduce memory` and `reproduce numerics` as a user runs them.

#![expect(clippy::unwrap_used, reason = "a failure is the test's message")]

use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

fn command(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_xtask-pipelines"));
    command
        .current_dir(folder)
        .env("XDG_CACHE_HOME", env!("CARGO_TARGET_TMPDIR"))
        .arg("reproduce")
        .args(arguments);
    command
}

const MEMORY: [&str; 6] = ["memory", "--quick", "--threads", "2", "--output", "out"];

fn texts(output: &Output) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let (table, messages) = (text(&output.stdout), text(&output.stderr));
    assert!(!messages.contains("panicked"), "{messages}");
    (table, messages)
}

fn json(path: &Path) -> serde_json::Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

#[test]
fn memory_is_planned_and_measured_and_goes_on_after_a_kill() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let steps = || {
        let path = out.join("measurements.json");
        let steps = path.exists().then(|| json(&path)["steps"].clone());
        steps.map_or(0, |steps| steps.as_object().unwrap().len())
    };
    // A kill between two measurements.
    let mut child = command(folder.path(), &MEMORY)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    while steps() < 2 {
        assert_eq!(child.try_wait().unwrap(), None, "it ended before a kill");
        std::thread::sleep(Duration::from_millis(20));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let before = json(&out.join("measurements.json"));
    let kept = steps();
    assert!((2..8).contains(&kept), "{kept}");

    let output = command(folder.path(), &MEMORY).output().unwrap();
    let (table, messages) = texts(&output);
    assert!(output.status.success(), "{messages}");
    assert!(messages.contains("steps to measure"), "{messages}");
    let after = json(&out.join("measurements.json"));
    for (key, step) in before["steps"].as_object().unwrap() {
        assert_eq!(&after["steps"][key], step, "{key} was measured again");
    }
    assert_eq!(steps(), 8);
    for part in ["conventional", "least memory, offloaded", "about 50 GB"] {
        assert!(table.contains(part), "{table} lacks {part}");
    }

    let rows = json(&out.join("memory.json"))["rows"].clone();
    let rows = rows.as_array().unwrap();
    assert_eq!(rows.len(), 12);
    for row in rows {
        let planned = row["planned"]["peak_bytes"].as_u64().unwrap();
        let measured = row["measured"]["heap_peak_bytes"].as_u64();
        assert_eq!(
            measured.is_some(),
            row["edge"].as_u64().unwrap() < 8192,
            "{row}"
        );
        if let Some(measured) = measured {
            assert!(measured <= planned, "{measured} of {planned}: {row}");
            assert_eq!(row["conventional"]["basis"], "measured", "{row}");
        } else {
            assert_eq!(row["conventional"]["basis"], "planned", "{row}");
        }
    }
    // What is saved grows with the image.
    let saved = |edge: u64| {
        let mut rows = rows.iter();
        let row = rows.find(|row| row["edge"] == edge && row["way"] == "least memory");
        row.unwrap()["conventional"]["bytes_saved"]
            .as_i64()
            .unwrap()
    };
    assert!(
        saved(8192) > 100 * saved(512).max(1),
        "{} {}",
        saved(8192),
        saved(512)
    );
    let figures = std::fs::read_dir(out.join("figures")).unwrap();
    let figures: Vec<_> = figures.map(|figure| figure.unwrap().path()).collect();
    assert_eq!(figures.len(), 1, "{figures:?}");
    let figure = std::fs::read_to_string(&figures[0]).unwrap();
    assert!(figure.starts_with("<svg") && figure.contains("least memory"));
    assert_eq!(
        std::fs::read_to_string(out.join("memory.csv"))
            .unwrap()
            .lines()
            .count(),
        13
    );
    let report = std::fs::read_to_string(out.join("report.html")).unwrap();
    assert!(report.contains("Saved for each image") && report.contains("about 50 GB"));

    // There is nothing left to do.
    let output = command(folder.path(), &MEMORY).output().unwrap();
    let (again, messages) = texts(&output);
    assert_eq!(again, table);
    assert!(!messages.contains("steps to measure"), "{messages}");
}

#[test]
fn numerics_end_in_files() {
    let folder = tempfile::tempdir().unwrap();
    let arguments = [
        "numerics", "--image", "128", "--tile", "64", "--output", "a/b",
    ];
    let output = command(folder.path(), &arguments).output().unwrap();
    let (table, messages) = texts(&output);
    assert!(output.status.success(), "{messages}");
    assert!(table.contains("published"), "{table}");
    let result = json(&folder.path().join("a/b/numerics.json"));
    let rows = result["rows"].as_array().unwrap();
    assert_eq!(rows.len(), 13);
    for row in rows {
        let relative = row["relative_l2"].as_f64().unwrap();
        assert!(relative < 1e-12, "{row}");
    }
    let csv = std::fs::read_to_string(folder.path().join("a/b/numerics.csv")).unwrap();
    assert_eq!(csv.lines().count(), 14);
    let report = std::fs::read_to_string(folder.path().join("a/b/report.html")).unwrap();
    assert!(report.contains("published_to") && report.contains("notebook"));
}
