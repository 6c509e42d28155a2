//! Where pixels come from, and where features, cotangents and input gradients go.

use std::sync::Arc;

use candle_core::{CpuStorage, Device, Storage, Tensor, Var};
use rayon::prelude::*;
use stream_grad_kernels::zeros;

use crate::error::{ExternalError, Result, StreamError};
use crate::scalar::Scalar;
use crate::tile::{PixelRegion, StridedMut, TileMut, TileRef};

/// Hands out any region of the images of a batch, as it is asked; no image ever has to exist as a whole.
///
/// A region, or a part of it, may be asked for again (the backward sweep recomputes), so **a pixel must depend
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
    fn expect_reads(&self, reads: &mut dyn Iterator<Item = (usize, PixelRegion)>) {
        let _ = reads;
    }
    /// Writes every value of `region` of image `image` to `out`.
    ///
    /// # Errors
    /// Anything that keeps the region from being delivered; the sweep ends with it.
    fn read(
        &self,
        image: usize,
        region: &PixelRegion,
        out: TileMut<'_>,
    ) -> Result<(), ExternalError>;
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

    fn expect_reads(&self, reads: &mut dyn Iterator<Item = (usize, PixelRegion)>) {
        (**self).expect_reads(reads);
    }

    fn read(
        &self,
        image: usize,
        region: &PixelRegion,
        out: TileMut<'_>,
    ) -> Result<(), ExternalError> {
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
        region: &PixelRegion,
        features: TileRef<'_>,
    ) -> Result<(), ExternalError>;
}

/// Is asked for the cotangent of each region of the features exactly once, and given the features there
/// (maximum, GeM and attention pooling need them).
pub trait CotangentSource: Send {
    /// Writes the cotangent of `region` of output `output` of image `image` to `out`.
    ///
    /// # Errors
    /// Anything that keeps it from being delivered; the sweep ends with it.
    fn read(
        &mut self,
        image: usize,
        output: usize,
        region: &PixelRegion,
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
        region: &PixelRegion,
        gradient: TileRef<'_>,
    ) -> Result<(), ExternalError>;
}

/// Is shown the activation and the cotangent of [tapped](crate::PlanRequest::tap) layers during the backward sweep: every
/// position of every tapped layer exactly once, however the image is cut and whatever is kept or computed again. Regions come in
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
        region: &PixelRegion,
        activation: TileRef<'_>,
        cotangent: TileRef<'_>,
    ) -> Result<(), ExternalError>;
}

/// A tensor `[N, C, H, W]` on the CPU, in any floating dtype, is a source.
impl TileSource for Tensor {
    fn batch(&self) -> usize {
        self.dims().first().copied().unwrap_or(0)
    }

    fn channels(&self) -> usize {
        self.dims().get(1).copied().unwrap_or(0)
    }

    fn extent(&self) -> (u64, u64) {
        let dimension = |index: usize| self.dims().get(index).map_or(0, |&size| size as u64);
        (dimension(2), dimension(3))
    }

    fn read(
        &self,
        image: usize,
        region: &PixelRegion,
        out: TileMut<'_>,
    ) -> Result<(), ExternalError> {
        let place = TensorPlace::new(self, image, region)?;
        let (storage, _) = self.storage_and_layout();
        match &*storage {
            Storage::Cpu(CpuStorage::F32(data)) => place.copy(data, out),
            Storage::Cpu(CpuStorage::F64(data)) => place.copy(data, out),
            _ => Err(Box::new(StreamError::DType {
                found: self.dtype(),
            })),
        }
    }
}

/// Strides and origin of a region of a `[N, C, H, W]` tensor.
struct TensorPlace {
    origin: usize,
    strides: [usize; 3],
    channels: usize,
    height: usize,
    width: usize,
}

impl TensorPlace {
    fn new(tensor: &Tensor, image: usize, region: &PixelRegion) -> Result<Self, ExternalError> {
        let (batch, channels, height, width) = tensor.dims4()?;
        let row = usize::try_from(region.rows.start)?;
        let column = usize::try_from(region.columns.start)?;
        if image >= batch || region.rows.end > height as u64 || region.columns.end > width as u64 {
            return Err(format!(
                "image {image}, rows {:?}, columns {:?} lie outside a tensor of shape {:?}",
                region.rows,
                region.columns,
                tensor.dims()
            )
            .into());
        }
        let layout = tensor.layout();
        let stride = layout.stride();
        Ok(Self {
            origin: layout.start_offset()
                + image * stride[0]
                + row * stride[2]
                + column * stride[3],
            strides: [stride[1], stride[2], stride[3]],
            channels,
            height: region.height(),
            width: region.width(),
        })
    }

