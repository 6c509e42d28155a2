//! The command line of `cargo xtask`.

use std::ffi::OsString;
use std::num::{NonZeroU64, NonZeroUsize};
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use stream_grad_tiling::ByteCount;

use crate::image_size::ImageSize;

mod compare;

pub use compare::{CompareArguments, Skip};

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
    /// Prints how an image would be streamed: blocks, segments, tiles, memory, time, compute ratio
    Plan(PlanArguments),
    /// Streams one image and writes its features and gradients
    Vjp(VjpArguments),
    /// Measures anew how long a network's operations take on this machine, and forgets what was stored
    Calibrate(CalibrateArguments),
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

/// Type of pixels, activations and gradients.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum FloatType {
    /// Single precision
    F32,
    /// Double precision
    F64,
}

/// How convolutions are computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Arithmetic {
    /// As is fastest: by Winograd's F(2x2, 3x3) where that gains
    Auto,
    /// Directly, one product after the other
    Direct,
}

/// What bounds a recipe; shared by the commands that make a plan.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct RecipeArguments {
    /// Largest number of heap bytes that streaming may hold, as 1GiB
    #[arg(long, value_name = "BYTES")]
    pub memory: Option<ByteCount>,
    /// Edge of a tile in pixels; without it, the planner chooses
    #[arg(long, value_name = "PIXELS", conflicts_with = "memory")]
    pub tile: Option<NonZeroU64>,
    /// Edge of a block in pixels; without it, one block
    #[arg(long, value_name = "PIXELS")]
    pub block: Option<NonZeroU64>,
    /// Folder for a file of what does not fit in --memory (without it: of all that the backward sweep needs)
    #[arg(long, value_name = "DIR")]
    pub spill: Option<PathBuf>,
    /// Type of pixels, activations and gradients
    #[arg(long, value_enum, default_value = "f32", value_name = "TYPE")]
    pub dtype: FloatType,
    /// Asks for the gradient of the image, too
    #[arg(long)]
    pub input_gradient: bool,
    /// Number of threads, at most four for each core; without it, all cores
    #[arg(long, value_name = "COUNT")]
    pub threads: Option<NonZeroUsize>,
}

/// Of `plan`.
#[derive(Debug, Args)]
pub struct PlanArguments {
    /// The network: resnet18, resnet34, resnet50, numerics, imagenette or another known one
    #[arg(long, value_name = "NAME")]
    pub model: String,
    /// Extent of the image in pixels, HEIGHTxWIDTH
    #[arg(long, value_name = "SIZE")]
    pub image: ImageSize,
    /// The recipe.
    #[command(flatten)]
    pub recipe: RecipeArguments,
    /// Lists every recipe that no other beats, not only a dozen that matter
    #[arg(long)]
    pub all: bool,
    /// SVG to write: what memory brings
    #[arg(long, value_name = "FILE")]
    pub plot: Option<PathBuf>,
}

/// Of `vjp`.
#[derive(Debug, Args)]
pub struct VjpArguments {
    /// The network: resnet18, resnet34, resnet50, numerics, imagenette or another known one
    #[arg(long, value_name = "NAME")]
    pub model: String,
    /// Weights, as safetensors or a file of torch.save, under torchvision's names, with any prefix before them all
    #[arg(long, value_name = "FILE")]
    pub weights: PathBuf,
    /// Safetensors with `input` [N, 3, H, W] and `y_bar`, the cotangent of the features
    #[arg(long, value_name = "FILE", required_unless_present = "slide")]
    pub input: Option<PathBuf>,
    /// Slide that the image comes from, in place of --input: red, green and blue from 0 to 1; `y_bar` is all ones
    #[arg(long, value_name = "FILE", conflicts_with = "input")]
    pub slide: Option<PathBuf>,
    /// Microns per pixel at which the slide is read; without it, its finest level as it is
    #[arg(
        long,
        value_name = "MICRONS",
        requires = "slide",
        conflicts_with = "input"
    )]
    pub mpp: Option<f64>,
    /// Safetensors to write: `y`, the gradient of each parameter under its name, `x_bar` if asked for
    #[arg(long, value_name = "FILE")]
    pub output: PathBuf,
    /// The recipe.
    #[command(flatten)]
    pub recipe: RecipeArguments,
    /// How 3x3 convolutions are computed
    #[arg(long, value_enum, default_value = "auto", value_name = "KIND")]
    pub arithmetic: Arithmetic,
    /// JSON to write: recipe, memory, time
    #[arg(long, value_name = "FILE")]
    pub report: Option<PathBuf>,
}

/// Of `calibrate`.
#[derive(Debug, Args)]
pub struct CalibrateArguments {
    /// The network: resnet18, resnet34, resnet50, numerics, imagenette or another known one
    #[arg(long, value_name = "NAME", default_value = "resnet18")]
    pub model: String,
    /// Type of pixels, activations and gradients
    #[arg(long, value_enum, default_value = "f32", value_name = "TYPE")]
    pub dtype: FloatType,
    /// Number of threads, at most four for each core; without it, all cores
    #[arg(long, value_name = "COUNT")]
    pub threads: Option<NonZeroUsize>,
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
    /// Compares streaming with whole-image computation in f64, as the paper's notebook does
    Numerics(NumericsArguments),
}

