//! Tensors and text in one file of the safetensors format, with a checksum over every byte of it.
//!
//! The checksum stands in the file's own metadata, so that any program that reads safetensors reads these files: it is that of
//! the file with zeros in its place.

use std::collections::{BTreeMap, HashMap};

use candle_core::{Device, Tensor};
use safetensors::SafeTensors;
use sha2::{Digest, Sha256};

/// Key of the checksum, and what stands before its digits.
const KEY: &str = "checksum";
const MARK: &str = "\"checksum\":\"sha256:";
/// Bytes of the header's length, which come first.
const LENGTH: usize = 8;
/// Digits of a checksum.
const DIGITS: usize = 64;

/// What a file holds.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sealed {
    /// Text by key.
    pub(crate) text: HashMap<String, String>,
    /// Tensors by name.
    pub(crate) tensors: BTreeMap<String, Tensor>,
    /// Whether there was a checksum, which was right.
    pub(crate) is_checked: bool,
}

/// Why bytes are not what was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Damage {
    pub(crate) expected: String,
    pub(crate) found: String,
}

impl Damage {
    fn new(expected: impl Into<String>, found: impl ToString) -> Self {
        Self {
            expected: expected.into(),
            found: found.to_string(),
        }
    }
}

/// The bytes of a file.
pub(crate) fn seal(
    mut text: HashMap<String, String>,
    tensors: &BTreeMap<String, Tensor>,
) -> Result<Vec<u8>, Damage> {
    text.insert(KEY.to_owned(), format!("sha256:{}", "0".repeat(DIGITS)));
    let mut bytes = safetensors::serialize(tensors, Some(text))
        .map_err(|error| Damage::new("tensors that can be saved", error))?;
    let place = digits(&bytes)?.ok_or_else(|| Damage::new("a place for a checksum", "none"))?;
    let checksum = checksum(&bytes);
    if let Some(digits) = bytes.get_mut(place..place + DIGITS) {
        digits.copy_from_slice(checksum.as_bytes());
    }
    Ok(bytes)
}

/// What is in the bytes of a file. A file without a checksum is read, too, and says so.
pub(crate) fn open(mut bytes: Vec<u8>) -> Result<Sealed, Damage> {
    let (_, metadata) = SafeTensors::read_metadata(&bytes)
        .map_err(|error| Damage::new("a safetensors file", error))?;
    let text = metadata.metadata().clone().unwrap_or_default();
    let place = digits(&bytes)?;
    if let Some(place) = place {
        let stored = bytes.get_mut(place..place + DIGITS).unwrap_or_default();
        let found = String::from_utf8_lossy(stored).into_owned();
        stored.fill(b'0');
        let computed = checksum(&bytes);
        if found != computed {
            return Err(Damage::new(
                format!("bytes of the SHA-256 that they state, {}", short(&found)),
                short(&computed),
            ));
        }
    }
    let tensors = candle_core::safetensors::load_buffer(&bytes, &Device::Cpu)
        .map_err(|error| Damage::new("whole tensors", error))?;
    Ok(Sealed {
        text,
        tensors: tensors.into_iter().collect(),
        is_checked: place.is_some(),
    })
}

/// Where the checksum's digits begin. In text the quotes of the mark would stand escaped, so that it can only be the key.
fn digits(bytes: &[u8]) -> Result<Option<usize>, Damage> {
    let no_header = || Damage::new("a safetensors file", "no header");
    let (length, rest) = bytes.split_first_chunk::<LENGTH>().ok_or_else(no_header)?;
    let length = usize::try_from(u64::from_le_bytes(*length)).unwrap_or(usize::MAX);
    let header = rest.get(..length).ok_or_else(no_header)?;
    let mark = MARK.as_bytes();
    let place = header.windows(mark.len()).position(|window| window == mark);
    let Some(place) = place.map(|place| place + mark.len()) else {
        return Ok(None);
    };
    if place + DIGITS > length {
        return Err(Damage::new("a whole checksum", "a part of one"));
    }
    Ok(Some(LENGTH + place))
}

fn checksum(bytes: &[u8]) -> String {
    let digest = Sha256::digest(bytes);
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// As much of a checksum as a person compares.
fn short(digits: &str) -> String {
    digits.chars().take(16).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes() -> Vec<u8> {
        let tensor = Tensor::new(&[1.0_f32, -0.0, f32::NAN], &Device::Cpu).unwrap();
        let text = HashMap::from([("said".to_owned(), "\"checksum\":\"sha256:no".to_owned())]);
        seal(text, &BTreeMap::from([("a".to_owned(), tensor)])).unwrap()
    }

    #[test]
    fn what_is_sealed_is_opened() {
        let sealed = open(bytes()).unwrap();
        assert!(sealed.is_checked);
        assert_eq!(sealed.text["said"], "\"checksum\":\"sha256:no");
        let values = sealed.tensors["a"].to_vec1::<f32>().unwrap();
        let bits: Vec<u32> = values.into_iter().map(f32::to_bits).collect();
        assert_eq!(bits, [1.0_f32, -0.0, f32::NAN].map(f32::to_bits));
    }

    /// Each byte changed in three ways, and each length: no damage is missed.
    #[test]
    fn every_damaged_byte_is_noticed() {
        let whole = bytes();
        for place in 0..whole.len() {
            for change in [1, 0x20, 0x80] {
                let mut damaged = whole.clone();
                damaged[place] ^= change;
                let opened = open(damaged);
                let is_noticed = !matches!(&opened, Ok(sealed) if sealed.is_checked);
                assert!(is_noticed, "byte {place} changed by {change}");
            }
            let damage = open(whole[..place].to_vec()).unwrap_err();
            assert_eq!(damage.expected, "a safetensors file", "{place} bytes");
        }
        let mut longer = whole;
        longer.push(0);
        let damage = open(longer).unwrap_err();
        assert_eq!(damage.expected, "a safetensors file", "{damage:?}");
    }

    #[test]
    fn files_of_others_have_no_checksum() {
        let tensor = Tensor::new(&[1_i64], &Device::Cpu).unwrap();
        let bytes = safetensors::serialize([("a", &tensor)], None).unwrap();
        assert!(!open(bytes).unwrap().is_checked);
    }
}
