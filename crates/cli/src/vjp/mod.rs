//! `stream-grad vjp`: one image through a network and back, written out for another framework to check.

mod position;
mod report;
mod tensor_input;
mod tensor_output;

use std::sync::Arc;
use std::time::Instant;

use crate::arguments::{Arithmetic, VjpArguments};
use anyhow::{Context, bail, ensure};
use candle_core::backprop::GradStore;
use stream_grad::{
    ByteCount, CotangentSource, InputGradientSink, Net, Ones, Plan, PlanRequest, TileSource,
};
use stream_grad_files::{is_same_place, refuse_input};
use stream_grad_models::load_net;

use crate::counting_allocator::CountingAllocator;
use crate::model;
use crate::progress::SweepBar;
use crate::resident_memory;
use crate::slide_input::SlideInput;
use crate::tell;

use report::Report;
use tensor_input::{CotangentInput, TensorFile, TensorInput};
use tensor_output::{Declared, FeatureOutput, TensorOutput};

/// What was measured while the image was streamed.
struct Measured {
    peak_bytes: usize,
    seconds_forward: f64,
    seconds_backward: f64,
}

/// Where the image and the cotangents of its features come from.
enum Input {
    Tensors {
        image: TensorInput,
        cotangents: CotangentInput,
    },
    Slide(Box<SlideInput>),
}

impl Input {
    fn open(arguments: &VjpArguments, net: &Net) -> anyhow::Result<Self> {
        if let Some(slide) = &arguments.slide {
            let memory = arguments.recipe.memory;
            let background = arguments.background.into();
            let input = SlideInput::open(slide, arguments.mpp, memory, background)?;
            return Ok(Self::Slide(Box::new(input)));
        }
        let Some(path) = &arguments.input else {
            bail!("give --input or --slide");
        };
        let file = TensorFile::open(path)?;
        let names = of_outputs(net, "y_bar");
        let cotangents = names.iter().map(|name| file.tensor(name));
        Ok(Self::Tensors {
            image: file.tensor("input")?,
            cotangents: CotangentInput(cotangents.collect::<anyhow::Result<_>>()?),
        })
    }

    /// `[N, C, H, W]`.
    fn shape(&self) -> [u64; 4] {
        match self {
            Self::Tensors { image, .. } => image.shape(),
            Self::Slide(slide) => slide.shape(),
        }
    }

    /// The request with what the image says of reuse.
    fn reusing(&self, request: PlanRequest) -> PlanRequest {
        match self {
            Self::Tensors { .. } => request,
            Self::Slide(slide) => slide.reusing(request),
        }
    }

    /// Heap bytes that reading holds while the plan's tiles are streamed.
    fn bytes(&self, plan: &Plan, arguments: &VjpArguments) -> u64 {
        match self {
            Self::Tensors { .. } => 0,
            Self::Slide(slide) => {
                slide.bytes(plan.recipe().tile, model::threads(arguments.recipe.threads))
            }
        }
    }

    fn check(&self, plan: &Plan) -> anyhow::Result<()> {
        let Self::Tensors { cotangents, .. } = self else {
            return Ok(());
        };
        for (cotangent, expected) in cotangents.0.iter().zip(plan.output_shapes()) {
            let found = cotangent.shape();
            ensure!(
                expected
                    .iter()
                    .zip(&found)
                    .all(|(&expected, &found)| u64::try_from(expected) == Ok(found)),
                "`{}`: expected the shape of the features, {expected:?}, found {found:?}",
                cotangent.name()
            );
        }
        Ok(())
    }

    fn into_sources(self) -> (Box<dyn TileSource>, Box<dyn CotangentSource>) {
        match self {
            Self::Tensors { image, cotangents } => (Box::new(image), Box::new(cotangents)),
            Self::Slide(slide) => (Box::new(slide.source), Box::new(Ones)),
        }
    }
}

/// Streams the image and writes features, gradients and report. `allocator` is the program's, which counts.
///
/// # Errors
/// If an input cannot be read or does not fit the network, an output cannot be written or is an input, or planning refuses.
pub fn run(arguments: &VjpArguments, allocator: &CountingAllocator) -> anyhow::Result<()> {
    check_outputs(arguments)?;
    let dtype = model::computed(arguments.recipe.dtype);
    let (name, net) = model::build(&arguments.model, dtype)?;
    let loaded = load_net(&arguments.weights, &net)?;
    tell(loaded);
    let input = Input::open(arguments, &net)?;
    let shape = input.shape();
    let plan = plan(&net, &input, arguments)?;
    tell(&plan);
    input.check(&plan)?;
    let planned = plan.peak_bytes().get() + input.bytes(&plan, arguments);
    let output = TensorOutput::create(&arguments.output, declare(&net, &plan, shape, arguments))?;
    let features = output.features(&of_outputs(&net, "y"))?;
    let (gradients, measured) = stream(&plan, input, features, &output, arguments, allocator)?;
    for parameter in model::trainable(&net) {
        let gradient = model::gradient(&gradients, parameter)?;
        output.write(&parameter.name, gradient)?;
    }
    output.finish()?;
    if let Some(path) = &arguments.report {
        let report = report(
            name.to_string(),
            &plan,
            planned,
            &measured,
            arguments,
            shape[0],
        );
        report.write(path)?;
    }
    Ok(())
}

