//! The forward arithmetic of one operation on one tile.

use stream_grad_kernels::{
    Activation, AlignCorners, Epilogue, Interpolation, KernelError, LayerNorm, Located, Region,
    Upsample, add, affine_forward, avg_pool_forward, conv_forward, copy_channels, gelu_forward,
    layer_norm_forward, max_pool_forward, relu_forward, upsample_forward,
};
use stream_grad_tiling::{AxisRule, Corners, PerAxis, Span};

use super::buffer::{Buffer, disjoint};
use super::{BlockStore, Engine, Phase, TilePlace};
use crate::error::{Result, StreamError};
use crate::operation::{ConvolutionOperation, Kind, Pooling};
use crate::prepared::{PreparedOperation, kernel_error};
use crate::scalar::Scalar;

impl<T: Scalar> Engine<'_, T> {
    /// Computes the owned region of a node; its inputs are complete.
    pub(super) fn compute(
        &mut self,
        place: TilePlace,
        node: usize,
        phase: Phase,
        store: &mut BlockStore<T>,
    ) -> Result<()> {
        let operations = self.schedule.operations;
        let prepared = self.prepared;
        let operation = &operations[node];
        let name = operation.name.as_str();
        let owned = self.owned(place, node);
        let output = self.activation(place, node, phase);
        let region = output.region(owned);
        let input = self.activation(place, operation.inputs[0], phase);
        let first = first_window(self.rule(node), input, owned);
        let plane = self.schedule.geometry.sized().size(operation.inputs[0]);
        match (&operation.kind, &prepared.operations[node]) {
            (Kind::Convolution(convolution), PreparedOperation::Convolution { .. }) => {
                self.convolve(place, node, convolution, phase, store)
            }
            (Kind::Concat, _) => {
                let mut channel = 0;
                for &source in &operation.inputs {
                    let input = self.activation(place, source, phase);
                    let [from, to] = self.views(store, [input, output], name)?;
                    let mut run = || {
                        copy_channels(
                            located(&input, from, owned)?,
                            0..input.channels,
                            output.image_mut(to)?,
                            region,
                            channel,
                        )
                    };
                    run().map_err(kernel_error(name))?;
                    channel += input.channels;
                }
                Ok(())
            }
            (Kind::Add, _) => {
                let other = self.activation(place, operation.inputs[1], phase);
                if operation.inputs[0] == operation.inputs[1] {
                    let [from, to] = self.views(store, [input, output], name)?;
                    let values = located(&input, from, owned).map_err(kernel_error(name))?;
                    let to = output.image_mut(to).map_err(kernel_error(name))?;
                    return add(values, values, to, region).map_err(kernel_error(name));
                }
                let [left, right, to] = self.views(store, [input, other, output], name)?;
                let mut run = || {
                    add(
                        located(&input, left, owned)?,
                        located(&other, right, owned)?,
                        output.image_mut(to)?,
                        region,
                    )
                };
                run().map_err(kernel_error(name))
            }
            (Kind::Local { layer, .. }, PreparedOperation::Local { parameters }) => {
                let region = super::local::region(layer.as_ref(), owned, plane);
                let [from, to] = self.views(store, [input, output], name)?;
                super::local::forward(
                    layer.as_ref(),
                    &region,
                    parameters,
                    (&input, from),
                    (&output, to),
                )
            }
            (kind, prepared) => {
                let [from, to] = self.views(store, [input, output], name)?;
                let mut run = || {
                    let from = input.image(from)?;
                    let to = output.image_mut(to)?;
                    let pointwise = || at(&input, from, owned);
                    match (kind, prepared) {
                        (
                            Kind::Pool {
                                window, pooling, ..
                            },
                            _,
                        ) => match pooling {
                            Pooling::Maximum => max_pool_forward(window, from, first, to, region),
                            Pooling::Average(divisor) => {
                                avg_pool_forward(window, *divisor, from, first, to, region)
                            }
                        },
                        (Kind::Affine(_), PreparedOperation::Affine { scale, shift }) => {
                            affine_forward(
                                pointwise(),
                                scale,
                                shift,
                                Activation::Identity,
                                to,
                                region,
                            )
                        }
                        (
                            Kind::LayerNorm { epsilon, .. },
                            PreparedOperation::LayerNorm { weight, bias },
                        ) => {
                            let norm = LayerNorm {
                                gamma: weight,
                                beta: bias,
                                epsilon: *epsilon,
                            };
                            layer_norm_forward(norm, pointwise(), to, region)
                        }
                        (Kind::Relu, _) => relu_forward(pointwise(), to, region),
                        (Kind::Gelu(form), _) => gelu_forward(*form, pointwise(), to, region),
                        (Kind::UpsampleNearest(factor), _) => {
                            let upsample = upsample(*factor, Interpolation::Nearest, plane);
                            upsample_forward(
                                &upsample,
                                from,
                                origin(input.rect),
                                to,
                                region,
                                origin(owned),
                            )
                        }
                        (Kind::UpsampleBilinear(factor, corners), _) => {
                            let upsample = upsample(*factor, bilinear(*corners), plane);
                            upsample_forward(
                                &upsample,
                                from,
                                origin(input.rect),
                                to,
                                region,
                                origin(owned),
                            )
                        }
                        _ => Ok(()),
                    }
                };
                run().map_err(kernel_error(name))
            }
        }
    }

    fn convolve(
        &mut self,
        place: TilePlace,
        node: usize,
        convolution: &ConvolutionOperation,
        phase: Phase,
        store: &mut BlockStore<T>,
    ) -> Result<()> {
        let operation = &self.schedule.operations[node];
        let prepared = self.prepared;
        let PreparedOperation::Convolution { weights, bias } = &prepared.operations[node] else {
            return Err(StreamError::Internal {
                layer: operation.name.clone(),
                what: "weights are not packed",
            });
        };
        let name = operation.name.as_str();
        let owned = self.owned(place, node);
        let output = self.activation(place, node, phase);
        let input = self.activation(place, operation.inputs[0], phase);
        let first = first_window(self.rule(node), input, owned);
        let residual = operation
            .inputs
            .get(1)
            .map(|&source| self.activation(place, source, phase));
        let run = |from: &[T], residual: Option<Located<'_, T>>, to: &mut [T]| {
            conv_forward(
                &convolution.shape,
                weights,
                input.image(from)?,
                first,
                output.image_mut(to)?,
                output.region(owned),
                Epilogue {
                    bias: bias.as_deref(),
                    residual,
                    activation: convolution.activation,
                },
            )
        };
        let result = match residual {
            None => {
                let [from, to] = self.views(store, [input, output], name)?;
                run(from, None, to)
            }
            Some(residual) if operation.inputs[0] == operation.inputs[1] => {
                let [from, to] = self.views(store, [input, output], name)?;
                located(&residual, from, owned).and_then(|values| run(from, Some(values), to))
            }
            Some(residual) => {
                let [from, other, to] = self.views(store, [input, residual, output], name)?;
                located(&residual, other, owned).and_then(|values| run(from, Some(values), to))
            }
        };
        result.map_err(kernel_error(name))
    }

    /// Views of several buffers of the arena and of the saved slab at once.
    pub(super) fn views<'a, const N: usize>(
        &'a mut self,
        store: &'a mut BlockStore<T>,
        buffers: [Buffer; N],
        name: &str,
    ) -> Result<[&'a mut [T]; N]> {
        disjoint(&mut self.arena, &mut store.saved, buffers, name)
    }

    /// The rule of a node's first input.
    pub(super) fn rule(&self, node: usize) -> &PerAxis<AxisRule> {
        let graph = self.schedule.geometry.sized().graph();
        &graph.nodes()[node].inputs[0].rule
    }
}

