//! `cargo xtask reproduce numerics`: streamed against whole, as the paper's notebook compares them.
//!
//! Source: StreamingCNN, notebook on numerical equality: three times (3x3 convolution, ReLU, 3x3 convolution, ReLU,
//! max-pooling by 2), weights times 2.5, biases zero, an image of normal noise in f64.

mod notes;
mod result;

use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context;
use candle_core::backprop::GradStore;
use candle_core::{DType, Tensor, Var};
use stream_grad::{Net, PlanRequest};
use stream_grad_models::generator;
use stream_grad_train::report;
use xtask::arguments::NumericsArguments;

use result::NumericsResult;

use crate::difference::Difference;
use stream_grad_cli::exit::Stopped;
use stream_grad_cli::model;

/// Runs the network whole and streamed, and prints and writes the differences.
pub(crate) fn run(arguments: &NumericsArguments, stop: &AtomicBool) -> anyhow::Result<()> {
    let (_, net) = model::build("numerics", DType::F64)?;
    for parameter in net.parameters() {
        let value = generator::parameter("numerics", &parameter.name, parameter.tensor.dims())?;
        Var::from_tensor(&parameter.tensor)?.set(&value.to_dtype(DType::F64)?)?;
    }
    let edge = arguments.image.get();
    let size = usize::try_from(edge)?;
    let image = normal(
        &format!("reproduce numerics/{}/input", arguments.seed),
        &[1, 3, size, size],
    )?;
    let request = PlanRequest::new(edge, edge).dtype(DType::F64);
    let (whole, whole_gradients) = run_once(&net, request.clone(), &image)?;
    if stop.load(Ordering::Relaxed) {
        return Err(Stopped::error("before streaming"));
    }
    let (streamed, streamed_gradients) =
        run_once(&net, request.tile(arguments.tile.get()), &image)?;

    let mut rows = vec![Difference::between("output", &whole, &streamed)?];
    for parameter in net.parameters() {
        let missing = || format!("no gradient of `{}` was computed", parameter.name);
        let whole = whole_gradients
            .get(&parameter.tensor)
            .with_context(missing)?;
        let streamed = streamed_gradients
            .get(&parameter.tensor)
            .with_context(missing)?;
        rows.push(Difference::between(&parameter.name, whole, streamed)?);
    }
    let result = NumericsResult::new(edge, arguments.tile.get(), arguments.seed, rows);
    let output = &arguments.output;
    result.write(output)?;
    notes::notes(&result).write(output)?;
    report::write(output)?;
    println!("{result}");
    println!("The report is {}", output.join("report.html").display());
    Ok(())
}

fn run_once(
    net: &Net,
    request: PlanRequest,
    image: &Tensor,
) -> anyhow::Result<(Tensor, GradStore)> {
    let plan = net.plan(request)?;
    let (features, residuals) = plan.forward(image)?;
    let loss = features.sum_all()?;
    let gradients = plan.backward(residuals, &features, &loss)?;
    Ok((features.detach(), gradients))
}

/// Normal noise by the Box-Muller transform of generated numbers.
fn normal(name: &str, shape: &[usize]) -> anyhow::Result<Tensor> {
    let length: usize = shape.iter().product();
    // From [-1, 1) to (0, 1].
    let mut uniform = generator::uniform(name).map(|u| 0.5 - 0.5 * u);
    let mut values = Vec::with_capacity(length + 1);
    while values.len() < length {
        let (Some(u), Some(v)) = (uniform.next(), uniform.next()) else {
            break;
        };
        let (radius, angle) = ((-2.0 * u.ln()).sqrt(), std::f64::consts::TAU * v);
        values.extend([radius * angle.cos(), radius * angle.sin()]);
    }
    values.truncate(length);
    Ok(Tensor::from_vec(values, shape, &candle_core::Device::Cpu)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn noise_has_mean_zero_and_variance_one() {
        let values = normal("test", &[1, 3, 101, 101])
            .unwrap()
            .flatten_all()
            .unwrap();
        let mean: f64 = values.mean_all().unwrap().to_scalar().unwrap();
        let square: f64 = values
            .sqr()
            .unwrap()
            .mean_all()
            .unwrap()
            .to_scalar()
            .unwrap();
        assert!(
            mean.abs() < 0.03 && (square - 1.0).abs() < 0.04,
            "{mean} {square}"
        );
    }
}
