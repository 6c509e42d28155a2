//! `cargo xtask`: set-up, tests, and the way into heavier programs.

use std::process::ExitCode;

use clap::Parser;
use stream_grad_cli::exit;
use xtask::arguments::{Arguments, Command};
use xtask::{features_command, reenter, setup, test_command};

fn main() -> ExitCode {
    run().unwrap_or_else(|error| exit::report(Err(error)))
}

fn run() -> anyhow::Result<ExitCode> {
    let arguments = Arguments::parse();
    setup::run()?;
    match arguments.command {
        Command::Setup => {
            println!(
                "Everything that building needs is there. The program stream-grad is installed by"
            );
            println!("    {}", setup::install_command(setup::has_openslide_4()));
            Ok(ExitCode::SUCCESS)
        }
        Command::Test(arguments) => test_command::run(&arguments),
        Command::Features => features_command::run(),
        Command::Plan(_) | Command::Vjp(_) => reenter::stream_grad(std::env::args_os().skip(1)),
        Command::Reproduce(_) | Command::Compare(_) | Command::CompareStep(_) => {
            reenter::pipelines(std::env::args_os().skip(1))
        }
    }
}
