//! What is explained, and where it is looked at.

use candle_core::Tensor;
use stream_grad::Net;

use crate::error::{Result, TrainError};
use crate::model::{StreamedModel, numbers};

/// All logits of the network's outputs, whole features `[1, C, H, W]` each, and the gradient of one logit with respect to each
/// output.
pub(super) fn explain(
    model: &StreamedModel,
    outputs: &[Tensor],
    target: usize,
) -> Result<(Vec<f64>, Vec<Tensor>)> {
    let head = model.head();
    let logits = head.logits(&head.pooled_all(outputs)?)?;
    let values = numbers(&logits)?;
    if target >= values.len() {
        return Err(TrainError::setting(
            "target",
            format!("an output of the model, from 0 to {}", values.len() - 1),
            target,
        ));
    }
    let mut gradients = logits.narrow(1, target, 1)?.sum_all()?.backward()?;
    let gradients = outputs.iter().map(|output| match gradients.remove(output) {
        Some(gradient) => Ok(gradient.detach()),
        None => output.zeros_like(),
    });
    Ok((values, gradients.collect::<candle_core::Result<_>>()?))
}

/// The name that a layer has in the model's network, where it may stand behind `net.`.
///
/// # Errors
/// [`TrainError::Setting`] with all names if there is no such layer.
pub(super) fn layer_name(net: &Net, layer: &str) -> Result<String> {
    let names = [layer.to_owned(), format!("net.{layer}")];
    let found = names
        .into_iter()
        .find(|name| net.operation_of(name).is_some());
    found.ok_or_else(|| {
        let names: Vec<&str> = net
            .operation_names()
            .map(|name| name.strip_prefix("net.").unwrap_or(name))
            .collect();
        TrainError::setting(
            "layer",
            format!("one of {}, or a module of these", names.join(", ")),
            layer,
        )
    })
}
