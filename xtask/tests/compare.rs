//! `compare` as a user runs it, without Python or with one that fails.

#![expect(clippy::unwrap_used, reason = "a failure is the test's message")]

use std::path::Path;
use std::process::{Command, Output};

fn command(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_xtask-pipelines"));
    command.current_dir(folder).args(["compare", "--quick"]);
    command
        .env("XDG_CACHE_HOME", env!("CARGO_TARGET_TMPDIR"))
        .args(["--threads", "2", "--output", "out"])
        .args(arguments);
    command
}

fn run(folder: &Path, arguments: &[&str]) -> (Output, String, String) {
    let output = command(folder, arguments).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let (table, messages) = (text(&output.stdout), text(&output.stderr));
    assert!(!messages.contains("panicked"), "{messages}");
    (output, table, messages)
}

fn report(folder: &Path) -> serde_json::Value {
    let text = std::fs::read(folder.join("out/compare.json")).unwrap();
    serde_json::from_slice(&text).unwrap()
}

fn measurements(folder: &Path) -> serde_json::Value {
    let text = std::fs::read(folder.join("out/measurements.json")).unwrap();
    serde_json::from_slice(&text).unwrap()
}

const OWN: [&str; 6] = ["--model", "numerics", "--skip", "python", "--tile", "128"];

#[test]
fn without_python_this_project_is_measured_once_and_kept() {
    let folder = tempfile::tempdir().unwrap();
    let (output, table, messages) = run(folder.path(), &OWN);
    assert!(output.status.success(), "{messages}");
    assert!(messages.contains("peers are not run"), "{messages}");
    for part in [
        "stream-grad, all memory",
        "stream-grad, tile 128",
        "rehearsal",
    ] {
        assert!(table.contains(part), "{table} lacks {part}");
    }
    let svg = folder.path().join("out/numerics-512x512-2-threads.svg");
    assert!(std::fs::read_to_string(svg).unwrap().contains("tile 128"));

    let rows = report(folder.path())["groups"][0]["rows"].clone();
    let own = |name: &str| {
        let mut rows = rows.as_array().unwrap().iter();
        rows.find(|row| row["contender"] == name).unwrap().clone()
    };
    let tiles = own("stream-grad, tile 128")["runs"][0].clone();
    let plan = &tiles["plan"];
    assert_eq!(plan["tiles"], 16);
    assert!(plan["heap_peak_bytes"].as_u64() <= plan["planned_peak_bytes"].as_u64());
    assert!(plan["compute_ratio"].as_f64().unwrap() > 1.2);
    // Single precision, in which some maxima and signs are decided the other way: neither exact nor wrong.
    let worst = tiles["error"]["worst"].as_f64().unwrap();
    assert!((1e-9..1e-2).contains(&worst), "{worst}");
    assert_eq!(tiles["error"]["compared"], 12);
    let whole = own("stream-grad, all memory")["runs"][0].clone();
    let heap = |run: &serde_json::Value| run["plan"]["heap_peak_bytes"].as_u64().unwrap();
    assert!(heap(&whole) > 2 * heap(&tiles));

    // What is there is not measured again, and a broken file is not overwritten.
    let before = measurements(folder.path());
    let (output, again, messages) = run(folder.path(), &OWN);
    assert!(output.status.success(), "{messages}");
    assert_eq!(measurements(folder.path()), before);
    assert_eq!(again, table);
    std::fs::write(folder.path().join("out/measurements.json"), "{").unwrap();
    let (output, _, messages) = run(folder.path(), &OWN);
    assert!(!output.status.success());
    assert!(messages.contains("measurements.json"), "{messages}");
}

#[test]
fn bad_input_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let (output, _, messages) = run(folder.path(), &["--model", "resnet19"]);
    assert!(!output.status.success());
    for part in ["`resnet19`", "resnet18", "numerics"] {
        assert!(messages.contains(part), "{messages} lacks {part}");
    }
    assert!(!folder.path().join("out").exists());

    let mut small = Command::new(env!("CARGO_BIN_EXE_xtask-pipelines"));
    small
        .current_dir(folder.path())
        .args(["compare", "--image", "8x9"]);
    let output = small.args(OWN).output().unwrap();
    let messages = String::from_utf8_lossy(&output.stderr);
    assert!(
        !output.status.success() && !messages.contains("panicked"),
        "{messages}"
    );

    std::fs::write(folder.path().join("file"), "").unwrap();
    let mut taken = Command::new(env!("CARGO_BIN_EXE_xtask-pipelines"));
    taken
        .current_dir(folder.path())
        .args(["compare", "--output", "file"]);
    let output = taken.args(OWN).output().unwrap();
    let messages = String::from_utf8_lossy(&output.stderr);
    assert!(
        !output.status.success() && messages.contains("file"),
        "{messages}"
    );
}

#[cfg(unix)]
mod unix {
    use std::os::unix::fs::PermissionsExt;
    use std::time::Duration;

    use super::*;

    /// A Python whose scripts do what `body` says; it knows its versions.
    fn python(folder: &Path, body: &str) -> String {
        let path = folder.join("python");
        let script = format!(
            "#!/bin/sh\ncase \"$1\" in *versions.py) echo '{{\"torch\": \"0\"}}';; *) {body};; esac\n"
        );
        std::fs::write(&path, script).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        path.display().to_string()
    }

    const TRAIN: [&str; 3] = ["--train", "--model", "resnet18"];

