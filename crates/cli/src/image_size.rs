//! An image's extent as people write it on a command line.

use std::fmt;
use std::str::FromStr;

use anyhow::{Context, ensure};

/// An image's extent in pixels, written `HEIGHTxWIDTH`.
///
/// ```
/// use stream_grad_cli::image_size::ImageSize;
/// assert_eq!("300x200".parse::<ImageSize>()?, ImageSize { height: 300, width: 200 });
/// # anyhow::Ok(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ImageSize {
    /// Rows.
    pub height: u64,
    /// Columns.
    pub width: u64,
}

impl FromStr for ImageSize {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        let wrong = || {
            format!("`{text}` is no image size: expected HEIGHTxWIDTH in pixels, as `65536x65536`")
        };
        let (height, width) = text.split_once(['x', 'X']).with_context(wrong)?;
        let height = height.parse().with_context(wrong)?;
        let width = width.parse().with_context(wrong)?;
        ensure!(
            height > 0 && width > 0,
            "`{text}` is an empty image: height and width must be at least 1"
        );
        Ok(Self { height, width })
    }
}

impl fmt::Display for ImageSize {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}x{}", self.height, self.width)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn image_sizes() {
        assert_eq!(
            "1x2".parse::<ImageSize>().unwrap(),
            ImageSize {
                height: 1,
                width: 2
            }
        );
        for text in ["", "5", "x5", "5x", "5x-1", "0x5", "5x0", "5x5x5"] {
            let error = text.parse::<ImageSize>().unwrap_err();
            assert!(
                format!("{error:#}").contains(&format!("`{text}`")),
                "{error:#}"
            );
        }
    }
}
