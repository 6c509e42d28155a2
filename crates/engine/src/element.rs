//! The numbers that streaming stores and computes in: two types, which may be one.

use std::fmt::Debug;

use stream_grad_kernels::{Element, Storage, bf16};

use crate::tile::{Strided, StridedMut, TileMut, TileRef};

/// What activations, halos and cotangents are stored as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum DType {
    /// Single precision.
    #[default]
    F32,
    /// Double precision.
    F64,
    /// The upper half of single precision, in which arithmetic is done: three digits, and the same range.
    BF16,
}

impl DType {
    /// Bytes of a value that is stored.
    #[must_use]
    pub const fn size_in_bytes(self) -> u64 {
        match self {
            Self::F32 => 4,
            Self::F64 => 8,
            Self::BF16 => 2,
        }
    }

    /// Its name in PyTorch's spelling, shortened: `f32`, `f64` or `bf16`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F64 => "f64",
            Self::BF16 => "bf16",
        }
    }
}

/// A dtype that was asked for: one of this crate's, or the name of another, which planning refuses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestedDType(pub(crate) Result<DType, String>);

impl RequestedDType {
    /// A dtype that this crate does not know.
    pub fn unknown(name: impl Into<String>) -> Self {
        Self(Err(name.into()))
    }
}

impl From<DType> for RequestedDType {
    fn from(dtype: DType) -> Self {
        Self(Ok(dtype))
    }
}

/// A number that activations are stored as.
pub trait Stored: Storage<Compute: Compute> {
    /// The name of the type.
    const DTYPE: DType;
    /// The nearest number of this type.
    fn rounded(value: f64) -> Self;
    /// The same number in double precision.
    fn widened(self) -> f64;
    /// Wraps a view for a sink.
    fn tile(view: Strided<'_, Self>) -> TileRef<'_>;
    /// Wraps a view for a source.
    fn tile_mut(view: StridedMut<'_, Self>) -> TileMut<'_>;
    /// The view inside, if it is of this type.
    fn from_tile(tile: TileRef<'_>) -> Option<Strided<'_, Self>>;
    /// The view inside, if it is of this type.
    fn from_tile_mut(tile: TileMut<'_>) -> Option<StridedMut<'_, Self>>;
    /// Writes values as bytes, as long as both last.
    fn to_bytes(values: &[Self], bytes: &mut [u8]);
    /// Reads values that [`Self::to_bytes`] wrote, as long as both last.
    fn from_bytes(bytes: &[u8], values: &mut [Self]);
}

/// A number that arithmetic is done in, and parameters are held as.
pub trait Compute: Element {
    /// Wraps room for the values of a parameter.
    fn values_mut(values: &mut [Self]) -> ValuesMut<'_>;
    /// Wraps values for an operator of the caller's own.
    fn values(values: Vec<Self>) -> Values;
    /// The values inside, if they are of this type.
    fn from_values(values: Values) -> Option<Vec<Self>>;
}

/// Values of one of the types that arithmetic is done in.
#[derive(Debug, Clone, PartialEq)]
pub enum Values {
    /// Single precision.
    F32(Vec<f32>),
    /// Double precision.
    F64(Vec<f64>),
}

/// Room for such values.
#[derive(Debug)]
pub enum ValuesMut<'a> {
    /// Single precision.
    F32(&'a mut [f32]),
    /// Double precision.
    F64(&'a mut [f64]),
}

macro_rules! stored {
    ($number:ident, $kind:ident) => {
        impl Stored for $number {
            const DTYPE: DType = DType::$kind;

            fn rounded(value: f64) -> Self {
                Self::narrow(<Self as Storage>::Compute::from_f64(value))
            }

            fn widened(self) -> f64 {
                self.widen().to_f64()
            }

            fn tile(view: Strided<'_, Self>) -> TileRef<'_> {
                TileRef::$kind(view)
            }

            fn tile_mut(view: StridedMut<'_, Self>) -> TileMut<'_> {
                TileMut::$kind(view)
            }

            fn from_tile(tile: TileRef<'_>) -> Option<Strided<'_, Self>> {
                match tile {
                    TileRef::$kind(view) => Some(view),
                    _ => None,
                }
            }

            fn from_tile_mut(tile: TileMut<'_>) -> Option<StridedMut<'_, Self>> {
                match tile {
                    TileMut::$kind(view) => Some(view),
                    _ => None,
                }
            }

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
        }
    };
}

macro_rules! computed {
    ($number:ident, $kind:ident) => {
        impl Compute for $number {
            fn values_mut(values: &mut [Self]) -> ValuesMut<'_> {
                ValuesMut::$kind(values)
            }

            fn values(values: Vec<Self>) -> Values {
                Values::$kind(values)
            }

            fn from_values(values: Values) -> Option<Vec<Self>> {
                match values {
                    Values::$kind(values) => Some(values),
                    _ => None,
                }
            }
        }
    };
}

stored!(f32, F32);
stored!(f64, F64);
stored!(bf16, BF16);
computed!(f32, F32);
computed!(f64, F64);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_number_is_no_whole_one() {
        assert_eq!(f32::rounded(0.3), 0.3);
        assert_eq!(f64::rounded(0.3), 0.3);
        assert_eq!(bf16::rounded(0.3).widened(), 0.300_781_25);
        assert_eq!(bf16::rounded(0.5).widened(), 0.5);
    }
}
