//! Sweeps over some of a plan's blocks, whose sums are merged later.

use std::ops::Range;
use std::sync::Arc;

use super::{Exchange, Plan};
use crate::backend::{Backend, Cpu, on_cpu};
use crate::element::DType;
use crate::error::{Result, StreamError};
use crate::exchange::{CotangentSource, FeatureSink, TileSource};
use crate::gradient_sums::GradientSums;
use crate::operators::AnyTransposed;
use crate::parameter::{GradientSink, ParameterValues};
use crate::prepared::{AllCopies, Prepared};
use crate::reads::{backward_reads, forward_reads};
use crate::residuals::{BackendResiduals, Residuals, Stores};
use crate::sweep::Gradients;
use crate::sweep::backward::{BackwardInput, backward};
use crate::sweep::forward::{ForwardExchange, forward};
use crate::sweep::roles::{BackwardRoles, Roles};
use crate::sweep::sums::BlockSums;
use crate::workspace::Held;
use stream_grad_tiling::HeldMemory;

/// What the backward sweep leaves besides sums.
pub(super) struct Swept<B: Backend> {
    pub(super) prepared: Prepared<B>,
    pub(super) transposed: Vec<AnyTransposed<B>>,
}

impl Plan {
    /// Number of blocks of all images of the batch. Block `b` of image `i` is number `i * n + b`, where each image has `n` blocks, in
    /// raster order.
    ///
    /// Blocks share nothing but the weights: each can be swept by itself, forward ([`forward_blocks`](Self::forward_blocks)) and
    /// backward ([`vjp_blocks`](Self::vjp_blocks)), in this process or in another.
    pub fn blocks(&self) -> usize {
        self.geometry.blocks().saturating_mul(self.request.batch)
    }

