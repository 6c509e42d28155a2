//! `init` and `train` as a group uses them for slides and a table of its own.

#![expect(clippy::unwrap_used, reason = "a failure is the test's message")]

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::AtomicBool;

use stream_grad_train::cohort::{CohortConfig, SplitSizes, generate};
use stream_grad_train::data::Label;

/// A folder with ten slides and `cases.csv`, whose columns have names of their own.
struct Cases {
    folder: tempfile::TempDir,
}

impl Cases {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config = CohortConfig {
            splits: SplitSizes {
                train: 4,
                validation: 2,
                test: 4,
            },
            ..CohortConfig::default()
        };
        let slides = folder.path().join("slides");
        let samples = generate(&config, &slides, &AtomicBool::new(false), &|_, _| ());
        let mut table = "File;Diagnosis;Case;Part;Scanner\n".to_owned();
        for (place, sample) in samples.unwrap().unwrap().into_iter().enumerate() {
            let name = sample.slide.file_name().unwrap().to_str().unwrap();
            let diagnosis = if sample.label == Some(Label::of_class(1)) {
                "malignant"
            } else {
                "benign"
            };
            let split = sample.split.unwrap().name();
            writeln!(table, "slides/{name};{diagnosis};case {place};{split};A").unwrap();
        }
        std::fs::write(folder.path().join("cases.csv"), table).unwrap();
        Self { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        command(self.folder.path(), arguments)
    }

    /// Trains for a few epochs at the coarsest resolution, into `output`.
    fn train(&self, output: &str, more: &[&str]) -> Command {
        let output = ["--output", output, "--mpp", "8"];
        self.command(&[&["train"], &COLUMNS[..], &output, more].concat())
    }

    fn predictions(&self, output: &str) -> String {
        let file = self.path(output).join("8-microns/predictions.csv");
        std::fs::read_to_string(file).unwrap()
    }
}

const COLUMNS: [&str; 14] = [
    "--csv",
    "cases.csv",
    "--slide-column",
    "file",
    "--label-column",
    "diagnosis",
    "--patient-column",
    "case",
    "--split-column",
    "part",
    "--classes",
    "benign,malignant",
    "--task",
    "binary",
];

fn command(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_stream-grad"));
    command
        .env("XDG_CACHE_HOME", env!("CARGO_TARGET_TMPDIR"))
        .current_dir(folder)
        .args(arguments);
    command
}

/// Exit code and messages.
fn ended(output: Output) -> (Option<i32>, String) {
    let messages = String::from_utf8(output.stderr).unwrap();
    assert!(!messages.contains("panicked"), "{messages}");
    (output.status.code(), messages)
}

fn run(mut command: Command) -> (Option<i32>, String) {
    ended(command.output().unwrap())
}

#[test]
fn a_table_with_columns_of_its_own_is_trained_on() {
    let cases = Cases::new();
    let (code, messages) = run(cases.train("out", &["--epochs", "2"]));
    assert_eq!(code, Some(0), "{messages}");
    let samples = std::fs::read_to_string(cases.path("out/samples.csv")).unwrap();
    assert!(samples.contains("case 3"), "{samples}");
    let first = cases.predictions("out");

    // The same command finds everything done.
    let (code, messages) = run(cases.train("out", &["--epochs", "2"]));
    assert_eq!(code, Some(0), "{messages}");
    assert!(!messages.contains("epoch 1"), "{messages}");
    assert_eq!(cases.predictions("out"), first);

    // The report is made anew from the folder alone.
    let report = cases.path("out/report.html");
    std::fs::remove_file(&report).unwrap();
    let (code, messages) = run(cases.command(&["report", "out"]));
    assert_eq!(code, Some(0), "{messages}");
    assert!(report.is_file());
    let (code, messages) = run(cases.command(&["report", "slides"]));
    assert_eq!(code, Some(1), "{messages}");
    assert!(messages.contains("slides"), "{messages}");

    // The model predicts all slides of the table.
    let model = "out/8-microns/model.safetensors";
    let table = ["--csv", "cases.csv", "--slide-column", "file"];
    let output = ["--output", "again.csv"];
    let (code, messages) = run(cases.command(&[&["predict", model], &table[..], &output].concat()));
    assert_eq!(code, Some(0), "{messages}");
    let again = std::fs::read_to_string(cases.path("again.csv")).unwrap();
    assert_eq!(again.lines().count(), 1 + 10, "{again}");

    // Another number of epochs is another run.
    let (code, messages) = run(cases.train("out", &["--epochs", "3"]));
    assert_eq!(code, Some(1), "{messages}");
    for part in ["train.epochs", "2", "3", "another folder"] {
        assert!(messages.contains(part), "{part:?} in {messages}");
    }
    assert_eq!(cases.predictions("out"), first);
}

