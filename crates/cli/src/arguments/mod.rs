//! The command line of `stream-grad`.

mod background;
mod calibrate;
mod completions;
mod heatmap;
mod init;
mod limits;
mod plan;
mod predict;
mod recipe;
mod report;
mod settings;
mod train;
mod vjp;

use clap::{Parser, Subcommand};

pub use background::BackgroundKind;
pub use calibrate::CalibrateArguments;
pub use completions::CompletionsArguments;
pub use heatmap::{Frame, HeatmapArguments};
pub use init::InitArguments;
pub use limits::LimitArguments;
pub use plan::PlanArguments;
pub use predict::PredictArguments;
pub use recipe::{Arithmetic, FloatType, RecipeArguments, TrainedType};
pub use report::ReportArguments;
pub use settings::{SettingsArguments, TaskKind};
pub use train::TrainArguments;
pub use vjp::VjpArguments;

/// Trains convolutional networks end to end on images of any size, such as whole microscopy slides, with exact gradients
/// in bounded memory.
#[derive(Debug, Parser)]
#[command(name = "stream-grad", version, disable_help_subcommand = true)]
#[command(after_help = "\
Exit codes:
  0    done
  1    failed; the message says why
  2    the command line or a file of settings is wrong; nothing was computed
  3    done, but for slides that could not be read, which are named (predict, heatmap)
  130  stopped by Ctrl-C; the same command goes on from there

Progress bars and messages go to standard error, and results to standard output or files.")]
pub struct Arguments {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What `stream-grad` can do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Writes a run.toml to start from, with every setting, its default and what it means
    Init(InitArguments),
    /// Trains on slides and reports, or goes on where that was stopped
    Train(TrainArguments),
    /// Makes the report of a training anew, from its folder alone
    Report(ReportArguments),
    /// Predicts slides by a trained model
    Predict(PredictArguments),
    /// Shows where a trained model looks: Grad-CAM or the gradient of the image, over slides
    Heatmap(HeatmapArguments),
    /// Prints how an image would be streamed: blocks, segments, tiles, memory, time, compute ratio
    Plan(PlanArguments),
    /// Streams one image and writes its features and gradients
    Vjp(VjpArguments),
    /// Measures anew how long a network's operations take on this machine, and forgets what was stored
    Calibrate(CalibrateArguments),
    /// Prints completions of the command line for a shell
    Completions(CompletionsArguments),
}

#[cfg(test)]
mod tests {
    use std::num::{NonZeroU64, NonZeroUsize};

    use clap::CommandFactory;

    use super::*;

    const VJP: &str =
        "stream-grad vjp --model resnet18 --weights w.safetensors --output g.safetensors";

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
            "{VJP} --input x.safetensors --tile 512 --block 4096 --offload offloaded --dtype f64 --arithmetic direct --input-gradient --threads 2 --report r.json"
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
            offload: Some("offloaded".into()),
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
            ("--input x --background fill", "--background"),
        ] {
            let error = parse(&format!("{VJP} {arguments}")).unwrap_err();
            assert!(error.contains(named), "{error}");
        }
    }

    #[test]
    fn a_plan_is_of_a_size_or_of_a_slide() {
        let plan = "stream-grad plan --model resnet18";
        for (arguments, named) in [
            ("", "--image"),
            ("--image 9x9 --slide s.svs", "--slide"),
            ("--image 9x9 --mpp 0.5", "--mpp"),
        ] {
            let error = parse(&format!("{plan} {arguments}")).unwrap_err();
            assert!(error.contains(named), "{error}");
        }
        let line = format!("{plan} --slide s.svs --mpp 0.5 --background fill");
        let Command::Plan(parsed) = parse(&line).unwrap() else {
            panic!("not parsed as plan");
        };
        assert_eq!(parsed.background, BackgroundKind::Fill);
        assert_eq!((parsed.image, parsed.mpp), (None, Some(0.5)));
    }

    #[test]
    fn types_are_taken_by_every_command_that_computes_and_others_are_named() {
        let vjp = format!("{VJP} --input x.safetensors");
        for line in [
            "stream-grad plan --model resnet18 --image 64x64",
            &vjp,
            "stream-grad calibrate",
            "stream-grad init",
            "stream-grad train run.toml",
            "stream-grad predict m.safetensors --csv s.csv --output p.csv",
            "stream-grad heatmap m.safetensors s.svs --output maps",
        ] {
            for dtype in ["f32", "bf16"] {
                parse(&format!("{line} --dtype {dtype}")).unwrap();
            }
            parse(line).unwrap();
            let error = parse(&format!("{line} --dtype f16")).unwrap_err();
            for part in ["'f16'", "--dtype", "bf16", "f32"] {
                assert!(error.contains(part), "{error}");
            }
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
        let error =
            parse("stream-grad plan --model numerics --image 64x64 --memory 8GiBs").unwrap_err();
        assert!(error.contains("8GiBs"), "{error}");
    }

    #[test]
    fn zero_is_no_tile_no_block_and_no_thread_count() {
        for argument in ["--tile", "--block", "--threads"] {
            let error = parse(&format!(
                "stream-grad plan --model numerics --image 64x64 {argument} 0"
            ))
            .unwrap_err();
            assert!(error.contains(argument), "{error}");
        }
    }
}
