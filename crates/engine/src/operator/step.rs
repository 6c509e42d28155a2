//! One operator on one tile: where its operands lie, and the backend that computes on them.

use stream_grad_kernels::{Activation, KernelError};
use stream_grad_tiling::PerAxis;

use crate::backend::{Backend, Buffer, Kernel, Mapping, Rect, Slabs, Transposed};
use crate::error::{OUTSIDE, Result, StreamError};
use crate::tile::{TileMut, TileRef};

/// Where the operands of one operator on one tile lie.
pub(crate) trait Operands {
    /// Number of inputs.
    fn inputs(&self) -> usize;
    /// The buffer of the activation of input `index`.
    fn input(&self, index: usize) -> Buffer;
    /// The buffer of the operator's own activation.
    fn output(&self) -> Buffer;
    /// The outputs to compute, or those whose cotangents are complete.
    fn outputs(&self) -> Rect;
    /// The size of the first input's plane.
    fn plane(&self) -> PerAxis<i64>;
    /// The buffer of the operator's cotangent.
    fn cotangent(&self) -> Buffer;
    /// Whether the cotangent of input `index` is wanted.
    fn wants_input(&self, index: usize) -> bool;
    /// From the operator's cotangent to that of input `index`, if inputs are handled from the last to the first.
    fn transposed(&self, index: usize) -> Transposed;
}

/// The forward computation of one operator on one tile.
pub(crate) struct ForwardStep<'s, B: Backend> {
    /// For messages.
    pub(crate) layer: &'s str,
    pub(crate) backend: &'s B,
    pub(crate) slabs: Slabs<'s, B>,
    pub(crate) operands: &'s dyn Operands,
}

/// The VJP of one operator on one tile.
pub(crate) struct VjpStep<'s, B: Backend> {
    pub(crate) on: ForwardStep<'s, B>,
    /// Whether a gradient of the operator's own parameters is wanted.
    pub(crate) trains: bool,
    /// What its gradients are added to.
    pub(crate) sums: &'s mut [B::Sums],
}

impl<B: Backend> ForwardStep<'_, B> {
    /// From the first input to the output.
    pub(crate) fn mapping(&self) -> Mapping {
        self.mapping_of(0)
    }

    /// From input `index` to the output.
    pub(crate) fn mapping_of(&self, index: usize) -> Mapping {
        Mapping {
            input: self.operands.input(index),
            output: self.operands.output(),
            outputs: self.operands.outputs(),
        }
    }

    /// Runs a kernel.
    pub(crate) fn run(
        &mut self,
        kernel: impl FnOnce(&B, &mut Slabs<'_, B>) -> Kernel,
    ) -> Result<()> {
        kernel(self.backend, &mut self.slabs).map_err(|source| self.refused(source))
    }

    /// Reads a rectangle of a buffer on the host.
    pub(crate) fn read(
        &self,
        buffer: Buffer,
        region: Rect,
        take: impl FnOnce(TileRef<'_>) -> Option<()>,
    ) -> Result<()> {
        let done = self.backend.read(&self.slabs, buffer, region, take);
        done.flatten().ok_or_else(|| self.internal(OUTSIDE))
    }

    /// Writes a rectangle of a buffer on the host.
    pub(crate) fn write(
        &mut self,
        buffer: Buffer,
        region: Rect,
        give: impl FnOnce(TileMut<'_>) -> Option<()>,
    ) -> Result<()> {
        let done = self.backend.write(&mut self.slabs, buffer, region, give);
        done.flatten().ok_or_else(|| self.internal(OUTSIDE))
    }

    /// A defect of this crate.
    pub(crate) fn internal(&self, what: &'static str) -> StreamError {
        StreamError::Internal {
            layer: self.layer.to_owned(),
            what,
        }
    }

    fn refused(&self, source: KernelError) -> StreamError {
        StreamError::Kernel {
            layer: self.layer.to_owned(),
            source,
        }
    }
}

impl<B: Backend> VjpStep<'_, B> {
    /// Where the operands lie.
    pub(crate) fn operands(&self) -> &dyn Operands {
        self.on.operands
    }

    /// What the operator prepared, which it needs here.
    pub(crate) fn needed<'a, P>(&self, prepared: Option<&'a P>) -> Result<&'a P> {
        prepared.ok_or_else(|| self.on.internal("its parameters were freed"))
    }

    /// Runs a kernel.
    pub(crate) fn run(
        &mut self,
        kernel: impl FnOnce(&B, &mut Slabs<'_, B>) -> Kernel,
    ) -> Result<()> {
        self.on.run(kernel)
    }

    /// Runs a kernel that adds to the operator's sums.
    pub(crate) fn run_summing(
        &mut self,
        kernel: impl FnOnce(&B, &mut Slabs<'_, B>, &mut [B::Sums]) -> Kernel,
    ) -> Result<()> {
        let sums = &mut *self.sums;
        self.on.run(|backend, slabs| kernel(backend, slabs, sums))
    }

    /// Turns the cotangent into that before a fused activation, in place.
    pub(crate) fn mask(&mut self, activation: Activation) -> Result<()> {
        if activation == Activation::Identity {
            return Ok(());
        }
        let (output, cotangent) = (self.operands().output(), self.operands().cotangent());
        let outputs = self.operands().outputs();
        self.run(|backend, slabs| backend.mask(slabs, activation, output, cotangent, outputs))
    }

    /// Adds the cotangent to that of input `index`, which is read position by position, if that is wanted.
    pub(crate) fn pass_on(&mut self, index: usize) -> Result<()> {
        if !self.operands().wants_input(index) {
            return Ok(());
        }
        let map = self.operands().transposed(index);
        self.run(|backend, slabs| backend.pass_on(slabs, map))
    }
}