    /// A training of PyTorch that says it took four seconds and added as much as it is told.
    fn trained(added: u64) -> String {
        let result = format!(
            r#"{{"seconds": 4.0, "waiting_seconds": 0.1, "losses": [1, 1, 1, 1], "resident_before_bytes": 5, "resident_peak_bytes": {}}}"#,
            added + 5
        );
        format!("cp \"$2\" job; echo '{result}' > \"$3\"")
    }

    #[test]
    fn an_epoch_is_trained_beside_pytorch() {
        let folder = tempfile::tempdir().unwrap();
        let program = python(folder.path(), &trained(4 << 30));
        let mut arguments = TRAIN.to_vec();
        arguments.extend(["--python", &program]);
        let (output, table, messages) = run(folder.path(), &arguments);
        assert!(output.status.success(), "{messages}");
        let report = std::fs::read(folder.path().join("out/train/train.json")).unwrap();
        let report: serde_json::Value = serde_json::from_slice(&report).unwrap();
        let rows = report["rows"].as_array().unwrap();
        assert_eq!(rows.len(), 4);
        for row in &rows[2..] {
            let run = &row["runs"][0];
            let losses = run["losses"].as_array().unwrap();
            assert_eq!(losses.len(), 4, "{row}");
            assert!(losses.iter().all(|loss| loss.as_f64().unwrap() > 0.0));
            assert!(run["waiting_seconds"].as_f64() < run["seconds"].as_f64());
        }
        // Both ways of this project are the same training.
        let losses = |row: usize| rows[row]["runs"][0]["losses"][0].as_f64().unwrap();
        assert!((losses(2) - losses(3)).abs() < 1e-4 * losses(2), "{rows:?}");
        let bars = report["bars"].as_array().unwrap();
        assert!(
            bars.iter().all(|bar| bar["measured"].is_number()),
            "{bars:?}"
        );

        // The peer is told every slide with what is done to it.
        let job = std::fs::read(folder.path().join("job")).unwrap();
        let job: serde_json::Value = serde_json::from_slice(&job).unwrap();
        let items = job["batches"][0].as_array().unwrap();
        assert_eq!(items.len(), 4);
        for item in items {
            let path = Path::new(item["path"].as_str().unwrap());
            assert!(path.is_absolute() && path.is_file(), "{item}");
            assert!(item["label"] == 0.0 || item["label"] == 1.0, "{item}");
            assert!(item["swapped"].is_boolean() && item["contrast"][2].is_number());
        }

        // What is there is not measured again; another comparison is not mixed with it.
        let (output, again, messages) = run(folder.path(), &arguments);
        assert!(output.status.success(), "{messages}");
        assert_eq!(again, table);
        arguments[2] = "resnet34";
        let (output, _, messages) = run(folder.path(), &arguments);
        assert!(!output.status.success());
        assert!(messages.contains("--output"), "{messages}");
    }

    #[test]
    fn training_says_what_it_lacks() {
        let folder = tempfile::tempdir().unwrap();
        // A quarter of what this says holds not even the weights.
        let program = python(folder.path(), &trained(64 << 20));
        let mut arguments = TRAIN.to_vec();
        arguments.extend(["--python", &program]);
        let (output, table, messages) = run(folder.path(), &arguments);
        assert!(output.status.success(), "{messages}");
        assert!(table.contains("a quarter is 16.00 MiB"), "{table}");

        let arguments = ["--train", "--model", "numerics"];
        let (output, _, messages) = run(folder.path(), &arguments);
        assert!(!output.status.success());
        assert!(messages.contains("resnet34"), "{messages}");
    }

    const PEERS: [&str; 6] = ["--model", "resnet18", "--skip", "error", "--tile", "256"];

    #[test]
    fn a_peer_that_fails_is_named_and_the_others_go_on() {
        let folder = tempfile::tempdir().unwrap();
        let python = python(folder.path(), "echo it is broken >&2; exit 4");
        let mut arguments = PEERS.to_vec();
        arguments.extend(["--python", &python]);
        let (output, table, messages) = run(folder.path(), &arguments);
        assert!(output.status.success(), "{messages}");
        for peer in [
            "PyTorch ",
            "PyTorch, channels_last",
            "PyTorch, checkpointing",
            "lightstream",
        ] {
            let row = table.lines().find(|line| line.starts_with(peer)).unwrap();
            assert!(row.contains("it is broken"), "{table}");
        }
        assert!(table.contains("stream-grad, all memory"), "{table}");

        // Neither is there one that is no Python.
        let (output, table, messages) = run(
            folder.path(),
            &["--python", "no-python", "--model", "numerics"],
        );
        assert!(output.status.success(), "{messages}");
        assert!(table.contains("no-python"), "{table}");
    }

    #[test]
    fn an_interrupted_run_says_so_and_keeps_what_it_has() {
        let folder = tempfile::tempdir().unwrap();
        // If it were waited for, this test would never end.
        let python = python(folder.path(), "exec sleep infinity");
        let mut arguments = PEERS.to_vec();
        arguments.extend(["--python", &python]);
        let mut child = command(folder.path(), &arguments)
            .stderr(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        // The first contender's job is written just before it starts.
        let job = folder.path().join("out/work/job.json");
        while !job.exists() {
            assert_eq!(child.try_wait().unwrap(), None, "it ended before its job");
            std::thread::sleep(Duration::from_millis(50));
        }
        let kill = Command::new("kill")
            .args(["-INT", &child.id().to_string()])
            .status();
        assert!(kill.unwrap().success());
        let output = child.wait_with_output().unwrap();
        let messages = String::from_utf8_lossy(&output.stderr);
        assert!(
            !output.status.success() && messages.contains("to go on from here"),
            "{messages}"
        );
    }
}
