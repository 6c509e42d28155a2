//! The VJP of one operation on one tile.

use stream_grad_kernels::{
    Activation, DataGradientWeights, Interpolation, LayerNorm, accumulate_channels,
    accumulate_region, affine_parameter_gradient, affine_vjp, avg_pool_vjp, bias_gradient,
    conv_data_gradient, conv_weight_gradient, gelu_vjp, layer_norm_parameter_gradient,
    layer_norm_vjp, max_pool_vjp, relu_vjp, relu_vjp_in_place, upsample_vjp,
};

use super::buffer::Buffer;
use super::compute::{at, bilinear, first_window, located, origin, upsample};
use super::{BlockStore, Engine, Phase, TilePlace};
use crate::error::{Result, StreamError};
use crate::gradients::{OperationGradients, ParameterGradients};
use crate::operation::{ConvolutionOperation, Kind, Pooling};
use crate::prepared::{PreparedOperation, kernel_error};
use crate::scalar::Scalar;

/// What the VJPs read and write besides the tile.
pub(crate) struct Gradients<T> {
    pub(crate) weights: Vec<Option<DataGradientWeights<T>>>,
    pub(crate) parameters: ParameterGradients,
    pub(crate) trainable: Vec<bool>,
}

impl<T: Scalar> Engine<'_, T> {
    /// Runs the VJP of a node over what the tile owns; the cotangent there is complete. Adds to the cotangents
    /// of the inputs and to the parameters' gradients.
    pub(super) fn vjp(
        &mut self,
        place: TilePlace,
        node: usize,
        store: &mut BlockStore<T>,
        gradients: &mut Gradients<T>,
    ) -> Result<()> {
        let operations = self.schedule.operations;
        let operation = &operations[node];
        let name = operation.name.as_str();
        let owned = self.owned(place, node);
        let cotangent = self.cotangent(place, node);
        let region = cotangent.region(owned);
        let source = operation.inputs[0];
        let input = self.activation(place, source, Phase::Backward);
        let wants_input = self.has_cotangent(source);
        let input_cotangent = self.cotangent(place, source);
        let trains = operation.is_trainable(&gradients.trainable);
        let sums = &mut gradients.parameters.operations[node];
        let plane = self.schedule.geometry.sized().size(source);
        let prepared = self.prepared;
        match (&operation.kind, &prepared.operations[node]) {
            (Kind::Convolution(convolution), _) => {
                self.activate_cotangent(place, node, convolution, store)?;
                if let Some(&residual) = operation.inputs.get(1) {
                    self.pass_on(place, node, residual, store)?;
                }
                if trains {
                    self.convolution_gradients(place, node, convolution, store, sums)?;
                }
                let Some(weights) = gradients.weights[node].as_ref().filter(|_| wants_input) else {
                    return Ok(());
                };
                let first = first_window(self.rule(node), input_cotangent, owned);
                let [from, to] = self.views(store, [cotangent, input_cotangent], name)?;
                let mut run = || {
                    conv_data_gradient(
                        &convolution.shape,
                        weights,
                        cotangent.image(from)?,
                        region,
                        first,
                        input_cotangent.image_mut(to)?,
                    )
                };
                run().map_err(kernel_error(name))
            }
            (Kind::Add, _) => {
                for &input in &operation.inputs {
                    self.pass_on(place, node, input, store)?;
                }
                Ok(())
            }
            (Kind::Concat, _) => {
                let mut channel = 0;
                for &input in &operation.inputs {
                    let channels = operations[input].channels;
                    if self.has_cotangent(input) {
                        let target = self.cotangent(place, input);
                        let [from, to] = self.views(store, [cotangent, target], name)?;
                        let mut run = || {
                            accumulate_channels(
                                located(&cotangent, from, owned)?,
                                channel..channel + channels,
                                target.image_mut(to)?,
                                target.region(owned),
                                0,
                            )
                        };
                        run().map_err(kernel_error(name))?;
                    }
                    channel += channels;
                }
                Ok(())
            }
            (Kind::Affine(_), PreparedOperation::Affine { scale, .. }) => {
                if trains {
                    let [x, g] = self.views(store, [input, cotangent], name)?;
                    let mut run = || {
                        let (scale_sum, shift_sum) = scale_and_shift(sums);
                        affine_parameter_gradient(
                            located(&input, x, owned)?,
                            cotangent.image(g)?,
                            region,
                            scale_sum,
                            shift_sum,
                        )
                    };
                    run().map_err(kernel_error(name))?;
                }
                if !wants_input {
                    return Ok(());
                }
                let [g, to] = self.views(store, [cotangent, input_cotangent], name)?;
                let mut run = || {
                    affine_vjp(
                        located(&cotangent, g, owned)?,
                        scale,
                        input_cotangent.image_mut(to)?,
                        input_cotangent.region(owned),
                    )
                };
                run().map_err(kernel_error(name))
            }
            (Kind::LayerNorm { epsilon, .. }, PreparedOperation::LayerNorm { weight, bias }) => {
                let norm = LayerNorm {
                    gamma: weight,
                    beta: bias,
                    epsilon: *epsilon,
                };
                if trains {
                    let [x, g] = self.views(store, [input, cotangent], name)?;
                    let mut run = || {
                        let (scale_sum, shift_sum) = scale_and_shift(sums);
                        layer_norm_parameter_gradient(
                            norm,
                            located(&input, x, owned)?,
                            cotangent.image(g)?,
                            region,
                            scale_sum,
                            shift_sum,
                        )
                    };
                    run().map_err(kernel_error(name))?;
                }
                if !wants_input {
                    return Ok(());
                }
                let [x, g, to] = self.views(store, [input, cotangent, input_cotangent], name)?;
                let mut run = || {
                    layer_norm_vjp(
                        norm,
                        located(&input, x, owned)?,
                        located(&cotangent, g, owned)?,
                        input_cotangent.image_mut(to)?,
                        input_cotangent.region(owned),
                    )
                };
                run().map_err(kernel_error(name))
            }
            (Kind::Local { layer, .. }, PreparedOperation::Local { parameters }) => {
                let region = super::local::region(layer.as_ref(), owned, plane);
                let sums = &mut sums.weights;
                if wants_input {
                    let [x, g, to] =
                        self.views(store, [input, cotangent, input_cotangent], name)?;
                    let to = Some((&input_cotangent, to));
                    return super::local::vjp(
                        layer.as_ref(),
                        &region,
                        parameters,
                        (&input, x),
                        (&cotangent, g),
                        to,
                        sums,
                    );
                }
                let [x, g] = self.views(store, [input, cotangent], name)?;
                super::local::vjp(
                    layer.as_ref(),
                    &region,
                    parameters,
                    (&input, x),
                    (&cotangent, g),
                    None,
                    sums,
                )
            }
            (kind, _) if wants_input => {
                let own = self.activation(place, node, Phase::Backward);
                let first = first_window(self.rule(node), input, owned);
                let to_first = first_window(self.rule(node), input_cotangent, owned);
                let reads = match kind {
                    Kind::Relu => own,
                    _ => input,
                };
                let reads_activation = matches!(kind, Kind::Relu | Kind::Gelu(_))
                    || matches!(
                        kind,
                        Kind::Pool {
                            pooling: Pooling::Maximum,
                            ..
                        }
                    );
                let target = input_cotangent.region(owned);
                if !reads_activation {
                    let [g, to] = self.views(store, [cotangent, input_cotangent], name)?;
                    let mut run = || {
                        let g = cotangent.image(g)?;
                        let to = input_cotangent.image_mut(to)?;
                        let place = origin(input_cotangent.rect);
                        match kind {
                            Kind::Pool {
                                window,
                                pooling: Pooling::Average(divisor),
                                ..
                            } => avg_pool_vjp(window, *divisor, g, region, to_first, to),
                            Kind::UpsampleNearest(factor) => {
                                let upsample = upsample(*factor, Interpolation::Nearest, plane);
                                upsample_vjp(&upsample, g, region, origin(owned), to, place)
                            }
                            Kind::UpsampleBilinear(factor, corners) => {
                                let upsample = upsample(*factor, bilinear(*corners), plane);
                                upsample_vjp(&upsample, g, region, origin(owned), to, place)
                            }
                            _ => Ok(()),
                        }
                    };
                    return run().map_err(kernel_error(name));
                }
                let [x, g, to] = self.views(store, [reads, cotangent, input_cotangent], name)?;
                let mut run = || {
                    let x = reads.image(x)?;
                    let g = cotangent.image(g)?;
                    let to = input_cotangent.image_mut(to)?;
                    match kind {
                        Kind::Relu => {
                            relu_vjp(at(&reads, x, owned), at(&cotangent, g, owned), to, target)
                        }
                        Kind::Gelu(form) => gelu_vjp(
                            *form,
                            at(&reads, x, owned),
                            at(&cotangent, g, owned),
                            to,
                            target,
                        ),
                        Kind::Pool { window, .. } => {
                            max_pool_vjp(window, x, first, g, region, to, to_first)
                        }
                        _ => Ok(()),
                    }
                };
                run().map_err(kernel_error(name))
            }
            _ => Ok(()),
        }
    }

    /// Masks the cotangent of a fused ReLU in place.
    fn activate_cotangent(
        &mut self,
        place: TilePlace,
        node: usize,
        convolution: &ConvolutionOperation,
        store: &mut BlockStore<T>,
    ) -> Result<()> {
        if convolution.activation == Activation::Identity {
            return Ok(());
        }
        let name = self.schedule.operations[node].name.as_str();
        let owned = self.owned(place, node);
        let output = self.activation(place, node, Phase::Backward);
        let cotangent = self.cotangent(place, node);
        let [y, g] = self.views(store, [output, cotangent], name)?;
        let mut run = || {
            relu_vjp_in_place(
                located(&output, y, owned)?,
                cotangent.image_mut(g)?,
                cotangent.region(owned),
            )
        };
        run().map_err(kernel_error(name))
    }

    /// Adds a node's cotangent to that of an input which it reads position by position.
    fn pass_on(
        &mut self,
        place: TilePlace,
        node: usize,
        input: usize,
        store: &mut BlockStore<T>,
    ) -> Result<()> {
        if !self.has_cotangent(input) {
            return Ok(());
        }
        let name = self.schedule.operations[node].name.as_str();
        let owned = self.owned(place, node);
        let from = self.cotangent(place, node);
        let to = self.cotangent(place, input);
        let [g, target] = self.views(store, [from, to], name)?;
        let mut run = || {
            accumulate_region(
                located(&from, g, owned)?,
                to.image_mut(target)?,
                to.region(owned),
            )
        };
        run().map_err(kernel_error(name))
    }

    fn convolution_gradients(
        &mut self,
        place: TilePlace,
        node: usize,
        convolution: &ConvolutionOperation,
        store: &mut BlockStore<T>,
        sums: &mut OperationGradients,
    ) -> Result<()> {
        let operation = &self.schedule.operations[node];
        let name = operation.name.as_str();
        let owned = self.owned(place, node);
        let cotangent = self.cotangent(place, node);
        let input: Buffer = self.activation(place, operation.inputs[0], Phase::Backward);
        let first = first_window(self.rule(node), input, owned);
        let region = cotangent.region(owned);
        let [x, g] = self.views(store, [input, cotangent], name)?;
        let Some(weights) = sums.weights.first_mut() else {
            return Err(StreamError::Internal {
                layer: name.to_owned(),
                what: "no place for the weight gradient",
            });
        };
        let mut run = || {
            let g = cotangent.image(g)?;
            if !sums.bias.is_empty() {
                bias_gradient(g, region, &mut sums.bias)?;
            }
            conv_weight_gradient(
                &convolution.shape,
                input.image(x)?,
                first,
                g,
                region,
                weights,
            )
        };
        run().map_err(kernel_error(name))
    }

    /// Whether the backward sweep computes a cotangent of a node.
    pub(super) fn has_cotangent(&self, node: usize) -> bool {
        self.schedule.geometry.sized().graph().nodes()[node].has_cotangent
    }
}

fn scale_and_shift(sums: &mut OperationGradients) -> (&mut [f64], &mut [f64]) {
    let scale = sums
        .weights
        .first_mut()
        .map_or(&mut [][..], Vec::as_mut_slice);
    (scale, &mut sums.bias)
}
