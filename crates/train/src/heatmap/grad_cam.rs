//! Grad-CAM.

use candle_core::{DType, IndexOp, Tensor};
use stream_grad::{
    ExternalError, FeatureSink, Maps, Rect, Strided, TapSink, TileRef, TileSource, Trainable,
};

use super::AttributionMap;
use super::target::{explain, layer_name};
use crate::error::Result;
use crate::model::{StreamedModel, numbers};

/// Grad-CAM of logit `target` at a layer: `relu(sum_k a_k A_k)`, where `A_k` is channel `k` of the layer's output and `a_k` the
/// mean, over all positions, of the logit's gradient with respect to it (Selvaraju et al., "Grad-CAM: Visual Explanations from Deep
/// Networks via Gradient-based Localization", ICCV 2017, equations 1 and 2). One value for each position of the layer.
///
/// The layer is named as in the network, with or without `net.`: an operation, or a module such as `layer4`, whose output is
/// that of its last operation. A convolution's output is that after the norm, the addition and the ReLU that follow it at once.
///
/// The logit is the head's, which takes all outputs of the network. So at a layer that several of them come from, such as a level of a
/// feature pyramid, the gradient is the sum of what reaches it from each.
///
/// The weights are known only when all gradients are. At the last layer of a network with one output these come with the features,
/// which are held whole. At any other they come from a backward sweep as far as the layer; the activations are held meanwhile if
/// the model's memory has room for them beside the sweep's, or else computed once more, by a forward sweep as far as the layer.
/// The map is the same, bit for bit. It takes 8 bytes for each position at that last layer, else 4.
///
/// # Errors
/// [`TrainError::Setting`](crate::TrainError::Setting) for a layer or an output that the model does not have; an image that
/// cannot be read or is too small, and a budget that is.
pub fn grad_cam(
    model: &StreamedModel,
    image: &dyn TileSource,
    layer: &str,
    target: usize,
) -> Result<AttributionMap> {
    let layer = layer_name(model.net(), layer)?;
    let (height, width) = image.extent();
    let request = model.request(height, width).trainable(Trainable::Nothing);
    if model.net().is_only_output(&layer) {
        let (features, _) = model.net().plan(request)?.forward_all(image)?;
        let (logits, gradients) = explain(model, &features, target)?;
        return at_last_layer(&features[0].detach(), &gradients[0], logits);
    }
    let plan = model.net().plan(request.clone().tap(&layer))?;
    let [_, channels, rows, columns] = plan.tap_shapes()[0];
    let (features, residuals) = plan.forward_all(image)?;
    let (logits, gradients) = explain(model, &features, target)?;
    drop(features);

    let needed = (rows * columns * channels * size_of::<f32>()) as u64;
    let room = model.memory().get().saturating_sub(plan.peak_bytes().get());
    let mut seen = Seen {
        sums: vec![0.0; channels],
        activations: (needed <= room).then(|| vec![0.0; rows * columns * channels]),
        columns,
    };
    plan.vjp_tapped(residuals, &gradients, &mut seen)?;
    let positions = (rows * columns) as f64;
    let weights: Vec<f64> = seen.sums.iter().map(|sum| sum / positions).collect();
    let values = match seen.activations {
        Some(activations) => {
            let pixels = activations.chunks_exact(channels);
            pixels.map(|pixel| weighted(&weights, pixel)).collect()
        }
        None => {
            let request = request.features(Maps::Streamed);
            let part = model.net().up_to(&layer)?.plan(request)?;
            let mut sink = Weighted {
                weights,
                values: vec![0.0; rows * columns],
                columns,
            };
            part.forward_to(image, &mut sink)?;
            sink.values
        }
    };
    Ok(AttributionMap {
        height: rows as u64,
        width: columns as u64,
        values,
        logits,
    })
}

