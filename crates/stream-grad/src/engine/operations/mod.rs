//! The arithmetic of one operation on one tile, forward and VJP: a file for each kind.

mod activation;
mod convolution;
mod local;
mod merge;
mod norm;
mod pooling;
mod step;
mod upsample;

use stream_grad_kernels::Interpolation;

use super::{BlockStore, Engine, Phase, TilePlace};
use crate::error::Result;
use crate::gradients::ParameterGradients;
use crate::operation::Kind;
use crate::prepared::DataGradient;
use crate::scalar::Scalar;
use step::{ForwardStep, VjpStep};
use upsample::bilinear;

/// What the VJPs read and write besides the tile.
pub(crate) struct Gradients<T> {
    pub(crate) weights: Vec<Option<DataGradient<T>>>,
    pub(crate) parameters: ParameterGradients,
    pub(crate) trainable: Vec<bool>,
}

impl<T: Scalar> Engine<'_, T> {
    /// Computes the owned region of a node; its inputs are complete.
    pub(super) fn compute(
        &mut self,
        place: TilePlace,
        node: usize,
        phase: Phase,
        store: &mut BlockStore<T>,
    ) -> Result<()> {
        let operation = &self.schedule.operations[node];
        let step = ForwardStep::new(self, store, place, node, phase);
        match &operation.kind {
            Kind::Image => Ok(()),
            Kind::Convolution(convolution) => step.convolution(convolution),
            Kind::Pool {
                window, pooling, ..
            } => step.pool(window, *pooling),
            Kind::Affine(_, activation) => step.affine(*activation),
            Kind::LayerNorm {
                epsilon,
                activation,
                ..
            } => step.layer_norm(*epsilon, *activation),
            Kind::Relu => step.relu(),
            Kind::Gelu(form) => step.gelu(*form),
            Kind::Add(activation) => step.add(*activation),
            Kind::Concat => step.concat(),
            Kind::UpsampleNearest(factor) => step.upsample(*factor, Interpolation::Nearest),
            Kind::UpsampleBilinear(factor, corners) => step.upsample(*factor, bilinear(*corners)),
            Kind::Local { layer, .. } => step.local(layer.as_ref()),
        }
    }

    /// Runs the VJP of a node over what the tile owns; the cotangent there is complete. Adds to the cotangents
    /// of the inputs and to the parameters' gradients.
    pub(super) fn vjp(
        &mut self,
        place: TilePlace,
        node: usize,
        store: &mut BlockStore<T>,
        gradients: &mut Gradients<T>,
    ) -> Result<()> {
        let operation = &self.schedule.operations[node];
        let step = VjpStep::new(self, store, place, node, gradients);
        match &operation.kind {
            Kind::Image => Ok(()),
            Kind::Convolution(convolution) => step.convolution(convolution),
            Kind::Pool {
                window, pooling, ..
            } => step.pool(window, *pooling),
            Kind::Affine(_, activation) => step.affine(*activation),
            Kind::LayerNorm {
                epsilon,
                activation,
                ..
            } => step.layer_norm(*epsilon, *activation),
            Kind::Relu => step.relu(),
            Kind::Gelu(form) => step.gelu(*form),
            Kind::Add(activation) => step.add(*activation),
            Kind::Concat => step.concat(),
            Kind::UpsampleNearest(factor) => step.upsample(*factor, Interpolation::Nearest),
            Kind::UpsampleBilinear(factor, corners) => step.upsample(*factor, bilinear(*corners)),
            Kind::Local { layer, .. } => step.local(layer.as_ref()),
        }
    }

    /// Whether the VJP of a node writes the cotangent of `source`, an input, in place of what is there, instead of adding to it:
    /// it is the first that does, and of a kind that can.
    pub(super) fn replaces(&self, place: TilePlace, node: usize, source: usize) -> bool {
        let operation = &self.schedule.operations[node];
        let can = matches!(
            operation.kind,
            Kind::Convolution(_) | Kind::Pool { .. } | Kind::Add(_)
        );
        can && self.has_cotangent(source)
            && operation.inputs.contains(&source)
            && self.schedule.buffers.first_touch(source) == node
            && !self.owned(place, node).is_empty()
            && !self
                .schedule
                .outputs
                .iter()
                .any(|(_, output)| *output == source)
    }

    /// Whether the backward sweep computes a cotangent of a node.
    pub(super) fn has_cotangent(&self, node: usize) -> bool {
        self.schedule.geometry.sized().graph().nodes()[node].has_cotangent
    }
}
