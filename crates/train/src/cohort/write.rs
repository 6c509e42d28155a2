//! Writing a cohort as pyramidal TIFF files, cached in a folder.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rayon::iter::{IntoParallelIterator, ParallelIterator};
use serde::{Deserialize, Serialize};
use stream_grad_slides::{
    Compression, MicronsPerPixel, PyramidLayout, PyramidOptions, PyramidWriter,
};

use super::anatomy::{Anatomy, Truth};
use super::config::{CohortConfig, SLIDES_OF_A_PATIENT, Subject};
use super::manifest::check_manifest;
use super::paint::Painter;
use crate::data::{Label, NodeStage, PatientStage, Sample, Split, write_table};
use crate::error::{Result, TrainError};

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
    let manifest = Manifest {
        generator: GENERATOR,
        settings: config.clone(),
    };
    check_manifest(
        &folder.join("cohort.json"),
        &manifest,
        &[&folder.join(TABLE)],
    )?;
    let plans = plan(config, folder);
    let done = AtomicUsize::new(0);
    let tell = || progress(done.fetch_add(1, Ordering::Relaxed) + 1, plans.len());
    (0..plans.len()).into_par_iter().try_for_each(|index| {
        if stop.load(Ordering::Relaxed) {
            return Ok(());
        }
        // The writer renames complete files only, so a file that is there is whole.
        if !plans[index].sample.slide.is_file() {
            write_slide(config, index, &plans[index])?;
        }
        tell();
        Ok::<(), TrainError>(())
    })?;
    if done.load(Ordering::Relaxed) < plans.len() {
        return Ok(None);
    }
    let samples: Vec<Sample> = plans.into_iter().map(|plan| plan.sample).collect();
    write_table(&folder.join(TABLE), &samples)?;
    Ok(Some(samples))
}

/// A slide that is to be made.
struct Plan {
    truth: Truth,
    centre: usize,
    sample: Sample,
}

/// Every slide with its label and split. Classes and stages of patients take turns, and so do centres among the patients of
/// each, so that every split has all centres with all classes in equal parts.
fn plan(config: &CohortConfig, folder: &Path) -> Vec<Plan> {
    let sizes = config.splits;
    let splits = [
        (Split::Train, sizes.train),
        (Split::Validation, sizes.validation),
        (Split::Test, sizes.test),
    ];
    let mut rng = ChaCha8Rng::seed_from_u64(config.seed);
    // A stream that no slide draws from.
    rng.set_stream(u64::MAX);
    let mut plans: Vec<Plan> = Vec::with_capacity(sizes.total());
    for (split, count) in splits {
        for place in 0..count {
            let index = plans.len();
            let sample = Sample {
                split: Some(split),
                patient: Some(format!("patient_{index:04}")),
                ..Sample::unlabelled(folder.join(format!("slide_{index:04}.tif")))
            };
            plans.push(match config.subject {
                Subject::Metastasis => metastasis(sample, place, index),
                Subject::NodeStages => node_stage(sample, place, index),
                Subject::Mitoses {
                    per_square_millimetre: [low, high],
                } => mitoses(sample, low + (high - low) * rng.random::<f64>(), index),
            });
        }
    }
    plans
}

/// The slides of a cohort with their labels and splits, as [`generate`] would return them; none of them is made.
#[must_use]
pub fn samples(config: &CohortConfig, folder: &Path) -> Vec<Sample> {
    let plans = plan(config, folder).into_iter();
    plans.map(|plan| plan.sample).collect()
}

fn metastasis(sample: Sample, place: usize, index: usize) -> Plan {
    let is_positive = place % 2 == 1;
    Plan {
        truth: if is_positive {
            Truth::Positive
        } else {
            Truth::Negative
        },
        centre: index / 2,
        sample: Sample {
            label: Some(Label::of_class(usize::from(is_positive))),
            ..sample
        },
    }
}

/// Stages of the slides of patients of each stage, in turns; every other patient of a stage has more disease.
const PATIENTS: [[NodeStage; SLIDES_OF_A_PATIENT]; 10] = {
    use NodeStage::{Itc, Macro, Micro, Negative};
    [
        [Negative, Negative, Negative, Negative, Negative],
        [Negative, Itc, Negative, Negative, Negative],
        [Negative, Micro, Negative, Itc, Negative],
        [Macro, Negative, Negative, Negative, Negative],
        [Macro, Micro, Negative, Macro, Micro],
        [Negative, Negative, Negative, Negative, Negative],
        [Itc, Negative, Itc, Negative, Negative],
        [Micro, Negative, Micro, Negative, Negative],
        [Negative, Macro, Micro, Itc, Negative],
        [Macro, Macro, Micro, Macro, Itc],
    ]
};

fn node_stage(sample: Sample, place: usize, index: usize) -> Plan {
    let stage = PATIENTS[place / SLIDES_OF_A_PATIENT % PATIENTS.len()][place % SLIDES_OF_A_PATIENT];
    let patient = index / SLIDES_OF_A_PATIENT;
    Plan {
        truth: Truth::Stage(stage),
        // As many patients as there are stages have one centre, then the next.
        centre: patient / PatientStage::ALL.len(),
        sample: Sample {
            label: Some(stage.label()),
            patient: Some(format!("patient_{patient:04}")),
            ..sample
        },
    }
}

fn mitoses(sample: Sample, density: f64, index: usize) -> Plan {
    let is_test = sample.split == Some(Split::Test);
    Plan {
        truth: Truth::Mitoses(density),
        centre: index,
        sample: Sample {
            label: (!is_test).then_some(Label::Number(density)),
            split: sample.split.filter(|_| is_test),
            ..sample
        },
    }
}

fn write_slide(config: &CohortConfig, index: usize, plan: &Plan) -> Result<()> {
    let centre = plan.centre % config.centres.len().max(1);
    let index = u64::try_from(index).unwrap_or(u64::MAX);
    let anatomy = Anatomy::draw(config, index, plan.truth, centre)?;
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
    let path: &PathBuf = &plan.sample.slide;
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
