//! Maps one after another along the channels.

use stream_grad_tiling::VjpReads;

use crate::backend::Backend;
use crate::error::Result;
use crate::operator::plain::Plain;
use crate::operator::step::{ForwardStep, VjpStep};
use crate::operator::{NodeShape, Operator, OperatorKey, READS_NOTHING, VjpWeights};

#[derive(Debug, Clone)]
pub(crate) struct Concat;

impl Operator for Concat {
    type Prepared<B: Backend> = ();
    type Transposed<B: Backend> = ();

    fn key(&self, node: NodeShape) -> OperatorKey {
        OperatorKey {
            kind: "concat",
            detail: format!("{} of {}", node.channels, node.inputs),
        }
    }

    fn vjp_reads(&self, _trains: bool) -> VjpReads {
        READS_NOTHING
    }

    fn forward_flops(&self, _channels: usize) -> u64 {
        0
    }

    fn prepare<B: Backend>(&self, _plain: &Plain<'_, B>, _node: NodeShape) -> Result<()> {
        Ok(())
    }

    fn forward<B: Backend>(&self, _: &(), mut step: ForwardStep<'_, B>) -> Result<()> {
        let mut first = 0;
        for index in 0..step.operands.inputs() {
            let map = step.mapping_of(index);
            step.run(|backend, slabs| backend.copy_channels(slabs, first, map))?;
            first += map.input.channels;
        }
        Ok(())
    }

    fn vjp<B: Backend>(&self, _: VjpWeights<'_, Self, B>, mut step: VjpStep<'_, B>) -> Result<()> {
        let mut first = 0;
        for index in 0..step.operands().inputs() {
            let map = step.operands().transposed(index);
            if step.operands().wants_input(index) {
                step.run(|backend, slabs| backend.add_channels(slabs, first, map))?;
            }
            first += map.target.channels;
        }
        Ok(())
    }
}
