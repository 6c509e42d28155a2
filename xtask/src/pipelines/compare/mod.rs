//! `cargo xtask compare`: this project beside PyTorch and lightstream, on this machine, on the same image and weights.
//!
//! Every step runs in a process of its own, so that its peak of resident memory is its own. The clock runs from the image
//! in memory to the gradients in memory. Rounds go over all contenders, so that they share the machine's moods.

mod conditions;
mod entry;
mod gradient_error;
mod inputs;
pub(crate) mod measured;
mod pixels;
mod plot;
mod process;
mod python;
mod report;
mod runner;
mod scope;
pub(crate) mod step;
pub(crate) mod store;
mod targets;
pub(crate) mod time_left;
mod train;
pub(crate) mod worker;

use std::fmt::Display;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use stream_grad_cli::exit::Stopped;
use stream_grad_cli::{model, stop, tell};
use stream_grad_models::ModelName;
use xtask::arguments::{CompareArguments, Skip};

use python::Python;
use report::Report;
use runner::Runner;
use store::{Origin, Store};
use targets::Sizes;
use worker::Worker;

/// Measures what has not been measured yet, and prints and writes everything.
pub(crate) fn run(arguments: &CompareArguments) -> anyhow::Result<()> {
    let _: ModelName = arguments.model.parse()?;
    let threads = model::threads(arguments.threads);
    stream_grad::check_threads(threads)?;
    let stop = stop::on_ctrl_c()?;
    if arguments.train {
        return train::run(arguments, &stop);
    }
    let folder = std::path::absolute(&arguments.output)?;
    let store = Store::open(&folder, Origin::here()?)?;
    let python = python(arguments, &stop)?;
    let runs = scope::runs(arguments);
    let worker = Worker::new(folder.join("work"), &stop)?;
    let mut runner = Runner::new(store, python, worker);
    runner.run_all(&runs)?;
    let mut targets = Vec::new();
    if arguments.table {
        runner.run_products(threads)?;
        targets = Sizes::of(arguments).targets(&runner.store, threads);
    }
    let report = Report::new(&runner, &runs, targets);
    report.write(&folder)?;
    show(&report, arguments, &arguments.output);
    Ok(())
}

/// Prints a report, and where it lies.
fn show(report: &impl Display, arguments: &CompareArguments, folder: &Path) {
    println!("{report}");
    if arguments.quick {
        println!("This was a rehearsal: its figures mean nothing.");
    }
    println!("Results are in {}", folder.display());
}

/// The peers' Python, or why there is none: the comparison goes on without them.
fn python(
    arguments: &CompareArguments,
    stop: &AtomicBool,
) -> anyhow::Result<Result<Python, String>> {
    let python = if arguments.skip.contains(&Skip::Python) {
        Err("they were to be skipped".to_owned())
    } else {
        Python::prepare(arguments.python.as_deref(), stop).map_err(|error| format!("{error:#}"))
    };
    if stop.load(Ordering::Relaxed) {
        return Err(stopped());
    }
    if let Err(reason) = &python {
        tell(format_args!("The peers are not run: {reason}."));
    }
    Ok(python)
}

pub(crate) fn stopped() -> anyhow::Error {
    Stopped::error("between two measurements")
}
