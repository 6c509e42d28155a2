//! How a program ends: its exit code, and what it says on standard error.

use std::process::ExitCode;

use crate::{message, tell};

/// Exit code of what failed.
pub const FAILED: u8 = 1;
/// Exit code of a command line or a file of settings that cannot be used. Nothing was computed.
pub const WRONG_USE: u8 = 2;
/// Exit code of what was stopped by Ctrl-C, and which the same command goes on with: 128 and the number of the signal.
pub const STOPPED: u8 = 130;

/// What was asked for cannot be done, whatever the machine: the command line or a file of settings is to be changed.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct WrongUse(String);

impl WrongUse {
    /// An error that says `what`.
    #[must_use]
    pub fn error(what: impl Into<String>) -> anyhow::Error {
        Self(what.into()).into()
    }

    /// The same error as wrong use.
    #[must_use]
    pub fn from_error(error: impl Into<anyhow::Error>) -> anyhow::Error {
        Self::error(message(&error.into()))
    }
}

/// The work was stopped by Ctrl-C at a place from which it can go on.
#[derive(Debug, thiserror::Error)]
#[error("stopped {place}: run the same command again to go on from here")]
pub struct Stopped {
    place: String,
}

impl Stopped {
    /// Stopped at a place, which ends "stopped ...".
    #[must_use]
    pub fn error(place: impl Into<String>) -> anyhow::Error {
        let place = place.into();
        Self { place }.into()
    }
}

/// Says on standard error why a command did not do what it was asked for, and gives the exit code.
#[must_use]
pub fn report(result: anyhow::Result<()>) -> ExitCode {
    let Err(error) = result else {
        return ExitCode::SUCCESS;
    };
    let code = code(&error);
    if code == STOPPED {
        tell(message(&error));
    } else {
        tell(format_args!("error: {}", message(&error)));
    }
    code.into()
}

/// The exit code of an error, which may have been given contexts.
fn code(error: &anyhow::Error) -> u8 {
    if error.chain().any(|cause| cause.is::<Stopped>()) {
        STOPPED
    } else if error.chain().any(|cause| cause.is::<WrongUse>()) {
        WRONG_USE
    } else {
        FAILED
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_outlive_contexts() {
        for (error, expected) in [
            (anyhow::anyhow!("disk full"), FAILED),
            (WrongUse::error("no such key"), WRONG_USE),
            (
                WrongUse::from_error(anyhow::anyhow!("no such key")),
                WRONG_USE,
            ),
            (Stopped::error("in epoch 3"), STOPPED),
        ] {
            assert_eq!(code(&error), expected, "{error}");
            assert_eq!(code(&error.context("training")), expected);
        }
    }

    #[test]
    fn causes_are_told_once_more() {
        let error = anyhow::anyhow!("line 3").context("run.toml");
        assert_eq!(message(&WrongUse::from_error(error)), "run.toml: line 3");
    }
}
