//! Byte counts as people write them.

use std::fmt;
use std::str::FromStr;

use crate::error::TilingError;

/// A number of bytes.
///
/// ```
/// use stream_grad_tiling::ByteCount;
/// let budget: ByteCount = "1.25GiB".parse()?;
/// assert_eq!(budget, ByteCount::mib(1280));
/// assert_eq!(budget.to_string(), "1.25 GiB");
/// # Ok::<(), stream_grad_tiling::TilingError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct ByteCount(pub u64);

/// Units by name; the binary ones from largest to smallest come first, since `Display` uses them.
const UNITS: [(&str, u64); 10] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("kB", 1_000),
    ("B", 1),
    ("", 1),
];

impl ByteCount {
    /// A count of single bytes.
    pub const fn bytes(count: u64) -> Self {
        Self(count)
    }

    /// A count of mebibytes (2^20 bytes); saturates at `u64::MAX` bytes.
    pub const fn mib(count: u64) -> Self {
        Self(count.saturating_mul(1 << 20))
    }

    /// A count of gibibytes (2^30 bytes); saturates at `u64::MAX` bytes.
    pub const fn gib(count: u64) -> Self {
        Self(count.saturating_mul(1 << 30))
    }

    /// The nearest count for a total in u128: at most `u64::MAX`.
    pub fn saturating(total: u128) -> Self {
        Self(u64::try_from(total).unwrap_or(u64::MAX))
    }

    /// The number of bytes.
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl fmt::Display for ByteCount {
    /// Two decimals in the largest fitting binary unit, rounded up, so that a peak is not understated.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, unit) in UNITS.iter().take(4) {
            if self.0 >= *unit {
                let hundredths = (u128::from(self.0) * 100).div_ceil(u128::from(*unit));
                return write!(f, "{}.{:02} {name}", hundredths / 100, hundredths % 100);
            }
        }
        write!(f, "{} B", self.0)
    }
}

impl FromStr for ByteCount {
    type Err = TilingError;

    /// Reads a number, whole or decimal, and a unit: none, `B`, `kB`, `MB`, `GB`, `TB`, `KiB`, `MiB`, `GiB` or `TiB`, in
    /// upper or lower case. Fractions of a byte are dropped.
    fn from_str(text: &str) -> Result<Self, TilingError> {
        parse(text).map(Self).ok_or_else(|| TilingError::ByteCount {
            found: text.to_owned(),
        })
    }
}

fn parse(text: &str) -> Option<u64> {
    let text = text.trim();
    let end = text
        .find(|character: char| !character.is_ascii_digit() && character != '.')
        .unwrap_or(text.len());
    let (number, name) = text.split_at(end);
    let name = name.trim();
    let (_, unit) = UNITS
        .iter()
        .find(|(known, _)| known.eq_ignore_ascii_case(name))?;
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if fraction.len() > 12 || (number.contains('.') && fraction.is_empty()) {
        return None;
    }
    let whole: u64 = whole.parse().ok()?;
    let mut part = 0;
    if !fraction.is_empty() {
        let scale = 10_u128.pow(u32::try_from(fraction.len()).ok()?);
        part = u64::try_from(fraction.parse::<u128>().ok()? * u128::from(*unit) / scale).ok()?;
    }
    whole.checked_mul(*unit)?.checked_add(part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_every_unit() {
        for (text, bytes) in [
            ("8GiB", 8 << 30),
            ("512MiB", 512 << 20),
            ("1000000", 1_000_000),
            ("1.5 gib", 3 << 29),
            ("2GB", 2_000_000_000),
            ("0.5KiB", 512),
            (" 7 B ", 7),
        ] {
            assert_eq!(
                text.parse::<ByteCount>().unwrap(),
                ByteCount(bytes),
                "{text}"
            );
        }
    }

    #[test]
    fn refuses_what_is_no_number_of_bytes() {
        for text in [
            "",
            "GiB",
            "8 gigs",
            "-1",
            "1.2.3GiB",
            "1.GiB",
            "99999999999GiB",
            "1e9",
        ] {
            let refused = text.parse::<ByteCount>().unwrap_err();
            assert!(
                refused.to_string().starts_with(&format!("`{text}`")),
                "{refused}"
            );
        }
    }

    #[test]
    fn prints_the_largest_fitting_unit_and_never_too_little() {
        assert_eq!(ByteCount(1023).to_string(), "1023 B");
        assert_eq!(ByteCount(1 << 20).to_string(), "1.00 MiB");
        assert_eq!(ByteCount((1 << 30) + 1).to_string(), "1.01 GiB");
        assert_eq!(ByteCount(u64::MAX).to_string(), "16777216.00 TiB");
    }
}
