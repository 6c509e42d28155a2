//! A function of single values: ReLU and its like.

use stream_grad_kernels::{Activation, Gelu, Pointwise, VjpOperand};
use stream_grad_tiling::VjpReads;

use crate::backend::Backend;
use crate::error::Result;
use crate::operator::plain::Plain;
use crate::operator::step::{ForwardStep, VjpStep};
use crate::operator::{Fusible, NodeShape, Operator, OperatorKey, VjpWeights};

#[derive(Debug, Clone)]
pub(crate) struct PointwiseOperator(pub(crate) Pointwise);

impl PointwiseOperator {
    /// The function's name.
    pub(crate) const fn name(&self) -> &'static str {
        match self.0 {
            Pointwise::Relu => "relu",
            Pointwise::Relu6 => "relu6",
            Pointwise::Sigmoid => "sigmoid",
            Pointwise::Silu => "silu",
            Pointwise::Gelu(_) => "gelu",
        }
    }
}

impl Operator for PointwiseOperator {
    type Prepared<B: Backend> = ();
    type Transposed<B: Backend> = ();

    fn key(&self, node: NodeShape) -> OperatorKey {
        let form = match self.0 {
            Pointwise::Gelu(Gelu::Tanh) => ", by tanh",
            _ => "",
        };
        OperatorKey {
            kind: self.name(),
            detail: format!("{}{form}", node.channels),
        }
    }

    fn vjp_reads(&self, _trains: bool) -> VjpReads {
        let operand = self.0.vjp_operand();
        VjpReads {
            output: operand == VjpOperand::Output,
            inputs: operand == VjpOperand::Input,
        }
    }

    fn forward_flops(&self, channels: usize) -> u64 {
        let one = match self.0 {
            Pointwise::Relu => 1,
            Pointwise::Relu6 => 2,
            Pointwise::Sigmoid | Pointwise::Silu => 12,
            Pointwise::Gelu(_) => 16,
        };
        one * channels as u64
    }

    fn fusible(&self) -> Fusible {
        match self.0 {
            Pointwise::Relu => Fusible::Activation(Activation::Relu),
            Pointwise::Relu6 => Fusible::Activation(Activation::Relu6),
            _ => Fusible::Nothing,
        }
    }

    fn prepare<B: Backend>(&self, _plain: &Plain<'_, B>, _node: NodeShape) -> Result<()> {
        Ok(())
    }

    fn forward<B: Backend>(&self, _: &(), mut step: ForwardStep<'_, B>) -> Result<()> {
        let map = step.mapping();
        step.run(|backend, slabs| backend.pointwise(slabs, self.0, map))
    }

    fn vjp<B: Backend>(&self, _: VjpWeights<'_, Self, B>, mut step: VjpStep<'_, B>) -> Result<()> {
        if !step.operands().wants_input(0) {
            return Ok(());
        }
        let read = match self.0.vjp_operand() {
            VjpOperand::Input => step.operands().input(0),
            VjpOperand::Output => step.operands().output(),
        };
        let map = step.operands().transposed(0);
        step.run(|backend, slabs| backend.pointwise_vjp(slabs, self.0, read, map))
    }
}
