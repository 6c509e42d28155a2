//! Which kind of file it is, by its first bytes and never by its name.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use super::entry::{Entry, Source};
use super::{pytorch_file, safetensors_file};
use crate::error::{ModelError, Result};

/// How many bytes the kinds are told apart by.
const HEAD: u64 = 64;

/// First bytes of files that are taken for weights and cannot be read, with what they are.
const OTHERS: [(&[u8], &str); 8] = [
    (
        b"version https://git-lfs",
        "a pointer of Git LFS (`git lfs pull` fetches the file itself)",
    ),
    (b"<", "HTML or XML (a page in place of a download?)"),
    (
        b"{",
        "JSON (the index of a model in several files? Load one of these)",
    ),
    (b"\x89HDF\r\n\x1a\n", "HDF5 (Keras or PyTables)"),
    (b"\x93NUMPY", "an array of NumPy"),
    (b"GGUF", "GGUF"),
    (b"\x1f\x8b", "gzip (unpack it first)"),
    (b"\xfd7zXZ\0", "xz (unpack it first)"),
];

/// The tensors of a file by name.
pub(super) fn open(path: &Path) -> Result<BTreeMap<String, Entry>> {
    let read = |source: Source| ModelError::Read {
        path: path.into(),
        source,
    };
    let mut head = Vec::new();
    File::open(path)
        .and_then(|file| file.take(HEAD).read_to_end(&mut head))
        .map_err(|error| read(error.into()))?;
    if safetensors_file::begins(&head) {
        return safetensors_file::open(path).map_err(read);
    }
    if let Some(found) = other_kind(&head) {
        return Err(ModelError::UnknownFormat {
            path: path.into(),
            found,
        });
    }
    pytorch_file::open(path)
}

fn other_kind(head: &[u8]) -> Option<&'static str> {
    if head.is_empty() {
        return Some("an empty file");
    }
    OTHERS
        .iter()
        .find_map(|(first, kind)| head.starts_with(first).then_some(*kind))
}
