//! Initial weights that are a function of a seed and of names, so that a run can be repeated.

use candle_core::{DType, Device, Result, Shape, Tensor, Var};
use candle_nn::init::NormalOrUniform;
use candle_nn::var_builder::SimpleBackend;
use candle_nn::{Init, VarBuilder, VarMap};

use crate::generator;

/// A builder that takes variables from `variables` and adds those that are not there, with the initial values that
/// each layer asks for, drawn from `seed` and the variable's full name.
///
/// Candle's own builder cannot be seeded on the CPU. Neither the order of layers nor other layers change the values.
///
/// ```
/// use candle_core::{DType, Device};
/// use candle_nn::VarMap;
/// use stream_grad_models::seeded;
/// let draw = |seed| {
///     let vb = seeded(&VarMap::new(), seed, DType::F32, &Device::Cpu);
///     vb.get_with_hints(3, "weight", candle_nn::init::DEFAULT_KAIMING_NORMAL)?.to_vec1::<f32>()
/// };
/// assert_eq!(draw(1)?, draw(1)?);
/// assert_ne!(draw(1)?, draw(2)?);
/// # Ok::<(), candle_core::Error>(())
/// ```
pub fn seeded(variables: &VarMap, seed: u64, dtype: DType, device: &Device) -> VarBuilder<'static> {
    let backend = Seeded {
        variables: variables.clone(),
        seed,
    };
    VarBuilder::from_backend(Box::new(backend), dtype, device.clone())
}

/// Makes a convolution's `weight` `[out, in, height, width]` and `bias` where `vb` makes variables, with PyTorch's initial values
/// instead of He's: uniform within the inverse root of what an output reads. They are smaller by a factor of 2.4, and so the same
/// steps turn them further.
pub(crate) fn uniform_conv2d(shape: [usize; 4], vb: &VarBuilder<'_>) -> Result<()> {
    let [outputs, read @ ..] = shape;
    let init = uniform_of(read.iter().product());
    vb.get_with_hints(&shape, "weight", init)?;
    vb.get_with_hints(outputs, "bias", init)?;
    Ok(())
}

/// PyTorch's initial values of a layer of which each output reads `inputs` values: uniform within `1 / sqrt(inputs)`.
pub(crate) fn uniform_of(inputs: usize) -> Init {
    #[expect(
        clippy::cast_precision_loss,
        reason = "a square root of a small integer"
    )]
    let bound = 1.0 / (inputs as f64).sqrt();
    Init::Uniform {
        lo: -bound,
        up: bound,
    }
}

struct Seeded {
    variables: VarMap,
    seed: u64,
}

impl Seeded {
    fn draw(&self, shape: &Shape, name: &str, init: Init) -> Vec<f64> {
        let name = format!("{}/{name}", self.seed);
        let count = shape.elem_count();
        match init {
            Init::Const(value) => vec![value; count],
            Init::Uniform { lo, up } => uniform(&name, lo, up).take(count).collect(),
            Init::Randn { mean, stdev } => normal(&name, mean, stdev).take(count).collect(),
            Init::Kaiming {
                dist,
                fan,
                non_linearity,
            } => {
                #[expect(clippy::cast_precision_loss, reason = "fans are far below 2^53")]
                let deviation = non_linearity.gain() / (fan.for_shape(shape).max(1) as f64).sqrt();
                let bound = 3.0_f64.sqrt() * deviation;
                match dist {
                    NormalOrUniform::Normal => normal(&name, 0.0, deviation).take(count).collect(),
                    NormalOrUniform::Uniform => uniform(&name, -bound, bound).take(count).collect(),
                }
            }
        }
    }

    fn known(&self, name: &str) -> Option<Var> {
        let known = self.variables.data().lock();
        known
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .get(name)
            .cloned()
    }
}

/// Multiples of 2^-53 in (0, 1).
fn open_unit(name: &str) -> impl Iterator<Item = f64> + use<> {
    #[expect(clippy::cast_precision_loss, reason = "52 bits and a half are exact")]
    generator::integers(name)
        .map(|integer| ((integer >> 12) as f64 + 0.5) / 4_503_599_627_370_496.0)
}

fn uniform(name: &str, lo: f64, up: f64) -> impl Iterator<Item = f64> + use<> {
    open_unit(name).map(move |unit| lo + (up - lo) * unit)
}

