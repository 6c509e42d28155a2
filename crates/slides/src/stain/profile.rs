//! The stain of a whole slide by either method, estimated once and kept with a run.

use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    MacenkoOptions, MacenkoProfile, ReinhardProfile, StainNormalizer, TissueSample, sample_tissue,
};
use crate::error::{Result, SlideError};
use crate::files::write_whole;
use crate::mask::Mask;
use crate::origin::Origin;
use crate::slide::Slide;
use crate::tissue::TissueOptions;

/// Counted up when the way in which profiles are estimated changes.
const VERSION: u32 = 1;

/// By what a stain is described.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StainMethod {
    /// Colours and amounts of two stains: [`MacenkoProfile`].
    Macenko,
    /// Mean and spread of colours: [`ReinhardProfile`].
    Reinhard,
}

/// The stain of a slide.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum StainProfile {
    /// Colours and amounts of two stains.
    Macenko(MacenkoProfile),
    /// Mean and spread of colours.
    Reinhard(ReinhardProfile),
}

/// A profile in its file.
#[derive(Serialize, Deserialize)]
struct Kept {
    origin: Value,
    profile: StainProfile,
}

impl StainProfile {
    /// Estimates the stain of a slide from its tissue, with the defaults of [`TissueOptions`], [`TissueSample`] and
    /// [`MacenkoOptions`]. It depends on the slide alone, not on the scale at which it is read later.
    ///
    /// # Errors
    /// [`SlideError::NoStain`] where there is too little tissue or all of it has one colour; [`SlideError::RegionFailed`],
    /// [`SlideError::LimitExceeded`].
    ///
    /// # Examples
    /// ```
    /// use stream_grad_slides::{Extent, MacenkoProfile, OpenOptions, Slide, StainMethod, StainProfile};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let rgb = (0..400 * 400_usize).flat_map(|i| if i % 7 < 3 { [110, 70, 150] } else { [190 + (i % 5) as u8, 120, 180] });
    /// # let extent = Extent { height: 400, width: 400 };
    /// # let slide = Slide::from_rgb("memory", extent, rgb.collect(), &OpenOptions::default())?;
    /// let profile = StainProfile::of_slide(&slide, StainMethod::Macenko)?;
    /// let normalizer = profile.normalizer_to(&StainProfile::Macenko(MacenkoProfile::REFERENCE))?;
    /// let mut tile = [110, 70, 150];
    /// normalizer.apply(&mut tile)?;
    /// assert_ne!(tile, [110, 70, 150]);
    /// # Ok(())
    /// # }
    /// ```
    pub fn of_slide(slide: &Slide, method: StainMethod) -> Result<Self> {
        let mask = Mask::of_tissue(slide, &TissueOptions::default())?;
        let pixels = sample_tissue(slide, &mask, &TissueSample::default())?;
        let estimated = match method {
            StainMethod::Macenko => {
                MacenkoProfile::estimate(&pixels, &MacenkoOptions::default()).map(Self::Macenko)
            }
            StainMethod::Reinhard => ReinhardProfile::estimate(&pixels).map(Self::Reinhard),
        };
        estimated.map_err(|reason| SlideError::NoStain {
            path: slide.path().to_path_buf(),
            reason: reason.to_string(),
        })
    }

    /// Estimates the stain of a slide, or reads it from `folder`, where it is kept as JSON under the slide's name.
    ///
    /// The file says which slide (path, size, time of change) it is of; if that differs, or the file is damaged, the stain is
    /// estimated anew. Slides in memory are not kept. A profile that was put into the file by hand is used.
    ///
    /// # Errors
    /// As [`of_slide`](Self::of_slide); [`SlideError::Io`] where the file cannot be written.
    pub fn of_slide_cached(
        slide: &Slide,
        method: StainMethod,
        folder: impl AsRef<Path>,
    ) -> Result<Self> {
        let folder = folder.as_ref();
        let Some(origin) = Origin::of(slide, VERSION, &method) else {
            return Self::of_slide(slide, method);
        };
        let path = origin.file_in(folder, "json");
        let failed = |error: serde_json::Error| SlideError::io(&path, error.into());
        let origin = serde_json::to_value(&origin).map_err(failed)?;
        let kept: Option<Kept> = std::fs::read(&path)
            .ok()
            .and_then(|bytes| serde_json::from_slice(&bytes).ok());
        match kept {
            Some(kept) if kept.origin == origin && kept.profile.method() == method => {
                return Ok(kept.profile);
            }
            _ => {}
        }
        let profile = Self::of_slide(slide, method)?;
        std::fs::create_dir_all(folder).map_err(|error| SlideError::io(folder, error))?;
        let json = serde_json::to_vec_pretty(&Kept { origin, profile }).map_err(failed)?;
        write_whole(&path, &json)?;
        Ok(profile)
    }

