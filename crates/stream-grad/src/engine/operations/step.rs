//! One operation on one tile: its buffers, and views of them as the kernels take them.

use stream_grad_kernels::{Existing, Image, ImageMut, KernelError, Located, Position, Region};
use stream_grad_tiling::{AxisRule, PerAxis, Span};

use super::super::buffer::{Buffer, disjoint};
use super::super::{BlockStore, Engine, Phase, TilePlace};
use super::Gradients;
use crate::error::{Result, StreamError};
use crate::operation::Operation;
use crate::prepared::{PreparedOperation, kernel_error};
use crate::scalar::Scalar;

/// Gradients, scratch for one kernel, and views of `N` buffers, all writable at once.
type GradientsScratchAndViews<'a, T, const N: usize> =
    (&'a mut Gradients<T>, &'a mut [T], [&'a mut [T]; N]);

/// One operation on one tile, with the gradients that its direction writes.
pub(super) struct Step<'s, 'p, T, G> {
    pub(super) engine: &'s mut Engine<'p, T>,
    store: &'s mut BlockStore<T>,
    place: TilePlace,
    pub(super) node: usize,
    phase: Phase,
    gradients: G,
    /// The outputs to compute, or those whose cotangents are complete.
    pub(super) owned: PerAxis<Span>,
}

/// The forward computation of one operation on one tile.
pub(super) type ForwardStep<'s, 'p, T> = Step<'s, 'p, T, ()>;

/// The VJP of one operation on one tile.
pub(super) type VjpStep<'s, 'p, T> = Step<'s, 'p, T, &'s mut Gradients<T>>;

impl<'p, T: Scalar, G> Step<'_, 'p, T, G> {
    pub(super) fn operation(&self) -> &'p Operation {
        &self.engine.schedule.operations[self.node]
    }

    pub(super) fn name(&self) -> &'p str {
        &self.operation().name
    }

    pub(super) fn prepared(&self) -> &'p PreparedOperation<T> {
        &self.engine.prepared.operations[self.node]
    }

    /// The refusal of an operation whose parameters are not prepared as its kind needs.
    pub(super) fn unprepared(&self) -> StreamError {
        StreamError::Internal {
            layer: self.name().to_owned(),
            what: "its parameters are not prepared",
        }
    }

    /// The buffer of the operation's own activation.
    pub(super) fn output(&self) -> Buffer {
        self.engine.activation(self.place, self.node, self.phase)
    }

    /// The buffer of the activation of input `index`.
    pub(super) fn input(&self, index: usize) -> Buffer {
        let source = self.operation().inputs[index];
        self.engine.activation(self.place, source, self.phase)
    }

    /// The size of the first input's plane.
    pub(super) fn plane(&self) -> PerAxis<i64> {
        self.engine.plane(self.operation().inputs[0])
    }

    /// Where, in a buffer of the first input, the first tap of the first output's window lies.
    pub(super) fn first(&self, buffer: Buffer) -> Position {
        first_window(self.engine.rule(self.node), buffer, self.owned)
    }

    /// Views of several buffers at once.
    pub(super) fn views<const N: usize>(&mut self, buffers: [Buffer; N]) -> Result<[&mut [T]; N]> {
        let name = self.name();
        disjoint(self.engine.arena, &mut self.store.saved, buffers, name)
    }
}

/// An input and the output of an operation.
pub(super) struct Unary<'a, T> {
    /// All that the tile holds of the input.
    pub(super) input: Image<'a, T>,
    /// Where, in the input, the first tap of the first output's window lies.
    pub(super) first: Position,
    pub(super) output: ImageMut<'a, T>,
    /// What is to be computed, in the output.
    pub(super) region: Region,
    input_buffer: Buffer,
    owned: PerAxis<Span>,
}

impl<'a, T: Scalar> Unary<'a, T> {
    /// The input at the positions of the output.
    pub(super) fn pointwise(&self) -> Located<'a, T> {
        at(&self.input_buffer, self.input, self.owned)
    }

    /// The first position of the input that the tile holds, and the first output to compute, in their planes.
    pub(super) fn origins(&self) -> ([usize; 2], [usize; 2]) {
        (origin(self.input_buffer.rect), origin(self.owned))
    }
}

impl<'s, 'p, T: Scalar> ForwardStep<'s, 'p, T> {
    pub(super) fn new(
        engine: &'s mut Engine<'p, T>,
        store: &'s mut BlockStore<T>,
        place: TilePlace,
        node: usize,
        phase: Phase,
    ) -> Self {
        Self {
            owned: engine.owned(place, node),
            engine,
            store,
            place,
            node,
            phase,
            gradients: (),
        }
    }

