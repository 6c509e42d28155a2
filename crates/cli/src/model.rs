//! A network by name, and the plan that the command line asks for.

use std::num::NonZeroUsize;

use crate::arguments::{FloatType, RecipeArguments};
use crate::exit::WrongUse;
use crate::tell;
use anyhow::Context;
use candle_core::backprop::GradStore;
use candle_core::{DType, Device, Tensor};
use candle_nn::VarMap;
use stream_grad::{InputGradient, Maps, Net, Parameter, Plan, PlanRequest};
use stream_grad_models::{ModelName, seeded};
use stream_grad_train::calibration::{CostModelCache, cache_folder};

/// Seed of weights that nothing depends on: they are replaced by a file's, or never read.
const SEED: u64 = 0;

/// The network of that name, with variables as parameters.
///
/// # Errors
/// If no network has that name.
pub fn build(name: &str, dtype: DType) -> anyhow::Result<(ModelName, Net)> {
    let name: ModelName = name.parse().map_err(WrongUse::from_error)?;
    let variables = VarMap::new();
    let net = name.build(seeded(&variables, SEED, dtype, &Device::Cpu))?;
    Ok((name, net))
}

/// What plans store.
pub fn dtype(dtype: FloatType) -> DType {
    match dtype {
        FloatType::F32 => DType::F32,
        FloatType::F64 => DType::F64,
        FloatType::Bf16 => DType::BF16,
    }
}

/// What they compute in, and candle's tensors of parameters, features and gradients are.
pub fn computed(dtype: FloatType) -> DType {
    match dtype {
        FloatType::F32 | FloatType::Bf16 => DType::F32,
        FloatType::F64 => DType::F64,
    }
}

/// The request that the arguments describe; all maps are streamed from and to files.
pub fn request(arguments: &RecipeArguments, height: u64, width: u64) -> PlanRequest {
    bounded(arguments, unbounded_request(arguments, height, width))
}

/// The same with the budget.
pub(crate) fn bounded(arguments: &RecipeArguments, request: PlanRequest) -> PlanRequest {
    match arguments.memory {
        Some(budget) => request.memory(budget),
        None => request,
    }
}

/// The same without the budget.
pub(crate) fn unbounded_request(
    arguments: &RecipeArguments,
    height: u64,
    width: u64,
) -> PlanRequest {
    let mut request = PlanRequest::new(height, width)
        .dtype(dtype(arguments.dtype))
        .threads(threads(arguments.threads))
        .features(Maps::Streamed);
    if let Some(edge) = arguments.tile {
        request = request.tile(edge.get());
    }
    if let Some(edge) = arguments.block {
        request = request.block(edge.get());
    }
    if let Some(folder) = &arguments.offload {
        request = request.offload(folder);
    }
    if arguments.input_gradient {
        request = request.input_gradient(InputGradient::Streamed);
    }
    request
}

/// The parameters that get gradients.
pub fn trainable(net: &Net) -> impl Iterator<Item = &Parameter> {
    net.parameters()
        .iter()
        .filter(|parameter| parameter.trainable)
}

/// The gradient of a parameter.
///
/// # Errors
/// If none was computed.
pub fn gradient<'a>(gradients: &'a GradStore, parameter: &Parameter) -> anyhow::Result<&'a Tensor> {
    gradients
        .get(&parameter.tensor)
        .with_context(|| format!("no gradient of `{}` was computed", parameter.name))
}

/// The plan's FLOPs over those of the conventional computation.
#[expect(clippy::cast_precision_loss, reason = "a ratio to print")]
pub fn compute_ratio(plan: &Plan) -> f64 {
    let ratio = plan.cost().compute_ratio();
    ratio.numerator() as f64 / ratio.denominator() as f64
}

/// The request with a model of this machine that knows its operations, from the user's cache or measured now, on `threads`
/// threads.
///
/// # Errors
/// As [`CostModelCache::model`]: what planning would refuse, too.
pub fn calibrated(net: &Net, request: PlanRequest, threads: usize) -> anyhow::Result<PlanRequest> {
    let cache = CostModelCache::new(cache_folder().as_deref(), threads);
    let model = cache.model(net, &request, &mut |notice| tell(notice))?;
    Ok(request.cost_model(model))
}

/// Number of threads: what was asked for, or one for each core.
pub fn threads(asked: Option<NonZeroUsize>) -> usize {
    asked.map_or_else(stream_grad::cores, NonZeroUsize::get)
}
