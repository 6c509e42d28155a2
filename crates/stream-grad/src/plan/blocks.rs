//! Sweeps over some blocks of an image, in this process or in several.

use std::ops::Range;

use candle_core::Tensor;
use candle_core::backprop::GradStore;
use stream_grad_engine::{Exchange, Model};

use super::Plan;
use crate::parameter::Store;
use crate::tensors::TensorCotangents;
use crate::{
    CotangentSource, FeatureSink, GradientSums, InputGradientSink, Residuals, Result, TileSource,
};

impl Plan {
    /// Number of blocks of all images of the batch. Block `b` of image `i` is number `i * n + b`, where each image has `n` blocks, in
    /// raster order.
    pub fn blocks(&self) -> usize {
        self.plan.blocks()
    }

    /// As [`Plan::forward_to`], for some blocks: the sink receives what these own of the features.
    ///
    /// Blocks share nothing but the weights, so each can be swept by itself, by whoever has the time. Gradients are then the same,
    /// bit for bit, as those of one call over all blocks.
    ///
    /// ```
    /// use candle_core::{DType, Device, Tensor};
    /// use candle_nn::{VarBuilder, VarMap};
    /// use stream_grad::{Conv2d, GradientSums, NetBuilder, PlanRequest, WholeMaps};
    ///
    /// let variables = VarMap::new();
    /// let vb = VarBuilder::from_varmap(&variables, DType::F32, &Device::Cpu);
    /// let mut net = NetBuilder::new(3);
    /// let x = net.conv2d(net.input(), Conv2d::new(3, 4, 3).padding(1), vb.pp("conv"))?;
    /// let net = net.build(x)?;
    ///
    /// let image = Tensor::randn(0f32, 1f32, (1, 3, 64, 64), &Device::Cpu)?;
    /// let plan = net.plan(PlanRequest::new(64, 64).block(32).tile(16))?;
    /// assert_eq!(plan.blocks(), 4);
    /// let (features, residuals) = plan.forward(&image)?;
    /// let cotangents = [features.ones_like()?];
    /// let at_once = plan.vjp(residuals, &cotangents)?;
    ///
    /// let mut sums = GradientSums::new();
    /// for blocks in [2..4, 0..2] {
    ///     let mut features = WholeMaps::<f32>::zeros(&plan.output_shapes());
    ///     let residuals = plan.forward_blocks(&image, &mut features, blocks)?;
    ///     plan.vjp_blocks(residuals, &cotangents, &mut sums)?;
    /// }
    /// let in_halves = plan.gradients(sums)?;
    ///
    /// let weight = &net.parameters()[0].tensor;
    /// let bits = |gradients: &candle_core::backprop::GradStore| {
    ///     gradients.get(weight).unwrap().flatten_all()?.to_vec1::<f32>()
    /// };
    /// assert_eq!(bits(&at_once)?, bits(&in_halves)?);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As for [`Plan::forward_to`]; blocks that the plan does not have.
    pub fn forward_blocks<'a>(
        &self,
        source: &'a dyn TileSource,
        sink: &mut dyn FeatureSink,
        blocks: Range<usize>,
    ) -> Result<Residuals<'a>> {
        self.plan
            .forward_blocks(self.net.values(), source, sink, blocks)
    }

    /// The VJP of some blocks for whole cotangents `[N, C, H, W]`, one for each output, added to `sums`: blocks from the last to the
    /// first, those after these before them.
    ///
    /// # Errors
    /// As for [`Plan::vjp`]; sums of other blocks or of another plan. After an error `sums` holds the
    /// [blocks](GradientSums::blocks) that were done, each as a whole.
    pub fn vjp_blocks(
        &self,
        residuals: Residuals<'_>,
        cotangents: &[Tensor],
        sums: &mut GradientSums,
    ) -> Result<()> {
        self.check_cotangents(cotangents)?;
        let mut source = TensorCotangents::new(cotangents.to_vec());
        self.vjp_blocks_from(residuals, &mut source, None, sums)
    }

    /// As [`Plan::vjp_blocks`], with cotangents asked for region by region, and what these blocks add to the input gradient, if there
    /// is a sink for it, handed out the same way.
    ///
    /// # Errors
    /// As for [`Plan::vjp_blocks`], a sink on a plan without input gradient, or a source or sink that fails.
    pub fn vjp_blocks_from<'a>(
        &self,
        residuals: Residuals<'_>,
        cotangents: &'a mut dyn CotangentSource,
        input_gradient: Option<&'a mut dyn InputGradientSink>,
        sums: &mut GradientSums,
    ) -> Result<()> {
        let exchange = Exchange {
            cotangents,
            input_gradient,
            taps: None,
        };
        self.plan.vjp_blocks(residuals, exchange, sums)
    }

    /// The gradients that sums stand for; the variables must not have changed since the sweeps. Sums of some blocks give what these
    /// contribute.
    ///
    /// # Errors
    /// Sums of another plan.
    pub fn gradients(&self, sums: GradientSums) -> Result<GradStore> {
        let mut store = Store::new(self.net.all_parameters());
        self.plan.gradients(self.net.values(), sums, &mut store)?;
        Ok(store.into_gradients())
    }
}
