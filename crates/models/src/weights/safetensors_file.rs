//! Safetensors: the header is read, the tensors when they are asked for.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::{Arc, Mutex};

use candle_core::DType;
use safetensors::Dtype;
use safetensors::tensor::Metadata;

use super::entry::{Bytes, Element, Entry, Source};

/// The longest header that the format allows.
const MAX_HEADER: u64 = 100_000_000;

/// Whether a file begins as the format does: the header's length, and the header, which is JSON.
pub(super) fn begins(head: &[u8]) -> bool {
    header_length(head).is_some_and(|length| length <= MAX_HEADER) && head.get(8) == Some(&b'{')
}

fn header_length(head: &[u8]) -> Option<u64> {
    head.first_chunk().map(|bytes| u64::from_le_bytes(*bytes))
}

pub(super) fn open(path: &Path) -> Result<BTreeMap<String, Entry>, Source> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    let mut prefix = [0; 8];
    file.read_exact(&mut prefix)?;
    let header = u64::from_le_bytes(prefix);
    let data_start = header.checked_add(8).filter(|&start| start <= length);
    let data_start = data_start
        .ok_or_else(|| format!("a header of {header} bytes in a file of {length} bytes"))?;
    let mut text = Vec::new();
    (&mut file).take(header).read_to_end(&mut text)?;
    // This checks that the tensors lie end to end and that each is as long as its shape says.
    let metadata: Metadata = serde_json::from_slice(&text)?;
    let end = data_start.saturating_add(u64::try_from(metadata.data_len())?);
    if end != length {
        return Err(format!("the tensors end at byte {end}, the file has {length} bytes").into());
    }
    let file = Arc::new(Mutex::new(file));
    let entries = metadata.tensors().into_iter().map(|(name, info)| {
        let (start, end) = info.data_offsets;
        let bytes = Bytes::Range {
            file: Arc::clone(&file),
            start: data_start + u64::try_from(start)?,
            length: end - start,
        };
        let element = Element {
            name: format!("{:?}", info.dtype),
            dtype: candle_dtype(info.dtype),
        };
        let shape = info.shape.clone();
        Ok((
            name,
            Entry {
                shape,
                element,
                bytes,
            },
        ))
    });
    entries.collect()
}

/// The types that are read. Not float8 and narrower: their scales lie beside them, under names that differ from tool to
/// tool, and without these the values are wrong.
fn candle_dtype(dtype: Dtype) -> Option<DType> {
    Some(match dtype {
        Dtype::F16 => DType::F16,
        Dtype::BF16 => DType::BF16,
        Dtype::F32 => DType::F32,
        Dtype::F64 => DType::F64,
        Dtype::U8 => DType::U8,
        Dtype::U32 => DType::U32,
        Dtype::I16 => DType::I16,
        Dtype::I32 => DType::I32,
        Dtype::I64 => DType::I64,
        _ => return None,
    })
}
