//! `plan` as a person would call it.

#![expect(clippy::unwrap_used, reason = "a failure is the test's message")]

use std::process::Command;

fn plan(arguments: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_xtask-pipelines"));
    let output = command
        .env("XDG_CACHE_HOME", env!("CARGO_TARGET_TMPDIR"))
        .arg("plan")
        .args(arguments)
        .output()
        .unwrap();
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{message}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_resnet34_streams_four_gigapixels_in_8_gib() {
    let arguments = ["--model", "resnet34", "--image", "65536x65536"];
    let text = plan(&[&arguments[..], &["--memory", "8GiB"]].concat());
    let line = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap_or_else(|| panic!("no `{name}` in {text}"))
            .trim()
    };
    assert_eq!(line("features "), "512 x 2048 x 2048, streamed");
    let (peak, unit) = line("peak memory ").split_once(' ').unwrap();
    let peak: f64 = peak.parse().unwrap();
    assert!(unit == "MiB" || (unit == "GiB" && peak <= 8.0), "{text}");
    let seconds: f64 = line("predicted time ")
        .trim_end_matches(" s")
        .parse()
        .unwrap();
    assert!(seconds > 0.0, "{text}");
    let ratio: f64 = line("compute ratio ").parse().unwrap();
    assert!((1.0..2.0).contains(&ratio), "{text}");
}
