//! Contenders as processes: started, watched, stopped.

use std::fs::File;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context;

/// How long is waited between two looks at a process.
const LOOK: Duration = Duration::from_millis(20);
/// Lines of its output that tell why a process failed.
const LAST_LINES: usize = 2;

/// How a process ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Ended {
    Well,
    /// Why it failed.
    Badly(String),
    /// `stop` was set.
    Stopped,
}

/// Runs a command to its end with its output in `log`, or ends it when `stop` is set.
pub(crate) fn run_logged(
    command: &mut Command,
    log: &Path,
    stop: &AtomicBool,
) -> anyhow::Result<Ended> {
    let file = File::create(log).with_context(|| format!("making {}", log.display()))?;
    command.stdout(file.try_clone()?).stderr(file);
    let status = match wait(command, stop) {
        Ok(Some(status)) => status,
        Ok(None) => return Ok(Ended::Stopped),
        Err(error) => return Ok(Ended::Badly(format!("{error:#}"))),
    };
    if status.success() {
        return Ok(Ended::Well);
    }
    let output = std::fs::read(log).unwrap_or_default();
    let output = String::from_utf8_lossy(&output);
    Ok(Ended::Badly(reason(status, &output)))
}

/// Runs a command to its end; `None` if it was ended because `stop` was set.
pub(crate) fn wait(command: &mut Command, stop: &AtomicBool) -> anyhow::Result<Option<ExitStatus>> {
    let name = command.get_program().to_string_lossy().into_owned();
    let mut child = command
        .stdin(Stdio::null())
        .spawn()
        .with_context(|| format!("starting {name}"))?;
    loop {
        // Where the terminal sends Ctrl-C to all, the child may be gone before the flag is seen.
        let ended = child.try_wait()?;
        if stop.load(Ordering::Relaxed) {
            let _ = child.kill();
            child.wait()?;
            return Ok(None);
        }
        if ended.is_some() {
            // The flag is set on another thread.
            std::thread::sleep(LOOK);
            let stopped = stop.load(Ordering::Relaxed);
            return Ok(ended.filter(|_| !stopped));
        }
        std::thread::sleep(LOOK);
    }
}

fn reason(status: ExitStatus, output: &str) -> String {
    let lines: Vec<&str> = output.lines().map(str::trim).collect();
    let mut lines: Vec<&str> = lines.into_iter().filter(|line| !line.is_empty()).collect();
    // What this program says last; others have no such line.
    let last = lines.iter().rposition(|line| line.starts_with("error: "));
    let start = last.unwrap_or_else(|| lines.len().saturating_sub(LAST_LINES));
    let lines = lines.split_off(start);
    if status.code().is_none() {
        return format!("{status}, perhaps for lack of memory");
    }
    if lines.is_empty() {
        return status.to_string();
    }
    let words = lines.join(" ");
    words.strip_prefix("error: ").unwrap_or(&words).to_owned()
}

#[cfg(unix)]
#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str, stop: bool) -> Ended {
        let folder = tempfile::tempdir().unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        run_logged(
            &mut command,
            &folder.path().join("log"),
            &AtomicBool::new(stop),
        )
        .unwrap()
    }

    #[test]
    fn a_failure_is_told_in_the_words_of_the_process() {
        assert_eq!(shell("true", false), Ended::Well);
        let Ended::Badly(reason) = shell("echo one; echo two >&2; echo three; exit 3", false)
        else {
            panic!("it succeeded");
        };
        assert!(reason == "two three", "{reason}");
        let Ended::Badly(reason) = shell("echo notice; echo error: it broke; exit 1", false) else {
            panic!("it succeeded");
        };
        assert!(reason == "it broke", "{reason}");
        let Ended::Badly(reason) = shell("kill -9 $$", false) else {
            panic!("it succeeded");
        };
        assert!(reason.contains("memory"), "{reason}");
    }

    #[test]
    fn a_process_is_ended_when_all_is() {
        // If it were waited for, this test would never end.
        assert_eq!(shell("exec sleep infinity", true), Ended::Stopped);
    }

    #[test]
    fn a_program_that_is_not_there_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let mut command = Command::new("no-such-program");
        let ended = run_logged(
            &mut command,
            &folder.path().join("log"),
            &AtomicBool::new(false),
        );
        let Ended::Badly(reason) = ended.unwrap() else {
            panic!("it ran");
        };
        assert!(reason.contains("no-such-program"), "{reason}");
    }
}
