//! `cargo xtask`: set-up, tests, and the way into the pipelines.

use std::process::ExitCode;

use clap::Parser;
use xtask::arguments::{Arguments, Command};
use xtask::{reenter, setup, test_command};

fn main() -> ExitCode {
    run().unwrap_or_else(|error| {
        eprintln!("error: {}", xtask::message(&error));
        ExitCode::FAILURE
    })
}

fn run() -> anyhow::Result<ExitCode> {
    let arguments = Arguments::parse();
    setup::run()?;
    match arguments.command {
        Command::Setup => {
            println!("Everything that building needs is there.");
            Ok(ExitCode::SUCCESS)
        }
        Command::Test(arguments) => test_command::run(&arguments),
        Command::Plan(_)
        | Command::Vjp(_)
        | Command::Calibrate(_)
        | Command::Reproduce(_)
        | Command::Compare(_)
        | Command::CompareStep(_) => reenter::pipelines(std::env::args_os().skip(1)),
    }
}