/// Where, in the input's buffer, the first tap of the first owned output's window lies.
pub(super) fn first_window(
    rule: &PerAxis<AxisRule>,
    input: Buffer,
    owned: PerAxis<Span>,
) -> stream_grad_kernels::Position {
    let first = |rule: &AxisRule, span: Span| match rule {
        AxisRule::Window(window) => span.lo * window.stride() - window.pad_lo(),
        _ => span.lo,
    };
    input.position(
        first(&rule.rows, owned.rows),
        first(&rule.columns, owned.columns),
    )
}

/// The values of a buffer that belong to a rectangle of the plane.
pub(super) fn located<'a, T>(
    buffer: &Buffer,
    data: &'a [T],
    rect: PerAxis<Span>,
) -> Result<Located<'a, T>, KernelError> {
    Ok(at(buffer, buffer.image(data)?, rect))
}

/// The values of a buffer's image that belong to a rectangle of the plane.
pub(super) fn at<'a, T>(
    buffer: &Buffer,
    image: stream_grad_kernels::Image<'a, T>,
    rect: PerAxis<Span>,
) -> Located<'a, T> {
    let Region { row, column, .. } = buffer.region(rect);
    Located::new(image, row, column)
}

/// An upsampling of a whole plane by one factor.
pub(super) fn upsample(
    factor: usize,
    interpolation: Interpolation,
    plane: PerAxis<i64>,
) -> Upsample {
    let extent = |size: i64| usize::try_from(size).unwrap_or(0);
    Upsample {
        factor: [factor, factor],
        interpolation,
        plane: [extent(plane.rows), extent(plane.columns)],
    }
}

/// The kernels' name for where bilinear samples lie.
pub(super) const fn bilinear(corners: Corners) -> Interpolation {
    Interpolation::Bilinear(match corners {
        Corners::HalfPixel => AlignCorners::No,
        Corners::Aligned => AlignCorners::Yes,
    })
}

/// The first position of a rectangle inside the plane.
pub(super) fn origin(rect: PerAxis<Span>) -> [usize; 2] {
    let first = |span: Span| usize::try_from(span.lo).unwrap_or(0);
    [first(rect.rows), first(rect.columns)]
}