    /// Scratch for the kernel, with views of several buffers at once.
    pub(super) fn scratch_and_views<const N: usize>(
        &mut self,
        buffers: [Buffer; N],
    ) -> Result<(&mut [T], [&mut [T]; N])> {
        let name = self.name();
        let Engine { arena, scratch, .. } = &mut *self.engine;
        let views = disjoint(arena, &mut self.store.saved, buffers, name)?;
        Ok((&mut scratch[..], views))
    }

    /// Runs a kernel from the first input to the output.
    pub(super) fn unary(
        mut self,
        run: impl FnOnce(Unary<'_, T>) -> Result<(), KernelError>,
    ) -> Result<()> {
        let (name, owned) = (self.name(), self.owned);
        let (input, output) = (self.input(0), self.output());
        let first = self.first(input);
        let [from, to] = self.views([input, output])?;
        unary((input, from), (output, to), owned, first)
            .and_then(run)
            .map_err(kernel_error(name))
    }
}

fn unary<'a, T: Scalar>(
    (input, from): (Buffer, &'a [T]),
    (output, to): (Buffer, &'a mut [T]),
    owned: PerAxis<Span>,
    first: Position,
) -> Result<Unary<'a, T>, KernelError> {
    Ok(Unary {
        input: input.image(from)?,
        first,
        output: output.image_mut(to)?,
        region: output.region(owned),
        input_buffer: input,
        owned,
    })
}

/// The cotangents of an operation's output and of an input.
pub(super) struct Transposed<'a, T> {
    pub(super) cotangent: Image<'a, T>,
    /// The outputs, in their cotangent.
    pub(super) region: Region,
    /// What is added to.
    pub(super) target: ImageMut<'a, T>,
    /// Where, in the target, the first tap of the first output's window lies.
    pub(super) first: Position,
    cotangent_buffer: Buffer,
    target_buffer: Buffer,
    owned: PerAxis<Span>,
}

impl<'a, T: Scalar> Transposed<'a, T> {
    /// The cotangents of the outputs, one by one.
    pub(super) fn pointwise(&self) -> Located<'a, T> {
        at(&self.cotangent_buffer, self.cotangent, self.owned)
    }

    /// The positions of the outputs in the target.
    pub(super) fn target_region(&self) -> Region {
        self.target_buffer.region(self.owned)
    }

    /// The first output, and the first position of the target, in their planes.
    pub(super) fn origins(&self) -> ([usize; 2], [usize; 2]) {
        (origin(self.owned), origin(self.target_buffer.rect))
    }
}

impl<'s, 'p, T: Scalar> VjpStep<'s, 'p, T> {
    pub(super) fn new(
        engine: &'s mut Engine<'p, T>,
        store: &'s mut BlockStore<T>,
        place: TilePlace,
        node: usize,
        gradients: &'s mut Gradients<T>,
    ) -> Self {
        Self {
            owned: engine.owned(place, node),
            engine,
            store,
            place,
            node,
            phase: Phase::Backward,
            gradients,
        }
    }

    /// Whether a gradient of the operation's own parameters is wanted.
    pub(super) fn trains(&self) -> bool {
        self.operation().is_trainable(&self.gradients.trainable)
    }

    /// Whether a gradient of the operation's bias is wanted.
    pub(super) fn trains_bias(&self) -> bool {
        !self.gradients.parameters.operations[self.node]
            .bias
            .is_empty()
    }

    /// Whether the cotangent of the first input is wanted.
    pub(super) fn wants_input(&self) -> bool {
        self.engine.has_cotangent(self.operation().inputs[0])
    }

    /// What becomes of what the cotangent of input `index` holds, if the VJP handles the inputs from the last to the first.
    pub(super) fn existing(&self, index: usize) -> Existing {
        let inputs = &self.operation().inputs;
        let source = inputs[index];
        let is_first = !inputs[index + 1..].contains(&source);
        if is_first && self.engine.replaces(self.place, self.node, source) {
            Existing::Replace
        } else {
            Existing::Add
        }
    }

    /// The buffer of the operation's cotangent.
    pub(super) fn cotangent(&self) -> Buffer {
        self.engine.cotangent(self.place, self.node)
    }

    /// The buffer of the cotangent of node `source`.
    pub(super) fn cotangent_of(&self, source: usize) -> Buffer {
        self.engine.cotangent(self.place, source)
    }

