//! `reproduce imagenette` as a user runs it.

#![expect(clippy::unwrap_used, reason = "a failure is the test's message")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

/// Few small textures and epochs.
const SETTINGS: &str = "
tile = 16
[pictures]
size = 48
[train]
epochs = 5
[textures]
size = 64
train = 2
validation = 1
";

fn command(folder: &Path, arguments: &[&str]) -> Command {
    std::fs::write(folder.join("small.toml"), SETTINGS).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_xtask-pipelines"));
    command
        .current_dir(folder)
        .args(["reproduce", "imagenette"])
        .args(arguments);
    command
}

fn reproduce(folder: &Path, arguments: &[&str]) -> Output {
    command(folder, arguments).output().unwrap()
}

fn messages(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn text(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap()
}

/// Whether a training has finished an epoch.
fn has_begun(out: &Path, way: &str) -> bool {
    let checkpoints = out.join("trainings").join(way).join("checkpoints");
    let Ok(entries) = std::fs::read_dir(checkpoints) else {
        return false;
    };
    let mut names = entries.map(|entry| entry.unwrap().file_name());
    names.any(|name| name.to_str().unwrap().starts_with("epoch-0001"))
}

#[test]
fn killed_in_either_training_it_ends_as_unbroken() {
    let folder = tempfile::tempdir().unwrap();
    let arguments = |output| ["--settings", "small.toml", "--output", output];
    let output = reproduce(folder.path(), &arguments("whole"));
    assert!(output.status.success(), "{}", messages(&output));
    let printed = String::from_utf8(output.stdout).unwrap();
    for part in ["validation accuracy", "about 0.70", "final weights"] {
        assert!(printed.contains(part), "{printed}");
    }
    let out = folder.path().join("broken");
    for way in ["streamed", "conventional"] {
        let mut child = command(folder.path(), &arguments("broken"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        while !has_begun(&out, way) && child.try_wait().unwrap().is_none() {
            std::thread::sleep(Duration::from_millis(1));
        }
        child.kill().unwrap();
        child.wait().unwrap();
    }
    let output = reproduce(folder.path(), &arguments("broken"));
    assert!(output.status.success(), "{}", messages(&output));
    let whole = folder.path().join("whole");
    for table in ["imagenette.csv", "weights.csv", "compared.csv"] {
        assert_eq!(text(&whole.join(table)), text(&out.join(table)), "{table}");
    }
    let epochs = text(&whole.join("imagenette.csv"));
    assert_eq!(epochs.lines().count(), 6, "{epochs}");
    let report = text(&whole.join("report.html"));
    for part in ["20 pictures to learn from, 10 to validate with", "395,178"] {
        assert!(report.contains(part), "the report lacks {part}");
    }

    // Other settings in the same folder.
    let other = SETTINGS.replace("tile = 16", "tile = 32");
    std::fs::write(folder.path().join("other.toml"), other).unwrap();
    let arguments = ["--settings", "other.toml", "--output", "whole"];
    let output = reproduce(folder.path(), &arguments);
    let said = messages(&output);
    assert!(said.contains("tile is 16 there and 32 here"), "{said}");
    given_pictures(folder.path(), &whole.join("textures"));
}

/// The same pictures as given ones, one of which is damaged.
fn given_pictures(folder: &Path, textures: &Path) {
    let damaged = textures.join("train/rings/0000.jpg");
    std::fs::write(&damaged, "no picture").unwrap();
    let data = textures.to_str().unwrap();
    let arguments = [
        "--data",
        data,
        "--settings",
        "small.toml",
        "--output",
        "given",
    ];
    let output = reproduce(folder, &arguments);
    let said = messages(&output);
    assert!(output.status.success(), "{said}");
    // Named once for each training, not in each epoch.
    assert_eq!(said.matches("skipped ").count(), 2, "{said}");
    let report = text(&folder.join("given/report.html"));
    assert!(
        report.contains("could not be used at least once: 1,"),
        "{report}"
    );
    assert!(!report.contains("are made up"));

    let class: PathBuf = textures.join("val/rings");
    std::fs::remove_dir_all(&class).unwrap();
    std::fs::create_dir(&class).unwrap();
    let output = reproduce(folder, &arguments);
    let said = messages(&output);
    assert!(!output.status.success());
    assert!(
        said.contains("rings: expected pictures of this class"),
        "{said}"
    );
}

#[test]
fn unknown_keys_and_folders_are_refused_before_anything_is_written() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("wrong.toml"), "[train]\nepoch = 3\n").unwrap();
    std::fs::create_dir(folder.path().join("empty")).unwrap();
    let output = reproduce(folder.path(), &["--settings", "wrong.toml"]);
    let said = messages(&output);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(
        said.contains("the nearest is `epochs` in [train]"),
        "{said}"
    );
    let output = reproduce(folder.path(), &["--data", "empty"]);
    let said = messages(&output);
    assert!(!output.status.success());
    assert!(said.contains("below `train` and `val`"), "{said}");
    assert!(!folder.path().join("runs").exists());
}
