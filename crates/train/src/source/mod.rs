//! Slides as images to stream: read at one scale, normalised, decoded ahead on other threads.

mod background;
mod label_map;
mod labels;
mod loader;
mod picture;
mod slide;
mod stain;

use std::path::Path;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use stream_grad::TileSource;
use stream_grad_slides::{ColorManagement, Mask, Rgb, Slide};

pub use background::{Background, typical_texture};
pub use label_map::{MapClasses, SlideLabelLoader, SlideLabels, Unlabelled};
pub use labels::{LabelLoader, LabelSource};
pub use loader::SlideLoader;
pub use picture::{
    Crop, IMAGENET_DEVIATION, IMAGENET_MEAN, Picture, PictureLoader, PictureSettings,
    random_resized_crop,
};
pub use slide::SlideSource;
pub use stain::StainSettings;

use crate::error::{Result, TrainError, check_threads};
use background::Filling;

/// By name: an array in the attribute is understood only where another crate asks for all of `syn`.
const BACKGROUND_COLOR_EXAMPLE: [u8; 3] = [242, 240, 243];

/// How slides are read.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ReadSettings {
    /// Mean of red, green and blue, which is taken off pixels that go from 0 to 1; any finite numbers. By default that of stained tissue
    /// on glass. Fixed beforehand, so that no test slide is looked at.
    pub mean: [f64; 3],
    /// Standard deviation of red, green and blue, by which pixels are then divided; above 0. By default that of stained tissue on
    /// glass.
    pub deviation: [f64; 3],
    /// Microns per pixel of the finest level of slides that state none, or a wrong number; above 0. Absent, slides that state none cannot
    /// be read.
    #[schemars(example = 0.25)]
    pub scale_override: Option<f64>,
    /// Which part of a slide is an image: the `whole` slide, or the smallest rectangle around its `tissue`. By default all of it, which
    /// loses nothing.
    pub trim: Trim,
    /// What is shown further than 64 microns from all tissue: `as_read`, or to `fill` it with one colour, so that it costs next to
    /// nothing: it is not decoded, and of tiles that see nothing else one is computed for all. Tissue is found as for `trim`; a slide in
    /// which none is found is shown as it is read. By default slides are shown as they are read.
    pub background: Background,
    /// Red, green and blue, from 0 to 255, of a `background` that is filled. Absent, the slide's own, which is white where the file
    /// states none.
    #[schemars(example = BACKGROUND_COLOR_EXAMPLE)]
    pub background_color: Option<[u8; 3]>,
    /// Bytes of decoded pixels that are held for the next epochs and for slides to come; 0 for none. Each decoding thread has
    /// one slide more in hand, of at most a quarter of that. By default 1 GiB.
    pub held_bytes: u64,
    /// Threads that decode ahead; at most four for each core, 0 for none. By default 1, since the network computes on all cores.
    pub decoding_threads: usize,
    /// What becomes of slides of which parts cannot be decoded: `stop` the run, read these parts as `background`, or `skip_slide`. By
    /// default such a slide is left out and named.
    pub bad_regions: BadRegions,
    /// Whether colours are taken `as_stored` or converted `to_srgb` by the slides' ICC profiles. By default as stored, as most programs
    /// of the field read them.
    pub colors: ColorManagement,
    /// Whether stains are made alike, before `mean` and `deviation` are applied: kind `as_read`, `macenko` or `reinhard`. By default
    /// colours are as they are read.
    pub stain: StainSettings,
}

/// What becomes of slides of which parts cannot be decoded.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum BadRegions {
    /// The run stops.
    Stop,
    /// These parts read as background; the report says how many they are.
    Background,
    /// The slide does not count.
    #[default]
    SkipSlide,
}

/// Which part of a slide is an image.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Trim {
    /// All of it.
    #[default]
    Whole,
    /// The smallest rectangle around its tissue; all of it if none is found.
    Tissue,
}

impl Default for ReadSettings {
    /// Means and deviations that suit stained tissue on glass.
    fn default() -> Self {
        Self {
            mean: [0.82, 0.70, 0.84],
            deviation: [0.15, 0.18, 0.11],
            scale_override: None,
            trim: Trim::Whole,
            background: Background::default(),
            background_color: None,
            held_bytes: 1 << 30,
            decoding_threads: 1,
            bad_regions: BadRegions::default(),
            colors: ColorManagement::default(),
            stain: StainSettings::default(),
        }
    }
}

impl ReadSettings {
    /// What is filled of a slide with this tissue.
    fn filling(&self, slide: &Slide, tissue: &Mask) -> Option<Filling> {
        let color = self
            .background_color
            .map_or_else(|| slide.background(), Rgb);
        Filling::new(tissue, color)
    }

    /// Checks the settings.
    ///
    /// # Errors
    /// [`TrainError::Setting`] for means that are not finite, deviations or a scale that are not above 0, a reference that
    /// no stain has, and more than four threads for each core of this machine.
    pub fn check(&self) -> Result<()> {
        check_threads("data.read.decoding_threads", self.decoding_threads)?;
        if !self.mean.iter().all(|mean| mean.is_finite()) {
            return Err(TrainError::setting(
                "data.read.mean",
                "finite numbers",
                format!("{:?}", self.mean),
            ));
        }
        if !self
            .deviation
            .iter()
            .all(|deviation| deviation.is_finite() && *deviation > 0.0)
        {
            return Err(TrainError::setting(
                "data.read.deviation",
                "finite numbers above 0",
                format!("{:?}", self.deviation),
            ));
        }
        if let Some(scale) = self.scale_override
            && !(scale.is_finite() && scale > 0.0)
        {
            return Err(TrainError::setting(
                "data.read.scale_override",
                "a finite number above 0",
                scale,
            ));
        }
        self.stain.check()
    }
}

/// Gives the image of a slide, and is told beforehand which will be asked for.
pub trait ImageLoader: Send + Sync {
    /// The slides that will be asked for next, in this order.
    fn expect(&self, upcoming: &[&Path]);

    /// The image of a slide.
    ///
    /// # Errors
    /// A slide that cannot be opened or read.
    fn load(&self, slide: &Path) -> Result<Arc<dyn TileSource>>;

    /// Whether an error that came of a slide must stop the run, instead of the slide being skipped.
    fn stops_at(&self, error: &TrainError) -> bool {
        let _ = error;
        false
    }
}
