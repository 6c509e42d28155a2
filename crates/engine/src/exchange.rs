//! Where pixels come from, and where features, cotangents and input gradients go.

use std::sync::Arc;

use stream_grad_tiling::Rect;

use crate::error::ExternalError;
use crate::tile::{TileMut, TileRef};

/// Hands out any region of the images of a batch, as it is asked; no image ever has to exist as a whole.
///
/// A region is a rectangle of the image or of the map, in its own pixels. It, or a part of it, may be asked for again (the backward sweep recomputes), so **a pixel must depend
/// on its coordinates alone**: augmentations are functions of image coordinates and a seed, resampling works
/// on a grid fixed to the image, and anything global is estimated beforehand. Pixels are delivered in height x
/// width x channels order, in the plan's dtype, normalised as the network expects.
pub trait TileSource: Send + Sync {
    /// Number of images.
    fn batch(&self) -> usize;
    /// Channels of a pixel.
    fn channels(&self) -> usize;
    /// Height and width in pixels; the same for every image of the batch.
    fn extent(&self) -> (u64, u64);
    /// Is told, before each sweep, what it will ask for, image and region, in order: a source that decodes may begin at once.
    /// A sweep that fails asks for less.
    fn expect_reads(&self, reads: &mut dyn Iterator<Item = (usize, Rect)>) {
        let _ = reads;
    }
    /// The values of a pixel of `region` of image `image`, by channel, if the source knows that all of its pixels are the same, bit for
    /// bit; none if they are not, or if it does not know. They are only compared: regions of which the same is said, whichever image
    /// they are of, have the same pixels.
    ///
    /// It is believed: a plan that [reuses](crate::PlanRequest::reuse) what it computed does not read there again.
    /// [`CheckedSource`](crate::CheckedSource) finds out whether it is right.
    ///
    /// # Errors
    /// Anything that keeps the source from telling; the sweep ends with it.
    fn one_color(&self, image: usize, region: Rect) -> Result<Option<Vec<f64>>, ExternalError> {
        let _ = (image, region);
        Ok(None)
    }
    /// Writes every value of `region` of image `image` to `out`.
    ///
    /// # Errors
    /// Anything that keeps the region from being delivered; the sweep ends with it.
    fn read(&self, image: usize, region: Rect, out: TileMut<'_>) -> Result<(), ExternalError>;
}

/// A shared source is a source.
impl<S: TileSource + ?Sized> TileSource for Arc<S> {
    fn batch(&self) -> usize {
        (**self).batch()
    }

    fn channels(&self) -> usize {
        (**self).channels()
    }

    fn extent(&self) -> (u64, u64) {
        (**self).extent()
    }

    fn expect_reads(&self, reads: &mut dyn Iterator<Item = (usize, Rect)>) {
        (**self).expect_reads(reads);
    }

    fn one_color(&self, image: usize, region: Rect) -> Result<Option<Vec<f64>>, ExternalError> {
        (**self).one_color(image, region)
    }

    fn read(&self, image: usize, region: Rect, out: TileMut<'_>) -> Result<(), ExternalError> {
        (**self).read(image, region, out)
    }
}

/// Receives features as they are finished: every position of every output exactly once.
pub trait FeatureSink: Send {
    /// Takes the values of `region` of output `output` of image `image`.
    ///
    /// # Errors
    /// Anything that keeps them from being taken; the sweep ends with it.
    fn write(
        &mut self,
        image: usize,
        output: usize,
        region: Rect,
        features: TileRef<'_>,
    ) -> Result<(), ExternalError>;
}

/// Is asked for the cotangent of each region of the features exactly once, and given the features there
/// (maximum, GeM and attention pooling need them). Of a plan that [reuses](crate::PlanRequest::reuse) what it computed, it is not asked
/// again for what [follows](Self::follows_from_features) in the same way from the same features.
pub trait CotangentSource: Send {
    /// Whether, in `region` of output `output` of image `image`, the cotangent of each position follows from the features of this
    /// position alone, in one way for all positions of the image of which that is said: as it does of a mean, and of a maximum but
    /// where that lies. Nothing else may come of being asked for it.
    fn follows_from_features(&self, image: usize, output: usize, region: Rect) -> bool {
        let _ = (image, output, region);
        false
    }
    /// Writes the cotangent of `region` of output `output` of image `image` to `out`.
    ///
    /// # Errors
    /// Anything that keeps it from being delivered; the sweep ends with it.
    fn read(
        &mut self,
        image: usize,
        output: usize,
        region: Rect,
        features: TileRef<'_>,
        out: TileMut<'_>,
    ) -> Result<(), ExternalError>;
}

/// Receives the gradient of the image, region by region.
///
/// Where blocks overlap a region arrives several times and the parts must be **added**.
pub trait InputGradientSink: Send {
    /// Adds the gradient of `region` of image `image`.
    ///
    /// # Errors
    /// Anything that keeps it from being taken; the sweep ends with it.
    fn add(
        &mut self,
        image: usize,
        region: Rect,
        gradient: TileRef<'_>,
    ) -> Result<(), ExternalError>;
}

/// Is shown the activation and the cotangent of [tapped](crate::PlanRequest::tap) layers during the backward sweep: every
/// position of every tapped layer exactly once, however the image is cut and whatever is stored or computed again. Regions come in
/// the order of the backward sweep, the last rows first.
///
/// Both are complete. Where blocks overlap, an activation is computed by several blocks, each time to the same bits, and a
/// cotangent is the sum of what each gives; both are shown when the last of the blocks that need the position is swept.
/// Only of a recipe with several blocks, positions that no output depends on are not shown: no block computes them, and
/// their cotangent is zero.
pub trait TapSink: Send {
    /// Takes the activation and the cotangent of `region` of tapped layer `tap` of image `image`: height x width x channels, in
    /// the plan's dtype, valid during the call.
    ///
    /// # Errors
    /// Anything that keeps them from being taken; the sweep ends with it.
    fn take(
        &mut self,
        image: usize,
        tap: usize,
        region: Rect,
        activation: TileRef<'_>,
        cotangent: TileRef<'_>,
    ) -> Result<(), ExternalError>;
}
