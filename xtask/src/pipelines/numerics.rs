//! `cargo xtask reproduce numerics`: streamed against whole, as the paper's notebook compares them.
//!
//! Source: StreamingCNN, notebook on numerical equality: three times (3x3 convolution, ReLU, 3x3 convolution, ReLU,
//! max-pooling by 2), weights times 2.5, biases zero, an image of normal noise in f64.

use anyhow::Context;
use candle_core::backprop::GradStore;
use candle_core::{DType, Tensor, Var};
use stream_grad::{Net, PlanRequest};
use stream_grad_models::generator;
use xtask::arguments::NumericsArguments;

use crate::model;

/// What the notebook prints: the output's largest difference, and the range of those of the kernels' gradients.
const PUBLISHED: &str =
    "published (tile 512 of 1024): output < 1e-7, kernel gradients 7e-14 to 6.8e-13";

/// Runs the network whole and streamed, and prints the differences.
pub(crate) fn run(arguments: &NumericsArguments) -> anyhow::Result<()> {
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
    let (streamed, streamed_gradients) =
        run_once(&net, request.tile(arguments.tile.get()), &image)?;

    println!(
        "image {edge}x{edge}, tile {}, f64; loss: the sum of the output",
        arguments.tile
    );
    println!(
        "{:<14}{:>22}{:>22}{:>18}",
        "", "largest magnitude", "largest difference", "relative L2"
    );
    print_row("output", &whole, &streamed)?;
    for parameter in net.parameters() {
        let missing = || format!("no gradient of `{}` was computed", parameter.name);
        let whole = whole_gradients
            .get(&parameter.tensor)
            .with_context(missing)?;
        let streamed = streamed_gradients
            .get(&parameter.tensor)
            .with_context(missing)?;
        print_row(&parameter.name, whole, streamed)?;
    }
    println!("{PUBLISHED}");
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

fn print_row(name: &str, whole: &Tensor, streamed: &Tensor) -> anyhow::Result<()> {
    let maximum = |tensor: &Tensor| tensor.abs()?.flatten_all()?.max(0)?.to_scalar::<f64>();
    let norm = |tensor: &Tensor| tensor.sqr()?.sum_all()?.sqrt()?.to_scalar::<f64>();
    let difference = (whole - streamed)?;
    let relative = norm(&difference)? / norm(whole)?;
    println!(
        "{name:<14}{:>22.3e}{:>22.3e}{relative:>18.3e}",
        maximum(whole)?,
        maximum(&difference)?
    );
    Ok(())
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
