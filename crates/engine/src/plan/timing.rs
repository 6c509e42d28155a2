//! Timing the parts of a step, for a cost model.

use std::time::{Duration, Instant};

use rayon::prelude::*;
use stream_grad_kernels::bf16;

use super::Plan;
use super::blocks::Swept;
use crate::backend::Cpu;
use crate::cost_model::CostModel;
use crate::element::{DType, Stored};
use crate::error::{ExternalError, Result};
use crate::exchange::{InputGradientSink, TileSource};
use crate::maps::WholeMaps;
use crate::parameter::{GradientSink, ParameterId, ParameterValues};
use crate::prepared::Prepared;
use crate::sweep::Gradients;
use crate::sweep::backward::Exchange;
use crate::sweep::sums::BlockSums;
use crate::sweep::timing::{NodeSeconds, time_copies, time_fresh_memory, time_nodes};

/// Seconds of a step's parts.
pub(crate) struct TimedNodes {
    /// Of each operation.
    pub(crate) nodes: Vec<NodeSeconds>,
    /// Of what is done once: packing parameters and unpacking their gradients.
    pub(crate) fixed: f64,
    /// Of a byte of weights that is packed, if any is for a VJP.
    pub(crate) packed_byte: Option<f64>,
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
        let packed = self.packed_byte.into_iter().chain(other.packed_byte);
        self.packed_byte = packed.reduce(f64::min);
        self.copied_byte = self.copied_byte.min(other.copied_byte);
        self.fresh_byte = self.fresh_byte.min(other.fresh_byte);
    }
}

impl Plan {
    /// What a model says that the operations take on one tile that is the whole image, forward and VJP once each.
    pub(crate) fn operation_time(&self, model: &CostModel) -> Duration {
        let sized = self.geometry.sized();
        let time = model.time_model(&self.network, &self.request, sized.graph());
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
    pub(crate) fn time_nodes(
        &self,
        values: &dyn ParameterValues,
        slice: Duration,
    ) -> Result<TimedNodes> {
        match self.dtype {
            DType::F32 => self.time_nodes_in::<f32>(values, slice),
            DType::F64 => self.time_nodes_in::<f64>(values, slice),
            DType::BF16 => self.time_nodes_in::<bf16>(values, slice),
        }
    }

    fn time_nodes_in<E: Stored>(
        &self,
        values: &dyn ParameterValues,
        slice: Duration,
    ) -> Result<TimedNodes> {
        let backend = &Cpu::<E>::new();
        let image = WholeMaps::<E>::noise(&[self.input_shape()]);
        let mut source = WholeMaps::<E>::noise(&self.output_shapes());
        let input_gradient = self.request.input_gradient;
        let mut sink = input_gradient
            .is_computed()
            .then(|| WholeMaps::<E>::zeros(&[self.input_shape()]));
        self.install(|| {
            let start = Instant::now();
            let copies = self.copies(backend)?;
            let weights = self.recipe().weights;
            let mut prepared = Prepared::new(backend, &self.network, &copies, weights, values)?;
            let packing = Instant::now();
            let transposed = self.transpose(backend, &copies, &mut prepared)?;
            let packing = packing.elapsed();
            let packed_bytes: usize = copies.iter().map(|copies| copies.transposed).sum();
            let mut sums = BlockSums::new(self.sum_lengths(), None);
            sums.begin_block(backend);
            let mut gradients = Gradients {
                transposed,
                sums: &mut sums,
                trains: self.trains(),
            };
            let preparing = start.elapsed();
            let exchange = Exchange {
                cotangents: &mut source,
                input_gradient: sink.as_mut().map(|sink| sink as &mut dyn InputGradientSink),
                taps: None,
            };
            let read = (&prepared, &image as &dyn TileSource);
            let schedule = self.schedule();
            let nodes = time_nodes(backend, schedule, read, &mut gradients, exchange, slice)?;
            let start = Instant::now();
            let transposed = gradients.transposed;
            sums.finish_block(backend);
            prepared.keep_packed(&copies, |_| false);
            let swept = Swept {
                prepared,
                transposed,
            };
            let sums = sums.into_total(backend);
            self.hand_out(backend, &copies, swept, sums, &mut Forget)?;
            Ok(TimedNodes {
                nodes,
                fixed: (preparing + start.elapsed()).as_secs_f64(),
                packed_byte: (packed_bytes > 0)
                    .then(|| packing.as_secs_f64() / packed_bytes as f64),
                copied_byte: time_copies(),
                fresh_byte: time_fresh_memory(),
            })
        })
    }
}

/// Rounds gradients as their owner would, and forgets them.
struct Forget;

impl GradientSink for Forget {
    fn add(&mut self, _parameter: ParameterId, gradient: Vec<f64>) -> Result<(), ExternalError> {
        let rounded: Vec<f32> = gradient.into_par_iter().map(f32::rounded).collect();
        std::hint::black_box(rounded);
        Ok(())
    }
}
