//! The classes of a slide's pixels, from a mask or from annotations.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use stream_grad::{ExternalError, Rect};
use stream_grad_slides::{
    AnnotationOptions, Annotations, ClassMask, GeoJsonFrame, LabelMap, Shape, SlideError, SlideView,
};

use super::loader::SlideLoader;
use super::slide::of_slide;
use super::{LabelLoader, LabelSource};
use crate::data::ClassNames;
use crate::error::{Result, TrainError};

/// What pixels are that no annotation covers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Unlabelled {
    /// Of the first class.
    #[default]
    Background,
    /// Of no class: they have no say in loss and metrics.
    Ignored,
}

/// What the values of masks and the classes of annotations mean.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MapClasses {
    /// Names of the classes, in the order of their numbers.
    pub names: ClassNames,
    /// What stands for pixels of no class.
    pub ignore_index: u8,
    /// What pixels are that no annotation covers.
    pub unlabelled: Unlabelled,
}

impl MapClasses {
    /// Which values a mask may have, in words.
    fn expected(&self) -> String {
        format!(
            "classes 0 to {} ({}), or {} for none",
            self.names.len().saturating_sub(1),
            self.names,
            self.ignore_index
        )
    }
}

/// Gives label maps for the images of a [`SlideLoader`]: at its scale, and of the part of a slide that is an image.
#[derive(Debug)]
pub struct SlideLabelLoader<'a> {
    loader: &'a SlideLoader,
    classes: MapClasses,
}

impl<'a> SlideLabelLoader<'a> {
    /// Label maps of the slides that `loader` gives.
    #[must_use]
    pub const fn new(loader: &'a SlideLoader, classes: MapClasses) -> Self {
        Self { loader, classes }
    }
}

impl LabelLoader for SlideLabelLoader<'_> {
    fn labels(&self, slide: &Path, map: &Path) -> Result<Arc<dyn LabelSource>> {
        let view = self.loader.view(slide)?;
        let content = if is_annotations(map) {
            Content::Drawn(drawn(map, &view, &self.classes)?)
        } else {
            let mask = ClassMask::open(map, &view, self.loader.stated_scale(slide));
            Content::Mask(mask.map_err(|error| misfit(error, slide))?)
        };
        Ok(Arc::new(SlideLabels {
            path: map.to_path_buf(),
            content,
            view,
            classes: self.classes.clone(),
        }))
    }
}

/// Whether a file's ending is one of annotations: XML of ASAP or `GeoJSON`.
fn is_annotations(map: &Path) -> bool {
    let ending = map.extension().unwrap_or_default();
    ["xml", "json", "geojson"]
        .iter()
        .any(|known| ending.eq_ignore_ascii_case(known))
}

/// A mask that is none of the slide.
fn misfit(error: SlideError, slide: &Path) -> TrainError {
    match error {
        SlideError::Malformed {
            path,
            place,
            expected,
            found,
        } => TrainError::LabelMap {
            map: path,
            slide: slide.to_path_buf(),
            expected: format!("{place}: {expected}"),
            found,
        },
        other => other.into(),
    }
}

/// Annotations with a number one above their class; pixels that none covers have 0. Where two overlap, the higher class counts.
fn drawn(map: &Path, view: &SlideView, classes: &MapClasses) -> Result<LabelMap> {
    let options = AnnotationOptions::new(GeoJsonFrame::bounds_of(view.slide()));
    let annotations = Annotations::read(map, &options)?.annotations;
    let areas = annotations
        .iter()
        .filter(|annotation| matches!(annotation.shape(), Shape::Area(_)));
    let mut painted: Vec<(Option<&str>, u8)> = Vec::new();
    for annotation in areas {
        let refuse = |found: String| TrainError::LabelMap {
            map: map.to_path_buf(),
            slide: view.slide().path().to_path_buf(),
            expected: format!("areas of the classes {}", classes.names),
            found,
        };
        let Some(name) = annotation.class() else {
            return Err(refuse("an area without a class".to_owned()));
        };
        let Some(class) = classes.names.place(name) else {
            let nearest = classes.names.iter().max_by(|a, b| {
                strsim::jaro_winkler(name, a).total_cmp(&strsim::jaro_winkler(name, b))
            });
            let nearest = nearest.unwrap_or_default();
            return Err(refuse(format!("`{name}`; the nearest is `{nearest}`")));
        };
        let entry = (Some(name), u8::try_from(class + 1).unwrap_or(u8::MAX));
        if !painted.contains(&entry) {
            painted.push(entry);
        }
    }
    painted.sort_by_key(|(_, number)| *number);
    Ok(annotations.label_map(view, &painted))
}

/// The classes of the pixels of a slide's image.
#[derive(Debug)]
pub struct SlideLabels {
    path: PathBuf,
    content: Content,
    view: SlideView,
    classes: MapClasses,
}

#[derive(Debug)]
enum Content {
    Mask(ClassMask),
    Drawn(LabelMap),
}

impl SlideLabels {
    /// Refuses values that are no class, with the first place.
    fn check(&self, region: Rect, labels: &[u8]) -> std::result::Result<(), ExternalError> {
        let count = self.classes.names.len();
        let is_wrong =
            |label: &u8| usize::from(*label) >= count && *label != self.classes.ignore_index;
        let Some(place) = labels.iter().position(is_wrong) else {
            return Ok(());
        };
        let width = region.width();
        let (row, column) = (place / width, place % width);
        #[expect(clippy::cast_precision_loss, reason = "a place for people")]
        let centre = |start: i64, at: usize| start as f64 + at as f64 + 0.5;
        let (row, column) = self.view.to_level_0(
            centre(region.rows.lo, row),
            centre(region.columns.lo, column),
        );
        Err(TrainError::LabelMap {
            map: self.path.clone(),
            slide: self.view.slide().path().to_path_buf(),
            expected: self.classes.expected(),
            found: format!(
                "{} at row {row:.0}, column {column:.0} of the slide's finest level",
                labels[place]
            ),
        }
        .into())
    }
}

impl LabelSource for SlideLabels {
    fn extent(&self) -> (u64, u64) {
        let extent = self.view.extent();
        (extent.height, extent.width)
    }

    fn read(&self, region: Rect, labels: &mut [u8]) -> std::result::Result<(), ExternalError> {
        let place = of_slide(region);
        match &self.content {
            Content::Mask(mask) => {
                mask.read(&place, labels)?;
                self.check(region, labels)
            }
            Content::Drawn(map) => {
                map.read(&place, labels)?;
                let none = match self.classes.unlabelled {
                    Unlabelled::Background => 0,
                    Unlabelled::Ignored => self.classes.ignore_index,
                };
                for label in labels {
                    *label = label.checked_sub(1).unwrap_or(none);
                }
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests;
