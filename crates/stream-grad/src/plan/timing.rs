//! Timing the parts of a step, for a cost model.

use std::time::Instant;

use candle_core::{DType, Device, Tensor};

use super::Plan;
use crate::engine::backward::Exchange;
use crate::engine::timing::{NodeSeconds, time_copies, time_nodes};
use crate::error::Result;
use crate::exchange::{InputGradientSink, MapCollector, TensorCotangents};
use crate::prepared::Prepared;
use crate::scalar::Scalar;

/// Seconds of a step's parts.
pub(crate) struct TimedNodes {
    /// Of each operation.
    pub(crate) nodes: Vec<NodeSeconds>,
    /// Of what is done once: packing parameters and unpacking their gradients.
    pub(crate) fixed: f64,
    /// Of a byte of a halo.
    pub(crate) copied_byte: f64,
}

impl Plan {
    /// Times each operation of a plan with one tile, `rounds` times, on an image and cotangents of no interest.
    pub(crate) fn time_nodes(&self, rounds: u32) -> Result<TimedNodes> {
        match self.request.dtype {
            DType::F64 => self.time_nodes_in::<f64>(rounds),
            _ => self.time_nodes_in::<f32>(rounds),
        }
    }

    fn time_nodes_in<T: Scalar>(&self, rounds: u32) -> Result<TimedNodes> {
        let half = |shape: &[usize]| Tensor::full(0.5, shape, &Device::Cpu)?.to_dtype(T::KIND);
        let image = half(&self.input_shape())?;
        let shapes = self.output_shapes();
        let cotangents = shapes.iter().map(|shape| half(shape));
        let mut source = TensorCotangents(cotangents.collect::<candle_core::Result<_>>()?);
        let mut sink = self
            .request
            .input_gradient
            .is_computed()
            .then(|| MapCollector::<T>::new(&[self.input_shape()]));
        self.install(|| {
            let start = Instant::now();
            let mut prepared = Prepared::<T>::new(&self.net.operations, &self.net.parameters)?;
            let mut gradients = self.gradients(&mut prepared)?;
            let preparing = start.elapsed();
            let exchange = Exchange {
                cotangents: &mut source,
                input_gradient: sink.as_mut().map(|sink| sink as &mut dyn InputGradientSink),
            };
            let schedule = self.schedule();
            let nodes = time_nodes(
                schedule,
                &prepared,
                &image,
                &mut gradients,
                exchange,
                rounds,
            )?;
            let start = Instant::now();
            self.unfold(gradients, &mut prepared)?;
            Ok(TimedNodes {
                nodes,
                fixed: (preparing + start.elapsed()).as_secs_f64(),
                copied_byte: time_copies(),
            })
        })
    }
}
