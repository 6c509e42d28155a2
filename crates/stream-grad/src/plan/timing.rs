//! Timing the parts of a step, for a cost model.

use std::time::{Duration, Instant};

use candle_core::{DType, Device, Tensor};

use super::Plan;
use crate::cost_model::CostModel;
use crate::engine::backward::Exchange;
use crate::engine::timing::{NodeSeconds, time_copies, time_fresh_memory, time_nodes};
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
    /// Of a byte of fresh memory.
    pub(crate) fresh_byte: f64,
}

impl TimedNodes {
    /// These times and others of the same plan; of what is no operation, the least.
    pub(crate) fn merge(&mut self, other: &Self) {
        for (seconds, other) in self.nodes.iter_mut().zip(&other.nodes) {
            seconds.forward.extend(&other.forward);
            seconds.vjp.extend(&other.vjp);
        }
        self.fixed = self.fixed.min(other.fixed);
        self.copied_byte = self.copied_byte.min(other.copied_byte);
        self.fresh_byte = self.fresh_byte.min(other.fresh_byte);
    }
}

impl Plan {
    /// What a model says that the operations take on one tile that is the whole image, forward and VJP once each.
    pub(crate) fn operation_time(&self, model: &CostModel) -> Duration {
        let sized = self.geometry.sized();
        let time = model.time_model(&self.net, &self.request, sized.graph());
        let nodes = time.nodes.iter().enumerate();
        let total = nodes.fold(0_u128, |total, (node, time)| {
            let positions = sized.plane(node).area();
            total
                .saturating_add(time.forward.of(positions).0)
                .saturating_add(time.vjp.of(positions).0)
        });
        Duration::from_nanos(u64::try_from(total / 1000).unwrap_or(u64::MAX))
    }

    /// Times each operation of a plan with one tile, over and over for `slice`, on a random image and cotangents: on an even
    /// one, all that a processor guesses would come true.
    pub(crate) fn time_nodes(&self, slice: Duration) -> Result<TimedNodes> {
        match self.request.dtype {
            DType::F64 => self.time_nodes_in::<f64>(slice),
            _ => self.time_nodes_in::<f32>(slice),
        }
    }

    fn time_nodes_in<T: Scalar>(&self, slice: Duration) -> Result<TimedNodes> {
        let noise =
            |shape: &[usize]| Tensor::rand(-1.0_f32, 1.0, shape, &Device::Cpu)?.to_dtype(T::KIND);
        let image = noise(&self.input_shape())?;
        let shapes = self.output_shapes();
        let cotangents = shapes.iter().map(|shape| noise(shape));
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
                taps: None,
            };
            let schedule = self.schedule();
            let nodes = time_nodes(schedule, &prepared, &image, &mut gradients, exchange, slice)?;
            let start = Instant::now();
            self.unfold(gradients, &mut prepared)?;
            Ok(TimedNodes {
                nodes,
                fixed: (preparing + start.elapsed()).as_secs_f64(),
                copied_byte: time_copies(),
                fresh_byte: time_fresh_memory(),
            })
        })
    }
}
