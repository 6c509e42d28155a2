//! Every file of the corpus, cut short and with single bytes changed: an error, or the pixels that bare OpenSlide returns.
//!
//! Each case runs in a process of its own, with a bound on its memory (1 GiB of address space) and its time. By default a
//! sample of the cases is run, about twenty seconds of it; `SLIDES_DAMAGE=full` runs 200 cuts and 2,000 changed bytes of
//! every file, and says on standard error how far it is. `SLIDES_DAMAGE_FILES=a.tiff,b.png` runs only these files. What happened is
//! printed and kept as `damage.csv` in cargo's folder for tests; README.md beside this file has the table of a full run.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    reason = "a test: small numbers, and a panic is how it fails"
)]

mod case;
#[path = "../common/mod.rs"]
mod common;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use case::{Outcome, PATH_VARIABLE, READER_VARIABLE, Reader};
use common::corpus::CORPUS;

/// No case may take longer. One that does is tried once more when nothing else of this test runs: the machine may have been
/// busy.
const TIME: Duration = Duration::from_secs(10);

/// Progress is told so often.
const REPORT: Duration = Duration::from_secs(10);

/// One damaged file and what became of it.
type Found = (&'static str, Damage, Outcome, Duration);

/// What is done to a file.
#[derive(Clone, Copy, Debug)]
enum Damage {
    /// It ends after so many bytes.
    Cut(usize),
    /// The byte at this place gets these bits flipped.
    Changed(usize, u8),
}

impl Damage {
    fn apply(self, bytes: &[u8]) -> Vec<u8> {
        match self {
            Self::Cut(length) => bytes[..length].to_vec(),
            Self::Changed(place, bits) => {
                let mut bytes = bytes.to_vec();
                bytes[place] ^= bits;
                bytes
            }
        }
    }

    /// Cuts all over the file; changed bytes all over it, but every fourth one among the first and the last kilobyte, where
    /// the structure of most formats is.
    fn all(length: usize, cuts: usize, changes: usize) -> Vec<Self> {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut random = |limit: usize| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            usize::try_from(state % limit as u64).unwrap()
        };
        let mut all: Vec<Self> = (0..cuts)
            .map(|cut| Self::Cut(length * cut / cuts))
            .collect();
        all.extend((0..changes).map(|change| {
            let place = match change % 8 {
                0 => random(length.min(1024)),
                4 => length - 1 - random(length.min(1024)),
                _ => random(length),
            };
            // One bit, or the whole byte.
            let bits = if change % 3 == 0 {
                0xff
            } else {
                1 << random(8)
            };
            Self::Changed(place, bits)
        }));
        all
    }
}

/// Cuts and changes of each file.
fn amounts(length: usize) -> (usize, usize) {
    match std::env::var("SLIDES_DAMAGE").as_deref() {
        Ok("full") => (200, 2000),
        Ok(other) => panic!("SLIDES_DAMAGE must be `full` or not be set, found `{other}`"),
        // The real slide takes a tenth of a second to read.
        Err(_) if length > 1 << 20 => (4, 16),
        Err(_) => (10, 40),
    }
}