/// From whole features and their gradient, `[1, C, H, W]`.
fn at_last_layer(features: &Tensor, gradient: &Tensor, logits: Vec<f64>) -> Result<AttributionMap> {
    let (_, channels, rows, columns) = features.dims4()?;
    let mut sums = vec![0.0; rows * columns];
    for channel in 0..channels {
        let gradient = numbers(&gradient.i((0, channel))?)?;
        let weight = gradient.iter().sum::<f64>() / gradient.len() as f64;
        let activation = features.i((0, channel))?.to_dtype(DType::F32)?;
        let activation = activation.flatten_all()?.to_vec1::<f32>()?;
        for (sum, value) in sums.iter_mut().zip(activation) {
            *sum += weight * f64::from(value);
        }
    }
    Ok(AttributionMap {
        height: rows as u64,
        width: columns as u64,
        values: sums.into_iter().map(rectified).collect(),
        logits,
    })
}

/// The weighted sum over one position's channels, in their order.
fn weighted<T: Copy + Into<f64>>(weights: &[f64], pixel: &[T]) -> f32 {
    let terms = weights.iter().zip(pixel);
    rectified(terms.fold(0.0, |sum, (weight, &value)| sum + weight * value.into()))
}

#[expect(clippy::cast_possible_truncation, reason = "rounding is meant")]
fn rectified(sum: f64) -> f32 {
    // Keeps NaN.
    if sum < 0.0 { 0.0 } else { sum as f32 }
}

/// Sums of the cotangents over all positions, and the activations if they are held.
struct Seen {
    sums: Vec<f64>,
    activations: Option<Vec<f32>>,
    columns: usize,
}

impl TapSink for Seen {
    fn take(
        &mut self,
        _image: usize,
        _tap: usize,
        region: Rect,
        activation: TileRef<'_>,
        cotangent: TileRef<'_>,
    ) -> Result<(), ExternalError> {
        match (activation, cotangent) {
            (TileRef::F32(x), TileRef::F32(g)) => self.take_rows(region, x, g),
            (TileRef::BF16(x), TileRef::BF16(g)) => self.take_rows(region, x, g),
            _ => Err(ANOTHER_DTYPE.into()),
        }
    }
}

impl Seen {
    fn take_rows<T: Copy + Into<f32> + Into<f64>>(
        &mut self,
        region: Rect,
        activation: Strided<'_, T>,
        cotangent: Strided<'_, T>,
    ) -> Result<(), ExternalError> {
        let channels = self.sums.len();
        for row in 0..region.height() {
            for pixel in cotangent.row(row).chunks_exact(channels) {
                for (sum, &value) in self.sums.iter_mut().zip(pixel) {
                    let value: f64 = value.into();
                    *sum += value;
                }
            }
            if let Some(held) = &mut self.activations {
                let start = first_of_row(region, row, self.columns)? * channels;
                let values = activation.row(row).iter();
                let held = held[start..].iter_mut().zip(values);
                held.for_each(|(held, &value)| *held = value.into());
            }
        }
        Ok(())
    }
}

/// Makes the map of the activations as they come.
struct Weighted {
    weights: Vec<f64>,
    values: Vec<f32>,
    columns: usize,
}

impl FeatureSink for Weighted {
    fn write(
        &mut self,
        _image: usize,
        _output: usize,
        region: Rect,
        features: TileRef<'_>,
    ) -> Result<(), ExternalError> {
        match features {
            TileRef::F32(features) => self.take(region, features),
            TileRef::BF16(features) => self.take(region, features),
            TileRef::F64(_) => Err(ANOTHER_DTYPE.into()),
        }
    }
}

impl Weighted {
    fn take<T: Copy + Into<f64>>(
        &mut self,
        region: Rect,
        features: Strided<'_, T>,
    ) -> Result<(), ExternalError> {
        for row in 0..region.height() {
            let start = first_of_row(region, row, self.columns)?;
            let pixels = features.row(row).chunks_exact(self.weights.len());
            for (value, pixel) in self.values[start..].iter_mut().zip(pixels) {
                *value = weighted(&self.weights, pixel);
            }
        }
        Ok(())
    }
}

/// What is said of tiles of a dtype in which no model is swept.
pub(super) const ANOTHER_DTYPE: &str = "a tile of f64, expected f32 or bf16";

/// Where row `row` of a region begins in a map of `columns` columns.
fn first_of_row(region: Rect, row: usize, columns: usize) -> Result<usize, ExternalError> {
    let line = usize::try_from(region.rows.lo)? + row;
    Ok(line * columns + usize::try_from(region.columns.lo)?)
}
