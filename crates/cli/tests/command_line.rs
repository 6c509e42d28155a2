//! Help, completions, exit codes and colours, as a shell sees them.

#![expect(clippy::unwrap_used, reason = "a failure is the test's message")]

use std::process::{Command, Output};

fn run(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_stream-grad"));
    command.args(arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// Commands that the help lists.
fn commands() -> Vec<String> {
    let help = text(&run(&["--help"]).stdout);
    let lines = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    lines
        .take_while(|line| !line.is_empty())
        .filter_map(|line| line.split_whitespace().next().map(str::to_owned))
        .collect()
}

#[test]
fn help_tells_commands_and_exit_codes() {
    let output = run(&["--help"]);
    assert_eq!(output.status.code(), Some(0));
    let help = text(&output.stdout);
    for part in ["Exit codes:", "130", "Ctrl-C"] {
        assert!(help.contains(part), "{part:?} in {help}");
    }
    let commands = commands();
    assert!(commands.len() > 3, "{commands:?}");
    for command in commands {
        let output = run(&[&command, "--help"]);
        assert_eq!(output.status.code(), Some(0), "{command}");
        let help = text(&output.stdout);
        assert!(help.contains("Usage: stream-grad"), "{help}");
    }
}

#[test]
fn wrong_use_is_2_and_failure_is_1() {
    for arguments in [
        &[][..],
        &["teach"],
        &["plan", "--model", "numerics"],
        &["plan", "--model", "numerics", "--image", "64by64"],
        &["completions", "tcsh99"],
        &["calibrate", "--model", "resnet19"],
    ] {
        let output = run(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(output.stdout.is_empty() && !output.stderr.is_empty());
    }
    let missing = ["--weights", "missing.pth", "--input", "missing.safetensors"];
    let arguments = ["vjp", "--model", "numerics", "--output", "g.safetensors"];
    let output = run(&[&arguments[..], &missing].concat());
    assert_eq!(output.status.code(), Some(1));
    let message = text(&output.stderr);
    assert!(
        message.starts_with("error: ") && message.contains("missing.pth"),
        "{message}"
    );
}

#[test]
fn completions_know_every_command() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let output = run(&["completions", shell]);
        assert_eq!(output.status.code(), Some(0), "{shell}");
        let script = text(&output.stdout);
        for command in commands() {
            assert!(script.contains(&command), "{shell} lacks {command}");
        }
    }
}

/// What is no terminal gets no escape sequences, whatever `NO_COLOR` says.
#[test]
fn pipes_get_no_colours() {
    for arguments in [&["--help"][..], &["plan", "--help"], &["teach"]] {
        let output = run(arguments);
        for stream in [output.stdout, output.stderr] {
            assert!(!stream.contains(&0x1b), "{}", text(&stream));
        }
    }
}
