//! Operators of a caller's own, which compute on the host.

use std::any::Any;
use std::fmt;
use std::sync::Arc;

use stream_grad_kernels::{Element, KernelError, Storage};
use stream_grad_tiling::{Axis, AxisRule, PerAxis, Shifts, Span, TilingError, VjpReads};

use crate::backend::{Backend, Buffer, Rect};
use crate::element::{Compute, Stored, Values};
use crate::error::{ExternalError, Result, StreamError};
use crate::operator::plain::{GradientWriter, Plain};
use crate::operator::step::{ForwardStep, VjpStep};
use crate::operator::{Copies, Needs, NodeShape, Operator, OperatorKey, VjpWeights, computed};
use crate::parameter::{ParameterId, ParameterShape};

/// The part of a plane that is being computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LocalRegion {
    /// Outputs to compute, in the output plane's pixels.
    pub outputs: Rect,
    /// Inputs that they read, in the input plane's pixels; outside the plane is padding.
    pub inputs: Rect,
    /// Size of the whole input plane.
    pub input_size: PerAxis<i64>,
}

impl LocalRegion {
    /// The region of these outputs, which reads what the rule says.
    #[must_use]
    pub fn of(rule: &PerAxis<AxisRule>, outputs: Rect, input_size: PerAxis<i64>) -> Self {
        let needed = |axis: Axis| rule[axis].needed(outputs[axis], input_size[axis]);
        Self {
            outputs,
            inputs: PerAxis::new(needed(Axis::Rows), needed(Axis::Columns)),
            input_size,
        }
    }
}

impl fmt::Display for LocalRegion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let PerAxis { rows, columns } = self.outputs;
        write!(
            f,
            "outputs {}..{} x {}..{} of an input of {} x {}",
            rows.lo, rows.hi, columns.lo, columns.hi, self.input_size.rows, self.input_size.columns
        )
    }
}

/// What a [`CustomOperator`] makes of its parameters once for each forward sweep.
pub type CustomState = Box<dyn Any + Send + Sync>;

/// An operator of a caller's own: one input, one output, any rule that [`AxisRule`] can state.
///
/// Values are in channels x height x width order, in what the plan computes in.
pub trait CustomOperator: fmt::Debug + Send + Sync {
    /// Name for messages.
    fn name(&self) -> String;

    /// Which inputs each output reads, per axis.
    fn rule(&self) -> PerAxis<AxisRule>;

    /// Whether it computes the same wherever it is asked: the values depend on those of the input alone, and neither on where
    /// `region` lies nor on how large the plane is. A tile is computed for others only where all operators say so.
    fn is_same_everywhere(&self) -> bool {
        false
    }

    /// Whether plans in bf16 take it. It sees f32 there, too: what it reads is widened, and what it gives is rounded once. Of one that
    /// does not say so nobody knows whether it bears that, and such plans refuse it.
    fn takes_bf16(&self) -> bool {
        false
    }

    /// FLOPs of one output position, for the planner.
    fn flops_per_output(&self) -> u64;

    /// An upper bound on the heap bytes that one call of [`forward`](Self::forward) or [`vjp`](Self::vjp) holds at any moment, for
    /// so many values of the input (with padding) and of the output. It must not fall when either number rises.
    fn scratch_bytes(&self, input_values: u64, output_values: u64) -> u64;

    /// Takes the values of all parameters, in their order.
    ///
    /// # Errors
    /// Whatever is wrong with them.
    fn prepare(&self, parameters: Vec<Values>) -> Result<CustomState, ExternalError>;

    /// Computes `region.outputs`, `channels` of each, from the input in `region.inputs`, which has zeros as padding.
    ///
    /// # Errors
    /// Whatever keeps it from computing.
    fn forward(
        &self,
        state: &CustomState,
        region: &LocalRegion,
        input: Values,
        channels: usize,
    ) -> Result<Values>;

    /// The cotangent of the input, and those of the parameters in their order and that of their values.
    ///
    /// # Errors
    /// Whatever keeps it from computing.
    fn vjp(
        &self,
        state: &CustomState,
        region: &LocalRegion,
        input: Values,
        cotangent: Values,
    ) -> Result<(Values, Vec<Vec<f64>>)>;
}

#[derive(Debug, Clone)]
pub(crate) struct Custom {
    pub(crate) operator: Arc<dyn CustomOperator>,
    pub(crate) parameters: Vec<ParameterId>,
}

impl Operator for Custom {
    type Prepared<B: Backend> = CustomState;
    type Transposed<B: Backend> = ();

    fn key(&self, node: NodeShape) -> OperatorKey {
        OperatorKey {
            kind: "local",
            detail: format!(
                "{}, {}, {} FLOPs",
                self.operator.name(),
                node.channels,
                self.operator.flops_per_output()
            ),
        }
    }

    fn rule(&self) -> Result<PerAxis<AxisRule>, TilingError> {
        Ok(self.operator.rule())
    }

    fn shifts(&self) -> Shifts {
        if self.operator.is_same_everywhere() {
            Shifts::All
        } else {
            Shifts::Nothing
        }
    }

    fn parameters(&self) -> Vec<ParameterId> {
        self.parameters.clone()
    }

    fn vjp_reads(&self, _trains: bool) -> VjpReads {
        VjpReads {
            output: false,
            inputs: true,
        }
    }

    fn forward_flops(&self, _channels: usize) -> u64 {
        self.operator.flops_per_output()
    }

    fn sums(&self, _channels: usize, parameters: &[ParameterShape]) -> Vec<usize> {
        let ids = self.parameters.iter();
        ids.map(|id| parameters[id.0].len()).collect()
    }

