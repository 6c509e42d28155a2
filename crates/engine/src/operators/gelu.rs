//! GELU, exact or by PyTorch's `tanh` approximation.

use stream_grad_kernels::Gelu;
use stream_grad_tiling::VjpReads;

use crate::backend::{Backend, Pointwise};
use crate::error::Result;
use crate::operator::plain::Plain;
use crate::operator::step::{ForwardStep, VjpStep};
use crate::operator::{NodeShape, Operator, OperatorKey, VjpWeights};

#[derive(Debug, Clone)]
pub(crate) struct GeluOperator(pub(crate) Gelu);

impl Operator for GeluOperator {
    type Prepared<B: Backend> = ();
    type Transposed<B: Backend> = ();

    fn key(&self, node: NodeShape) -> OperatorKey {
        OperatorKey {
            kind: "gelu",
            detail: format!("{}, {:?}", node.channels, self.0),
        }
    }

    fn vjp_reads(&self, _trains: bool) -> VjpReads {
        VjpReads {
            output: false,
            inputs: true,
        }
    }

    fn forward_flops(&self, channels: usize) -> u64 {
        16 * channels as u64
    }

    fn prepare<B: Backend>(&self, _plain: &Plain<'_, B>, _node: NodeShape) -> Result<()> {
        Ok(())
    }

    fn forward<B: Backend>(&self, _: &(), mut step: ForwardStep<'_, B>) -> Result<()> {
        let map = step.mapping();
        step.run(|backend, slabs| backend.pointwise(slabs, Pointwise::Gelu(self.0), map))
    }

    fn vjp<B: Backend>(&self, _: VjpWeights<'_, Self, B>, mut step: VjpStep<'_, B>) -> Result<()> {
        if !step.operands().wants_input(0) {
            return Ok(());
        }
        let (input, map) = (step.operands().input(0), step.operands().transposed(0));
        step.run(|backend, slabs| backend.pointwise_vjp(slabs, Pointwise::Gelu(self.0), input, map))
    }
}
