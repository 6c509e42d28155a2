//! The gradient of a logit with respect to the image.

use std::num::NonZeroU64;

use serde::{Deserialize, Serialize};
use stream_grad::{ExternalError, Rect, Strided, TapSink, TileRef, TileSource, Trainable};

use super::AttributionMap;
use super::cells::CellSums;
use super::grad_cam::ANOTHER_DTYPE;
use super::target::explain;
use crate::error::Result;
use crate::model::StreamedModel;

/// How the gradients of a pixel's channels become one value.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChannelSum {
    /// The sum of their magnitudes: how much the pixel matters.
    #[default]
    Absolute,
    /// Their sum: whether the logit rises as the pixel gets brighter.
    Signed,
}

/// How an input gradient is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct InputGradientOptions {
    /// How channels are summed.
    pub sum: ChannelSum,
    /// Edge of the cells that values are means over, in pixels of the image; 1 for the image's own resolution. The map takes 12
    /// bytes a cell.
    pub cell: NonZeroU64,
}

impl Default for InputGradientOptions {
    /// Magnitudes, over 8 x 8 pixels.
    fn default() -> Self {
        Self {
            sum: ChannelSum::default(),
            cell: NonZeroU64::MIN.saturating_add(7),
        }
    }
}

/// The gradient of logit `target` with respect to the normalised image (Simonyan, Vedaldi, Zisserman, "Deep Inside Convolutional
/// Networks: Visualising Image Classification Models and Saliency Maps", ICLR 2014 workshop; there the maximum over channels,
/// here their sum), as means over cells. An axis of `n` pixels is cut into `n / cell` parts, rounded up, that differ by at most one pixel.
///
/// It takes one forward and one backward sweep.
///
/// # Errors
/// [`TrainError::Setting`](crate::TrainError::Setting) for an output that the model does not have, or a map that cannot be held; an
/// image that cannot be read or is too small, and a budget that is.
pub fn input_gradient(
    model: &StreamedModel,
    image: &dyn TileSource,
    target: usize,
    options: &InputGradientOptions,
) -> Result<AttributionMap> {
    let (height, width) = image.extent();
    let mut sink = PixelSums {
        sums: CellSums::new((height, width), options.cell.get())?,
        sum: options.sum,
        channels: image.channels(),
    };
    let request = model
        .request(height, width)
        .trainable(Trainable::Nothing)
        .tap("image");
    let plan = model.net().plan(request)?;
    let (features, residuals) = plan.forward_all(image)?;
    let (logits, gradients) = explain(model, &features, target)?;
    drop(features);
    plan.vjp_tapped(residuals, &gradients, &mut sink)?;
    let (height, width) = sink.sums.extent();
    #[expect(clippy::cast_possible_truncation, reason = "rounding is meant")]
    let values = sink.sums.means().map(|mean| mean as f32).collect();
    Ok(AttributionMap {
        height,
        width,
        values,
        logits,
    })
}

struct PixelSums {
    sums: CellSums,
    sum: ChannelSum,
    channels: usize,
}

impl TapSink for PixelSums {
    fn take(
        &mut self,
        _image: usize,
        _tap: usize,
        region: Rect,
        _activation: TileRef<'_>,
        cotangent: TileRef<'_>,
    ) -> Result<(), ExternalError> {
        match cotangent {
            TileRef::F32(cotangent) => self.add(region, cotangent),
            TileRef::BF16(cotangent) => self.add(region, cotangent),
            TileRef::F64(_) => return Err(ANOTHER_DTYPE.into()),
        }
        Ok(())
    }
}

impl PixelSums {
    fn add<T: Copy + Into<f64>>(&mut self, region: Rect, cotangent: Strided<'_, T>) {
        for (line, row) in (region.rows.lo..region.rows.hi).enumerate() {
            let pixels = cotangent.row(line).chunks_exact(self.channels);
            for (column, pixel) in (region.columns.lo..region.columns.hi).zip(pixels) {
                let values = pixel.iter().map(|&value| value.into());
                let value: f64 = match self.sum {
                    ChannelSum::Absolute => values.map(f64::abs).sum(),
                    ChannelSum::Signed => values.sum(),
                };
                self.sums
                    .add(row.unsigned_abs(), column.unsigned_abs(), value);
            }
        }
    }
}