    /// The gradients, with views of several buffers at once.
    pub(super) fn gradients_and_views<const N: usize>(
        &mut self,
        buffers: [Buffer; N],
    ) -> Result<(&mut Gradients<T>, [&mut [T]; N])> {
        let (gradients, _, views) = self.gradients_scratch_and_views(buffers)?;
        Ok((gradients, views))
    }

    /// The gradients and scratch for the kernel, with views of several buffers at once.
    pub(super) fn gradients_scratch_and_views<const N: usize>(
        &mut self,
        buffers: [Buffer; N],
    ) -> Result<GradientsScratchAndViews<'_, T, N>> {
        let name = self.name();
        let Engine { arena, scratch, .. } = &mut *self.engine;
        let views = disjoint(arena, &mut self.store.saved, buffers, name)?;
        Ok((self.gradients, &mut scratch[..], views))
    }

    /// Runs a kernel from the cotangent of the output to that of node `source`, an input.
    pub(super) fn transposed(
        &mut self,
        source: usize,
        run: impl FnOnce(Transposed<'_, T>) -> Result<(), KernelError>,
    ) -> Result<()> {
        let (name, owned) = (self.name(), self.owned);
        let (cotangent, target) = (self.cotangent(), self.cotangent_of(source));
        let first = self.first(target);
        let [g, to] = self.views([cotangent, target])?;
        transposed((cotangent, g), (target, to), owned, first)
            .and_then(run)
            .map_err(kernel_error(name))
    }

    /// As [`Self::transposed`] to the first input, for a kernel that reads the activation in `read` besides.
    pub(super) fn transposed_reading(
        &mut self,
        read: Buffer,
        run: impl FnOnce(Image<'_, T>, Transposed<'_, T>) -> Result<(), KernelError>,
    ) -> Result<()> {
        let (name, owned) = (self.name(), self.owned);
        let (cotangent, target) = (
            self.cotangent(),
            self.cotangent_of(self.operation().inputs[0]),
        );
        let first = self.first(target);
        let [x, g, to] = self.views([read, cotangent, target])?;
        let views = transposed((cotangent, g), (target, to), owned, first);
        read.image(x)
            .and_then(|x| run(x, views?))
            .map_err(kernel_error(name))
    }
}

fn transposed<'a, T: Scalar>(
    (cotangent, g): (Buffer, &'a [T]),
    (target, to): (Buffer, &'a mut [T]),
    owned: PerAxis<Span>,
    first: Position,
) -> Result<Transposed<'a, T>, KernelError> {
    Ok(Transposed {
        cotangent: cotangent.image(g)?,
        region: cotangent.region(owned),
        target: target.image_mut(to)?,
        first,
        cotangent_buffer: cotangent,
        target_buffer: target,
        owned,
    })
}

impl<T: Scalar> Engine<'_, T> {
    /// The rule of a node's first input.
    fn rule(&self, node: usize) -> &PerAxis<AxisRule> {
        let graph = self.schedule.geometry.sized().graph();
        &graph.nodes()[node].inputs[0].rule
    }

    /// The size of a node's plane.
    fn plane(&self, node: usize) -> PerAxis<i64> {
        self.schedule.geometry.sized().size(node)
    }
}

/// Where, in the input's buffer, the first tap of the first owned output's window lies.
fn first_window(rule: &PerAxis<AxisRule>, input: Buffer, owned: PerAxis<Span>) -> Position {
    let first = |rule: &AxisRule, span: Span| match rule {
        AxisRule::Window(window) => span.lo * window.stride() - window.pad_lo(),
        _ => span.lo,
    };
    input.position(
        first(&rule.rows, owned.rows),
        first(&rule.columns, owned.columns),
    )
}

/// The values of a buffer that belong to a rectangle of the plane.
pub(super) fn located<'a, T>(
    buffer: &Buffer,
    data: &'a [T],
    rect: PerAxis<Span>,
) -> Result<Located<'a, T>, KernelError> {
    Ok(at(buffer, buffer.image(data)?, rect))
}

/// The values of a buffer's image that belong to a rectangle of the plane.
pub(super) fn at<'a, T>(
    buffer: &Buffer,
    image: Image<'a, T>,
    rect: PerAxis<Span>,
) -> Located<'a, T> {
    let Region { row, column, .. } = buffer.region(rect);
    Located::new(image, row, column)
}

/// The first position of a rectangle inside the plane.
pub(super) fn origin(rect: PerAxis<Span>) -> [usize; 2] {
    let first = |span: Span| usize::try_from(span.lo).unwrap_or(0);
    [first(rect.rows), first(rect.columns)]
}
