//! The two number types that streaming computes in.

use candle_core::{DType, WithDType};
use stream_grad_kernels::Element;

use crate::tile::{Strided, StridedMut, TileMut, TileRef};
use crate::workspace::{Held, Slabs};

/// A number that both the kernels and candle know: `f32` or `f64`.
pub(crate) trait Scalar: Element + WithDType {
    /// Candle's name for the type.
    const KIND: DType;
    /// Wraps a view for a sink.
    fn tile(view: Strided<'_, Self>) -> TileRef<'_>;
    /// Wraps a view for a source.
    fn tile_mut(view: StridedMut<'_, Self>) -> TileMut<'_>;
    /// The view inside, if it is of this type.
    fn from_tile(tile: TileRef<'_>) -> Option<Strided<'_, Self>>;
    /// The memory of this type.
    fn held(slabs: &mut Slabs) -> &mut Held<Self>;
    /// Writes values as bytes, as long as both last.
    fn to_bytes(values: &[Self], bytes: &mut [u8]);
    /// Reads values that [`Self::to_bytes`] wrote, as long as both last.
    fn from_bytes(bytes: &[u8], values: &mut [Self]);
}

/// The bytes of a number in this machine's order.
macro_rules! bytes {
    () => {
        fn to_bytes(values: &[Self], bytes: &mut [u8]) {
            let (chunks, _) = bytes.as_chunks_mut();
            for (chunk, value) in chunks.iter_mut().zip(values) {
                *chunk = value.to_ne_bytes();
            }
        }

        fn from_bytes(bytes: &[u8], values: &mut [Self]) {
            let (chunks, _) = bytes.as_chunks();
            for (chunk, value) in chunks.iter().zip(values) {
                *value = Self::from_ne_bytes(*chunk);
            }
        }
    };
}

impl Scalar for f32 {
    const KIND: DType = DType::F32;

    fn tile(view: Strided<'_, Self>) -> TileRef<'_> {
        TileRef::F32(view)
    }

    fn tile_mut(view: StridedMut<'_, Self>) -> TileMut<'_> {
        TileMut::F32(view)
    }

    fn from_tile(tile: TileRef<'_>) -> Option<Strided<'_, Self>> {
        match tile {
            TileRef::F32(view) => Some(view),
            _ => None,
        }
    }

    fn held(slabs: &mut Slabs) -> &mut Held<Self> {
        &mut slabs.f32
    }

    bytes!();
}

impl Scalar for f64 {
    const KIND: DType = DType::F64;

    fn tile(view: Strided<'_, Self>) -> TileRef<'_> {
        TileRef::F64(view)
    }

    fn tile_mut(view: StridedMut<'_, Self>) -> TileMut<'_> {
        TileMut::F64(view)
    }

    fn from_tile(tile: TileRef<'_>) -> Option<Strided<'_, Self>> {
        match tile {
            TileRef::F64(view) => Some(view),
            _ => None,
        }
    }

    fn held(slabs: &mut Slabs) -> &mut Held<Self> {
        &mut slabs.f64
    }

    bytes!();
}
