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
    use std::time::{Duration, Instant};

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
        let python = python(folder.path(), "exec sleep 60");
        let mut arguments = PEERS.to_vec();
        arguments.extend(["--python", &python]);
        let start = Instant::now();
        let child = command(folder.path(), &arguments)
            .stderr(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        // The first contender's job is written just before it starts.
        let job = folder.path().join("out/work/job.json");
        while !job.exists() && start.elapsed() < Duration::from_secs(30) {
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
        assert!(
            start.elapsed() < Duration::from_secs(50),
            "it waited for its child"
        );
    }
}
