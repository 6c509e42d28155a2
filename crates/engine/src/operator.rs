//! What an operator is: everything that geometry, planning and the sweeps must know of what a node computes.
//!
//! An operator is one file of [`operators`](crate::operators) that implements [`Operator`], one line there that registers it, and
//! one method of [`NetworkBuilder`](crate::NetworkBuilder).

pub(crate) mod plain;
pub(crate) mod step;

use stream_grad_kernels::{Activation, KernelError};
use stream_grad_tiling::{AxisRule, PerAxis, Shifts, TilingError, VjpReads};

use crate::backend::Backend;
use crate::channel_map::ChannelMap;
use crate::error::Result;
use crate::parameter::{ParameterId, ParameterShape};
use plain::{GradientWriter, Plain};
use step::{ForwardStep, VjpStep};

/// What a node computes.
pub(crate) trait Operator: Sized {
    /// What its forward computation reads besides its inputs.
    type Prepared<B: Backend>: Send + Sync;
    /// What its VJP reads besides that: weights in another order, say.
    type Transposed<B: Backend>: Send + Sync;

    /// Its kind, and what else decides how long it takes.
    fn key(&self, node: NodeShape) -> OperatorKey;

    /// Which positions of its first input each output reads. Other inputs are read position by position.
    ///
    /// # Errors
    /// Settings that give no rule.
    fn rule(&self) -> Result<PerAxis<AxisRule>, TilingError> {
        Ok(PerAxis::both(AxisRule::Pointwise))
    }

    /// By which shifts of its outputs it computes the same, bit for bit.
    fn shifts(&self) -> Shifts {
        Shifts::All
    }

    /// The parameters that it reads.
    fn parameters(&self) -> Vec<ParameterId> {
        Vec::new()
    }

    /// Which activations its VJP reads; `trains` if it has a parameter whose gradient is wanted.
    fn vjp_reads(&self, trains: bool) -> VjpReads;

    /// FLOPs of one output position.
    fn forward_flops(&self, channels: usize) -> u64;

    /// FLOPs of the VJP of one output position.
    fn vjp_flops(&self, channels: usize, needs: &Needs<'_>) -> u64 {
        let _ = needs;
        2 * self.forward_flops(channels)
    }

    /// Whether its VJP can write a cotangent in place of what is there.
    fn replaces_cotangent(&self) -> bool {
        false
    }

    /// What the operator before it would have to compute, too, to take it into itself.
    fn fusible(&self) -> Fusible {
        Fusible::Nothing
    }

    /// Takes the operator that follows into itself, where it computes both at once. It has so many inputs.
    fn absorb(&mut self, next: &Fusible, inputs: usize) -> Absorbed {
        let _ = (next, inputs);
        Absorbed::No
    }

    /// Values of scratch that its kernels need.
    fn scratch<B: Backend>(&self, backend: &B) -> usize {
        let _ = backend;
        0
    }

    /// Lengths of the sums that its VJP adds to, if it trains.
    fn sums(&self, channels: usize, parameters: &[ParameterShape]) -> Vec<usize> {
        let _ = (channels, parameters);
        Vec::new()
    }

    /// The copies of its parameters that are made: the planner counts them, and [`Plain`], [`Self::prepare`] and
    /// [`Self::transpose`] make them.
    ///
    /// # Errors
    /// Settings that the backend's kernels refuse.
    fn copies<B: Backend>(
        &self,
        backend: &B,
        node: NodeShape,
        parameters: &[ParameterShape],
        needs: &Needs<'_>,
    ) -> Result<Copies, KernelError> {
        let _ = (backend, node, parameters, needs);
        Ok(Copies::default())
    }

    /// Makes what the forward computation reads.
    ///
    /// # Errors
    /// Parameters that cannot be read, or do not fit.
    fn prepare<B: Backend>(
        &self,
        plain: &Plain<'_, B>,
        node: NodeShape,
    ) -> Result<Self::Prepared<B>>;

    /// Makes what the VJP reads, if it reads anything.
    ///
    /// # Errors
    /// As for [`Self::prepare`].
    fn transpose<B: Backend>(
        &self,
        plain: &Plain<'_, B>,
        needs: &Needs<'_>,
    ) -> Result<Option<Self::Transposed<B>>> {
        let _ = (plain, needs);
        Ok(None)
    }

    /// Computes the outputs of one tile.
    ///
    /// # Errors
    /// What its kernels refuse.
    fn forward<B: Backend>(
        &self,
        prepared: &Self::Prepared<B>,
        step: ForwardStep<'_, B>,
    ) -> Result<()>;

