//! This crate's traits for candle's types: nobody else may write these.

use candle_core::{CpuStorage, Storage, Tensor};
use stream_grad_tiling::Rect;

use crate::element::{DType, RequestedDType};
use crate::error::{ExternalError, StreamError};
use crate::exchange::TileSource;
use crate::planar::PlanarRegion;
use crate::tile::TileMut;

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
        let place = region_of(self, image, region)?;
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
        let place = region_of(self, image, region)?;
        let (storage, _) = self.storage_and_layout();
        match &*storage {
            Storage::Cpu(CpuStorage::F32(data)) => copy(&place, data, out),
            Storage::Cpu(CpuStorage::F64(data)) => copy(&place, data, out),
            Storage::Cpu(CpuStorage::BF16(data)) => copy(&place, data, out),
            Storage::Cpu(CpuStorage::U8(data)) => copy(&place, data, out),
            _ => Err(Box::new(StreamError::DType {
                found: format!("{:?}", self.dtype()),
            })),
        }
    }
}

/// Where a region of one image of a `[N, C, H, W]` tensor lies.
fn region_of(tensor: &Tensor, image: usize, region: Rect) -> Result<PlanarRegion, ExternalError> {
    let (batch, channels, height, width) = tensor.dims4()?;
    let layout = tensor.layout();
    let strides = layout.stride().try_into()?;
    let shape = [batch, channels, height, width];
    PlanarRegion::new(shape, (layout.start_offset(), strides), image, region)
}

/// Rounds a region's values into a tile of any type.
fn copy<T: Into<f64> + Copy + Sync>(
    place: &PlanarRegion,
    data: &[T],
    out: TileMut<'_>,
) -> Result<(), ExternalError> {
    match out {
        TileMut::F32(mut tile) => place.copy(data, &mut tile),
        TileMut::F64(mut tile) => place.copy(data, &mut tile),
        TileMut::BF16(mut tile) => place.copy(data, &mut tile),
    }
    Ok(())
}
