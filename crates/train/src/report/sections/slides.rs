//! Pictures of the slides of which the network is surest and least sure.

use std::io::Cursor;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use image::{DynamicImage, ImageFormat, RgbImage};
use maud::{Markup, html};
use stream_grad_slides::Slide;

use super::data::file_name;
use super::technical::short;
use crate::data::{Label, Task};
use crate::error::Result;
use crate::report::detail::Detail;
use crate::report::folder::{Predicted, RunFolder};
use crate::report::page::Page;

/// Pictures of each kind.
const EACH: usize = 4;
/// Longest edge of a picture in pixels.
const EDGE: u32 = 320;
/// Where pictures of slides are kept, so that a report can be made anew without the slides.
const FOLDER: &str = "thumbnails";

/// Pictures of slides of the finest resolution.
pub(super) fn section(run: &RunFolder, details: &[Detail<'_>], page: &mut Page) -> Result<Markup> {
    let Some(detail) = details.last() else {
        return Ok(html! {});
    };
    let task = detail.predictions.outcomes.task();
    let mut order: Vec<&Predicted> = detail.predictions.slides.clone();
    order.sort_by(|a, b| sureness(task, b).total_cmp(&sureness(task, a)));
    let each = EACH.min(order.len().div_ceil(2));
    let surest = &order[..each];
    let least: Vec<&Predicted> = order[each..].iter().rev().take(each).copied().collect();
    let mut show = |slides: &[&Predicted]| -> Vec<Markup> {
        slides
            .iter()
            .map(|slide| card(run, detail, slide, page))
            .collect()
    };
    let (surest, least) = (show(surest), show(&least));
    let (first, second) = match task {
        Task::Regression => ("Closest to the truth", "Farthest from the truth"),
        _ => ("Surest", "Least sure"),
    };
    Ok(html! {
        p { "Of the slides at " (detail.title) ". Where heat maps lie in the run folder, they stand beside the slide." }
        h3 { (first) }
        div.slides { @for card in surest { (card) } }
        @if !least.is_empty() {
            h3 { (second) }
            div.slides { @for card in least { (card) } }
        }
    })
}

/// How sure the network is of a slide; of numbers, how close it came.
fn sureness(task: Task, slide: &Predicted) -> f64 {
    let outputs = &slide.outputs;
    match task {
        Task::Binary => outputs.first().map_or(0.0, |logit| logit.abs()),
        Task::MultiLabel { .. } => outputs
            .iter()
            .fold(f64::INFINITY, |least, logit| least.min(logit.abs())),
        Task::Classification { .. } | Task::Ordinal { .. } | Task::Segmentation { .. } => {
            task.probabilities(outputs).into_iter().fold(0.0, f64::max)
        }
        Task::Regression => {
            let truth = slide
                .label
                .as_ref()
                .and_then(Label::number)
                .unwrap_or(f64::NAN);
            -(truth - task.score(outputs)).abs()
        }
    }
}

fn card(run: &RunFolder, detail: &Detail<'_>, slide: &Predicted, page: &mut Page) -> Markup {
    let task = detail.predictions.outcomes.task();
    let name = slide
        .slide
        .file_name()
        .map_or_else(String::new, |name| name.to_string_lossy().into_owned());
    let pictures: Vec<(String, Vec<u8>)> = thumbnail(run, &slide.slide, page)
        .map(|jpeg| (format!("Slide {name}"), jpeg))
        .into_iter()
        .chain(
            heat_map(run, detail, &slide.slide).map(|jpeg| (format!("Heat map of {name}"), jpeg)),
        )
        .collect();
    let (truth, predicted, right) = words(run, task, slide);
    html! {
        figure {
            @if pictures.is_empty() { p { "No picture: the slide cannot be read." } }
            @else {
                div.pictures {
                    @for (alt, jpeg) in &pictures {
                        img src={ "data:image/jpeg;base64," (STANDARD.encode(jpeg)) } alt=(alt);
                    }
                }
            }
            figcaption {
                b { (name) } br;
                "Truth: " (truth) br;
                "Predicted: " (predicted)
                @if !right { " " b { "(wrong)" } }
            }
        }
    }
}

/// The label, the prediction, and whether they agree; numbers never count as wrong.
fn words(run: &RunFolder, task: Task, slide: &Predicted) -> (String, String, bool) {
    let label = |label: &Label| match label {
        Label::Set(set) if !set.contains(&true) => "none".to_owned(),
        label => label.text(task, &run.names),
    };
    let truth = slide
        .label
        .as_ref()
        .map_or_else(|| "unknown".to_owned(), &label);
    if task == Task::Regression {
        return (truth, short(task.score(&slide.outputs)), true);
    }
    let predicted = task.predicted(&slide.outputs);
    let probability = match predicted.class() {
        Some(class) => task.probabilities(&slide.outputs).get(class).copied(),
        None => None,
    };
    let mut text = label(&predicted);
    if let Some(probability) = probability {
        text += &format!(", probability {probability:.3}");
    }
    let right = slide.label.as_ref().is_none_or(|truth| *truth == predicted);
    (truth, text, right)
}

/// The stored picture of a slide, or a new one of the slide; `None` where neither can be read.
fn thumbnail(run: &RunFolder, slide: &Path, page: &mut Page) -> Option<Vec<u8>> {
    let place = Path::new(FOLDER).join(picture(slide));
    if let Ok(jpeg) = std::fs::read(run.path.join(&place)) {
        return Some(jpeg);
    }
    let found = [slide.to_path_buf(), run.path.join(slide)]
        .into_iter()
        .find(|path| path.exists())?;
    let rgb = Slide::open(&found).ok()?.thumbnail(EDGE).ok()?;
    let jpeg = jpeg(rgb)?;
    page.files.push((place, jpeg.clone()));
    Some(jpeg)
}

/// Name of the picture of a slide: two slides of one name in two folders have two.
fn picture(slide: &Path) -> PathBuf {
    let hash = slide
        .as_os_str()
        .as_encoded_bytes()
        .iter()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
        });
    let stem = slide
        .file_stem()
        .map_or_else(String::new, |stem| file_name(&stem.to_string_lossy()));
    format!("{stem}-{hash:016x}.jpg").into()
}

