//! The sum of two maps, with a ReLU where one follows.

use stream_grad_kernels::Activation;
use stream_grad_tiling::VjpReads;

use crate::backend::Backend;
use crate::error::Result;
use crate::operator::plain::Plain;
use crate::operator::step::{ForwardStep, VjpStep};
use crate::operator::{Absorbed, Fusible, NodeShape, Operator, OperatorKey, VjpWeights, activated};

#[derive(Debug, Clone)]
pub(crate) struct Add {
    pub(crate) activation: Activation,
}

impl Operator for Add {
    type Prepared<B: Backend> = ();
    type Transposed<B: Backend> = ();

    fn key(&self, node: NodeShape) -> OperatorKey {
        OperatorKey {
            kind: "add",
            detail: format!("{}{}", node.channels, activated(self.activation)),
        }
    }

    fn vjp_reads(&self, _trains: bool) -> VjpReads {
        VjpReads {
            output: self.activation != Activation::Identity,
            inputs: false,
        }
    }

    fn forward_flops(&self, channels: usize) -> u64 {
        channels as u64
    }

    fn replaces_cotangent(&self) -> bool {
        true
    }

    fn fusible(&self) -> Fusible {
        Fusible::Sum(self.activation)
    }

    fn absorb(&mut self, next: &Fusible, _inputs: usize) -> Absorbed {
        next.activate(&mut self.activation)
    }

    fn prepare<B: Backend>(&self, _plain: &Plain<'_, B>, _node: NodeShape) -> Result<()> {
        Ok(())
    }

    fn forward<B: Backend>(&self, _: &(), mut step: ForwardStep<'_, B>) -> Result<()> {
        let (other, map) = (step.operands.input(1), step.mapping());
        step.run(|backend, slabs| backend.add(slabs, other, self.activation, map))
    }

    fn vjp<B: Backend>(&self, _: VjpWeights<'_, Self, B>, mut step: VjpStep<'_, B>) -> Result<()> {
        step.mask(self.activation)?;
        (0..step.operands().inputs())
            .rev()
            .try_for_each(|input| step.pass_on(input))
    }
}