#[test]
fn damaged_files_are_refused_or_read_as_openslide_reads_them() {
    // A process that this test started for one case comes here, too.
    if let Some(path) = std::env::var_os(PATH_VARIABLE) {
        return case::run(Path::new(&path));
    }
    let folder = tempfile::tempdir().unwrap();
    let only = std::env::var("SLIDES_DAMAGE_FILES").ok();
    let is_wanted = |name: &str| {
        only.as_ref()
            .is_none_or(|only| only.split(',').any(|file| file == name))
    };
    let mut cases = Vec::new();
    for entry in CORPUS.iter().filter(|entry| is_wanted(entry.name)) {
        let bytes = std::fs::read(entry.file(folder.path())).unwrap();
        let (cuts, changes) = amounts(bytes.len());
        for damage in Damage::all(bytes.len(), cuts, changes) {
            cases.push((entry.name, damage));
        }
    }
    let originals: BTreeMap<&str, Vec<u8>> = CORPUS
        .iter()
        .map(|entry| {
            (
                entry.name,
                std::fs::read(entry.file(folder.path())).unwrap(),
            )
        })
        .collect();
    let start = Instant::now();
    let found = try_all(&cases, |name, damage| {
        let place = tempfile::tempdir_in(folder.path()).unwrap();
        let path = place.path().join(name);
        std::fs::write(&path, damage.apply(&originals[name])).unwrap();
        run(&path)
    });
    assert_eq!(found.len(), cases.len());
    report(&found, start.elapsed());
    let wrong: Vec<String> = found
        .iter()
        .filter(|(.., outcome, _)| outcome.is_wrong())
        .map(|(name, damage, outcome, _)| format!("{name}, {damage:?}: {outcome:?}"))
        .collect();
    assert!(
        wrong.is_empty(),
        "{} cases:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
    // The cases must be worth something: many damaged files are refused, and many are read.
    let count = |wanted: Outcome| {
        found
            .iter()
            .filter(|(.., outcome, _)| *outcome == wanted)
            .count()
    };
    let (refused, same) = (count(Outcome::Refused), count(Outcome::Same));
    assert!(
        refused * 4 > cases.len() && same * 10 > cases.len(),
        "{refused} refused, {same} read"
    );
}

/// Tries all cases with `outcome_of`, as many at once as there are cores, and tells on standard error how far it is.
fn try_all(
    cases: &[(&'static str, Damage)],
    outcome_of: impl Fn(&str, Damage) -> Outcome + Sync,
) -> Vec<Found> {
    let try_one = |name: &'static str, damage: Damage| -> Found {
        let start = Instant::now();
        (name, damage, outcome_of(name, damage), start.elapsed())
    };
    let start = Instant::now();
    let next = AtomicUsize::new(0);
    let state: Mutex<(Vec<Found>, Instant)> = Mutex::new((Vec::new(), start));
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().unwrap().get() {
            scope.spawn(|| {
                while let Some(&(name, damage)) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let case = try_one(name, damage);
                    let (found, told) = &mut *state.lock().unwrap();
                    found.push(case);
                    if told.elapsed() > REPORT {
                        *told = Instant::now();
                        let (done, seconds) = (found.len(), start.elapsed().as_secs());
                        eprintln!("{done} of {} cases in {seconds} s, now {name}", cases.len());
                    }
                }
            });
        }
    });
    let (mut found, _) = state.into_inner().unwrap();
    for case in found.iter_mut().filter(|case| case.2 == Outcome::Hung) {
        *case = try_one(case.0, case.1);
    }
    found
}

/// Numbers by file, on standard output and as a table.
fn report(found: &[Found], took: Duration) {
    let mut table =
        String::from("file,cases,refused,same_as_openslide,openslide_crashed,wrong,longest_ms\n");
    for entry in &CORPUS {
        let of_file = || found.iter().filter(|(name, ..)| *name == entry.name);
        let count = |wanted: fn(&Outcome) -> bool| {
            of_file().filter(|(.., outcome, _)| wanted(outcome)).count()
        };
        let longest = of_file()
            .map(|(.., time)| time.as_millis())
            .max()
            .unwrap_or(0);
        table.push_str(&format!(
            "{},{},{},{},{},{},{longest}\n",
            entry.name,
            of_file().count(),
            count(|outcome| *outcome == Outcome::Refused),
            count(|outcome| *outcome == Outcome::Same),
            count(|outcome| matches!(outcome, Outcome::OpenSlideCrashed(_))),
            count(Outcome::is_wrong),
        ));
    }
    println!("{} s\n{table}", took.as_secs());
    std::fs::write(
        PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("damage.csv"),
        table,
    )
    .unwrap();
    for (name, damage, outcome, _) in found {
        if let Outcome::OpenSlideCrashed(how) = outcome {
            println!("OpenSlide itself crashes: {name}, {damage:?}: {how}");
        }
    }
}

/// Reads a damaged file in a process of its own. A crash counts as OpenSlide's if OpenSlide alone crashes on the file, too.
fn run(path: &Path) -> Outcome {
    match start(path, Reader::Ours) {
        Outcome::Crashed(how) => match start(path, Reader::OpenSlide) {
            Outcome::Crashed(alone) => Outcome::OpenSlideCrashed(alone),
            _ => Outcome::Crashed(how),
        },
        outcome => outcome,
    }
}

fn start(path: &Path, reader: Reader) -> Outcome {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "damaged_files_are_refused_or_read_as_openslide_reads_them",
            "--nocapture",
            "--test-threads=1",
        ])
        .env(PATH_VARIABLE, path)
        .env(READER_VARIABLE, reader.name())
        .env("RUST_BACKTRACE", "0")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let start = Instant::now();
    while start.elapsed() < TIME {
        if child.try_wait().unwrap().is_some() {
            return outcome_of(child);
        }
        std::thread::sleep(Duration::from_millis(3));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    Outcome::Hung
}

fn outcome_of(child: Child) -> Outcome {
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    match text.lines().find_map(Outcome::from_line) {
        Some(outcome) if output.status.success() => outcome,
        _ => {
            let said = String::from_utf8_lossy(&output.stderr);
            let said: Vec<&str> = said
                .lines()
                .filter(|line| !line.is_empty())
                .take(3)
                .collect();
            let how = format!("{}: {}", output.status, said.join(" / "));
            if output.status.code().is_some() {
                Outcome::Panicked(how)
            } else {
                Outcome::Crashed(how)
            }
        }
    }
}