#[test]
fn a_file_that_init_wrote_is_trained_by_and_flags_go_before_it() {
    let cases = Cases::new();
    let more = ["--mpp", "8", "--epochs", "7"];
    let init = [&["init"], &COLUMNS[..], &more].concat();
    let (code, messages) = run(cases.command(&init));
    assert_eq!(code, Some(0), "{messages}");
    let text = std::fs::read_to_string(cases.path("run.toml")).unwrap();
    for line in [
        "csv = \"cases.csv\"",
        "label_column = \"diagnosis\"",
        "epochs = 7",
        "microns_per_pixel = [8.0]",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} in {text}");
    }

    let (code, messages) = run(cases.command(&init));
    assert_eq!(code, Some(2), "{messages}");
    assert!(messages.contains("run.toml is there already"), "{messages}");
    assert_eq!(
        std::fs::read_to_string(cases.path("run.toml")).unwrap(),
        text
    );

    // From another folder, whence the table has another name.
    let elsewhere = tempfile::tempdir().unwrap();
    let file = cases.path("run.toml");
    let arguments = ["train", file.to_str().unwrap(), "--epochs", "1"];
    let (code, messages) = run(command(elsewhere.path(), &arguments));
    assert_eq!(code, Some(0), "{messages}");
    let output = elsewhere.path().join("runs/run");
    assert!(output.join("8-microns/predictions.csv").is_file());
    let kept = std::fs::read_to_string(output.join("run.toml")).unwrap();
    assert!(kept.contains("epochs = 1\n"), "{kept}");
}

/// The training that was stopped ends as one that was not, bit for bit.
#[cfg(unix)]
#[test]
fn ctrl_c_is_130_and_the_same_command_goes_on() {
    use std::io::{BufRead, BufReader};
    use std::process::Stdio;

    let cases = Cases::new();
    let epochs = ["--epochs", "8"];
    let mut child = cases
        .train("stopped", &epochs)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let reached = lines
        .map_while(Result::ok)
        .any(|line| line.contains("epoch 2"));
    assert!(reached, "it ended before its second epoch");
    let pid = child.id().to_string();
    let send = |signal: &str| {
        let sent = Command::new("kill").args([signal, &pid]).status().unwrap();
        assert!(sent.success());
    };
    // While it trains, no other process does so there.
    send("-STOP");
    let (code, messages) = run(cases.train("stopped", &epochs));
    send("-CONT");
    assert_eq!(code, Some(1), "{messages}");
    for part in ["stopped: another process trains", "another folder"] {
        assert!(messages.contains(part), "{part:?} in {messages}");
    }
    send("-INT");
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert!(!cases.path("stopped/8-microns/result.json").exists());

    // How images are cut follows from what was measured of this machine, and the last bits of sums from that.
    let recipes = |output: &str| {
        cases
            .path(output)
            .join("8-microns/checkpoints/recipes.json")
    };
    std::fs::create_dir_all(recipes("unbroken").parent().unwrap()).unwrap();
    std::fs::copy(recipes("stopped"), recipes("unbroken")).unwrap();
    for output in ["stopped", "unbroken"] {
        let (code, messages) = run(cases.train(output, &epochs));
        assert_eq!(code, Some(0), "{messages}");
        let begins_anew = messages.contains("epoch 1:");
        assert_eq!(begins_anew, output == "unbroken", "{messages}");
    }
    assert_eq!(cases.predictions("stopped"), cases.predictions("unbroken"));
}

