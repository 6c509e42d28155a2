//! The levels of a slide as its file declares them.

use std::collections::BTreeMap;
use std::path::Path;

use crate::error::{Result, SlideError, check_limit};
use crate::geometry::Extent;
use crate::numbers::whole;

/// One level of a slide's pyramid.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LevelGeometry {
    /// Size in the level's own pixels.
    pub extent: Extent,
    /// Level-0 pixels per pixel of this level, along either axis.
    ///
    /// A whole number where the level's size is that of a whole-number reduction rounded up or down; OpenSlide divides
    /// sizes and so reports 4.002 for a reduction by 4 that dropped a row.
    pub downsample: f64,
    /// The downsample with which OpenSlide turns level-0 addresses into pixels of this level.
    pub(crate) addressing: f64,
}

impl LevelGeometry {
    /// The levels from their sizes and OpenSlide's downsamples, finest first; at least one.
    pub(crate) fn all(path: &Path, sizes: &[(Extent, f64)]) -> Result<Vec<Self>> {
        let Some(&(finest, _)) = sizes.first() else {
            return Err(SlideError::cannot_open(path, "it has no levels"));
        };
        sizes
            .iter()
            .map(|&(extent, addressing)| {
                if extent.region().is_empty() || !addressing.is_finite() || addressing < 1.0 {
                    return Err(SlideError::cannot_open(
                        path,
                        format!("a level of {extent} at downsample {addressing}"),
                    ));
                }
                Ok(Self {
                    extent,
                    downsample: true_downsample(finest, extent, addressing),
                    addressing,
                })
            })
            .collect()
    }

    /// The only level of an image in memory.
    pub(crate) const fn single(extent: Extent) -> Self {
        Self {
            extent,
            downsample: 1.0,
            addressing: 1.0,
        }
    }
}

/// Refuses files whose tiles OpenSlide would have to allocate beyond reason.
pub(crate) fn check_tiles(
    path: &Path,
    raw: &BTreeMap<String, String>,
    levels: usize,
    limit: u64,
) -> Result<()> {
    for level in 0..levels {
        let side = |name: &str| -> Option<u64> {
            raw.get(&format!("openslide.level[{level}].tile-{name}"))?
                .parse()
                .ok()
        };
        if let Some((width, height)) = side("width").zip(side("height")) {
            check_limit(
                path,
                "one tile, in bytes,",
                width.saturating_mul(height).saturating_mul(4),
                limit,
            )?;
        }
    }
    Ok(())
}

/// The whole-number reduction that gives `level` from `finest` by rounding either way, else what OpenSlide says.
fn true_downsample(finest: Extent, level: Extent, addressing: f64) -> f64 {
    // At least 1; a saturated value fits no level.
    let reduction = whole(addressing.round());
    let fits =
        |fine: u64, coarse: u64| fine / reduction == coarse || fine.div_ceil(reduction) == coarse;
    if reduction > 0 && fits(finest.height, level.height) && fits(finest.width, level.width) {
        addressing.round()
    } else {
        addressing
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn downsamples_of_rounded_levels_are_whole() {
        let size = |height, width| Extent { height, width };
        // A reduction by 4 that dropped rows: OpenSlide divides the sizes and says 4.002.
        assert_eq!(
            true_downsample(size(2967, 2220), size(741, 555), 4.002),
            4.0
        );
        assert_eq!(
            true_downsample(size(2967, 2220), size(742, 555), 3.9993),
            4.0
        );
        assert_eq!(
            true_downsample(size(3000, 3000), size(1200, 1200), 2.5),
            2.5
        );
        assert_eq!(
            true_downsample(size(3000, 3000), size(1490, 1490), 2.0134),
            2.0134
        );
    }

    #[test]
    fn giant_tiles_are_refused_with_both_numbers() {
        let raw = BTreeMap::from([
            (
                "openslide.level[0].tile-width".to_owned(),
                "1073741824".to_owned(),
            ),
            (
                "openslide.level[0].tile-height".to_owned(),
                "1073741824".to_owned(),
            ),
        ]);
        let message = check_tiles(Path::new("big.tiff"), &raw, 1, 1 << 28)
            .unwrap_err()
            .to_string();
        assert!(
            message.contains("4611686018427387904") && message.contains("268435456"),
            "{message}"
        );
    }
}
