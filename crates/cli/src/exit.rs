//! How a program ends: its exit code, and what it says on standard error.

use std::process::ExitCode;

use crate::{message, tell};

/// Exit code of what failed.
pub const FAILED: u8 = 1;
/// Exit code of a command line or a file of settings that cannot be used. Nothing was computed.
pub const WRONG_USE: u8 = 2;
/// Exit code of what was done for some slides, while others were left out, and named. The same command tries those again.
pub const INCOMPLETE: u8 = 3;
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

/// The work was done, but for slides that were named and left out.
#[derive(Debug, thiserror::Error)]
#[error(
    "{skipped} of {all} slides were left out, for the reasons above: the same command tries them again"
)]
pub struct Incomplete {
    skipped: usize,
    all: usize,
}

impl Incomplete {
    /// Nothing for no slide left out, and an error otherwise.
    ///
    /// # Errors
    /// [`Incomplete`] if `skipped` is not 0.
    pub fn check(skipped: usize, all: usize) -> anyhow::Result<()> {
        match skipped {
            0 => Ok(()),
            skipped => Err(Self { skipped, all }.into()),
        }
    }
}

/// Says on standard error why a command did not do what it was asked for, and gives the exit code.
#[must_use]
pub fn report(result: anyhow::Result<()>) -> ExitCode {
    let Err(error) = result else {
        return ExitCode::SUCCESS;
    };
    let code = code(&error);
    if code == STOPPED || code == INCOMPLETE {
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
    } else if error.chain().any(|cause| cause.is::<Incomplete>()) {
        INCOMPLETE
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
            (Incomplete::check(1, 3).unwrap_err(), INCOMPLETE),
        ] {
            assert_eq!(code(&error), expected, "{error}");
            assert_eq!(code(&error.context("training")), expected);
        }
    }

    #[test]
    fn nothing_left_out_is_no_error() {
        assert!(Incomplete::check(0, 3).is_ok());
        let told = Incomplete::check(1, 3).unwrap_err().to_string();
        assert!(told.starts_with("1 of 3 slides were left out"), "{told}");
    }

    #[test]
    fn causes_are_told_once_more() {
        let error = anyhow::anyhow!("line 3").context("run.toml");
        assert_eq!(message(&WrongUse::from_error(error)), "run.toml: line 3");
    }
}
