//! The files that show a map over a slide.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use stream_grad_slides::{
    ColorMap, Extent, GeoJsonFrame, Heatmap, HeatmapStyle, SlideView, Target,
};

use super::{AttributionMap, InputGradientOptions, grad_cam, input_gradient};
use crate::error::{Result, TrainError};
use crate::files::write_whole;
use crate::model::StreamedModel;
use crate::source::{ImageLoader, SlideLoader};

/// How relevance is found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HeatmapMethod {
    /// [`grad_cam`] at a layer.
    GradCam {
        /// Name of an operation or of a module of the network, such as `layer4`.
        layer: String,
    },
    /// [`input_gradient`].
    InputGradient(InputGradientOptions),
}

/// What [`write()`] makes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HeatmapOptions {
    /// How relevance is found.
    pub method: HeatmapMethod,
    /// Index of the logit that is explained.
    pub target: usize,
    /// What outlines are called, such as the name of the class: `<label> >= <threshold>`. By default the target's index.
    pub label: Option<String>,
    /// Where outlines run, as shares of the map's largest magnitude, each above 0 and at most 1: 0.25, 0.5 and 0.75 by default.
    pub thresholds: Vec<f32>,
    /// From where GeoJSON counts: `None`, the default, for QuPath's own way with the slide, from the corner of its bounds.
    #[serde(skip)]
    pub frame: Option<GeoJsonFrame>,
    /// Colours, from 0 to the largest magnitude: inferno by default.
    pub colors: ColorMap,
    /// How much the map covers the slide, from 0 to 1: 0.5 by default.
    pub opacity: f64,
    /// The longest side of the overlay, in pixels: 2048 by default.
    pub overlay_edge: u32,
}

impl HeatmapOptions {
    /// The defaults, for one output.
    #[must_use]
    pub fn new(method: HeatmapMethod, target: usize) -> Self {
        Self {
            method,
            target,
            label: None,
            thresholds: vec![0.25, 0.5, 0.75],
            frame: None,
            colors: ColorMap::Inferno,
            opacity: 0.5,
            overlay_edge: 2048,
        }
    }

    fn check(&self) -> Result<()> {
        let is_share = |share: f32| share > 0.0 && share <= 1.0;
        if let Some(found) = self.thresholds.iter().find(|share| !is_share(**share)) {
            return Err(TrainError::setting(
                "thresholds",
                "shares of the largest magnitude, above 0 and at most 1",
                found,
            ));
        }
        if self.overlay_edge == 0 {
            return Err(TrainError::setting("overlay_edge", "at least 1 pixel", 0));
        }
        if !(0.0..=1.0).contains(&self.opacity) {
            return Err(TrainError::setting("opacity", "from 0 to 1", self.opacity));
        }
        Ok(())
    }
}

/// What [`write()`] wrote.
#[derive(Debug, Clone, PartialEq)]
pub struct HeatmapFiles {
    /// PNG of what was scanned of the slide, with the map over it.
    pub overlay: PathBuf,
    /// Tiled TIFF pyramid of the same at the image's resolution, with its scale.
    pub pyramid: PathBuf,
    /// GeoJSON outlines of the cells at and above each threshold.
    pub contours: PathBuf,
    /// JSON: what was asked for, the logits, and the map with the part of level 0 that it lies over.
    pub summary: PathBuf,
    /// The map, in the values of its method.
    pub map: AttributionMap,
}

