//! A layer of the user's own as the engine runs it: between its values and candle tensors.

use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use stream_grad_engine::{CustomOperator, CustomState, Values};
use stream_grad_tiling::{AxisRule, PerAxis};

use super::{LocalLayer, results};
use crate::{ExternalError, LocalRegion, Result, StreamError};

/// A user's layer for the engine.
#[derive(Debug)]
pub(crate) struct LocalOperator(pub(crate) Arc<dyn LocalLayer>);

impl LocalOperator {
    /// The parameters as they were when the forward sweep began.
    fn parameters<'a>(&self, state: &'a CustomState) -> Result<&'a [Tensor]> {
        let parameters = state.downcast_ref::<Vec<Tensor>>();
        parameters
            .map(Vec::as_slice)
            .ok_or_else(|| StreamError::Internal {
                layer: self.0.name(),
                what: "its parameters are not prepared",
            })
    }
}

impl CustomOperator for LocalOperator {
    fn name(&self) -> String {
        self.0.name()
    }

    fn rule(&self) -> PerAxis<AxisRule> {
        self.0.rule()
    }

    fn is_same_everywhere(&self) -> bool {
        self.0.is_same_everywhere()
    }

    fn takes_bf16(&self) -> bool {
        self.0.takes_bf16()
    }

    fn flops_per_output(&self) -> u64 {
        self.0.flops_per_output()
    }

    fn scratch_bytes(&self, input_values: u64, output_values: u64) -> u64 {
        self.0.scratch_bytes(input_values, output_values)
    }

    fn prepare(&self, parameters: Vec<Values>) -> Result<CustomState, ExternalError> {
        let own = self.0.parameters();
        let tensors = parameters.into_iter().zip(own);
        let tensors: Vec<Tensor> = tensors
            .map(|(values, (_, like))| tensor(values, like.dims()))
            .collect::<candle_core::Result<_>>()?;
        Ok(Box::new(tensors))
    }

    fn forward(
        &self,
        state: &CustomState,
        region: &LocalRegion,
        input: Values,
        channels: usize,
    ) -> Result<Values> {
        let (layer, parameters) = (self.0.as_ref(), self.parameters(state)?);
        let dtype = dtype(&input);
        let x = plane(input, region.inputs)?;
        let y = results::forward(layer, region, parameters, &x, channels)?;
        values(&y, dtype)
    }

    fn vjp(
        &self,
        state: &CustomState,
        region: &LocalRegion,
        input: Values,
        cotangent: Values,
    ) -> Result<(Values, Vec<Vec<f64>>)> {
        let (layer, parameters) = (self.0.as_ref(), self.parameters(state)?);
        let dtype = dtype(&input);
        let x = plane(input, region.inputs)?;
        let y_bar = plane(cotangent, region.outputs)?;
        let (x_bar, gradients) = results::vjp(layer, region, parameters, &x, &y_bar)?;
        let gradients = gradients.iter();
        let gradients = gradients
            .map(|gradient| Ok(gradient.to_dtype(DType::F64)?.flatten_all()?.to_vec1()?))
            .collect::<Result<_>>()?;
        Ok((values(&x_bar, dtype)?, gradients))
    }
}

fn dtype(values: &Values) -> DType {
    match values {
        Values::F32(_) => DType::F32,
        Values::F64(_) => DType::F64,
    }
}

/// Values of a rectangle as `[1, C, H, W]`.
fn plane(values: Values, rect: PerAxis<stream_grad_tiling::Span>) -> candle_core::Result<Tensor> {
    let (height, width) = (results::length(rect.rows), results::length(rect.columns));
    let count = match &values {
        Values::F32(values) => values.len(),
        Values::F64(values) => values.len(),
    };
    tensor(values, &[1, count / (height * width).max(1), height, width])
}

fn tensor(values: Values, shape: &[usize]) -> candle_core::Result<Tensor> {
    match values {
        Values::F32(values) => Tensor::from_vec(values, shape, &Device::Cpu),
        Values::F64(values) => Tensor::from_vec(values, shape, &Device::Cpu),
    }
}

/// The values of a tensor in any dtype and order, row by row.
fn values(tensor: &Tensor, dtype: DType) -> Result<Values> {
    let flat = tensor.to_dtype(dtype)?.flatten_all()?;
    Ok(match dtype {
        DType::F64 => Values::F64(flat.to_vec1()?),
        _ => Values::F32(flat.to_vec1()?),
    })
}