    /// Adds to the cotangents of its inputs, and to its sums, what the outputs of one tile give. What was prepared is there unless
    /// [`Copies::packed`] says that it is freed.
    ///
    /// # Errors
    /// What its kernels refuse.
    fn vjp<B: Backend>(&self, weights: VjpWeights<'_, Self, B>, step: VjpStep<'_, B>)
    -> Result<()>;

    /// Makes gradients of its parameters from its sums.
    ///
    /// # Errors
    /// What the sink refuses.
    fn gradients<B: Backend>(
        &self,
        sums: Vec<B::Sums>,
        transposed: Option<Self::Transposed<B>>,
        plain: &Plain<'_, B>,
        gradients: &mut GradientWriter<'_>,
    ) -> Result<()> {
        let _ = (sums, transposed, plain, gradients);
        Ok(())
    }
}

/// What the VJP of an operator reads of its parameters.
pub(crate) struct VjpWeights<'a, O: Operator, B: Backend> {
    pub(crate) prepared: Option<&'a O::Prepared<B>>,
    pub(crate) transposed: Option<&'a O::Transposed<B>>,
}

/// What another operator can compute together with what comes before it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Fusible {
    /// Nothing.
    Nothing,
    /// An affine map of each channel, and what follows it.
    Map(ChannelMap, Activation),
    /// The addition of another input, and what follows it.
    Sum(Activation),
    /// An activation.
    Activation(Activation),
}

impl Fusible {
    /// Takes an activation into an operator's own.
    pub(crate) fn activate(&self, own: &mut Activation) -> Absorbed {
        let Self::Activation(next) = *self else {
            return Absorbed::No;
        };
        // A ReLU before or after a ReLU6 changes neither its values nor its derivatives, and either twice is itself.
        *own = next.max(*own);
        Absorbed::Whole
    }
}

/// A node as its operator sees it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct NodeShape {
    /// Of the output.
    pub(crate) channels: usize,
    /// How many there are.
    pub(crate) inputs: usize,
}

/// What is wanted of a VJP.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Needs<'a> {
    /// Of each parameter of the network, whether its gradient is.
    pub(crate) trainable: &'a [bool],
    /// Whether the gradient of any own parameter is.
    pub(crate) trains: bool,
    /// Whether the cotangent of the first input is.
    pub(crate) input: bool,
}

/// What becomes of an operator that follows another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Absorbed {
    /// It stays a node of its own.
    No,
    /// It is part of the other.
    Whole,
    /// It is part of the other, which reads its other input, too.
    WithInput,
}

/// Copies of an operator's parameters.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Copies {
    /// Parameters that are held as they are from the start of the forward sweep; where weights are packed on use, to the end of the
    /// backward sweep.
    pub(crate) plain: Vec<ParameterId>,
    /// Those of them that are held to the end of the backward sweep where weights are held.
    pub(crate) plain_to_the_end: Vec<ParameterId>,
    /// The one that is read when the backward sweep begins, to make what the VJP reads.
    pub(crate) transposed_from: Option<ParameterId>,
    /// Bytes that the forward computation reads.
    pub(crate) prepared: usize,
    /// Whether those are freed after the forward sweep, unless it is computed again, and made for each use where weights are packed on
    /// use. They are made of parameters that are held as they are.
    pub(crate) packed: bool,
    /// Bytes that the VJP reads.
    pub(crate) transposed: usize,
    /// Whether making gradients reads those, too.
    pub(crate) unpacked: bool,
}

/// Bytes of values that arithmetic is done in, as parameters are.
pub(crate) const fn computed<B: Backend>(values: usize) -> usize {
    size_of::<B::Compute>() * values
}

/// Bytes of values that are stored as activations are, as packed weights may be.
pub(crate) const fn stored<B: Backend>(values: usize) -> usize {
    size_of::<B::Stored>() * values
}

/// What decides how long an operator takes, in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OperatorKey {
    /// Operators of one kind take time in proportion to their work.
    pub(crate) kind: &'static str,
    pub(crate) detail: String,
}

/// What VJPs read of nothing.
pub(crate) const READS_NOTHING: VjpReads = VjpReads {
    output: false,
    inputs: false,
};

/// An activation that was fused into an operator, as part of its key.
pub(crate) const fn activated(activation: Activation) -> &'static str {
    match activation {
        Activation::Identity => "",
        Activation::Relu | Activation::Relu6 => ", activation",
    }
}
