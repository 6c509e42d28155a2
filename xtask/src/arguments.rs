//! The command line of `cargo xtask`.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

mod all;
mod camelyon;
mod compare;
mod imagenette;
mod memory;
mod numerics;
mod slides;
mod tupac;

pub use all::AllArguments;
pub use camelyon::{CamelyonArguments, Scale, SlideClasses};
pub use compare::{CompareArguments, Skip};
pub use imagenette::ImagenetteArguments;
pub use memory::MemoryArguments;
pub use numerics::NumericsArguments;
pub use slides::{SlidesArguments, TrainedType};
pub use tupac::TupacArguments;

/// Set-up, tests and reproduction pipelines of stream-grad.
#[derive(Debug, Parser)]
#[command(bin_name = "cargo xtask", disable_help_subcommand = true)]
pub struct Arguments {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What `cargo xtask` can do. Every command first makes sure of the system libraries.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Installs the system libraries that building needs, or says what to run
    Setup,
    /// Runs all tests, as CI does
    Test(TestArguments),
    /// Checks each crate with every set of its features
    Features,
    /// Runs `stream-grad plan`: prints how an image would be streamed
    Plan(ForwardedArguments),
    /// Runs `stream-grad vjp`: streams one image and writes its features and gradients
    Vjp(ForwardedArguments),
    /// Runs an experiment of the paper
    Reproduce(ReproduceArguments),
    /// Compares time, memory and gradient error with PyTorch and lightstream on this machine
    Compare(CompareArguments),
    /// One measured step in a process of its own; `compare` starts it
    #[command(hide = true)]
    CompareStep(CompareStepArguments),
}

/// Of `compare-step`.
#[derive(Debug, Args)]
pub struct CompareStepArguments {
    /// JSON that says what to run
    pub job: PathBuf,
    /// JSON to write: what was measured
    pub result: PathBuf,
}

/// Of `test`.
#[derive(Debug, Args)]
pub struct TestArguments {
    /// Further arguments for `cargo test`
    #[arg(
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_name = "CARGO TEST ARGUMENTS"
    )]
    pub arguments: Vec<OsString>,
}

/// Of what the program `stream-grad` does: its own arguments.
#[derive(Debug, Args)]
#[command(disable_help_flag = true)]
pub struct ForwardedArguments {
    /// Arguments of the program
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub arguments: Vec<OsString>,
}

/// Of `reproduce`.
#[derive(Debug, Args)]
pub struct ReproduceArguments {
    /// Which experiment.
    #[command(subcommand)]
    pub experiment: Experiment,
}

/// The paper's experiments.
#[derive(Debug, Subcommand)]
pub enum Experiment {
    /// Trains on whole slides at several resolutions: metastasis in lymph nodes, slide-level labels
    Camelyon(CamelyonArguments),
    /// Trains on whole slides at several resolutions: proliferation of tumours, a score for each slide
    Tupac(TupacArguments),
    /// Trains the paper's small classifier twice from one seed, streamed and conventionally, and compares the curves
    Imagenette(ImagenetteArguments),
    /// Compares streaming with whole-image computation in f64, as the paper's notebook does
    Numerics(NumericsArguments),
    /// Plans and measures the memory of a step for images of 1024 to 65536 pixels edge, beside conventional training
    Memory(MemoryArguments),
    /// Runs all of these, one after another, and links their reports on one page
    All(AllArguments),
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn parse(line: &str) -> Result<Command, String> {
        let arguments = Arguments::try_parse_from(line.split_whitespace());
        arguments
            .map(|arguments| arguments.command)
            .map_err(|error| error.to_string())
    }

    #[test]
    fn the_definition_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn a_quick_run_has_a_folder_of_its_own() {
        for (line, expected) in [
            ("camelyon", "runs/camelyon"),
            ("camelyon --quick", "runs/camelyon-quick"),
            ("camelyon --quick --output here", "here"),
            (
                "camelyon --classes 4 --quick",
                "runs/camelyon-4-classes-quick",
            ),
            ("camelyon --scale paper", "runs/camelyon-paper"),
            ("tupac", "runs/tupac"),
            ("tupac --quick", "runs/tupac-quick"),
            ("imagenette", "runs/imagenette"),
            ("imagenette --quick", "runs/imagenette-quick"),
            ("memory --quick", "runs/memory-quick"),
            ("all", "runs"),
            ("all --quick", "runs/quick"),
            ("all --output here", "here"),
        ] {
            let Command::Reproduce(ReproduceArguments { experiment }) =
                parse(&format!("xtask reproduce {line}")).unwrap()
            else {
                panic!("not parsed as reproduce");
            };
            let output = match experiment {
                Experiment::Camelyon(arguments) => arguments.output(),
                Experiment::Tupac(arguments) => arguments.output(),
                Experiment::Imagenette(arguments) => arguments.output(),
                Experiment::Memory(arguments) => arguments.output(),
                Experiment::Numerics(arguments) => arguments.output,
                Experiment::All(arguments) => arguments.output(),
            };
            assert_eq!(output, PathBuf::from(expected), "{line}");
        }
    }

    #[test]
    fn what_goes_against_each_other_is_refused() {
        for line in [
            "tupac --data a --csv b",
            "tupac --quick --settings a",
            "imagenette --quick --data a",
            "camelyon --data a --csv b",
            "camelyon --data a --slides 8",
            "camelyon --scale paper --quick",
        ] {
            let error = parse(&format!("xtask reproduce {line}")).unwrap_err();
            assert!(error.contains("cannot be used with"), "{line}: {error}");
        }
    }

    #[test]
    fn arguments_of_the_program_are_passed_on() {
        for line in ["xtask vjp --model resnet18 --tile 512", "xtask vjp --help"] {
            let Command::Vjp(forwarded) = parse(line).unwrap() else {
                panic!("not parsed as vjp");
            };
            let expected: Vec<&str> = line.split(' ').skip(2).collect();
            assert_eq!(forwarded.arguments, expected);
        }
    }

    #[test]
    fn arguments_of_cargo_test_are_passed_on() {
        let Command::Test(test) = parse("xtask test --package xtask -- --nocapture").unwrap()
        else {
            panic!("not parsed as test");
        };
        assert_eq!(test.arguments, ["--package", "xtask", "--", "--nocapture"]);
    }
}