    fn copy<T: Scalar>(&self, data: &[T], out: TileMut<'_>) -> Result<(), ExternalError> {
        match out {
            TileMut::F32(mut tile) => {
                #[expect(
                    clippy::cast_possible_truncation,
                    reason = "rounding to the plan's dtype"
                )]
                self.copy_rows(data, &mut tile, |value| Element64::to_f64(value) as f32);
            }
            TileMut::F64(mut tile) => self.copy_rows(data, &mut tile, Element64::to_f64),
        }
        Ok(())
    }

    fn copy_rows<T: Copy + Sync, U: Send>(
        &self,
        data: &[T],
        tile: &mut StridedMut<'_, U>,
        convert: impl Fn(T) -> U + Sync,
    ) {
        let [channel_stride, row_stride, column_stride] = self.strides;
        let rows = tile.par_rows().enumerate().take(self.height);
        rows.for_each(|(row, out)| {
            for channel in 0..self.channels {
                let start = self.origin + row * row_stride + channel * channel_stride;
                for column in 0..self.width {
                    out[column * self.channels + channel] =
                        convert(data[start + column * column_stride]);
                }
            }
        });
    }
}

/// `to_f64` under a name that both traits of [`Scalar`] do not share.
trait Element64: Copy {
    fn to_f64(self) -> f64;
}

impl<T: Scalar> Element64 for T {
    fn to_f64(self) -> f64 {
        stream_grad_kernels::Element::to_f64(self)
    }
}

/// Gathers whole maps `[N, C, H, W]` from tiles, one for each output.
pub(crate) struct MapCollector<T> {
    maps: Vec<CollectedMap<T>>,
}

struct CollectedMap<T> {
    data: Vec<T>,
    shape: [usize; 4],
}

impl<T: Scalar> MapCollector<T> {
    /// Maps of zeros of the given shapes `[N, C, H, W]`.
    pub(crate) fn new(shapes: &[[usize; 4]]) -> Self {
        let maps = shapes
            .iter()
            .map(|&shape| CollectedMap {
                data: zeros(shape.iter().product()),
                shape,
            })
            .collect();
        Self { maps }
    }

    /// The maps as tensors on the CPU that candle tracks: leaves of its autograd. Nothing is copied.
    pub(crate) fn into_leaves(self) -> Result<Vec<Tensor>> {
        self.maps
            .into_iter()
            .map(|map| Ok(Var::from_vec(map.data, &map.shape, &Device::Cpu)?.into_inner()))
            .collect()
    }

    fn scatter(
        &mut self,
        (image, output): (usize, usize),
        region: &PixelRegion,
        tile: TileRef<'_>,
        combine: impl Fn(&mut T, T),
    ) -> Result<(), ExternalError> {
        let map = self.maps.get_mut(output).ok_or("no such output")?;
        let tile = T::from_tile(tile).ok_or("a tile of another dtype")?;
        let place = MapPlace::new(&map.shape, image, region)?;
        for row in 0..region.height() {
            let values = tile.row(row);
            for channel in 0..place.channels {
                let start = place.start(channel, row);
                let line = &mut map.data[start..start + region.width()];
                for (column, value) in line.iter_mut().enumerate() {
                    combine(value, values[column * place.channels + channel]);
                }
            }
        }
        Ok(())
    }
}

impl<T: Scalar> FeatureSink for MapCollector<T> {
    fn write(
        &mut self,
        image: usize,
        output: usize,
        region: &PixelRegion,
        features: TileRef<'_>,
    ) -> Result<(), ExternalError> {
        self.scatter((image, output), region, features, |place, value| {
            *place = value
        })
    }
}

impl<T: Scalar> InputGradientSink for MapCollector<T> {
    fn add(
        &mut self,
        image: usize,
        region: &PixelRegion,
        gradient: TileRef<'_>,
    ) -> Result<(), ExternalError> {
        self.scatter((image, 0), region, gradient, |place, value| *place += value)
    }
}

/// Whole cotangents as tensors `[N, C, H, W]`, one for each output.
pub(crate) struct TensorCotangents(pub(crate) Vec<Tensor>);

impl CotangentSource for TensorCotangents {
    fn read(
        &mut self,
        image: usize,
        output: usize,
        region: &PixelRegion,
        _features: TileRef<'_>,
        out: TileMut<'_>,
    ) -> Result<(), ExternalError> {
        TileSource::read(
            self.0.get(output).ok_or("no such output")?,
            image,
            region,
            out,
        )
    }
}

/// Where a region of one image lies in a contiguous `[N, C, H, W]` map.
struct MapPlace {
    origin: usize,
    channels: usize,
    height: usize,
    width: usize,
}

impl MapPlace {
    fn new(
        &[batch, channels, height, width]: &[usize; 4],
        image: usize,
        region: &PixelRegion,
    ) -> Result<Self, ExternalError> {
        if image >= batch || region.rows.end > height as u64 || region.columns.end > width as u64 {
            return Err(format!(
                "image {image}, {region:?} lies outside {batch} maps of {height} x {width}"
            )
            .into());
        }
        let row = usize::try_from(region.rows.start)?;
        let column = usize::try_from(region.columns.start)?;
        Ok(Self {
            origin: (image * channels * height + row) * width + column,
            channels,
            height,
            width,
        })
    }

    fn start(&self, channel: usize, row: usize) -> usize {
        self.origin + (channel * self.height + row) * self.width
    }
}
