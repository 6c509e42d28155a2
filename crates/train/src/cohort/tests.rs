//! The cohort repeats, reads back as slides, and does not give labels away by colour.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use stream_grad_slides::{MicronsPerPixel, Slide, Target};

use super::anatomy::{Anatomy, Truth};
use super::paint::Painter;
use super::*;
use crate::data::{self, DataSettings, Sample, Split, Task, of_split, read_table};

fn small(train: usize, test: usize) -> CohortConfig {
    CohortConfig {
        splits: SplitSizes {
            train,
            validation: 2,
            test,
        },
        edge_microns: [320.0, 384.0],
        ..CohortConfig::default()
    }
}

fn make(config: &CohortConfig, folder: &Path) -> Vec<Sample> {
    generate(config, folder, &AtomicBool::new(false), &|_, _| {})
        .unwrap()
        .unwrap()
}

#[test]
fn slides_repeat_and_read_back_with_their_scale() {
    let config = small(4, 2);
    let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let samples = make(&config, first.path());
    make(&config, second.path());
    assert_eq!(samples.len(), 8);
    for sample in &samples {
        let again = second.path().join(sample.slide.file_name().unwrap());
        assert!(
            std::fs::read(&sample.slide).unwrap() == std::fs::read(again).unwrap(),
            "{}",
            sample.slide.display()
        );
        let slide = Slide::open(&sample.slide).unwrap();
        assert!((slide.scale().unwrap().y.get() - 1.0).abs() < 1e-9);
        assert_eq!(slide.levels().len(), 2);
        assert_eq!(slide.associated_image_names().unwrap(), ["thumbnail"]);
        let coarse = slide
            .view(Target::MicronsPerPixel(MicronsPerPixel::new(2.0).unwrap()))
            .unwrap();
        assert_eq!(coarse.extent().height, slide.extent().height.div_ceil(2));
        assert!(
            slide.extent().height.is_multiple_of(64)
                && (320..=384).contains(&slide.extent().height)
        );
    }
    assert_eq!(
        read_table(&first.path().join("slides.csv"), Task::Binary).unwrap(),
        samples
    );
    assert_eq!(
        Split::ALL.map(|split| of_split(&samples, split).len()),
        [4, 2, 2]
    );
}

