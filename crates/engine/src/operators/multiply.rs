//! The product of two maps, value by value.

use stream_grad_tiling::VjpReads;

use crate::backend::Backend;
use crate::error::Result;
use crate::operator::plain::Plain;
use crate::operator::step::{ForwardStep, VjpStep};
use crate::operator::{Needs, NodeShape, Operator, OperatorKey, VjpWeights};

#[derive(Debug, Clone)]
pub(crate) struct Multiply;

impl Operator for Multiply {
    type Prepared<B: Backend> = ();
    type Transposed<B: Backend> = ();

    fn key(&self, node: NodeShape) -> OperatorKey {
        OperatorKey {
            kind: "multiply",
            detail: node.channels.to_string(),
        }
    }

    fn vjp_reads(&self, _trains: bool) -> VjpReads {
        VjpReads {
            output: false,
            inputs: true,
        }
    }

    fn forward_flops(&self, channels: usize) -> u64 {
        channels as u64
    }

    fn vjp_flops(&self, channels: usize, _needs: &Needs<'_>) -> u64 {
        // A product and a sum for each factor.
        4 * channels as u64
    }

    fn prepare<B: Backend>(&self, _plain: &Plain<'_, B>, _node: NodeShape) -> Result<()> {
        Ok(())
    }

    fn forward<B: Backend>(&self, _: &(), mut step: ForwardStep<'_, B>) -> Result<()> {
        let (other, map) = (step.operands.input(1), step.mapping());
        step.run(|backend, slabs| backend.multiply(slabs, other, map))
    }

    fn vjp<B: Backend>(&self, _: VjpWeights<'_, Self, B>, mut step: VjpStep<'_, B>) -> Result<()> {
        for (factor, other) in [(1, 0), (0, 1)] {
            if step.operands().wants_input(factor) {
                let other = step.operands().input(other);
                let map = step.operands().transposed(factor);
                step.run(|backend, slabs| backend.multiply_vjp(slabs, other, map))?;
            }
        }
        Ok(())
    }
}
