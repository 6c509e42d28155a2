//! Handing over to cargo: this process becomes it, so that standard streams, signals and the exit status are its own.

use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::process::{Command, ExitCode};

use crate::setup;

/// Builds the pipelines' binary in release mode and becomes it, with the given command line.
///
/// # Errors
/// If cargo cannot be started.
pub fn pipelines(arguments: impl Iterator<Item = OsString>) -> anyhow::Result<ExitCode> {
    let features = setup::features(setup::has_openslide_4());
    become_program("xtask", features, "xtask-pipelines", arguments)
}

/// Builds the program `stream-grad` in release mode and becomes it, with the given command line.
///
/// # Errors
/// If cargo cannot be started.
pub fn stream_grad(arguments: impl Iterator<Item = OsString>) -> anyhow::Result<ExitCode> {
    let features = setup::program_features(setup::has_openslide_4());
    become_program("stream-grad-cli", features, "stream-grad", arguments)
}

fn become_program(
    package: &str,
    features: &str,
    program: &str,
    arguments: impl Iterator<Item = OsString>,
) -> anyhow::Result<ExitCode> {
    let mut command = cargo();
    command.args(["run", "--release", "--locked", "--package", package]);
    command.args(["--features", features, "--bin", program, "--"]);
    become_command(command.args(arguments))
}

/// The cargo that runs this binary, to be started in the workspace's root. Arguments that are relative paths are the
/// caller's, so commands whose arguments are paths keep the caller's folder; the manifest is named instead.
pub(crate) fn cargo() -> Command {
    Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

/// Replaces this process by `command`; where the system cannot do that, waits for it and passes on its status.
pub(crate) fn become_command(command: &mut Command) -> anyhow::Result<ExitCode> {
    let name = Path::new(command.get_program()).display().to_string();
    #[cfg(unix)]
    {
        use std::os::unix::process::CommandExt;
        let error = command.exec();
        Err(anyhow::Error::new(error).context(format!("starting {name}")))
    }
    #[cfg(not(unix))]
    {
        use anyhow::Context;
        let status = command
            .status()
            .with_context(|| format!("starting {name}"))?;
        let code = status.code().and_then(|code| u8::try_from(code).ok());
        Ok(code.map_or(ExitCode::FAILURE, ExitCode::from))
    }
}

/// Whether a program of that name is on the path.
pub(crate) fn is_on_path(program: impl AsRef<OsStr>) -> bool {
    std::env::var_os("PATH").is_some_and(|path| {
        std::env::split_paths(&path).any(|folder| folder.join(program.as_ref()).is_file())
    })
}
