//! `stream-grad heatmap`: where a trained model looks.

use std::sync::atomic::Ordering;

use stream_grad_slides::GeoJsonFrame;
use stream_grad_train::data::Task;
use stream_grad_train::heatmap::{HeatmapMethod, HeatmapOptions, InputGradientOptions, write};
use stream_grad_train::model_file::ModelDescription;
use stream_grad_train::predict::Predictor;

use crate::arguments::{Frame, HeatmapArguments};
use crate::exit::{Incomplete, Stopped, WrongUse};
use crate::progress::counting_bar;
use crate::stop;
use crate::tell;

/// Explains one output of a model for each slide, and names the slides that could not be read.
///
/// # Errors
/// [`WrongUse`] for an output that the model does not have; [`Stopped`] after Ctrl-C; [`Incomplete`] if some slides were left out; the
/// first error if all were; a model that cannot be read.
pub fn run(arguments: &HeatmapArguments) -> anyhow::Result<()> {
    let stop = stop::on_ctrl_c()?;
    let predictor = Predictor::open(&arguments.model, arguments.limits.of_model())?;
    let (target, label) = target(predictor.description(), arguments.target.as_deref())?;
    let loader = predictor.loader()?;
    let method = match &arguments.layer {
        Some(layer) => HeatmapMethod::GradCam {
            layer: layer.clone(),
        },
        None => HeatmapMethod::InputGradient(InputGradientOptions {
            cell: arguments.cell,
            ..InputGradientOptions::default()
        }),
    };
    let options = HeatmapOptions {
        label: Some(label),
        thresholds: arguments.thresholds.clone(),
        frame: match arguments.frame {
            Frame::Qupath => None,
            Frame::Level0 => Some(GeoJsonFrame::Level0),
        },
        opacity: arguments.opacity,
        ..HeatmapOptions::new(method, target)
    };
    let all = arguments.slides.len();
    let bar = counting_bar("explaining", all as u64);
    let mut skipped = Vec::new();
    for slide in &arguments.slides {
        if stop.load(Ordering::Relaxed) {
            bar.abandon();
            let done = bar.position();
            return Err(Stopped::error(format!(
                "with {done} of {all} slides explained"
            )));
        }
        if let Err(error) = write(
            predictor.model(),
            &loader,
            slide,
            &arguments.output,
            &options,
        ) {
            tell(format_args!("skipped {}: {error}", slide.display()));
            skipped.push(error);
        }
        bar.inc(1);
    }
    bar.abandon();
    let known = all - skipped.len();
    println!(
        "{} has maps of {known} of {all} slides",
        arguments.output.display()
    );
    let left_out = skipped.len();
    match skipped.into_iter().next() {
        Some(first) if known == 0 => Err(first.into()),
        _ => Incomplete::check(left_out, all),
    }
}

/// The logit that is meant, and what it stands for.
fn target(trained: &ModelDescription, wanted: Option<&str>) -> anyhow::Result<(usize, String)> {
    let (task, classes) = (trained.task, &trained.classes);
    let outputs = task.outputs();
    let name = |output: usize| match task {
        // One logit stands for the second class.
        Task::Binary => classes.get(1).map(str::to_owned),
        Task::Classification { .. } | Task::MultiLabel { .. } | Task::Segmentation { .. } => {
            classes.get(output).map(str::to_owned)
        }
        Task::Ordinal { .. } => classes.get(output).map(|level| format!("above {level}")),
        Task::Regression => Some("score".to_owned()),
    };
    let names: Vec<String> = (0..outputs)
        .map(|output| name(output).unwrap_or_else(|| output.to_string()))
        .collect();
    let place = match wanted {
        None => outputs.checked_sub(1),
        Some(wanted) => names
            .iter()
            .position(|name| name == wanted)
            .or_else(|| wanted.parse().ok().filter(|output| *output < outputs)),
    };
    match place.and_then(|output| Some((output, names.get(output)?.clone()))) {
        Some(found) => Ok(found),
        None => Err(WrongUse::error(format!(
            "--target: expected one of {}, or a number below {outputs}, found {}",
            names.join(", "),
            wanted.unwrap_or("nothing")
        ))),
    }
}
