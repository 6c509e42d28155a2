//! This crate's traits for candle's types: nobody else may write these.

use candle_core::{CpuStorage, Storage, Tensor};
use rayon::prelude::*;
use stream_grad_tiling::Rect;

use crate::element::{DType, RequestedDType, Stored};
use crate::error::{ExternalError, StreamError};
use crate::exchange::TileSource;
use crate::tile::{StridedMut, TileMut};

impl From<candle_core::DType> for RequestedDType {
    fn from(dtype: candle_core::DType) -> Self {
        match dtype {
            candle_core::DType::F32 => DType::F32.into(),
            candle_core::DType::F64 => DType::F64.into(),
            candle_core::DType::BF16 => DType::BF16.into(),
            other => Self::unknown(format!("{other:?}")),
        }
    }
}

impl From<DType> for candle_core::DType {
    fn from(dtype: DType) -> Self {
        match dtype {
            DType::F32 => Self::F32,
            DType::F64 => Self::F64,
            DType::BF16 => Self::BF16,
        }
    }
}

impl From<candle_core::Error> for StreamError {
    fn from(error: candle_core::Error) -> Self {
        Self::Tensor(error.into())
    }
}

/// A tensor `[N, C, H, W]` on the CPU, in `F32`, `F64`, `BF16` or `U8`, is a source: values are rounded to the plan's dtype.
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

    fn one_color(&self, image: usize, region: Rect) -> Result<Option<Vec<f64>>, ExternalError> {
        let place = TensorPlace::new(self, image, region)?;
        let (storage, _) = self.storage_and_layout();
        Ok(match &*storage {
            Storage::Cpu(CpuStorage::F32(data)) => place.color(data),
            Storage::Cpu(CpuStorage::F64(data)) => place.color(data),
            Storage::Cpu(CpuStorage::BF16(data)) => place.color(data),
            Storage::Cpu(CpuStorage::U8(data)) => place.color(data),
            _ => None,
        })
    }

    fn read(&self, image: usize, region: Rect, out: TileMut<'_>) -> Result<(), ExternalError> {
        let place = TensorPlace::new(self, image, region)?;
        let (storage, _) = self.storage_and_layout();
        match &*storage {
            Storage::Cpu(CpuStorage::F32(data)) => place.copy(data, out),
            Storage::Cpu(CpuStorage::F64(data)) => place.copy(data, out),
            Storage::Cpu(CpuStorage::BF16(data)) => place.copy(data, out),
            Storage::Cpu(CpuStorage::U8(data)) => place.copy(data, out),
            _ => Err(Box::new(StreamError::DType {
                found: format!("{:?}", self.dtype()),
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
    fn new(tensor: &Tensor, image: usize, region: Rect) -> Result<Self, ExternalError> {
        let (batch, channels, height, width) = tensor.dims4()?;
        let plane = Rect::whole(height as u64, width as u64);
        if image >= batch || !plane.covers(region) {
            return Err(format!(
                "image {image}, {region} lies outside a tensor of shape {:?}",
                tensor.dims()
            )
            .into());
        }
        let row = usize::try_from(region.rows.lo)?;
        let column = usize::try_from(region.columns.lo)?;
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

    /// The value of each channel, if it is the same at every position.
    fn color<T: Into<f64> + Copy>(&self, data: &[T]) -> Option<Vec<f64>> {
        let [channel_stride, row_stride, column_stride] = self.strides;
        let at = |place: usize| -> f64 { data[place].into() };
        let of_channel = |channel: usize| {
            let start = self.origin + channel * channel_stride;
            let first = (self.height * self.width > 0).then(|| at(start))?;
            let same = (0..self.height).all(|row| {
                let row = start + row * row_stride;
                let mut line = (0..self.width).map(|column| at(row + column * column_stride));
                line.all(|value| value.to_bits() == first.to_bits())
            });
            same.then_some(first)
        };
        (0..self.channels).map(of_channel).collect()
    }

    fn copy<T: Into<f64> + Copy + Sync>(
        &self,
        data: &[T],
        out: TileMut<'_>,
    ) -> Result<(), ExternalError> {
        match out {
            TileMut::F32(mut tile) => self.copy_rows(data, &mut tile),
            TileMut::F64(mut tile) => self.copy_rows(data, &mut tile),
            TileMut::BF16(mut tile) => self.copy_rows(data, &mut tile),
        }
        Ok(())
    }

    fn copy_rows<T: Into<f64> + Copy + Sync, E: Stored>(
        &self,
        data: &[T],
        tile: &mut StridedMut<'_, E>,
    ) {
        let [channel_stride, row_stride, column_stride] = self.strides;
        let rows = tile.par_rows().enumerate().take(self.height);
        rows.for_each(|(row, out)| {
            for channel in 0..self.channels {
                let start = self.origin + row * row_stride + channel * channel_stride;
                for column in 0..self.width {
                    out[column * self.channels + channel] =
                        E::rounded(data[start + column * column_stride].into());
                }
            }
        });
    }
}
