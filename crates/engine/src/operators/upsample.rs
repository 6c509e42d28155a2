//! Upsampling by a whole factor.

use stream_grad_kernels::Interpolation;
use stream_grad_tiling::{AxisRule, PerAxis, Shifts, TilingError, VjpReads};

use crate::backend::Backend;
use crate::error::Result;
use crate::operator::plain::Plain;
use crate::operator::step::{ForwardStep, VjpStep};
use crate::operator::{NodeShape, Operator, OperatorKey, READS_NOTHING, VjpWeights};

#[derive(Debug, Clone)]
pub(crate) struct Upsample {
    pub(crate) factor: usize,
    pub(crate) interpolation: Interpolation,
}

impl Upsample {
    /// The upsampling of a whole plane.
    fn kernel(&self, plane: PerAxis<i64>) -> stream_grad_kernels::Upsample {
        let extent = |size: i64| usize::try_from(size).unwrap_or(0);
        stream_grad_kernels::Upsample {
            factor: [self.factor, self.factor],
            interpolation: self.interpolation,
            plane: [extent(plane.rows), extent(plane.columns)],
        }
    }
}

impl Operator for Upsample {
    type Prepared<B: Backend> = ();
    type Transposed<B: Backend> = ();

    fn key(&self, node: NodeShape) -> OperatorKey {
        OperatorKey {
            kind: match self.interpolation {
                Interpolation::Nearest => "nearest upsampling",
                Interpolation::Bilinear(_) => "bilinear upsampling",
            },
            detail: format!("{}, by {}", node.channels, self.factor),
        }
    }

    fn rule(&self) -> Result<PerAxis<AxisRule>, TilingError> {
        let factor = i64::try_from(self.factor).unwrap_or(i64::MAX);
        Ok(PerAxis::both(match self.interpolation {
            Interpolation::Nearest => AxisRule::UpsampleNearest(factor),
            Interpolation::Bilinear(align_corners) => {
                AxisRule::UpsampleBilinear(factor, align_corners)
            }
        }))
    }

    fn shifts(&self) -> Shifts {
        // A sample's place between two pixels is a difference of positions, which is rounded unless the factor divides exactly.
        match self.interpolation {
            Interpolation::Bilinear(_) if !self.factor.is_power_of_two() => Shifts::Nothing,
            Interpolation::Bilinear(_) | Interpolation::Nearest => Shifts::All,
        }
    }

    fn vjp_reads(&self, _trains: bool) -> VjpReads {
        READS_NOTHING
    }

    fn forward_flops(&self, channels: usize) -> u64 {
        match self.interpolation {
            Interpolation::Nearest => 0,
            Interpolation::Bilinear(_) => 8 * channels as u64,
        }
    }

    fn prepare<B: Backend>(&self, _plain: &Plain<'_, B>, _node: NodeShape) -> Result<()> {
        Ok(())
    }

    fn forward<B: Backend>(&self, _: &(), mut step: ForwardStep<'_, B>) -> Result<()> {
        let (upsample, map) = (self.kernel(step.operands.plane()), step.mapping());
        step.run(|backend, slabs| backend.upsample(slabs, &upsample, map))
    }

    fn vjp<B: Backend>(&self, _: VjpWeights<'_, Self, B>, mut step: VjpStep<'_, B>) -> Result<()> {
        if !step.operands().wants_input(0) {
            return Ok(());
        }
        let (upsample, map) = (
            self.kernel(step.operands().plane()),
            step.operands().transposed(0),
        );
        step.run(|backend, slabs| backend.upsample_vjp(slabs, &upsample, map))
    }
}