/// Refuses to write over what is read, or over one output with the other, before anything is computed.
fn check_outputs(arguments: &VjpArguments) -> anyhow::Result<()> {
    let inputs = [
        Some(&arguments.weights),
        arguments.input.as_ref(),
        arguments.slide.as_ref(),
    ];
    refuse_input(&arguments.output, inputs.into_iter().flatten())?;
    if let Some(report) = &arguments.report {
        refuse_input(report, inputs.into_iter().flatten())?;
        ensure!(
            !is_same_place(&arguments.output, report),
            "--output and --report are both {}",
            report.display()
        );
    }
    Ok(())
}

/// The plan under which streaming and reading together hold no more than the budget.
fn plan(net: &Net, input: &Input, arguments: &VjpArguments) -> anyhow::Result<Plan> {
    let [batch, _, height, width] = input.shape();
    let batch = usize::try_from(batch)?;
    let request = input
        .reusing(model::request(&arguments.recipe, height, width))
        .batch(batch)
        .arithmetic(match arguments.arithmetic {
            Arithmetic::Auto => stream_grad::Arithmetic::Auto,
            Arithmetic::Direct => stream_grad::Arithmetic::Direct,
        });
    let Some(memory) = arguments.recipe.memory else {
        // Without a budget no recipe has to be chosen.
        return Ok(net.plan(request)?);
    };
    let threads = model::threads(arguments.recipe.threads);
    let request = model::calibrated(net, request.memory(memory), threads)?;
    let mut reading = 0;
    loop {
        let left = memory.get().saturating_sub(reading);
        let plan = net.plan(request.clone().memory(ByteCount::bytes(left)));
        let plan = match reading {
            0 => plan?,
            _ => plan.with_context(|| {
                format!("reading the slide takes {}", ByteCount::bytes(reading))
            })?,
        };
        let needed = input.bytes(&plan, arguments);
        if needed <= reading {
            return Ok(plan);
        }
        // Streaming gets less, so its tiles may be smaller. `reading` grows each time: this ends with a plan or a refusal.
        reading = needed;
    }
}

/// Names of a tensor for each output of the network: `of` where there is one, else `of.OUTPUT`.
fn of_outputs(net: &Net, of: &str) -> Vec<String> {
    let names: Vec<&str> = net.output_names().collect();
    match *names {
        [_] => vec![of.to_owned()],
        _ => names.iter().map(|name| format!("{of}.{name}")).collect(),
    }
}

fn declare(net: &Net, plan: &Plan, shape: [u64; 4], arguments: &VjpArguments) -> Vec<Declared> {
    let dtype = model::computed(arguments.recipe.dtype);
    let outputs = of_outputs(net, "y").into_iter().zip(plan.output_shapes());
    let mut tensors: Vec<Declared> = outputs
        .map(|(name, shape)| Declared {
            name,
            dtype,
            shape: shape.to_vec(),
        })
        .collect();
    tensors.extend(model::trainable(net).map(|parameter| Declared {
        name: parameter.name.clone(),
        dtype,
        shape: parameter.tensor.dims().to_vec(),
    }));
    if arguments.recipe.input_gradient {
        let shape = shape.map(|size| usize::try_from(size).unwrap_or(usize::MAX));
        tensors.push(Declared {
            name: "x_bar".into(),
            dtype,
            shape: shape.to_vec(),
        });
    }
    tensors
}

fn stream(
    plan: &Plan,
    input: Input,
    mut features: FeatureOutput,
    output: &TensorOutput,
    arguments: &VjpArguments,
    allocator: &CountingAllocator,
) -> anyhow::Result<(GradStore, Measured)> {
    let bar = Arc::new(SweepBar::new(plan, input.shape()[0]));
    let plan = plan.clone().observed_by(bar);
    let (image, mut cotangents) = input.into_sources();
    let mut input_gradient = if arguments.recipe.input_gradient {
        Some(output.map("x_bar")?)
    } else {
        None
    };
    resident_memory::forget_peak();
    let watch = allocator.watch();
    let start = Instant::now();
    let residuals = plan.forward_to(image.as_ref(), &mut features)?;
    let seconds_forward = start.elapsed().as_secs_f64();
    let start = Instant::now();
    let sink = input_gradient
        .as_mut()
        .map(|sink| sink as &mut dyn InputGradientSink);
    let gradients = plan.vjp_from(residuals, cotangents.as_mut(), sink)?;
    let seconds_backward = start.elapsed().as_secs_f64();
    Ok((
        gradients,
        Measured {
            peak_bytes: watch.peak_bytes(),
            seconds_forward,
            seconds_backward,
        },
    ))
}

fn report(
    model: String,
    plan: &Plan,
    planned_peak_bytes: u64,
    measured: &Measured,
    arguments: &VjpArguments,
    batch: u64,
) -> Report {
    let stored_node_names: Vec<String> = plan.stored_names().map(str::to_owned).collect();
    Report {
        model,
        recipe: plan.recipe().to_string(),
        blocks: plan.geometry().blocks(),
        segments: plan.recipe().segments,
        tiles: plan.tiles(),
        stored_nodes: stored_node_names.len(),
        stored_node_names,
        arithmetic: if plan.is_winograd() {
            "winograd"
        } else {
            "direct"
        },
        planned_peak_bytes,
        measured_peak_bytes: measured.peak_bytes,
        offloaded_bytes: plan.file_bytes().get(),
        peak_rss_bytes: resident_memory::peak_rss_bytes(),
        compute_ratio: model::compute_ratio(plan),
        seconds_predicted: plan.predicted_time().as_secs_f64(),
        seconds_forward: measured.seconds_forward,
        seconds_backward: measured.seconds_backward,
        flops: plan.cost().total().saturating_mul(u128::from(batch)),
        threads: model::threads(arguments.recipe.threads),
    }
}
