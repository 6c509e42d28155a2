//! Labels of the pixels of an image, region by region.

use std::path::Path;
use std::sync::Arc;

use stream_grad::{ExternalError, Rect};

use crate::error::Result;

/// Hands out the classes of any region of an image's pixels, as it is asked; no label map ever has to exist as a whole.
///
/// A region, or a part of it, is asked for again in the backward sweep, so **a label must depend on the pixel's coordinates alone**.
pub trait LabelSource: Send + Sync {
    /// Height and width in pixels: those of the image.
    fn extent(&self) -> (u64, u64);

    /// Writes the class of every pixel of `region` to `labels`, row by row: `height x width` of the region.
    ///
    /// # Errors
    /// Anything that keeps the region from being delivered; the sweep ends with it.
    fn read(&self, region: Rect, labels: &mut [u8]) -> Result<(), ExternalError>;
}

/// A shared source is a source.
impl<S: LabelSource + ?Sized> LabelSource for Arc<S> {
    fn extent(&self) -> (u64, u64) {
        (**self).extent()
    }

    fn read(&self, region: Rect, labels: &mut [u8]) -> Result<(), ExternalError> {
        (**self).read(region, labels)
    }
}

/// Gives the labels of a slide's pixels, for the image that an [`ImageLoader`](super::ImageLoader) gives of it.
pub trait LabelLoader: Send + Sync {
    /// The labels that the file `map` has for the pixels of `slide`.
    ///
    /// # Errors
    /// A file that cannot be read, or does not fit the slide or the task.
    fn labels(&self, slide: &Path, map: &Path) -> Result<Arc<dyn LabelSource>>;
}
