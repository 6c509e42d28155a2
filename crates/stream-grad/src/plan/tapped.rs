//! The backward sweep with tapped layers shown.

use candle_core::Tensor;
use candle_core::backprop::GradStore;
use stream_grad_engine::Exchange;

use super::Plan;
use crate::tensors::TensorCotangents;
use crate::{CotangentSource, Residuals, Result, TapSink};

impl Plan {
    /// Shape `[N, C, H, W]` of each tapped layer, in the order of the request.
    pub fn tap_shapes(&self) -> Vec<[usize; 4]> {
        self.plan.tap_shapes()
    }

    /// As [`Plan::vjp`], and shows `taps` the activation and the cotangent of each layer that the request
    /// [taps](crate::PlanRequest::tap). What the sink holds of them does not count for the plan's peak.
    ///
    /// ```
    /// use candle_core::{DType, Device, Tensor};
    /// use candle_nn::{VarBuilder, VarMap};
    /// use stream_grad::{
    ///     Conv2d, ExternalError, NetBuilder, PlanRequest, Rect, TapSink, TileRef, Trainable,
    /// };
    ///
    /// /// Sums the cotangents of all positions.
    /// struct Sum(f64);
    ///
    /// impl TapSink for Sum {
    ///     fn take(
    ///         &mut self,
    ///         _image: usize,
    ///         _tap: usize,
    ///         region: Rect,
    ///         _activation: TileRef<'_>,
    ///         cotangent: TileRef<'_>,
    ///     ) -> Result<(), ExternalError> {
    ///         let TileRef::F32(rows) = cotangent else {
    ///             return Err("the plan is for f32".into());
    ///         };
    ///         for row in 0..region.height() {
    ///             self.0 += rows.row(row).iter().map(|&value| f64::from(value)).sum::<f64>();
    ///         }
    ///         Ok(())
    ///     }
    /// }
    ///
    /// let variables = VarMap::new();
    /// let vb = VarBuilder::from_varmap(&variables, DType::F32, &Device::Cpu);
    /// let mut net = NetBuilder::new(3);
    /// let x = net.conv2d(net.input(), Conv2d::new(3, 2, 3), vb.pp("first"))?;
    /// let x = net.conv2d(x, Conv2d::new(2, 1, 1), vb.pp("second"))?;
    /// let net = net.build(x)?;
    ///
    /// let image = Tensor::randn(0f32, 1f32, (1, 3, 34, 34), &Device::Cpu)?;
    /// let request = PlanRequest::new(34, 34).tile(8).trainable(Trainable::Nothing).tap("second");
    /// let plan = net.plan(request)?;
    /// let (features, residuals) = plan.forward(&image)?;
    /// let mut sum = Sum(0.0);
    /// plan.vjp_tapped(residuals, &[features.ones_like()?], &mut sum)?;
    /// assert_eq!(sum.0, 1024.0); // 32 x 32 cotangents of 1
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As for [`Plan::vjp`], or a sink that fails.
    pub fn vjp_tapped(
        &self,
        residuals: Residuals<'_>,
        cotangents: &[Tensor],
        taps: &mut dyn TapSink,
    ) -> Result<GradStore> {
        self.check_cotangents(cotangents)?;
        let mut source = TensorCotangents::new(cotangents.to_vec());
        self.vjp_tapped_from(residuals, &mut source, taps)
    }

    /// As [`Plan::vjp_tapped`], with cotangents asked for region by region.
    ///
    /// # Errors
    /// Residuals of another plan, or a source or sink that fails.
    pub fn vjp_tapped_from<'a>(
        &self,
        residuals: Residuals<'_>,
        cotangents: &'a mut dyn CotangentSource,
        taps: &'a mut dyn TapSink,
    ) -> Result<GradStore> {
        self.vjp_exchanging(
            residuals,
            Exchange {
                cotangents,
                input_gradient: None,
                taps: Some(taps),
            },
        )
    }
}
