//! One tensor of a file, with its bytes not yet read.

use std::fmt;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::sync::{Arc, Mutex, PoisonError};

use candle_core::{DType, Device, Tensor};

/// A tensor's shape and type, and where its bytes are.
#[derive(Clone)]
pub(super) struct Entry {
    pub(super) shape: Vec<usize>,
    pub(super) element: Element,
    pub(super) bytes: Bytes,
}

/// What a file says of a tensor's elements.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Element {
    /// The type's name, as the file's format spells it.
    pub(super) name: String,
    /// The same type of candle's, if it has one that this crate reads.
    pub(super) dtype: Option<DType>,
}

impl Element {
    /// The type, if it is one that weights can have.
    pub(super) fn float(&self) -> Option<DType> {
        self.dtype
            .filter(|dtype| matches!(dtype, DType::F16 | DType::BF16 | DType::F32 | DType::F64))
    }
}

/// Where the bytes of a tensor come from: contiguous, row-major, little-endian.
#[derive(Clone)]
pub(super) enum Bytes {
    /// A part of a file; the lock guards the file's position.
    Range {
        file: Arc<Mutex<File>>,
        start: u64,
        length: usize,
    },
    /// A tensor of a file that PyTorch wrote; strides are undone at reading.
    PyTorch(pytorch_reader::Tensor),
}

impl Entry {
    /// Reads the bytes.
    pub(super) fn read(&self) -> io::Result<Vec<u8>> {
        match &self.bytes {
            Bytes::Range {
                file,
                start,
                length,
            } => {
                let mut file = file.lock().unwrap_or_else(PoisonError::into_inner);
                file.seek(SeekFrom::Start(*start))?;
                let mut bytes = vec![0; *length];
                file.read_exact(&mut bytes)?;
                Ok(bytes)
            }
            Bytes::PyTorch(tensor) => tensor.read(),
        }
    }

    /// Reads the tensor as `dtype`, which is the type of its elements.
    pub(super) fn tensor(&self, dtype: DType) -> Result<Tensor, Source> {
        let bytes = self.read()?;
        Ok(Tensor::from_raw_buffer(
            &bytes,
            dtype,
            &self.shape,
            &Device::Cpu,
        )?)
    }
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:?}", self.element.name, self.shape)
    }
}

/// What reading a file can fail with.
pub(super) type Source = Box<dyn std::error::Error + Send + Sync>;
