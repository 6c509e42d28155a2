//! An affine map of each channel that stands alone: a frozen norm, or one factor, with a ReLU where one follows.

use stream_grad_kernels::{Activation, Element, KernelError};
use stream_grad_tiling::VjpReads;

use crate::backend::Backend;
use crate::channel_map::{ChannelMap, channel_sums, scale_and_shift};
use crate::error::Result;
use crate::operator::plain::{GradientWriter, Plain};
use crate::operator::step::{ForwardStep, VjpStep};
use crate::operator::{
    Absorbed, Copies, Fusible, Needs, NodeShape, Operator, OperatorKey, VjpWeights, activated,
    computed,
};
use crate::parameter::{ParameterId, ParameterShape};

#[derive(Debug, Clone)]
pub(crate) struct Affine {
    pub(crate) map: ChannelMap,
    pub(crate) activation: Activation,
}

/// Factor and shift of each channel.
pub(crate) struct Prepared<B: Backend> {
    scale: B::Vector,
    shift: B::Vector,
}

impl Operator for Affine {
    type Prepared<B: Backend> = Prepared<B>;
    type Transposed<B: Backend> = ();

    fn key(&self, node: NodeShape) -> OperatorKey {
        OperatorKey {
            kind: "affine",
            detail: format!("{}{}", node.channels, activated(self.activation)),
        }
    }

    fn parameters(&self) -> Vec<ParameterId> {
        self.map.parameters()
    }

    fn vjp_reads(&self, trains: bool) -> VjpReads {
        VjpReads {
            output: self.activation != Activation::Identity,
            inputs: trains,
        }
    }

    fn forward_flops(&self, channels: usize) -> u64 {
        2 * channels as u64
    }

    fn fusible(&self) -> Fusible {
        Fusible::Map(self.map, self.activation)
    }

    fn absorb(&mut self, next: &Fusible, _inputs: usize) -> Absorbed {
        match *next {
            Fusible::Map(map, activation) if self.activation == Activation::Identity => {
                let Some(map) = self.map.then(map) else {
                    return Absorbed::No;
                };
                *self = Self { map, activation };
                Absorbed::Whole
            }
            _ => next.activate(&mut self.activation),
        }
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
            plain: self.map.parameters(),
            plain_to_the_end: self.map.parameters(),
            prepared: computed::<B>(2 * node.channels),
            ..Copies::default()
        })
    }

    fn prepare<B: Backend>(&self, plain: &Plain<'_, B>, node: NodeShape) -> Result<Prepared<B>> {
        let factors = self.map.factors(plain, node.channels);
        let scale = factors
            .iter()
            .map(|channel| B::Compute::from_f64(channel.factor));
        let shift = factors
            .iter()
            .map(|channel| B::Compute::from_f64(channel.offset));
        Ok(Prepared {
            scale: plain.backend.vector(scale.collect()),
            shift: plain.backend.vector(shift.collect()),
        })
    }

    fn forward<B: Backend>(
        &self,
        prepared: &Prepared<B>,
        mut step: ForwardStep<'_, B>,
    ) -> Result<()> {
        let (Prepared { scale, shift }, map) = (prepared, step.mapping());
        step.run(|backend, slabs| backend.affine(slabs, scale, shift, self.activation, map))
    }

    fn vjp<B: Backend>(
        &self,
        weights: VjpWeights<'_, Self, B>,
        mut step: VjpStep<'_, B>,
    ) -> Result<()> {
        let scale = &step.needed(weights.prepared)?.scale;
        step.mask(self.activation)?;
        if step.trains {
            let (input, cotangent, outputs) = (
                step.operands().input(0),
                step.operands().cotangent(),
                step.operands().outputs(),
            );
            step.run_summing(|backend, slabs, sums| {
                let sums = scale_and_shift(sums)?;
                backend.affine_gradient(slabs, input, cotangent, outputs, sums)
            })?;
        }
        if !step.operands().wants_input(0) {
            return Ok(());
        }
        let map = step.operands().transposed(0);
        step.run(|backend, slabs| backend.affine_vjp(slabs, scale, map))
    }

    fn gradients<B: Backend>(
        &self,
        sums: Vec<B::Sums>,
        _transposed: Option<()>,
        plain: &Plain<'_, B>,
        gradients: &mut GradientWriter<'_>,
    ) -> Result<()> {
        let mut sums = sums
            .into_iter()
            .map(|sums| plain.backend.sums_to_host(sums));
        let [scale, shift] = [sums.next(), sums.next()].map(Option::unwrap_or_default);
        self.map.gradients(&scale, &shift, plain, gradients)
    }
}
