//! The image: a node that is read, not computed.

use stream_grad_tiling::VjpReads;

use crate::backend::Backend;
use crate::error::Result;
use crate::operator::plain::Plain;
use crate::operator::step::{ForwardStep, VjpStep};
use crate::operator::{NodeShape, Operator, OperatorKey, READS_NOTHING, VjpWeights};

#[derive(Debug, Clone)]
pub(crate) struct Image;

impl Operator for Image {
    type Prepared<B: Backend> = ();
    type Transposed<B: Backend> = ();

    fn key(&self, node: NodeShape) -> OperatorKey {
        OperatorKey {
            kind: "image",
            detail: node.channels.to_string(),
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

    fn forward<B: Backend>(&self, _: &(), _step: ForwardStep<'_, B>) -> Result<()> {
        Ok(())
    }

    fn vjp<B: Backend>(&self, _: VjpWeights<'_, Self, B>, _step: VjpStep<'_, B>) -> Result<()> {
        Ok(())
    }
}
