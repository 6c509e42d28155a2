//! `cargo xtask vjp`: one image through a network and back, written out for another framework to check.

use std::time::Instant;

use anyhow::{Context, ensure};
use candle_core::backprop::GradStore;
use stream_grad::{InputGradientSink, Net, Parameter, Plan};
use stream_grad_models::load_net;
use xtask::arguments::{Arithmetic, VjpArguments};

use crate::counting_allocator::CountingAllocator;
use crate::model;
use crate::report::Report;
use crate::resident_memory;
use crate::tensor_input::{TensorFile, TensorInput};
use crate::tensor_output::{Declared, TensorOutput};

/// What was measured while the image was streamed.
struct Measured {
    peak_bytes: usize,
    seconds_forward: f64,
    seconds_backward: f64,
}

/// Streams the image and writes features, gradients and report.
pub(crate) fn run(arguments: &VjpArguments, allocator: &CountingAllocator) -> anyhow::Result<()> {
    let dtype = model::dtype(arguments.recipe.dtype);
    let (name, net) = model::build(&arguments.model, dtype)?;
    load_net(&arguments.weights, &net)?;
    let file = TensorFile::open(&arguments.input)?;
    let (image, cotangent) = (file.tensor("input")?, file.tensor("y_bar")?);
    let [batch, _, height, width] = image.shape();
    let request = model::request(&arguments.recipe, height, width).batch(usize::try_from(batch)?);
    let plan = net.plan(request)?;
    eprintln!("{plan}");
    let expected = plan.output_shapes()[0];
    let found = cotangent.shape();
    ensure!(
        expected
            .iter()
            .zip(&found)
            .all(|(&expected, &found)| u64::try_from(expected) == Ok(found)),
        "`y_bar`: expected the shape of the features, {expected:?}, found {found:?}"
    );
    let output = TensorOutput::create(&arguments.output, declare(&net, &plan, &image, arguments))?;
    let (gradients, measured) = stream(&plan, &image, cotangent, &output, arguments, allocator)?;
    for parameter in trainable(&net) {
        let gradient = gradients.get(&parameter.tensor);
        let gradient = gradient
            .with_context(|| format!("no gradient of `{}` was computed", parameter.name))?;
        output.write(&parameter.name, gradient)?;
    }
    output.finish()?;
    if let Some(path) = &arguments.report {
        report(name.to_string(), &plan, &measured, arguments, batch).write(path)?;
    }
    Ok(())
}

fn trainable(net: &Net) -> impl Iterator<Item = &Parameter> {
    net.parameters()
        .iter()
        .filter(|parameter| parameter.trainable)
}

fn declare(net: &Net, plan: &Plan, image: &TensorInput, arguments: &VjpArguments) -> Vec<Declared> {
    let dtype = model::dtype(arguments.recipe.dtype);
    let mut tensors = vec![Declared {
        name: "y".into(),
        dtype,
        shape: plan.output_shapes()[0].to_vec(),
    }];
    tensors.extend(trainable(net).map(|parameter| Declared {
        name: parameter.name.clone(),
        dtype,
        shape: parameter.tensor.dims().to_vec(),
    }));
    if arguments.recipe.input_gradient {
        let shape = image
            .shape()
            .map(|size| usize::try_from(size).unwrap_or(usize::MAX));
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
    image: &TensorInput,
    mut cotangent: TensorInput,
    output: &TensorOutput,
    arguments: &VjpArguments,
    allocator: &CountingAllocator,
) -> anyhow::Result<(GradStore, Measured)> {
    let mut features = output.map("y")?;
    let mut input_gradient = if arguments.recipe.input_gradient {
        Some(output.map("x_bar")?)
    } else {
        None
    };
    let watch = allocator.watch();
    let start = Instant::now();
    let residuals = plan.forward_to(image, &mut features)?;
    let seconds_forward = start.elapsed().as_secs_f64();
    let start = Instant::now();
    let sink = input_gradient
        .as_mut()
        .map(|sink| sink as &mut dyn InputGradientSink);
    let gradients = plan.vjp_from(residuals, &mut cotangent, sink)?;
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
    measured: &Measured,
    arguments: &VjpArguments,
    batch: u64,
) -> Report {
    let ratio = plan.cost().compute_ratio();
    let kept_node_names: Vec<String> = plan.kept_names().map(str::to_owned).collect();
    #[expect(clippy::cast_precision_loss, reason = "a ratio to print")]
    let compute_ratio = ratio.numerator() as f64 / ratio.denominator() as f64;
    Report {
        model,
        recipe: plan.recipe().to_string(),
        blocks: plan.geometry().blocks(),
        segments: plan.recipe().segments,
        tiles: plan.tiles(),
        kept_nodes: kept_node_names.len(),
        kept_node_names,
        arithmetic: match arguments.arithmetic {
            Arithmetic::Auto | Arithmetic::Direct => "direct",
        },
        planned_peak_bytes: plan.peak_bytes().get(),
        measured_peak_bytes: measured.peak_bytes,
        peak_rss_bytes: resident_memory::peak_rss_bytes(),
        compute_ratio,
        seconds_forward: measured.seconds_forward,
        seconds_backward: measured.seconds_backward,
        flops: plan.cost().total().saturating_mul(u128::from(batch)),
        threads: model::threads(&arguments.recipe),
    }
}
