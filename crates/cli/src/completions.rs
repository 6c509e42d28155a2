//! `stream-grad completions`: what a shell needs to complete the command line.

use std::io::Write;

use clap::CommandFactory;

use crate::arguments::{Arguments, CompletionsArguments};

/// Writes the completions to `output`.
///
/// # Errors
/// If they cannot be written.
pub fn run(arguments: &CompletionsArguments, output: &mut impl Write) -> anyhow::Result<()> {
    let mut command = Arguments::command();
    let name = command.get_name().to_owned();
    // The generator panics where it cannot write: memory always takes it.
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut command, name, &mut script);
    Ok(output.write_all(&script)?)
}
