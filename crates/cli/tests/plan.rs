//! `plan` as a person would call it.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a failure is the test's message"
)]

#[path = "../../slides/tests/common/assets.rs"]
mod slide_files;

use std::process::{Command, Output};

fn output(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_stream-grad"));
    command
        .env("XDG_CACHE_HOME", env!("CARGO_TARGET_TMPDIR"))
        .arg("plan")
        .args(arguments)
        .output()
        .unwrap()
}

fn plan(arguments: &[&str]) -> String {
    let output = output(arguments);
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

#[test]
fn what_is_computed_once_is_told_of_a_slide_and_of_a_size_that_it_depends() {
    let common = ["--model", "numerics", "--tile", "32", "--background"];
    let of_size = ["--image", "2048x2048"];
    let text = plan(&[&common[..], &["fill"], &of_size].concat());
    assert!(text.contains("depends on the image"), "{text}");
    let slide = slide_files::asset("default.svs");
    let of_slide = ["--slide", slide.to_str().unwrap(), "--mpp", "4"];
    let text = plan(&[&common[..], &["fill"], &of_slide].concat());
    let line = text.lines().find(|line| line.contains("computed forward"));
    let line = line.unwrap_or_else(|| panic!("{text}"));
    let numbers = line.split(|other: char| !other.is_ascii_digit());
    let numbers: Vec<usize> = numbers.filter_map(|number| number.parse().ok()).collect();
    assert!(
        numbers[1] <= numbers[0] && numbers[2] <= numbers[0],
        "{line}"
    );
    let text = plan(&[&common[..], &["as_read"], &of_slide].concat());
    assert!(!text.contains("computed once"), "{text}");
}

/// Rows of the table of recipes, and that of the plan.
fn rows(text: &str) -> (usize, usize) {
    let table = text
        .lines()
        .skip_while(|line| !line.contains("compute ratio  segments"));
    let rows: Vec<&str> = table.skip(1).filter(|line| line.contains(" s ")).collect();
    let chosen = rows.iter().filter(|row| row.starts_with('*')).count();
    (rows.len(), chosen)
}

#[test]
fn a_dozen_recipes_are_shown_and_all_on_request() {
    let folder = tempfile::tempdir().unwrap();
    let picture = folder.path().join("front.svg");
    let arguments = [
        "--model",
        "numerics",
        "--image",
        "4096x4096",
        "--threads",
        "1",
    ];
    let few = plan(&[&arguments[..], &["--memory", "1GiB"]].concat());
    let (shown, chosen) = rows(&few);
    assert!((3..=12).contains(&shown) && chosen == 1, "{few}");
    let plot = ["--all", "--plot", picture.to_str().unwrap()];
    let all = plan(&[&arguments[..], &plot].concat());
    let (every, chosen) = rows(&all);
    assert!(every > 12 && chosen == 1, "{all}");
    assert!(
        std::fs::read_to_string(picture)
            .unwrap()
            .starts_with("<svg")
    );
}

#[test]
fn too_many_threads_are_refused_at_once() {
    let arguments = [
        "--model",
        "numerics",
        "--image",
        "4096x4096",
        "--threads",
        "999999",
    ];
    let output = output(&arguments);
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(
        !output.status.success()
            && message.contains("999999 threads on")
            && message.contains("at most"),
        "{message}"
    );
}
