//! The heavy commands of `cargo xtask`, which builds this binary in release mode and becomes it.

mod calibrate;
mod camelyon;
mod compare;
mod counting_allocator;
mod model;
mod numerics;
mod plan;
mod position;
mod progress;
mod report;
mod resident_memory;
mod slide_input;
mod tensor_input;
mod tensor_output;
mod vjp;

use std::process::ExitCode;

use anyhow::bail;
use clap::Parser;
use xtask::arguments::{Arguments, Command, Experiment};

#[global_allocator]
static ALLOCATOR: counting_allocator::CountingAllocator =
    counting_allocator::CountingAllocator::new();

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {}", xtask::message(&error));
            ExitCode::FAILURE
        }
    }
}

fn run() -> anyhow::Result<()> {
    match Arguments::parse().command {
        Command::Plan(arguments) => plan::run(&arguments),
        Command::Vjp(arguments) => vjp::run(&arguments, &ALLOCATOR),
        Command::Calibrate(arguments) => calibrate::run(&arguments),
        Command::Reproduce(arguments) => match arguments.experiment {
            Experiment::Camelyon(arguments) => camelyon::run(&arguments),
            Experiment::Numerics(arguments) => numerics::run(&arguments),
        },
        Command::Compare(arguments) => compare::run(&arguments),
        Command::CompareStep(arguments) => compare::step::run(&arguments, &ALLOCATOR),
        Command::Setup | Command::Test(_) => bail!("this command belongs to `cargo xtask`"),
    }
}
