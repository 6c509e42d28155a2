//! `max(x, 0)`, with derivative 0 at 0.

use stream_grad_tiling::VjpReads;

use crate::backend::{Backend, Pointwise};
use crate::error::Result;
use crate::operator::plain::Plain;
use crate::operator::step::{ForwardStep, VjpStep};
use crate::operator::{Fusible, NodeShape, Operator, OperatorKey, VjpWeights};

#[derive(Debug, Clone)]
pub(crate) struct Relu;

impl Operator for Relu {
    type Prepared<B: Backend> = ();
    type Transposed<B: Backend> = ();

    fn key(&self, node: NodeShape) -> OperatorKey {
        OperatorKey {
            kind: "relu",
            detail: node.channels.to_string(),
        }
    }

    fn vjp_reads(&self, _trains: bool) -> VjpReads {
        VjpReads {
            output: true,
            inputs: false,
        }
    }

    fn forward_flops(&self, channels: usize) -> u64 {
        channels as u64
    }

    fn fusible(&self) -> Fusible {
        Fusible::Relu
    }

    fn prepare<B: Backend>(&self, _plain: &Plain<'_, B>, _node: NodeShape) -> Result<()> {
        Ok(())
    }

    fn forward<B: Backend>(&self, _: &(), mut step: ForwardStep<'_, B>) -> Result<()> {
        let map = step.mapping();
        step.run(|backend, slabs| backend.pointwise(slabs, Pointwise::Relu, map))
    }

    fn vjp<B: Backend>(&self, _: VjpWeights<'_, Self, B>, mut step: VjpStep<'_, B>) -> Result<()> {
        if !step.operands().wants_input(0) {
            return Ok(());
        }
        let (output, map) = (step.operands().output(), step.operands().transposed(0));
        step.run(|backend, slabs| backend.pointwise_vjp(slabs, Pointwise::Relu, output, map))
    }
}
