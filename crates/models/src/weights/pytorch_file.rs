//! Files that `torch.save` wrote, by the crate `pytorch-reader`: it executes nothing, whatever the pickle asks for.

use std::collections::BTreeMap;
use std::path::Path;

use candle_core::DType;
use pytorch_reader::{PickleError, PytorchError, PytorchReader};

use super::entry::{Bytes, Element, Entry};
use crate::error::{ModelError, Result};

/// The tensors by name; of dictionaries in dictionaries, names are joined by dots.
pub(super) fn open(path: &Path) -> Result<BTreeMap<String, Entry>> {
    let reader = PytorchReader::new(path).map_err(|error| refusal(path, error))?;
    let tensors = reader.into_tensors().into_iter();
    Ok(tensors
        .map(|(name, tensor)| {
            let entry = Entry {
                shape: tensor.shape().to_vec(),
                element: element(tensor.dtype()),
                bytes: Bytes::PyTorch(tensor),
            };
            (name, entry)
        })
        .collect())
}

fn refusal(path: &Path, error: PytorchError) -> ModelError {
    let path = path.into();
    match error {
        PytorchError::Pickle(PickleError::UnsupportedType(mut found)) => {
            if found.starts_with("__torch__.") {
                found.insert_str(0, "TorchScript: ");
            }
            ModelError::UnsupportedObject { path, found }
        }
        error => ModelError::Read {
            path,
            source: error.into(),
        },
    }
}

fn element(dtype: pytorch_reader::DType) -> Element {
    use pytorch_reader::DType as Stored;
    let name = format!("{dtype:?}");
    let dtype = match dtype {
        Stored::F16 => Some(DType::F16),
        Stored::BF16 => Some(DType::BF16),
        Stored::F32 => Some(DType::F32),
        Stored::F64 => Some(DType::F64),
        Stored::U8 => Some(DType::U8),
        Stored::U32 => Some(DType::U32),
        Stored::I16 => Some(DType::I16),
        Stored::I32 => Some(DType::I32),
        Stored::I64 => Some(DType::I64),
        Stored::I8 | Stored::U16 | Stored::U64 | Stored::Bool => None,
    };
    Element { name, dtype }
}
