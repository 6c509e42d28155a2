//! Transposed convolutions.

use stream_grad_kernels::{ConvTranspose, KernelError};
use stream_grad_tiling::{AxisRule, PerAxis, TilingError, TransposedWindow, VjpReads};

use super::convolution::{describe, window_per_axis};
use crate::backend::Backend;
use crate::error::{Result, StreamError};
use crate::operator::plain::{GradientWriter, Plain};
use crate::operator::step::{ForwardStep, VjpStep};
use crate::operator::{Copies, Needs, NodeShape, Operator, OperatorKey, VjpWeights, computed};
use crate::parameter::{ParameterId, ParameterShape};

#[derive(Debug, Clone)]
pub(crate) struct TransposedConvolution {
    pub(crate) shape: ConvTranspose,
    /// How many more outputs there are at the end of each axis.
    pub(crate) output_padding: [usize; 2],
    pub(crate) weight: ParameterId,
    pub(crate) bias: Option<ParameterId>,
}

/// Weights in the order of the forward kernel, and the bias.
pub(crate) struct Prepared<B: Backend> {
    weights: B::Vector,
    bias: Option<B::Vector>,
}

impl Operator for TransposedConvolution {
    type Prepared<B: Backend> = Prepared<B>;
    /// Weights in the order of the data gradient.
    type Transposed<B: Backend> = B::Vector;

    fn key(&self, _node: NodeShape) -> OperatorKey {
        let shape = &self.shape;
        OperatorKey {
            kind: "transposed convolution",
            detail: format!(
                "{} to {}, groups {}, {}",
                shape.in_channels,
                shape.out_channels,
                shape.groups,
                describe(&shape.window),
            ),
        }
    }

    fn rule(&self) -> Result<PerAxis<AxisRule>, TilingError> {
        let windows = window_per_axis(&self.shape.window)?;
        let [rows, columns] = self.output_padding;
        Ok(PerAxis::new(
            AxisRule::TransposedWindow(TransposedWindow::new(windows.rows, rows as u64)?),
            AxisRule::TransposedWindow(TransposedWindow::new(windows.columns, columns as u64)?),
        ))
    }

    fn parameters(&self) -> Vec<ParameterId> {
        std::iter::once(self.weight).chain(self.bias).collect()
    }

    fn vjp_reads(&self, trains: bool) -> VjpReads {
        VjpReads {
            output: false,
            inputs: trains,
        }
    }

    fn forward_flops(&self, _channels: usize) -> u64 {
        self.shape.flops()
    }

    fn vjp_flops(&self, channels: usize, needs: &Needs<'_>) -> u64 {
        let gradients = u64::from(needs.trains) + u64::from(needs.input);
        gradients * self.forward_flops(channels)
    }

    fn replaces_cotangent(&self) -> bool {
        true
    }

    fn sums(&self, _channels: usize, parameters: &[ParameterShape]) -> Vec<usize> {
        let mut sums = vec![parameters[self.weight.0].len()];
        sums.extend(self.bias.map(|_| self.shape.out_channels));
        sums
    }

    fn copies<B: Backend>(
        &self,
        _backend: &B,
        node: NodeShape,
        parameters: &[ParameterShape],
        needs: &Needs<'_>,
    ) -> Result<Copies, KernelError> {
        let weights = parameters[self.weight.0].len();
        Ok(Copies {
            plain: self.parameters(),
            transposed_from: needs.input.then_some(self.weight),
            prepared: computed::<B>(weights + node.channels),
            packed: true,
            transposed: if needs.input {
                computed::<B>(weights)
            } else {
                0
            },
            ..Copies::default()
        })
    }

    fn prepare<B: Backend>(&self, plain: &Plain<'_, B>, _node: NodeShape) -> Result<Prepared<B>> {
        let weights = self.shape.forward_order(plain.values(self.weight));
        let weights = weights.map_err(|source| plain.kernel_error(source))?;
        Ok(Prepared {
            weights: plain.backend.vector(weights),
            bias: self
                .bias
                .map(|id| plain.backend.vector(plain.values(id).to_vec())),
        })
    }

    fn transpose<B: Backend>(
        &self,
        plain: &Plain<'_, B>,
        needs: &Needs<'_>,
    ) -> Result<Option<B::Vector>> {
        if !needs.input {
            return Ok(None);
        }
        let weights = self.shape.transposed_order(plain.values(self.weight));
        let weights = weights.map_err(|source| plain.kernel_error(source))?;
        Ok(Some(plain.backend.vector(weights)))
    }

    fn forward<B: Backend>(
        &self,
        prepared: &Prepared<B>,
        mut step: ForwardStep<'_, B>,
    ) -> Result<()> {
        let (Prepared { weights, bias }, map) = (prepared, step.mapping());
        step.run(|backend, slabs| {
            backend.conv_transpose(slabs, &self.shape, (weights, bias.as_ref()), map)
        })
    }

    fn vjp<B: Backend>(
        &self,
        weights: VjpWeights<'_, Self, B>,
        mut step: VjpStep<'_, B>,
    ) -> Result<()> {
        let shape = &self.shape;
        if step.trains {
            let (input, cotangent, outputs) = (
                step.operands().input(0),
                step.operands().cotangent(),
                step.operands().outputs(),
            );
            step.run_summing(|backend, slabs, sums| {
                let Some((weights, bias)) = sums.split_first_mut() else {
                    return Err(KernelError::Buffers);
                };
                for bias in bias {
                    backend.bias_gradient(slabs, None, cotangent, outputs, bias)?;
                }
                let map = (input, cotangent, outputs);
                backend.conv_transpose_weight_gradient(slabs, shape, map, weights)
            })?;
        }
        if !step.operands().wants_input(0) {
            return Ok(());
        }
        let (weights, map) = (
            step.needed(weights.transposed)?,
            step.operands().transposed(0),
        );
        step.run(|backend, slabs| backend.conv_transpose_data_gradient(slabs, shape, weights, map))
    }

    fn gradients<B: Backend>(
        &self,
        sums: Vec<B::Sums>,
        _transposed: Option<B::Vector>,
        plain: &Plain<'_, B>,
        gradients: &mut GradientWriter<'_>,
    ) -> Result<()> {
        let mut sums = sums
            .into_iter()
            .map(|sums| plain.backend.sums_to_host(sums));
        let weights = sums.next().ok_or_else(|| StreamError::Internal {
            layer: plain.layer.to_owned(),
            what: "no sums of the weight gradient",
        })?;
        if let (Some(id), Some(bias)) = (self.bias, sums.next()) {
            gradients.add(id, bias)?;
        }
        let weights = self.shape.parameter_order(&weights);
        gradients.add(
            self.weight,
            weights.map_err(|source| plain.kernel_error(source))?,
        )
    }
}
