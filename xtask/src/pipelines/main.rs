//! The heavy commands of `cargo xtask`, which builds this binary in release mode and becomes it.

mod all;
mod camelyon;
mod compare;
mod difference;
mod imagenette;
mod memory;
mod numerics;
mod settings;
mod slides;
mod tables;
mod tupac;

use std::process::ExitCode;
use std::sync::atomic::AtomicBool;

use anyhow::bail;
use clap::Parser;
use stream_grad_cli::counting_allocator::CountingAllocator;
use stream_grad_cli::{exit, stop};
use xtask::arguments::{Arguments, Command, Experiment};

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator::new();

fn main() -> ExitCode {
    exit::report(run())
}

fn run() -> anyhow::Result<()> {
    match Arguments::parse().command {
        Command::Reproduce(arguments) => reproduce(&arguments.experiment, &*stop::on_ctrl_c()?),
        Command::Compare(arguments) => compare::run(&arguments),
        Command::CompareStep(arguments) => compare::step::run(&arguments, &ALLOCATOR),
        Command::Setup
        | Command::Test(_)
        | Command::Features
        | Command::Plan(_)
        | Command::Vjp(_) => {
            bail!("this command belongs to `cargo xtask`")
        }
    }
}

/// Runs an experiment, or goes on with one that was stopped, until `stop` is set.
fn reproduce(experiment: &Experiment, stop: &AtomicBool) -> anyhow::Result<()> {
    match experiment {
        Experiment::Camelyon(arguments) => camelyon::run(arguments, stop),
        Experiment::Tupac(arguments) => tupac::run(arguments, stop),
        Experiment::Imagenette(arguments) => imagenette::run(arguments, stop),
        Experiment::Numerics(arguments) => numerics::run(arguments, stop),
        Experiment::Memory(arguments) => memory::run(arguments, stop),
        Experiment::All(arguments) => all::run(arguments, stop),
    }
}
