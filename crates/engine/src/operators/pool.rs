//! Pooling by maximum and average.

use stream_grad_tiling::{AxisRule, PerAxis, TilingError, VjpReads};

use super::convolution::{describe, window_per_axis};
use crate::backend::{Backend, Pooling};
use crate::error::Result;
use crate::operator::plain::Plain;
use crate::operator::step::{ForwardStep, VjpStep};
use crate::operator::{NodeShape, Operator, OperatorKey, VjpWeights};

#[derive(Debug, Clone)]
pub(crate) struct Pool {
    pub(crate) pooling: Pooling,
    /// Whether the last window may reach beyond the padding.
    pub(crate) ceil_mode: bool,
}

impl Pool {
    /// The pooling of a plane of this size.
    fn over(&self, plane: PerAxis<i64>) -> Pooling {
        if self.ceil_mode {
            self.pooling.ending_with(plane)
        } else {
            self.pooling
        }
    }
}

impl Operator for Pool {
    type Prepared<B: Backend> = ();
    type Transposed<B: Backend> = ();

    fn key(&self, node: NodeShape) -> OperatorKey {
        OperatorKey {
            kind: match self.pooling {
                Pooling::Maximum(_) => "max pooling",
                Pooling::Average(_) => "average pooling",
            },
            detail: format!("{}, {}", node.channels, describe(self.pooling.window())),
        }
    }

    fn rule(&self) -> Result<PerAxis<AxisRule>, TilingError> {
        let windows = window_per_axis(self.pooling.window())?;
        Ok(windows.map(|window| {
            AxisRule::Window(if self.ceil_mode {
                window.ceil_mode()
            } else {
                window
            })
        }))
    }

    fn vjp_reads(&self, _trains: bool) -> VjpReads {
        VjpReads {
            output: false,
            inputs: matches!(self.pooling, Pooling::Maximum(_)),
        }
    }

    fn forward_flops(&self, channels: usize) -> u64 {
        channels as u64 * self.pooling.window().taps() as u64
    }

    fn replaces_cotangent(&self) -> bool {
        true
    }

    fn prepare<B: Backend>(&self, _plain: &Plain<'_, B>, _node: NodeShape) -> Result<()> {
        Ok(())
    }

    fn forward<B: Backend>(&self, _: &(), mut step: ForwardStep<'_, B>) -> Result<()> {
        let (pooling, map) = (self.over(step.operands.plane()), step.mapping());
        step.run(|backend, slabs| backend.pool(slabs, &pooling, map))
    }

    fn vjp<B: Backend>(&self, _: VjpWeights<'_, Self, B>, mut step: VjpStep<'_, B>) -> Result<()> {
        if !step.operands().wants_input(0) {
            return Ok(());
        }
        let pooling = self.over(step.operands().plane());
        let (input, map) = (step.operands().input(0), step.operands().transposed(0));
        step.run(|backend, slabs| backend.pool_vjp(slabs, &pooling, input, map))
    }
}
