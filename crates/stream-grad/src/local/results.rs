//! What a layer of the user's own gives back, held to what was asked for.

use candle_core::{DType, Tensor};
use stream_grad_tiling::Span;

use super::LocalLayer;
use crate::{LocalRegion, Result, StreamError};

/// The layer's outputs in `region`, `channels` of them.
///
/// # Errors
/// [`StreamError::LocalLayer`] of the layer's own, [`StreamError::LocalResult`] for a result of another shape or dtype.
pub(crate) fn forward(
    layer: &dyn LocalLayer,
    region: &LocalRegion,
    parameters: &[Tensor],
    input: &Tensor,
    channels: usize,
) -> Result<Tensor> {
    let output = layer
        .forward(region, parameters, input)
        .map_err(failed(layer))?;
    let expected = [
        1,
        channels,
        length(region.outputs.rows),
        length(region.outputs.columns),
    ];
    check(layer, || "output".to_owned(), &expected, input, &output)?;
    Ok(output)
}

/// The cotangents of the input and of each parameter.
///
/// # Errors
/// As [`forward`], and for another number of cotangents than of parameters.
pub(crate) fn vjp(
    layer: &dyn LocalLayer,
    region: &LocalRegion,
    parameters: &[Tensor],
    input: &Tensor,
    cotangent: &Tensor,
) -> Result<(Tensor, Vec<Tensor>)> {
    let (of_input, of_parameters) = layer
        .vjp(region, parameters, input, cotangent)
        .map_err(failed(layer))?;
    let what = || "gradient of the input".to_owned();
    check(layer, what, input.dims(), input, &of_input)?;
    if of_parameters.len() != parameters.len() {
        let shapes = |tensors: &[Tensor]| {
            let shapes: Vec<&[usize]> = tensors.iter().map(Tensor::dims).collect();
            format!("{} of shapes {shapes:?}", shapes.len())
        };
        return Err(StreamError::LocalResult {
            layer: layer.name(),
            what: "gradients of the parameters".to_owned(),
            expected: shapes(parameters),
            found: shapes(&of_parameters),
        });
    }
    for (index, (parameter, gradient)) in parameters.iter().zip(&of_parameters).enumerate() {
        let what = || {
            let names = layer.parameters();
            let name = names.get(index).map_or("?", |(name, _)| name.as_str());
            format!("gradient of parameter `{name}`")
        };
        check(layer, what, parameter.dims(), parameter, gradient)?;
    }
    Ok((of_input, of_parameters))
}

/// Refuses another shape, and a dtype that is neither that of `like` nor the wider f64: what was computed in less would pass
/// for what it is not.
fn check(
    layer: &dyn LocalLayer,
    what: impl Fn() -> String,
    expected: &[usize],
    like: &Tensor,
    found: &Tensor,
) -> Result<()> {
    if found.dims() != expected {
        return Err(StreamError::LocalResult {
            layer: layer.name(),
            what: what(),
            expected: format!("shape {expected:?}"),
            found: format!("{:?}", found.dims()),
        });
    }
    if found.dtype() != like.dtype() && found.dtype() != DType::F64 {
        return Err(StreamError::LocalResult {
            layer: layer.name(),
            what: what(),
            expected: format!("dtype {:?}", like.dtype()),
            found: format!("{:?}", found.dtype()),
        });
    }
    Ok(())
}

pub(crate) fn failed(layer: &dyn LocalLayer) -> impl Fn(crate::ExternalError) -> StreamError + '_ {
    |source| StreamError::LocalLayer {
        layer: layer.name(),
        source,
    }
}

/// Positions of a span.
pub(crate) fn length(span: Span) -> usize {
    usize::try_from(span.len()).unwrap_or(usize::MAX)
}