/// The first picture in a folder `heatmaps`, of the training or of the run, that is called as the slide.
fn heat_map(run: &RunFolder, detail: &Detail<'_>, slide: &Path) -> Option<Vec<u8>> {
    let stem = slide.file_stem()?.to_string_lossy().into_owned();
    let folders = detail
        .members
        .iter()
        .map(|member| &member.path)
        .chain([&run.path]);
    for folder in folders {
        let Ok(entries) = std::fs::read_dir(folder.join("heatmaps")) else {
            continue;
        };
        let called = |path: &PathBuf| {
            let name = path
                .file_stem()
                .map_or_else(String::new, |stem| stem.to_string_lossy().into_owned());
            let rest = name.strip_prefix(&stem);
            let is_picture = path
                .extension()
                .is_some_and(|ending| ending == "png" || ending == "jpg");
            is_picture
                && rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['-', '_', '.']))
        };
        let mut found: Vec<PathBuf> = entries
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(called)
            .collect();
        found.sort();
        if let Some(picture) = found.first().and_then(|path| image::open(path).ok()) {
            return jpeg(picture.thumbnail(EDGE, EDGE).to_rgb8());
        }
    }
    None
}

fn jpeg(rgb: RgbImage) -> Option<Vec<u8>> {
    let mut bytes = Cursor::new(Vec::new());
    DynamicImage::ImageRgb8(rgb)
        .write_to(&mut bytes, ImageFormat::Jpeg)
        .ok()?;
    Some(bytes.into_inner())
}
