//! The program `stream-grad`: its library has the commands.

use std::process::ExitCode;

use clap::Parser;
use stream_grad_cli::arguments::{Arguments, Command};
use stream_grad_cli::counting_allocator::CountingAllocator;
use stream_grad_cli::{
    calibrate, completions, exit, heatmap, init, plan, predict, report, train, vjp,
};

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator::new();

fn main() -> ExitCode {
    exit::report(run(&Arguments::parse().command))
}

fn run(command: &Command) -> anyhow::Result<()> {
    match command {
        Command::Init(arguments) => init::run(arguments),
        Command::Train(arguments) => train::run(arguments),
        Command::Report(arguments) => report::run(arguments),
        Command::Predict(arguments) => predict::run(arguments),
        Command::Heatmap(arguments) => heatmap::run(arguments),
        Command::Plan(arguments) => plan::run(arguments),
        Command::Vjp(arguments) => vjp::run(arguments, &ALLOCATOR),
        Command::Calibrate(arguments) => calibrate::run(arguments),
        Command::Completions(arguments) => completions::run(arguments, &mut std::io::stdout()),
    }
}