    /// As [`Plan::forward_to`], for some blocks. The sink receives what these own of the features.
    ///
    /// # Errors
    /// As for [`Plan::forward_to`]; blocks that the plan does not have.
    pub fn forward_blocks<'a>(
        &self,
        values: &dyn ParameterValues,
        source: &'a dyn TileSource,
        sink: &mut dyn FeatureSink,
        blocks: Range<usize>,
    ) -> Result<Residuals<'a>> {
        let stores = match self.dtype {
            DType::F32 => {
                Stores::F32(self.forward_blocks_on(&Cpu::new(), values, source, sink, blocks)?)
            }
            DType::F64 => {
                Stores::F64(self.forward_blocks_on(&Cpu::new(), values, source, sink, blocks)?)
            }
            DType::BF16 => {
                Stores::BF16(self.forward_blocks_on(&Cpu::new(), values, source, sink, blocks)?)
            }
        };
        Ok(Residuals { stores })
    }

    /// The same on the backend that the plan was made for.
    ///
    /// # Errors
    /// As for [`Plan::forward_blocks`].
    pub fn forward_blocks_on<'a, B: Backend>(
        &self,
        backend: &B,
        values: &dyn ParameterValues,
        source: &'a dyn TileSource,
        sink: &mut dyn FeatureSink,
        blocks: Range<usize>,
    ) -> Result<BackendResiduals<'a, B>> {
        self.check_source(source)?;
        self.check_blocks(&blocks)?;
        let roles = Roles::forward(&self.schedule(), source, blocks.clone())?;
        source.expect_reads(&mut forward_reads(&self.geometry, blocks.clone(), &roles));
        self.install(|| {
            let mut held = self.workspace.take();
            self.schedule()
                .fit_forward(backend, &mut held, blocks.clone());
            let copies = self.copies(backend)?;
            let weights = self.recipe().weights;
            let mut prepared = Prepared::new(backend, &self.network, &copies, weights, values)?;
            let exchange = ForwardExchange {
                source,
                range: blocks,
                roles,
                sink,
            };
            let saved = forward(backend, self.schedule(), &prepared, exchange, &mut held)?;
            self.workspace.put(held);
            prepared.keep_packed(&copies, |node| {
                self.buffers.computes_again(&self.geometry, node)
            });
            Ok(BackendResiduals {
                source,
                geometry: Arc::clone(&self.geometry),
                prepared,
                saved,
            })
        })
    }

    /// Runs the backward sweep over the blocks of these residuals and adds what it finds to `sums`, in which the blocks after these
    /// must be: blocks are added from the last to the first, so that the sums of all are the same bit for bit however they were
    /// divided.
    ///
    /// # Errors
    /// As for [`Plan::vjp`]; sums of other blocks or of another plan; taps, where these blocks are not all of an image's. After an
    /// error `sums` holds the [blocks](GradientSums::blocks) that were done, each as a whole.
    pub fn vjp_blocks(
        &self,
        residuals: Residuals<'_>,
        exchange: Exchange<'_>,
        sums: &mut GradientSums,
    ) -> Result<()> {
        match residuals.stores {
            Stores::F32(residuals) => self.vjp_blocks_on(&Cpu::new(), residuals, exchange, sums),
            Stores::F64(residuals) => self.vjp_blocks_on(&Cpu::new(), residuals, exchange, sums),
            Stores::BF16(residuals) => self.vjp_blocks_on(&Cpu::new(), residuals, exchange, sums),
        }
    }

    /// The same on the backend that the plan was made for.
    ///
    /// # Errors
    /// As for [`Plan::vjp_blocks`].
    pub fn vjp_blocks_on<B: Backend>(
        &self,
        backend: &B,
        residuals: BackendResiduals<'_, B>,
        exchange: Exchange<'_>,
        sums: &mut GradientSums,
    ) -> Result<()> {
        let range = residuals.saved.range.clone();
        let lengths = self.sum_lengths();
        sums.check_next(&range, self.recipe(), &lengths)?;
        let end = if sums.blocks().is_empty() {
            range.end
        } else {
            sums.blocks().end
        };
        let mut running = BlockSums::new(lengths, sums.take(backend));
        let swept = self.install(|| {
            let copies = self.copies(backend)?;
            self.sweep_back(backend, residuals, exchange, &copies, &mut running)
        });
        let done = range.end - running.done..end;
        sums.put(backend, running.into_total(backend), done, self.recipe());
        swept.map(drop)
    }

    /// Hands out the gradients that `sums` stand for, with the values that the parameters had in the sweeps. Sums of some blocks give
    /// what these contribute.
    ///
    /// # Errors
    /// Sums of another plan, parameters that cannot be read, or a sink that fails. The sums are consumed.
    pub fn gradients(
        &self,
        values: &dyn ParameterValues,
        sums: GradientSums,
        sink: &mut dyn GradientSink,
    ) -> Result<()> {
        on_cpu!(self.dtype, backend => self.gradients_on(&backend, values, sums, sink))
    }

    /// The same on the backend that the plan was made for.
    ///
    /// # Errors
    /// As for [`Plan::gradients`].
    pub fn gradients_on<B: Backend>(
        &self,
        backend: &B,
        values: &dyn ParameterValues,
        mut sums: GradientSums,
        sink: &mut dyn GradientSink,
    ) -> Result<()> {
        let lengths = self.sum_lengths();
        sums.check_plan(self.recipe(), &lengths)?;
        let total = BlockSums::new(lengths, sums.take(backend)).into_total(backend);
        self.install(|| {
            let copies = self.copies(backend)?;
            let swept = Swept {
                prepared: Prepared::plain(&self.network, values)?,
                transposed: copies.transposed_on_use(),
            };
            self.hand_out(backend, &copies, swept, total, sink)
        })
    }

    /// Sweeps back over the blocks of `residuals` and adds to `sums`, block by block.
    pub(super) fn sweep_back<B: Backend>(
        &self,
        backend: &B,
        residuals: BackendResiduals<'_, B>,
        exchange: Exchange<'_>,
        copies: &AllCopies,
        sums: &mut BlockSums<B>,
    ) -> Result<Swept<B>> {
        self.check_exchange(&residuals, &exchange)?;
        let BackendResiduals {
            source,
            mut prepared,
            saved,
            ..
        } = residuals;
        let roles = saved.range.clone();
        // Taps are shown every tile: then all of them are computed.
        let cotangents: Option<&dyn CotangentSource> = match exchange.taps {
            Some(_) => None,
            None => Some(&*exchange.cotangents),
        };
        let schedule = self.schedule();
        let roles = roles.map(|number| BackwardRoles::of(&schedule, source, cotangents, number));
        let roles = roles.collect::<Result<Vec<_>>>()?;
        let reads = backward_reads(&self.geometry, &self.buffers, saved.range.clone(), &roles);
        source.expect_reads(&mut { reads });
        let mut held = self.workspace.take();
        self.schedule().fit_backward(backend, &mut held);
        let mut gradients = Gradients {
            transposed: self.transpose(backend, copies, &mut prepared)?,
            sums,
            trains: self.trains(),
        };
        let input = BackwardInput {
            prepared: &prepared,
            source,
            saved,
            roles,
        };
        backward(
            backend,
            schedule,
            input,
            &mut gradients,
            exchange,
            &mut held,
        )?;
        match self.held {
            HeldMemory::Nothing => held = Held::default(),
            HeldMemory::Working => held.blocks = Vec::new(),
            HeldMemory::Everything => {}
        }
        self.workspace.put(held);
        prepared.keep_packed(copies, |_| false);
        Ok(Swept {
            transposed: gradients.transposed,
            prepared,
        })
    }

    /// Of each node, the lengths of its sums.
    pub(super) fn sum_lengths(&self) -> Vec<Vec<usize>> {
        let nodes = self.network.nodes.iter();
        nodes
            .map(|node| node.sums(&self.network.parameters, &self.trainable))
            .collect()
    }

    fn check_blocks(&self, blocks: &Range<usize>) -> Result<()> {
        if blocks.start <= blocks.end && blocks.end <= self.blocks() {
            return Ok(());
        }
        Err(StreamError::PlanMismatch {
            what: "blocks",
            expected: format!("blocks 0 to {}", self.blocks()),
            found: format!("{} to {}", blocks.start, blocks.end),
        })
    }

    fn check_exchange<B: Backend>(
        &self,
        residuals: &BackendResiduals<'_, B>,
        exchange: &Exchange<'_>,
    ) -> Result<()> {
        let mismatch = |what, expected: String, found: String| {
            Err(StreamError::PlanMismatch {
                what,
                expected,
                found,
            })
        };
        if exchange.input_gradient.is_some() && !self.request.input_gradient.is_computed() {
            return mismatch(
                "input gradient",
                "a run without it: ask for it in the request".into(),
                "a sink for it".into(),
            );
        }
        if !Arc::ptr_eq(&residuals.geometry, &self.geometry) {
            return mismatch(
                "residuals",
                self.recipe().to_string(),
                residuals.geometry.recipe().to_string(),
            );
        }
        let Range { start, end } = residuals.saved.range;
        let blocks = self.geometry.blocks();
        if exchange.taps.is_some() && !(start.is_multiple_of(blocks) && end.is_multiple_of(blocks))
        {
            return mismatch(
                "taps",
                format!("all {blocks} blocks of an image, over which what is shown is summed"),
                format!("blocks {start} to {end}"),
            );
        }
        Ok(())
    }
}
