//! Layer norm over the channels of each position, with a ReLU where one follows.

use stream_grad_kernels::{Activation, KernelError};
use stream_grad_tiling::VjpReads;

use crate::backend::{Backend, NormOperands};
use crate::channel_map::{channel_sums, scale_and_shift};
use crate::error::Result;
use crate::operator::plain::{GradientWriter, Plain};
use crate::operator::step::{ForwardStep, VjpStep};
use crate::operator::{
    Absorbed, Copies, Fusible, Needs, NodeShape, Operator, OperatorKey, VjpWeights, computed,
};
use crate::parameter::{ParameterId, ParameterShape};

#[derive(Debug, Clone)]
pub(crate) struct LayerNorm {
    pub(crate) weight: ParameterId,
    pub(crate) bias: ParameterId,
    pub(crate) epsilon: f64,
    pub(crate) activation: Activation,
}

/// Factor and shift of each channel.
pub(crate) struct Prepared<B: Backend> {
    weight: B::Vector,
    bias: B::Vector,
}

impl LayerNorm {
    fn operands<'a, B: Backend>(&self, prepared: &'a Prepared<B>) -> NormOperands<'a, B> {
        NormOperands {
            weight: &prepared.weight,
            bias: &prepared.bias,
            epsilon: self.epsilon,
        }
    }
}

impl Operator for LayerNorm {
    type Prepared<B: Backend> = Prepared<B>;
    type Transposed<B: Backend> = ();

    fn key(&self, node: NodeShape) -> OperatorKey {
        OperatorKey {
            kind: "layer norm",
            detail: node.channels.to_string(),
        }
    }

    fn parameters(&self) -> Vec<ParameterId> {
        vec![self.weight, self.bias]
    }

    fn vjp_reads(&self, _trains: bool) -> VjpReads {
        VjpReads {
            output: self.activation != Activation::Identity,
            inputs: true,
        }
    }

    fn forward_flops(&self, channels: usize) -> u64 {
        8 * channels as u64
    }

    fn absorb(&mut self, next: &Fusible, _inputs: usize) -> Absorbed {
        next.activate(&mut self.activation)
    }

    fn sums(&self, channels: usize, _parameters: &[ParameterShape]) -> Vec<usize> {
        channel_sums(channels)
    }

    fn copies<B: Backend>(
        &self,
        _backend: &B,
        node: NodeShape,
        _parameters: &[ParameterShape],
        _needs: &Needs<'_>,
    ) -> Result<Copies, KernelError> {
        Ok(Copies {
            prepared: computed::<B>(2 * node.channels),
            ..Copies::default()
        })
    }

    fn prepare<B: Backend>(&self, plain: &Plain<'_, B>, _node: NodeShape) -> Result<Prepared<B>> {
        let [weight, bias] = [self.weight, self.bias].map(|id| plain.read(id));
        Ok(Prepared {
            weight: plain.backend.vector(weight?),
            bias: plain.backend.vector(bias?),
        })
    }

    fn forward<B: Backend>(
        &self,
        prepared: &Prepared<B>,
        mut step: ForwardStep<'_, B>,
    ) -> Result<()> {
        let (norm, map) = (self.operands(prepared), step.mapping());
        step.run(|backend, slabs| backend.layer_norm(slabs, norm, self.activation, map))
    }

    fn vjp<B: Backend>(
        &self,
        weights: VjpWeights<'_, Self, B>,
        mut step: VjpStep<'_, B>,
    ) -> Result<()> {
        let norm = self.operands(step.needed(weights.prepared)?);
        step.mask(self.activation)?;
        let (input, cotangent, outputs) = (
            step.operands().input(0),
            step.operands().cotangent(),
            step.operands().outputs(),
        );
        if step.trains {
            step.run_summing(|backend, slabs, sums| {
                let sums = scale_and_shift(sums)?;
                backend.layer_norm_gradient(slabs, norm, input, cotangent, outputs, sums)
            })?;
        }
        if !step.operands().wants_input(0) {
            return Ok(());
        }
        let map = step.operands().transposed(0);
        step.run(|backend, slabs| backend.layer_norm_vjp(slabs, norm, input, map))
    }

    fn gradients<B: Backend>(
        &self,
        sums: Vec<B::Sums>,
        _transposed: Option<()>,
        plain: &Plain<'_, B>,
        gradients: &mut GradientWriter<'_>,
    ) -> Result<()> {
        let ids = [self.weight, self.bias].into_iter();
        ids.zip(sums)
            .try_for_each(|(id, sums)| gradients.add(id, plain.backend.sums_to_host(sums)))
    }
}