/// Normal numbers by the method of Box and Muller (1958), one of each pair.
fn normal(name: &str, mean: f64, deviation: f64) -> impl Iterator<Item = f64> + use<> {
    let mut units = open_unit(name);
    std::iter::from_fn(move || {
        let (radius, angle) = (units.next()?, units.next()?);
        let cosine = (std::f64::consts::TAU * angle).cos();
        Some(mean + deviation * (-2.0 * radius.ln()).sqrt() * cosine)
    })
}

impl SimpleBackend for Seeded {
    fn get(
        &self,
        shape: Shape,
        name: &str,
        init: Init,
        dtype: DType,
        device: &Device,
    ) -> Result<Tensor> {
        if self.known(name).is_none() {
            let values = Tensor::from_vec(self.draw(&shape, name, init), &shape, device)?;
            let variable = Var::from_tensor(&values.to_dtype(dtype)?)?;
            let mut variables = self.variables.data().lock();
            let variables = variables.as_mut().map_err(|_| poisoned(name))?;
            variables.insert(name.to_owned(), variable);
        }
        self.variables.get(shape, name, init, dtype, device)
    }

    fn get_unchecked(&self, name: &str, dtype: DType, device: &Device) -> Result<Tensor> {
        let variable = self
            .known(name)
            .ok_or_else(|| candle_core::Error::CannotFindTensor { path: name.into() }.bt())?;
        variable.as_tensor().to_device(device)?.to_dtype(dtype)
    }

    fn contains_tensor(&self, name: &str) -> bool {
        self.known(name).is_some()
    }
}

fn poisoned(name: &str) -> candle_core::Error {
    candle_core::Error::Msg(format!(
        "adding `{name}`: another thread panicked while it held the variables"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moments(values: &[f64]) -> (f64, f64) {
        let count = values.len() as f64;
        let mean = values.iter().sum::<f64>() / count;
        let variance = values
            .iter()
            .map(|value| (value - mean).powi(2))
            .sum::<f64>()
            / count;
        (mean, variance)
    }

    /// Mean and variance of 40,000 numbers lie within five standard errors.
    #[test]
    fn distributions_have_their_moments() {
        let values: Vec<f64> = normal("n", 2.0, 3.0).take(40_000).collect();
        let (mean, variance) = moments(&values);
        assert!((mean - 2.0).abs() < 5.0 * 3.0 / 200.0, "{mean}");
        assert!(
            (variance / 9.0 - 1.0).abs() < 5.0 * 2.0_f64.sqrt() / 200.0,
            "{variance}"
        );
        let values: Vec<f64> = uniform("u", -1.0, 3.0).take(40_000).collect();
        let (mean, variance) = moments(&values);
        assert!(values.iter().all(|value| (-1.0..3.0).contains(value)));
        assert!(
            (mean - 1.0).abs() < 5.0 * (16.0_f64 / 12.0).sqrt() / 200.0,
            "{mean}"
        );
        assert!(
            (variance / (16.0 / 12.0) - 1.0).abs() < 5.0 * 0.9 / 200.0,
            "{variance}"
        );
    }

    #[test]
    fn values_depend_on_the_name_alone() {
        let draw = |names: &[&str]| {
            let variables = VarMap::new();
            let vb = seeded(&variables, 7, DType::F64, &Device::Cpu);
            for &name in names {
                vb.pp("layer")
                    .get_with_hints((2, 3), name, candle_nn::init::DEFAULT_KAIMING_UNIFORM)
                    .unwrap();
            }
            vb.get_unchecked("layer.a")
                .unwrap()
                .to_vec2::<f64>()
                .unwrap()
        };
        assert_eq!(draw(&["a", "b"]), draw(&["b", "a"]));
    }

    #[test]
    fn what_is_there_is_kept_and_its_shape_checked() {
        let variables = VarMap::new();
        let first = seeded(&variables, 1, DType::F64, &Device::Cpu);
        let value = first
            .get_with_hints(
                4,
                "a",
                Init::Randn {
                    mean: 0.0,
                    stdev: 1.0,
                },
            )
            .unwrap();
        let second = seeded(&variables, 2, DType::F64, &Device::Cpu);
        let again = second
            .get_with_hints(4, "a", candle_nn::init::ZERO)
            .unwrap();
        assert_eq!(
            value.to_vec1::<f64>().unwrap(),
            again.to_vec1::<f64>().unwrap()
        );
        assert!(value.is_variable() && second.contains_tensor("a") && !second.contains_tensor("b"));
        let error = second.get(5, "a").unwrap_err().to_string();
        assert!(
            error.starts_with("shape mismatch on a: [5] <> [4]"),
            "{error}"
        );
    }
}