#[test]
fn a_table_of_other_slides_is_not_written_over() {
    let folder = tempfile::tempdir().unwrap();
    let table = folder.path().join("slides.csv");
    std::fs::write(&table, "slide,label\na.svs,1\n").unwrap();
    let made = generate(
        &small(4, 2),
        folder.path(),
        &AtomicBool::new(false),
        &|_, _| {},
    );
    let error = made.unwrap_err().to_string();
    assert!(error.contains("slides.csv"), "{error}");
    assert_eq!(std::fs::read(&table).unwrap(), b"slide,label\na.svs,1\n");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn a_cut_off_call_goes_on_and_other_settings_are_refused() {
    let config = small(6, 2);
    let folder = tempfile::tempdir().unwrap();
    let stop = AtomicBool::new(false);
    let told = AtomicUsize::new(0);
    let stopped = generate(&config, folder.path(), &stop, &|_, _| {
        told.fetch_add(1, Ordering::Relaxed);
        stop.store(true, Ordering::Relaxed);
    });
    assert!(stopped.unwrap().is_none());
    let count = |folder: &Path| {
        std::fs::read_dir(folder)
            .unwrap()
            .filter(|e| {
                e.as_ref()
                    .unwrap()
                    .path()
                    .extension()
                    .is_some_and(|e| e == "tif")
            })
            .count()
    };
    let before = count(folder.path());
    assert!((1..10).contains(&before), "{before}");
    assert!(!folder.path().join("slides.csv").exists());
    assert_eq!(make(&config, folder.path()).len(), 10);
    assert_eq!(count(folder.path()), 10);
    let other = CohortConfig { seed: 18, ..config };
    let error = generate(&other, folder.path(), &AtomicBool::new(false), &|_, _| {})
        .unwrap_err()
        .to_string();
    assert!(error.contains("cohort.json"), "{error}");
}

/// A pixel depends on its coordinates, not on the band it is painted in.
#[test]
fn bands_do_not_show() {
    let config = CohortConfig {
        artefacts: ArtefactConfig {
            fold_chance: 1.0,
            pen_chance: 1.0,
            ..ArtefactConfig::default()
        },
        ..small(2, 2)
    };
    let anatomy = Anatomy::draw(&config, 3, Truth::Positive, 1).unwrap();
    let painter = Painter::new(&anatomy, 1.0, 1.5);
    let (mut whole, mut band) = (Vec::new(), Vec::new());
    painter.paint(0..painter.height(), &mut whole);
    let mut bands = Vec::new();
    let mut row = 0_u32;
    for rows in [1, 7, 64, 100, u32::MAX] {
        let end = row.max(painter.height().min(row.saturating_add(rows)));
        painter.paint(row..end, &mut band);
        bands.extend_from_slice(&band);
        row = end;
    }
    assert!(whole == bands);
}

#[test]
fn bad_settings_are_refused() {
    let bad = [
        CohortConfig {
            microns_per_pixel: 0.0,
            ..small(2, 2)
        },
        CohortConfig {
            edge_microns: [300.0, 200.0],
            ..small(2, 2)
        },
        CohortConfig {
            jpeg_quality: 0,
            ..small(2, 2)
        },
        CohortConfig {
            centres: Vec::new(),
            ..small(2, 2)
        },
        CohortConfig {
            anatomy: AnatomyConfig {
                reactive_share: [0.5, f64::NAN],
                ..AnatomyConfig::default()
            },
            ..small(2, 2)
        },
        CohortConfig {
            anatomy: AnatomyConfig {
                regions: [0, 3],
                ..AnatomyConfig::default()
            },
            ..small(2, 2)
        },
    ];
    for config in bad {
        assert!(
            config.check().unwrap_err().to_string().contains("cohort."),
            "{config:?}"
        );
    }
    CohortConfig::default().check().unwrap();
}

/// The check of a leak, on slides as they are read for training. By chance an area under the curve of 240 slides has a standard
/// deviation of 0.037 (Mann and Whitney): 0.39 to 0.61 are three of them. That the check would find a leak is shown by
/// itself: it tells a laboratory's stain from the others'.
#[test]
fn colour_does_not_give_the_label_away() {
    let config = CohortConfig {
        splits: SplitSizes {
            train: 120,
            validation: 0,
            test: 120,
        },
        edge_microns: [512.0, 512.0],
        ..CohortConfig::default()
    };
    let folder = tempfile::tempdir().unwrap();
    let samples = make(&config, folder.path());
    let levels = DataSettings::default().microns_per_pixel;
    for check in leak_check(&samples, Task::Binary, &levels, 1).unwrap() {
        for area in [check.colour, check.cellularity] {
            assert!((0.39..0.61).contains(&area), "{check}");
        }
        assert_eq!((check.metric, check.slides), ("AUC", 240));
    }
    let by_centre: Vec<Sample> = samples
        .iter()
        .enumerate()
        .map(|(index, sample)| Sample {
            label: Some(data::Label::of_class(usize::from(index / 2 % 3 == 0))),
            ..sample.clone()
        })
        .collect();
    for check in leak_check(&by_centre, Task::Binary, &levels, 1).unwrap() {
        assert!(check.colour > 0.9, "{check}");
    }
}

/// The same for the density of mitotic figures. By chance Spearman's correlation of 160 slides has a standard deviation of 0.08. That
/// the check would find a leak is shown by slides whose number of nuclei is the label.
#[test]
fn colour_and_cellularity_do_not_give_mitoses_away() {
    let config = CohortConfig {
        splits: SplitSizes {
            train: 160,
            validation: 0,
            test: 0,
        },
        ..CohortConfig::mitoses()
    };
    let folder = tempfile::tempdir().unwrap();
    let samples = make(&config, folder.path());
    for check in leak_check(&samples, Task::Regression, &[8.0, 4.0, 2.0], 1).unwrap() {
        for correlation in [check.colour, check.cellularity] {
            assert!(correlation.abs() < 0.24, "{check}");
        }
        assert_eq!(check.metric, "Spearman");
    }
    let by_nuclei: Vec<Sample> = samples
        .iter()
        .zip(0_u64..)
        .map(|(sample, index)| {
            let density = sample.label.as_ref().and_then(data::Label::number).unwrap();
            let centre = usize::try_from(index).unwrap() % 3;
            let truth = Truth::Mitoses(density);
            let anatomy = Anatomy::draw(&config, index, truth, centre).unwrap();
            let area: f64 = anatomy
                .nuclei
                .iter()
                .map(|nucleus| {
                    nucleus.density * (nucleus.radius.powi(2) - nucleus.pale_radius.powi(2))
                })
                .sum();
            Sample::new(&sample.slide, area / anatomy.extent[0] / anatomy.extent[1])
        })
        .collect();
    for check in leak_check(&by_nuclei, Task::Regression, &[8.0, 2.0], 1).unwrap() {
        assert!(check.cellularity > 0.7, "{check}");
    }
}

/// A mitotic figure is three small nuclei in the place of a large one, and nothing else differs between two scores.
#[test]
fn a_score_is_the_density_of_mitotic_figures() {
    let config = CohortConfig::mitoses();
    let draw = |density| Anatomy::draw(&config, 5, Truth::Mitoses(density), 1).unwrap();
    let (none, some) = (draw(0.0), draw(60.0));
    let square_millimetres = none.extent[0] * none.extent[1] * 1e-6;
    let large = |anatomy: &Anatomy| {
        let nuclei = anatomy.nuclei.iter();
        nuclei.filter(|nucleus| nucleus.pale_radius > 0.0).count()
    };
    let figures = large(&none) - large(&some);
    assert_eq!(some.nuclei.len() - none.nuclei.len(), 2 * figures);
    assert!((figures as f64 - 60.0 * square_millimetres).abs() <= 0.5);
    let too_many = Anatomy::draw(&config, 5, Truth::Mitoses(5000.0), 1).unwrap_err();
    assert!(
        too_many.to_string().contains("per_square_millimetre"),
        "{too_many}"
    );
}

/// Slides with a score have no split, so that they can be dealt into folds; the others have no label.
#[test]
fn mitoses_are_for_cross_validation() {
    let config = CohortConfig {
        splits: SplitSizes {
            train: 6,
            validation: 0,
            test: 2,
        },
        ..CohortConfig::mitoses()
    };
    let folder = tempfile::tempdir().unwrap();
    let samples = make(&config, folder.path());
    let scores: Vec<f64> = samples
        .iter()
        .filter_map(|s| s.label.as_ref()?.number())
        .collect();
    assert_eq!(scores.len(), 6);
    assert!(
        scores.iter().all(|score| (5.0..85.0).contains(score)),
        "{scores:?}"
    );
    assert!(samples[..6].iter().all(|sample| sample.split.is_none()));
    assert!(
        samples[6..]
            .iter()
            .all(|sample| sample.split == Some(Split::Test))
    );
    let settings = DataSettings {
        folds: Some(3),
        task: Task::Regression,
        ..DataSettings::default()
    };
    assert_eq!(settings.rounds(&samples, 0).unwrap().len(), 3);
    let table = folder.path().join("slides.csv");
    assert_eq!(read_table(&table, Task::Regression).unwrap(), samples);
}

/// All five stages of patients, each in every split and, where there are enough, at every centre; slides show what they say.
#[test]
fn node_stages_are_those_of_patients_of_five_slides() {
    let config = CohortConfig {
        splits: SplitSizes {
            train: 75,
            validation: 25,
            test: 25,
        },
        ..CohortConfig::node_stages()
    };
    config.check().unwrap();
    let samples = samples(&config, Path::new("cohort"));
    for split in Split::ALL {
        let slides = of_split(&samples, split);
        let own: Vec<data::Label> = slides.iter().map(|s| s.label.clone().unwrap()).collect();
        let stages = data::patient_stages(slides.iter().zip(&own));
        let found: std::collections::BTreeSet<_> =
            stages.iter().map(|(_, truth, _)| *truth).collect();
        assert_eq!(found.len(), 5, "{split:?}");
        assert!(
            stages
                .iter()
                .all(|(_, truth, predicted)| truth == predicted)
        );
        assert_eq!(stages.len() * 5, slides.len());
    }
    data::check_patients(&samples).unwrap();
    let large = |stage| {
        let anatomy = Anatomy::draw(&config, 3, Truth::Stage(stage), 0).unwrap();
        let nuclei = anatomy.nuclei.iter();
        nuclei.filter(|nucleus| nucleus.pale_radius > 0.0).count()
    };
    let counts = data::NodeStage::ALL.map(large);
    assert!(
        counts.is_sorted() && counts[0] < counts[1] && counts[2] < counts[3],
        "{counts:?}"
    );
    let uneven = CohortConfig {
        splits: SplitSizes {
            train: 7,
            ..config.splits
        },
        ..config
    };
    assert!(
        uneven
            .check()
            .unwrap_err()
            .to_string()
            .contains("cohort.splits")
    );
}