    fn copies<B: Backend>(
        &self,
        _backend: &B,
        _node: NodeShape,
        parameters: &[ParameterShape],
        _needs: &Needs<'_>,
    ) -> Result<Copies, KernelError> {
        Ok(Copies {
            prepared: computed::<B>(self.sums(0, parameters).iter().sum()),
            ..Copies::default()
        })
    }

    fn prepare<B: Backend>(&self, plain: &Plain<'_, B>, _node: NodeShape) -> Result<CustomState> {
        let values = self.parameters.iter();
        let values = values
            .map(|&id| plain.read(id).map(<B::Compute as Compute>::values))
            .collect::<Result<_>>()?;
        self.operator
            .prepare(values)
            .map_err(|source| StreamError::LocalLayer {
                layer: self.operator.name(),
                source,
            })
    }

    fn forward<B: Backend>(&self, state: &CustomState, mut step: ForwardStep<'_, B>) -> Result<()> {
        let map = step.mapping();
        let region = LocalRegion::of(&self.operator.rule(), map.outputs, step.operands.plane());
        let input = gather(&step, map.input, region.inputs)?;
        let channels = map.output.channels;
        let values = self.operator.forward(state, &region, input, channels)?;
        scatter(
            &mut step,
            map.output,
            region.outputs,
            values,
            |to, value| *to = B::Stored::rounded(value.to_f64()),
        )
    }

    fn vjp<B: Backend>(
        &self,
        weights: VjpWeights<'_, Self, B>,
        mut step: VjpStep<'_, B>,
    ) -> Result<()> {
        let state = step.needed(weights.prepared)?;
        let outputs = step.operands().outputs();
        let region = LocalRegion::of(&self.operator.rule(), outputs, step.operands().plane());
        let (input, cotangent) = (step.operands().input(0), step.operands().cotangent());
        let x = gather(&step.on, input, region.inputs)?;
        let y_bar = gather(&step.on, cotangent, region.outputs)?;
        let (x_bar, parameters) = self.operator.vjp(state, &region, x, y_bar)?;
        if step.operands().wants_input(0) {
            let target = step.operands().transposed(0).target;
            scatter(&mut step.on, target, region.inputs, x_bar, |to, value| {
                *to = B::Stored::rounded(to.widened() + value.to_f64());
            })?;
        }
        if step.trains {
            step.run_summing(|backend, _, sums| {
                for (sums, gradient) in sums.iter_mut().zip(&parameters) {
                    backend.add_to_sums(sums, gradient);
                }
                Ok(())
            })?;
        }
        Ok(())
    }

    fn gradients<B: Backend>(
        &self,
        sums: Vec<B::Sums>,
        _transposed: Option<()>,
        plain: &Plain<'_, B>,
        gradients: &mut GradientWriter<'_>,
    ) -> Result<()> {
        let sums = self.parameters.iter().zip(sums);
        sums.into_iter()
            .try_for_each(|(&id, sums)| gradients.add(id, plain.backend.sums_to_host(sums)))
    }
}

/// A rectangle of a buffer as channels x height x width, with zeros where it leaves the buffer: there is padding.
fn gather<B: Backend>(step: &ForwardStep<'_, B>, buffer: Buffer, rect: Rect) -> Result<Values> {
    let (height, width) = (rect.height(), rect.width());
    let mut values = vec![<B::Compute as Storage>::ZERO; buffer.channels * height * width];
    let inside = rect.intersect(buffer.rect);
    if inside.is_empty() {
        return Ok(B::Compute::values(values));
    }
    let (row, column) = place(rect, inside);
    step.read(buffer, inside, |tile| {
        let rows = B::Stored::from_tile(tile)?;
        for index in 0..rows.rows() {
            let line = (row + index) * width + column;
            for (at, pixel) in rows
                .row(index)
                .chunks_exact(buffer.channels.max(1))
                .enumerate()
            {
                for (channel, &value) in pixel.iter().enumerate() {
                    values[channel * height * width + line + at] =
                        B::Compute::from_f64(value.widened());
                }
            }
        }
        Some(())
    })?;
    Ok(B::Compute::values(values))
}

/// Combines values in channels x height x width order with those of a buffer, as far as it holds them.
fn scatter<B: Backend>(
    step: &mut ForwardStep<'_, B>,
    buffer: Buffer,
    rect: Rect,
    values: Values,
    combine: impl Fn(&mut B::Stored, B::Compute),
) -> Result<()> {
    let (height, width) = (rect.height(), rect.width());
    let inside = rect.intersect(buffer.rect);
    if inside.is_empty() {
        return Ok(());
    }
    let Some(values) = B::Compute::from_values(values) else {
        return Err(step.internal("a layer of the user's own gave another dtype"));
    };
    if values.len() != buffer.channels * height * width {
        return Err(step.internal("a layer of the user's own gave another number of values"));
    }
    let (row, column) = place(rect, inside);
    step.write(buffer, inside, |tile| {
        let mut rows = B::Stored::from_tile_mut(tile)?;
        for index in 0..rows.rows() {
            let line = (row + index) * width + column;
            let pixels = rows.row(index).chunks_exact_mut(buffer.channels.max(1));
            for (at, pixel) in pixels.enumerate() {
                for (channel, to) in pixel.iter_mut().enumerate() {
                    combine(to, values[channel * height * width + line + at]);
                }
            }
        }
        Some(())
    })
}

/// Row and column of the first position of `inside` in `rect`.
fn place(rect: Rect, inside: Rect) -> (usize, usize) {
    let distance = |of: Span, from: Span| usize::try_from(of.lo - from.lo).unwrap_or(0);
    (
        distance(inside.rows, rect.rows),
        distance(inside.columns, rect.columns),
    )
}