/// Table, slides and settings are moved together, and the same command goes on with what there is.
#[test]
fn data_may_be_moved_and_the_training_goes_on() {
    let cases = Cases::new();
    let (code, messages) = run(cases.train("out", &["--epochs", "1"]));
    assert_eq!(code, Some(0), "{messages}");
    let moved = cases.path("moved");
    std::fs::create_dir(&moved).unwrap();
    for name in ["slides", "cases.csv"] {
        std::fs::rename(cases.path(name), moved.join(name)).unwrap();
    }
    let output = cases.path("out");
    let output = [
        "--output",
        output.to_str().unwrap(),
        "--mpp",
        "8",
        "--epochs",
        "1",
    ];
    let arguments = [&["train"], &COLUMNS[..], &output].concat();
    let (code, messages) = run(command(&moved, &arguments));
    assert_eq!(code, Some(0), "{messages}");
    assert!(!messages.contains("epoch 1"), "{messages}");
    let kept = std::fs::read_to_string(cases.path("out/run.toml")).unwrap();
    assert!(kept.contains("moved/cases.csv"), "{kept}");

    // Another slide in the place of one is another run.
    let slides = std::fs::read_dir(moved.join("slides")).unwrap();
    let mut slides: Vec<PathBuf> = slides.map(|entry| entry.unwrap().path()).collect();
    slides.retain(|slide| slide.extension().is_some_and(|ending| ending == "tif"));
    slides.sort();
    std::fs::rename(&moved, cases.path("again")).unwrap();
    let again = cases.path("again/slides");
    std::fs::copy(
        again.join(slides[0].file_name().unwrap()),
        again.join(slides[9].file_name().unwrap()),
    )
    .unwrap();
    let (code, messages) = run(command(&cases.path("again"), &arguments));
    assert_eq!(code, Some(1), "{messages}");
    assert!(messages.contains("another content"), "{messages}");
}

#[test]
fn wrong_settings_are_named_and_nothing_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    std::fs::write(path.join("a.svs"), "").unwrap();
    std::fs::write(path.join("cases.csv"), "File,Grade,Center\na.svs,1,x\n").unwrap();
    std::fs::write(path.join("typo.toml"), "[train]\nepoch = 3\n").unwrap();
    let csv = ["--csv", "cases.csv", "--slide-column", "file"];
    for (arguments, code, parts) in [
        (&[][..], 2, &["init", "--csv"][..]),
        (&["missing.toml"], 2, &["missing.toml"]),
        (
            &["typo.toml"],
            2,
            &["typo.toml", "line 2", "`epoch`", "`epochs`"],
        ),
        (&["--set", "train.epoch=3"], 2, &["--csv"]),
        (
            &[&csv[..], &["--set", "train.epoch=3"]].concat(),
            2,
            &["--set train.epoch=3", "`epochs`"],
        ),
        (
            &[&csv[..], &["--set", "epochs"]].concat(),
            2,
            &["KEY=VALUE"],
        ),
        (
            &[&csv[..], &["--epochs", "0"]].concat(),
            2,
            &["train.epochs", "1 or more"],
        ),
        (
            &[&csv[..], &["--task", "ordinal"]].concat(),
            2,
            &["--classes"],
        ),
        (
            &[&csv[..], &["--label-column", "gleason"]].concat(),
            1,
            &["gleason", "Grade", "Center"],
        ),
        (&[&csv[..], &["--csv", "none.csv"]].concat(), 2, &["--csv"]),
        (&["--csv", "none.csv"], 1, &["none.csv"]),
    ] {
        let (found, messages) = run(command(path, &[&["train"], arguments].concat()));
        assert_eq!(found, Some(code), "{arguments:?}: {messages}");
        for part in parts {
            assert!(messages.contains(part), "{part:?} in {messages}");
        }
        assert!(!path.join("runs").exists(), "{arguments:?}");
    }
}
