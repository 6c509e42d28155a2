//! `cargo xtask test`: every test and doctest of the workspace, as CI runs them.

use std::process::ExitCode;

use crate::arguments::TestArguments;
use crate::{reenter, setup};

/// Becomes `cargo test` for the whole workspace, pipelines included, with what
/// only OpenSlide 4 can do where that is installed.
///
/// # Errors
/// If cargo cannot be started.
pub fn run(arguments: &TestArguments) -> anyhow::Result<ExitCode> {
    let mut command = reenter::cargo();
    command.args([
        "test",
        "--workspace",
        "--locked",
        "--features",
        setup::features(setup::has_openslide_4()),
    ]);
    reenter::become_command(command.args(&arguments.arguments))
}