    /// By what the stain is described.
    #[must_use]
    pub const fn method(&self) -> StainMethod {
        match self {
            Self::Macenko(_) => StainMethod::Macenko,
            Self::Reinhard(_) => StainMethod::Reinhard,
        }
    }

    /// Gives pixels with this profile the colours of `target`.
    ///
    /// # Errors
    /// [`SlideError::InvalidArgument`] for profiles of two methods, and for numbers that no stain has.
    pub fn normalizer_to(&self, target: &Self) -> Result<StainNormalizer> {
        match (self, target) {
            (Self::Macenko(from), Self::Macenko(to)) => from.normalizer_to(to),
            (Self::Reinhard(from), Self::Reinhard(to)) => from.normalizer_to(to),
            _ => Err(SlideError::InvalidArgument {
                what: "a slide's profile and its target",
                expected: "of one method",
                found: format!("{:?} and {:?}", self.method(), target.method()),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::OpenOptions;

    fn tissue(shade: u8) -> image::RgbImage {
        image::RgbImage::from_fn(400, 300, |x, y| {
            image::Rgb(match (x * 31 + y * 17) % 7 {
                _ if x < 40 => [245; 3],
                0..3 => [110 + shade, 70, 150],
                pixel => [190 + u8::try_from(pixel).unwrap(), 120 + shade, 180],
            })
        })
    }

    #[test]
    fn a_kept_profile_is_read_only_if_it_is_of_this_slide_and_method() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("slide.png");
        tissue(0).save(&path).unwrap();
        let stains = folder.path().join("run/stains");
        let cached = |method| {
            StainProfile::of_slide_cached(&Slide::open(&path).unwrap(), method, &stains).unwrap()
        };
        let fresh = |method| StainProfile::of_slide(&Slide::open(&path).unwrap(), method).unwrap();
        for method in [StainMethod::Macenko, StainMethod::Reinhard] {
            assert_eq!(cached(method), fresh(method));
            // It is read, not estimated anew: another profile in the file shows.
            let file = std::fs::read_dir(&stains)
                .unwrap()
                .next()
                .unwrap()
                .unwrap()
                .path();
            let mut kept: Kept = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
            assert_eq!(kept.profile, fresh(method));
            match &mut kept.profile {
                StainProfile::Macenko(profile) => profile.strongest[0] *= 2.0,
                StainProfile::Reinhard(profile) => profile.mean[0] += 1.0,
            }
            std::fs::write(&file, serde_json::to_vec(&kept).unwrap()).unwrap();
            assert_eq!(cached(method), kept.profile);
            // A damaged file, another slide: estimated anew.
            std::fs::write(&file, b"{").unwrap();
            assert_eq!(cached(method), fresh(method));
        }
        let before = fresh(StainMethod::Reinhard);
        tissue(20).save(&path).unwrap();
        assert_ne!(cached(StainMethod::Reinhard), before);
        assert_eq!(std::fs::read_dir(&stains).unwrap().count(), 1);
    }

    #[test]
    fn slides_without_tissue_are_named_and_methods_do_not_mix() {
        let extent = crate::geometry::Extent {
            height: 50,
            width: 50,
        };
        let glass =
            Slide::from_rgb("glass", extent, vec![244; 7500], &OpenOptions::default()).unwrap();
        for method in [StainMethod::Macenko, StainMethod::Reinhard] {
            let error = StainProfile::of_slide(&glass, method).unwrap_err();
            assert!(
                matches!(&error, SlideError::NoStain { path, .. } if path.ends_with("glass")),
                "{error}"
            );
        }
        let macenko = StainProfile::Macenko(MacenkoProfile::REFERENCE);
        let reinhard = StainProfile::Reinhard(ReinhardProfile::REFERENCE);
        assert_eq!(
            macenko.normalizer_to(&reinhard).unwrap_err().to_string(),
            "a slide's profile and its target must be of one method, found Macenko and Reinhard"
        );
        assert!(macenko.normalizer_to(&macenko).is_ok());
        assert!(reinhard.normalizer_to(&reinhard).is_ok());
    }
}