/// Explains one output of a model for one slide, and writes an overlay, a pyramid, outlines and a summary into `folder`, named after
/// the slide: `<name>.overlay.png`, `<name>.heatmap.tiff`, `<name>.geojson` and `<name>.json`. Each appears when it is complete.
///
/// The map lies over the whole image that the loader gives, cell by cell (as Grad-CAM is shown in its paper: resized to the image).
/// In the files its values are shares of the largest magnitude. Of a slide with bounds, pictures show what was scanned, as QuPath does,
/// and so lie under it; GeoJSON counts as [`HeatmapOptions::frame`] says.
///
/// # Errors
/// [`TrainError::Setting`] for options out of range, and as [`grad_cam`] and [`input_gradient`]; [`TrainError::Slide`] for a slide
/// that cannot be read, an output that is the slide itself, and files that cannot be written.
pub fn write(
    model: &StreamedModel,
    loader: &SlideLoader,
    slide: &Path,
    folder: &Path,
    options: &HeatmapOptions,
) -> Result<HeatmapFiles> {
    options.check()?;
    let view = loader.view(slide)?;
    let name = slide.file_stem().unwrap_or(slide.as_os_str());
    let path = |ending: &str| {
        let mut file = name.to_owned();
        file.push(ending);
        folder.join(file)
    };
    let [overlay, pyramid, contours, summary] =
        [".overlay.png", ".heatmap.tiff", ".geojson", ".json"].map(path);
    std::fs::create_dir_all(folder).map_err(TrainError::file(folder))?;
    for output in [&overlay, &pyramid, &contours, &summary] {
        view.slide().check_output(output)?;
    }

    let image = loader.load(slide)?;
    let target = options.target;
    let map = match &options.method {
        HeatmapMethod::GradCam { layer } => grad_cam(model, &*image, layer, target)?,
        HeatmapMethod::InputGradient(how) => input_gradient(model, &*image, target, how)?,
    };
    drop(image);
    let largest = map.largest();
    let share = |value: &f32| {
        if largest > 0.0 {
            value / largest
        } else {
            *value
        }
    };
    let shares = map.values.iter().map(share).collect();
    let extent = Extent {
        height: map.height,
        width: map.width,
    };
    let drawn = Heatmap::over(&view, extent, shares)?;
    let style = HeatmapStyle {
        colors: options.colors,
        values: 0.0..=1.0,
        opacity: options.opacity,
    };
    let overview = view.slide().overview(options.overlay_edge)?;
    drawn.write_png(&overlay, &overview, &style)?;
    drawn.write_pyramid(&pyramid, &scanned(&view)?, &style)?;
    let label = options.label.clone();
    let label = label.unwrap_or_else(|| options.target.to_string());
    let frame = options
        .frame
        .unwrap_or_else(|| GeoJsonFrame::bounds_of(view.slide()));
    drawn
        .contours(&options.thresholds, &label, &style)?
        .write_geojson(&contours, frame)?;
    let text = serde_json::to_vec_pretty(&Summary::of(&view, &map, options));
    let text = text.map_err(|error| TrainError::System {
        what: "the summary of a heat map",
        reason: error.to_string(),
    })?;
    write_whole(&summary, &text)?;
    Ok(HeatmapFiles {
        overlay,
        pyramid,
        contours,
        summary,
        map,
    })
}

/// What was scanned of the slide, at the scale of `view`.
fn scanned(view: &SlideView) -> Result<SlideView> {
    let target = match view.scale() {
        Ok(scale) => Target::MicronsPerPixel(scale.x),
        Err(_) => Target::Downsample(view.downsample().1),
    };
    Ok(view.slide().view(target)?.cropped_to_bounds()?)
}

#[derive(Serialize)]
struct Summary<'a> {
    #[serde(flatten)]
    options: &'a HeatmapOptions,
    logits: &'a [f64],
    /// Of the values below.
    largest: f32,
    /// Pixels of level 0, (row, column), from which and to which the map lies.
    level_0: [(f64, f64); 2],
    height: u64,
    width: u64,
    /// Row by row.
    values: &'a [f32],
}

impl<'a> Summary<'a> {
    fn of(view: &SlideView, map: &'a AttributionMap, options: &'a HeatmapOptions) -> Self {
        let Extent { height, width } = view.extent();
        Self {
            options,
            logits: &map.logits,
            largest: map.largest(),
            level_0: [
                view.to_level_0(0.0, 0.0),
                view.to_level_0(height as f64, width as f64),
            ],
            height: map.height,
            width: map.width,
            values: &map.values,
        }
    }
}
