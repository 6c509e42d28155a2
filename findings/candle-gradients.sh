#!/usr/bin/env bash
# A guess: what candle's `backward` gives is the gradient, and where it knows none it says so.
# So it is: `max_pool2d` of 2 x 2 gives a quarter; `upsample_nearest2d` drops what the same tensor got elsewhere, in one of both
# orders; `scatter` gives to values that were overwritten, and `scatter_add` nothing to values that were added to; and through
# candle_nn's `ops::layer_norm` and `LayerNorm` no gradient goes at all. `backward` succeeds in every case.
# Seen with: candle-core and candle-nn 0.11.1, on the CPU.
# Met in: crates/stream-grad/src/local.rs, whose `CandleLayer` lists them and refuses functions that no gradient goes through;
# crates/stream-grad/tests/candle.rs holds the list to candle. The layers of crates/kernels have gradients of their own.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
mkdir "$folder/src"
cat > "$folder/Cargo.toml" <<'TOML'
[package]
name = "gradients"
version = "0.0.0"
edition = "2021"

[dependencies]
candle-core = "=0.11.1"
candle-nn = "=0.11.1"

[profile.dev]
debug = false
TOML
cat > "$folder/src/main.rs" <<'RUST'
use candle_core::{DType, Device, Module, Result, Tensor, Var};
use candle_nn::ops::{layer_norm, layer_norm_slow};

type Loss = dyn Fn(&Tensor) -> Result<Tensor>;

const X: [f64; 4] = [1.0, 2.0, 3.0, 4.0];
/// Coarse enough for f32.
const STEP: f64 = 1e-2;

fn tensor(values: &[f64], shape: &[usize]) -> Result<Tensor> {
    Tensor::from_slice(values, shape, &Device::Cpu)
}

/// The gradient at `X`, or nothing where candle has none for it.
fn by_candle(shape: &[usize], loss: &Loss) -> Result<Option<Vec<f64>>> {
    let x = Var::from_tensor(&tensor(&X, shape)?)?;
    let gradients = loss(x.as_tensor())?.backward()?;
    let found = gradients.get(x.as_tensor());
    found.map(|found| found.flatten_all()?.to_vec1()).transpose()
}

fn by_differences(shape: &[usize], loss: &Loss) -> Result<Vec<f64>> {
    let at = |index: usize, by: f64| {
        let mut moved = X;
        moved[index] += by;
        loss(&tensor(&moved, shape)?)?.to_scalar::<f64>()
    };
    let slope = |index| Ok((at(index, STEP)? - at(index, -STEP)?) / (2.0 * STEP));
    (0..X.len()).map(slope).collect()
}

fn near(left: &[f64], right: &[f64]) -> bool {
    left.iter().zip(right).all(|(left, right)| (left - right).abs() < 2e-2)
}

fn shown(values: &[f64]) -> String {
    let values = values.iter().map(|value| format!("{:.2}", value + 0.0));
    values.collect::<Vec<_>>().join(" ")
}

/// Sum of the values, each with another weight.
fn weighted(y: Tensor) -> Result<Tensor> {
    (y * tensor(&[1.0, 2.0, 4.0, 8.0], &[1, 4])?)?.sum_all()
}

fn up(x: &Tensor) -> Result<Tensor> {
    x.upsample_nearest2d(4, 4)?.sum_all()
}

/// The norm without scale and shift, which takes no f64 in its fast variant.
fn norm(x: &Tensor, function: impl Fn(&Tensor, &Tensor, &Tensor) -> Result<Tensor>) -> Result<Tensor> {
    let one = Tensor::ones(4, DType::F32, &Device::Cpu)?;
    function(&x.to_dtype(DType::F32)?, &one, &one.zeros_like()?)?.to_dtype(DType::F64)
}

fn fast(x: &Tensor) -> Result<Tensor> {
    norm(x, |x, scale, shift| layer_norm(x, scale, shift, 1e-5))
}

fn module(x: &Tensor) -> Result<Tensor> {
    norm(x, |x, scale, shift| candle_nn::LayerNorm::new(scale.clone(), shift.clone(), 1e-5).forward(x))
}

fn slow(x: &Tensor) -> Result<Tensor> {
    norm(x, |x, scale, shift| layer_norm_slow(x, scale, shift, 1e-5))
}

/// What candle is expected to give.
enum Expected {
    Right,
    Wrong([f64; 4]),
    Nothing,
}

fn main() -> Result<()> {
    use Expected::{Nothing, Right, Wrong};
    let two = Tensor::new(&[[1_u32, 3]], &Device::Cpu)?;
    let four = Tensor::new(&[[1_u32, 1, 1, 3]], &Device::Cpu)?;
    let (set, added) = (tensor(&[5.0, 6.0], &[1, 2])?, tensor(&[5.0, 6.0, 7.0, 8.0], &[1, 4])?);
    let image: &[usize] = &[1, 1, 2, 2];
    let row: &[usize] = &[1, 4];
    let scatter = move |x: &Tensor| weighted(x.scatter(&two, &set, 1)?);
    let scatter_add = move |x: &Tensor| weighted(x.scatter_add(&four, &added, 1)?);
    let cases: Vec<(&str, &[usize], Expected, Box<Loss>)> = vec![
        ("max_pool2d(2)", image, Wrong([0.0, 0.0, 0.0, 0.25]), Box::new(|x| x.max_pool2d(2)?.sum_all())),
        ("upsample_nearest2d alone", image, Right, Box::new(up)),
        ("upsample_nearest2d + x", image, Wrong([4.0; 4]), Box::new(|x| up(x)? + x.sum_all()?)),
        ("x + upsample_nearest2d", image, Right, Box::new(|x| x.sum_all()? + up(x)?)),
        ("scatter to 1 and 3", row, Wrong([1.0, 2.0, 4.0, 8.0]), Box::new(scatter)),
        ("scatter_add to 1 and 3", row, Wrong([1.0, 0.0, 4.0, 0.0]), Box::new(scatter_add)),
        ("ops::layer_norm", row, Nothing, Box::new(|x| weighted(fast(x)?))),
        ("LayerNorm", row, Nothing, Box::new(|x| weighted(module(x)?))),
        ("x + ops::layer_norm", row, Wrong([1.0, 2.0, 4.0, 8.0]), Box::new(|x| weighted((x + fast(x)?)?))),
        ("ops::layer_norm_slow", row, Right, Box::new(|x| weighted(slow(x)?))),
    ];
    println!("gradients at {}", shown(&X));
    let mut changed = false;
    for (name, shape, expected, loss) in cases {
        let (found, differences) = (by_candle(shape, &*loss)?, by_differences(shape, &*loss)?);
        let is_right = found.as_ref().is_some_and(|found| near(found, &differences));
        changed |= match (&expected, &found) {
            (Right, _) => !is_right,
            (Wrong(wrong), Some(found)) => is_right || !near(found, wrong),
            (Nothing, found) => found.is_some(),
            (Wrong(_), None) => true,
        };
        let by_candle = found.map_or_else(|| "none".into(), |found| shown(&found));
        let verdict = if is_right { "right" } else { "WRONG" };
        println!("{name:25} candle {by_candle:22} differences {:22} {verdict}", shown(&differences));
    }
    if changed {
        candle_core::bail!("the behaviour has changed");
    }
    println!("as described");
    Ok(())
}
RUST
cd "$folder"
export CARGO_TARGET_DIR="$folder/target"
cargo build --quiet
cargo tree --quiet --depth 1 --prefix none | grep '^candle'
target/debug/gradients
