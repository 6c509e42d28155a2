//! `cargo xtask test`: every test and doctest of the workspace, as CI runs them.

use std::process::ExitCode;

use crate::arguments::TestArguments;
use crate::reenter;

/// Becomes `cargo test` for the whole workspace, pipelines included.
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
        "xtask/pipelines",
    ]);
    reenter::become_command(command.args(&arguments.arguments))
}
