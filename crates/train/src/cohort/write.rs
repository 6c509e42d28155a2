//! Writing a cohort as pyramidal TIFF files, cached in a folder.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use rayon::iter::{IntoParallelIterator, ParallelIterator};
use serde::{Deserialize, Serialize};
use stream_grad_slides::{
    Compression, MicronsPerPixel, PyramidLayout, PyramidOptions, PyramidWriter,
};

use super::anatomy::{Anatomy, Label};
use super::config::CohortConfig;
use super::paint::Painter;
use crate::data::{Sample, Split, write_table};
use crate::error::{Result, TrainError};
use crate::files::write_whole;

/// Changes whenever the same settings would give other pixels.
const GENERATOR: u32 = 2;
/// Name of the table of slides.
const TABLE: &str = "slides.csv";
/// Rows that are painted at a time.
const BAND: u32 = 256;

/// What a folder was made from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Manifest {
    generator: u32,
    settings: CohortConfig,
}

/// Is told how many slides of a cohort stand on disk, and of how many.
pub type CohortProgress<'a> = &'a (dyn Fn(usize, usize) + Sync);

/// Makes the cohort of `config` in `folder`, on all threads of the caller's rayon pool, and returns its slides with labels
/// and splits. Slides that are there already are kept, so a second call returns at once and a call that was cut off
/// goes on where it was. Returns `None` if `stop` was set before the end.
///
/// The folder holds `slide_NNNN.tif`, `slides.csv` (for [`read_table`](crate::data::read_table)) and `cohort.json`.
///
/// # Errors
/// [`TrainError::Setting`] for settings that cannot be used, [`TrainError::Checkpoint`] if the folder holds a cohort of other
/// settings or a table of other slides, [`TrainError::File`] or [`TrainError::Slide`] if it cannot be written to.
pub fn generate(
    config: &CohortConfig,
    folder: &Path,
    stop: &AtomicBool,
    progress: CohortProgress<'_>,
) -> Result<Option<Vec<Sample>>> {
    config.check()?;
    check_manifest(config, folder)?;
    let samples = samples(config, folder);
    let done = AtomicUsize::new(0);
    let tell = || progress(done.fetch_add(1, Ordering::Relaxed) + 1, samples.len());
    (0..samples.len()).into_par_iter().try_for_each(|index| {
        if stop.load(Ordering::Relaxed) {
            return Ok(());
        }
        // The writer renames complete files only, so a file that is there is whole.
        if !samples[index].slide.is_file() {
            write_slide(config, index, &samples[index])?;
        }
        tell();
        Ok::<(), TrainError>(())
    })?;
    if done.load(Ordering::Relaxed) < samples.len() {
        return Ok(None);
    }
    write_table(&folder.join(TABLE), &samples)?;
    Ok(Some(samples))
}

fn check_manifest(config: &CohortConfig, folder: &Path) -> Result<()> {
    let path = folder.join("cohort.json");
    let manifest = Manifest {
        generator: GENERATOR,
        settings: config.clone(),
    };
    if path.is_file() {
        let text = std::fs::read(&path).map_err(TrainError::file(&path))?;
        let found: Option<Manifest> = serde_json::from_slice(&text).ok();
        if found.as_ref() == Some(&manifest) {
            return Ok(());
        }
        return Err(TrainError::Checkpoint {
            path,
            expected: "a cohort of the same settings".to_owned(),
            found: "one of other settings; give another folder or remove this one".to_owned(),
        });
    }
    // It is written first: a table without it is someone else's.
    let table = folder.join(TABLE);
    if table.exists() {
        return Err(TrainError::Checkpoint {
            path: table,
            expected: "a folder without slides, or one with a made-up cohort".to_owned(),
            found: "a table of other slides; give another folder".to_owned(),
        });
    }
    let text = serde_json::to_vec_pretty(&manifest).map_err(TrainError::json(&path))?;
    write_whole(&path, &text)
}

/// Every slide with its label and split. Labels alternate; centres take turns among the slides of each label, so that
/// every split has all centres with both labels in equal parts.
fn samples(config: &CohortConfig, folder: &Path) -> Vec<Sample> {
    let sizes = config.splits;
    let splits = [
        (Split::Train, sizes.train),
        (Split::Validation, sizes.validation),
        (Split::Test, sizes.test),
    ];
    let mut samples = Vec::with_capacity(sizes.total());
    for (split, count) in splits {
        for place in 0..count {
            let slide = folder.join(format!("slide_{:04}.tif", samples.len()));
            let label = if place % 2 == 1 { 1.0 } else { 0.0 };
            samples.push(Sample {
                split: Some(split),
                patient: Some(format!("patient_{:04}", samples.len())),
                ..Sample::new(slide, label)
            });
        }
    }
    samples
}

fn write_slide(config: &CohortConfig, index: usize, sample: &Sample) -> Result<()> {
    let label = if sample.label > 0.5 {
        Label::Positive
    } else {
        Label::Negative
    };
    let centre = (index / 2) % config.centres.len().max(1);
    let anatomy = Anatomy::draw(
        config,
        u64::try_from(index).unwrap_or(u64::MAX),
        label,
        centre,
    )?;
    let painter = Painter::new(
        &anatomy,
        config.microns_per_pixel,
        config.artefacts.sensor_noise,
    );
    let options = PyramidOptions::default()
        .with_layout(PyramidLayout::Aperio)
        .with_compression(Compression::Jpeg {
            quality: config.jpeg_quality,
        })
        .with_microns_per_pixel(MicronsPerPixel::new(config.microns_per_pixel)?);
    let path: &PathBuf = &sample.slide;
    let mut writer = PyramidWriter::create(
        path,
        u64::from(painter.height()),
        u64::from(painter.width()),
        &options,
    )?;
    let mut pixels = Vec::new();
    let mut row = 0;
    while row < painter.height() {
        let end = (row + BAND).min(painter.height());
        painter.paint(row..end, &mut pixels);
        writer.write_rows(&pixels)?;
        row = end;
    }
    writer.finish()?;
    Ok(())
}