/// Of `reproduce numerics`.
#[derive(Debug, Args)]
pub struct NumericsArguments {
    /// Edge of the square image in pixels
    #[arg(long, value_name = "PIXELS", default_value = "1024")]
    pub image: NonZeroU64,
    /// Edge of a tile in pixels
    #[arg(long, value_name = "PIXELS", default_value = "512")]
    pub tile: NonZeroU64,
    /// Seed of image, weights and cotangent
    #[arg(long, default_value = "0")]
    pub seed: u64,
}

/// Of `reproduce camelyon`.
#[derive(Debug, Args)]
pub struct CamelyonArguments {
    /// Folder with CAMELYON17 in its published layout; without it and --csv, a made-up cohort is written and used
    #[arg(long, value_name = "DIR", conflicts_with = "csv")]
    pub data: Option<PathBuf>,
    /// Table of slides with the columns `slide`, `label` and, if wanted, `split`, `patient` and `microns_per_pixel`. Splits that
    /// are given stay, blank ones are drawn by patient; further columns are handed on to the predictions
    #[arg(long, value_name = "FILE")]
    pub csv: Option<PathBuf>,
    /// Settings as TOML; what is not in it is as by default
    #[arg(long, value_name = "FILE")]
    pub settings: Option<PathBuf>,
    /// Microns per pixel of slides that state none, or a wrong number
    #[arg(long, value_name = "MICRONS")]
    pub slide_mpp: Option<f64>,
    /// Folder for a file of what does not fit in the memory of the settings
    #[arg(long, value_name = "DIR")]
    pub spill: Option<PathBuf>,
    /// Folder for results; a second run with the same one goes on where the first stopped [default: runs/camelyon, or
    /// runs/camelyon-quick]
    #[arg(long, value_name = "DIR")]
    output: Option<PathBuf>,
    /// A run of two minutes on few slides, to see that everything works: its figures mean nothing
    #[arg(long, conflicts_with = "settings")]
    pub quick: bool,
}

impl CamelyonArguments {
    /// The folder for results.
    #[must_use]
    pub fn output(&self) -> PathBuf {
        let default = if self.quick {
            "runs/camelyon-quick"
        } else {
            "runs/camelyon"
        };
        self.output.clone().unwrap_or_else(|| default.into())
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    const VJP: &str = "xtask vjp --model resnet18 --weights w.safetensors --output g.safetensors";

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
    fn vjp_takes_every_documented_argument() {
        let line = format!(
            "{VJP} --input x.safetensors --tile 512 --block 4096 --spill spilled --dtype f64 --arithmetic direct --input-gradient --threads 2 --report r.json"
        );
        let Command::Vjp(vjp) = parse(&line).unwrap() else {
            panic!("not parsed as vjp");
        };
        assert_eq!(vjp.model, "resnet18");
        assert_eq!(vjp.input, Some("x.safetensors".into()));
        let expected = RecipeArguments {
            memory: None,
            tile: NonZeroU64::new(512),
            block: NonZeroU64::new(4096),
            spill: Some("spilled".into()),
            dtype: FloatType::F64,
            input_gradient: true,
            threads: NonZeroUsize::new(2),
        };
        assert_eq!(vjp.recipe, expected);
        assert_eq!(vjp.report, Some("r.json".into()));
    }

    #[test]
    fn the_image_comes_from_a_file_or_from_a_slide() {
        let Command::Vjp(vjp) = parse(&format!("{VJP} --slide s.svs --mpp 0.5")).unwrap() else {
            panic!("not parsed as vjp");
        };
        assert_eq!((vjp.slide, vjp.mpp), (Some("s.svs".into()), Some(0.5)));
        for (arguments, named) in [
            ("", "--input"),
            ("--input x --slide s.svs", "--slide"),
            ("--input x --mpp 0.5", "--mpp"),
        ] {
            let error = parse(&format!("{VJP} {arguments}")).unwrap_err();
            assert!(error.contains(named), "{error}");
        }
    }

    #[test]
    fn a_budget_and_a_tile_exclude_each_other() {
        let error = parse(&format!("{VJP} --input x --memory 1GiB --tile 512")).unwrap_err();
        assert!(
            error.contains("--memory") && error.contains("--tile"),
            "{error}"
        );
    }

    #[test]
    fn a_budget_without_a_known_unit_is_named() {
        let error = parse("xtask plan --model numerics --image 64x64 --memory 8GiBs").unwrap_err();
        assert!(error.contains("8GiBs"), "{error}");
    }

    #[test]
    fn a_quick_run_has_a_folder_of_its_own() {
        for (line, expected) in [
            ("xtask reproduce camelyon", "runs/camelyon"),
            ("xtask reproduce camelyon --quick", "runs/camelyon-quick"),
            ("xtask reproduce camelyon --quick --output here", "here"),
        ] {
            let Command::Reproduce(ReproduceArguments {
                experiment: Experiment::Camelyon(camelyon),
            }) = parse(line).unwrap()
            else {
                panic!("not parsed as reproduce camelyon");
            };
            assert_eq!(camelyon.output(), PathBuf::from(expected));
        }
    }

    #[test]
    fn zero_is_no_tile_no_block_and_no_thread_count() {
        for argument in ["--tile", "--block", "--threads"] {
            let error = parse(&format!(
                "xtask plan --model numerics --image 64x64 {argument} 0"
            ))
            .unwrap_err();
            assert!(error.contains(argument), "{error}");
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
