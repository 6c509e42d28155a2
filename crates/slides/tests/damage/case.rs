//! One damaged file, read in a process of its own.

use std::path::Path;

use openslide_rs::{Address, OpenSlide, Region as BareRegion, Size};
use stream_grad_slides::{Extent, Level, Region, Slide};

/// Names the damaged file.
pub(crate) const PATH_VARIABLE: &str = "SLIDES_DAMAGED_FILE";

/// Names who reads it.
pub(crate) const READER_VARIABLE: &str = "SLIDES_DAMAGED_READER";

/// No case may have more memory than this, address space of threads included.
const MEMORY: u64 = 1 << 30;

/// Larger levels are read in part.
const PIXELS: u64 = 64 << 20;

/// Who reads a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reader {
    /// This crate, compared with OpenSlide.
    Ours,
    /// OpenSlide alone.
    OpenSlide,
}

impl Reader {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Ours => "ours",
            Self::OpenSlide => "openslide",
        }
    }
}

/// What became of a case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// An error.
    Refused,
    /// The pixels that OpenSlide returns (or, of a plain image, that the decoder returns).
    Same,
    /// Pixels, but OpenSlide returns others or an error.
    Different,
    /// A panic.
    Panicked(String),
    /// A signal that OpenSlide alone does not cause.
    Crashed(String),
    /// A signal that OpenSlide alone causes, too.
    OpenSlideCrashed(String),
    /// More than ten seconds.
    Hung,
}

impl Outcome {
    pub(crate) const fn is_wrong(&self) -> bool {
        !matches!(self, Self::Refused | Self::Same | Self::OpenSlideCrashed(_))
    }

    fn line(&self) -> String {
        format!("outcome: {self:?}")
    }

    pub(crate) fn from_line(line: &str) -> Option<Self> {
        // The harness may have begun the line.
        [Self::Refused, Self::Same, Self::Different]
            .into_iter()
            .find(|outcome| line.ends_with(&outcome.line()))
    }
}

/// Reads a damaged file in the process that was started for it, and prints what became of it.
pub(crate) fn run(path: &Path) {
    rlimit::setrlimit(rlimit::Resource::AS, MEMORY, MEMORY).unwrap();
    let reader = std::env::var(READER_VARIABLE).unwrap();
    let outcome = if reader == Reader::OpenSlide.name() {
        bare(path);
        Outcome::Refused
    } else {
        ours(path)
    };
    println!("\n{}", outcome.line());
}

/// Regions of a level that are read: all of it, or its corners.
fn regions(extent: Extent) -> Vec<Region> {
    if extent.height.saturating_mul(extent.width) <= PIXELS {
        return vec![extent.region()];
    }
    let spans = |length: u64| {
        let length = i64::try_from(length).unwrap();
        [0..256.min(length), (length - 256).max(0)..length]
    };
    let mut corners = Vec::new();
    for rows in spans(extent.height) {
        for columns in spans(extent.width) {
            corners.push(Region::new(rows.clone(), columns));
        }
    }
    corners
}

fn ours(path: &Path) -> Outcome {
    let Ok(slide) = Slide::open(path) else {
        return Outcome::Refused;
    };
    let mut outcome = Outcome::Same;
    // Properties and pictures that come with the slide must not crash either.
    for name in slide.associated_image_names().unwrap_or_default() {
        let _ = slide.associated_image(&name);
    }
    let _ = slide.icc_profile();
    let reference = OpenSlide::new(path).ok();
    for (index, level) in slide.levels().to_vec().into_iter().enumerate() {
        for region in regions(level.extent) {
            let mut rgb = vec![0; usize::try_from(region.height() * region.width() * 3).unwrap()];
            if slide.read_level(Level(index), &region, &mut rgb).is_err() {
                outcome = Outcome::Refused;
                continue;
            }
            // Level 0 alone is addressed in its own pixels.
            if index == 0
                && let Some(reference) = &reference
                && bare_rgb(reference, &region).as_ref() != Some(&rgb)
            {
                return Outcome::Different;
            }
        }
    }
    outcome
}

/// What OpenSlide returns of level 0, over white; none for an error.
fn bare_rgb(slide: &OpenSlide, region: &Region) -> Option<Vec<u8>> {
    let side = |value: u64| u32::try_from(value).unwrap();
    let argb = slide
        .read_region(&BareRegion {
            size: Size {
                w: side(region.width()),
                h: side(region.height()),
            },
            level: 0,
            address: Address {
                x: side(region.columns.start.unsigned_abs()),
                y: side(region.rows.start.unsigned_abs()),
            },
        })
        .ok()?;
    let rgb = argb.chunks_exact(4).flat_map(|pixel| {
        let [alpha, rest @ ..] = u32::from_ne_bytes(pixel.try_into().unwrap()).to_be_bytes();
        rest.map(|value| {
            let behind = (255 * u16::from(u8::MAX - alpha) + 127) / 255;
            u8::try_from(u16::from(value) + behind).unwrap_or(u8::MAX)
        })
    });
    Some(rgb.collect())
}

fn bare(path: &Path) {
    let Ok(slide) = OpenSlide::new(path) else {
        return;
    };
    for name in slide.associated_image_names().unwrap_or_default() {
        let _ = slide.read_associated_buffer(&name);
    }
    // Errors are sticky, as ours are not: each level on a handle of its own.
    for (index, size) in slide.all_level_dimensions().iter().enumerate() {
        let extent = Extent {
            height: u64::from(size.h),
            width: u64::from(size.w),
        };
        for region in regions(extent) {
            let Ok(slide) = OpenSlide::new(path) else {
                return;
            };
            let _ = slide.read_region(&BareRegion {
                size: Size {
                    w: u32::try_from(region.width()).unwrap(),
                    h: u32::try_from(region.height()).unwrap(),
                },
                level: u32::try_from(index).unwrap(),
                address: Address { x: 0, y: 0 },
            });
        }
    }
}
