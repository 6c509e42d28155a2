//! The cotangent of a sum.

use stream_grad_engine::{CotangentSource, ExternalError, Rect, TileMut, TileRef};

/// Cotangents that are all one: gradients are those of the features' sum.
///
/// ```
/// use candle_core::{DType, Device, Tensor};
/// use candle_nn::{VarBuilder, VarMap};
/// use stream_grad::{NetBuilder, Ones, PlanRequest};
///
/// let variables = VarMap::new();
/// let mut net = NetBuilder::new(1);
/// let vb = VarBuilder::from_varmap(&variables, DType::F64, &Device::Cpu);
/// let x = net.linear(net.input(), 1, vb)?;
/// let plan = net.build(x)?.plan(PlanRequest::new(2, 3).dtype(DType::F64))?;
/// let image = Tensor::zeros((1, 1, 2, 3), DType::F64, &Device::Cpu)?;
/// let (_, residuals) = plan.forward(&image)?;
/// let gradients = plan.vjp_from(residuals, &mut Ones, None)?;
/// let variables = variables.data().lock().unwrap();
/// // Each of six positions has the bias once.
/// assert_eq!(gradients.get(&variables["bias"]).unwrap().to_vec1::<f64>()?, [6.0]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Copy)]
pub struct Ones;

impl CotangentSource for Ones {
    fn follows_from_features(&self, _image: usize, _output: usize, _region: Rect) -> bool {
        true
    }

    fn read(
        &mut self,
        _image: usize,
        _output: usize,
        _region: Rect,
        _features: TileRef<'_>,
        out: TileMut<'_>,
    ) -> Result<(), ExternalError> {
        out.fill(1.0);
        Ok(())
    }
}
