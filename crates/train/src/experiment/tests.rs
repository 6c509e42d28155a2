//! Folders of experiments, and runs in them.

use super::*;
use crate::data::Task;
use crate::trainer::NoObserver;

fn sample(name: &str, label: f64, split: Split) -> Sample {
    Sample {
        split: Some(split),
        ..Sample::new(name, label)
    }
}

/// One round.
fn round(samples: Vec<Sample>) -> Vec<Round> {
    vec![Round {
        name: None,
        samples,
    }]
}

fn names() -> ClassNames {
    ClassNames::numbered(Task::Binary)
}

fn samples() -> Vec<Sample> {
    vec![
        sample("a.tif", 0.0, Split::Train),
        sample("b.tif", 1.0, Split::Train),
        sample("c.tif", 0.0, Split::Test),
        sample("d.tif", 1.0, Split::Test),
    ]
}

#[test]
fn a_folder_belongs_to_one_experiment() {
    let folder = tempfile::tempdir().unwrap();
    let open =
        |settings, samples| Experiment::open(folder.path(), settings, names(), round(samples));
    let first = open(Settings::default(), samples()).unwrap();
    assert_eq!(open(Settings::default(), samples()).unwrap(), first);

    let mut settings = Settings::default();
    settings.train.epochs += 1;
    let error = open(settings, samples()).unwrap_err().to_string();
    assert!(
        error.contains("train.epochs is 20 there and 21 here"),
        "{error}"
    );

    let mut others = samples();
    others[1].label = Some(0.0.into());
    others.push(sample("e.tif", 1.0, Split::Train));
    let error = open(Settings::default(), others).unwrap_err().to_string();
    assert!(error.contains("other slides"), "{error}");
}

#[test]
fn samples_without_a_split_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let mut some = samples();
    some[2].split = None;
    let error =
        Experiment::open(folder.path(), Settings::default(), names(), round(some)).unwrap_err();
    for part in ["1 of 4", "c.tif", "without"] {
        assert!(error.to_string().contains(part), "{part:?} in {error}");
    }
}

#[test]
fn one_content_in_two_splits_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let samples: Vec<Sample> = samples()
        .into_iter()
        .map(|sample| {
            let slide = folder.path().join(&sample.slide);
            let content = if sample.label == Some(1.0.into()) {
                "one content"
            } else {
                ""
            };
            std::fs::write(&slide, content).unwrap();
            Sample { slide, ..sample }
        })
        .collect();
    let run = folder.path().join("run");
    let experiment = Experiment::open(run, Settings::default(), names(), round(samples)).unwrap();
    let [warning] = experiment.warnings() else {
        panic!("{:?}", experiment.warnings())
    };
    for part in ["b.tif", "d.tif", "TWO SPLITS, train and test"] {
        assert!(warning.to_string().contains(part), "{part:?} in {warning}");
    }
}

#[test]
fn one_class_is_refused_before_anything_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().join("run");
    let mut one_class = samples();
    one_class[3].label = Some(0.0.into());
    let error =
        Experiment::open(&place, Settings::default(), names(), round(one_class)).unwrap_err();
    assert!(error.to_string().contains("the test split"), "{error}");
    assert!(!place.exists());
}

/// Slides that are not there are skipped one by one, and the run says so when none is left.
#[test]
fn a_run_without_a_readable_slide_fails() {
    let folder = tempfile::tempdir().unwrap();
    let rounds = round(samples());
    let experiment = Experiment::open(folder.path(), Settings::default(), names(), rounds).unwrap();
    let stop = AtomicBool::new(false);
    let key = &experiment.runs()[0];
    let error = experiment.run(key, &stop, &mut NoObserver).unwrap_err();
    assert!(
        matches!(error, TrainError::AllSlidesFailed { .. }),
        "{error}"
    );
    assert!(!folder.path().join("8-microns/result.json").exists());
}

#[test]
fn every_resolution_seed_and_round_has_a_folder_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let mut settings = Settings::default();
    settings.data.microns_per_pixel = vec![8.0, 0.5];
    let open = |settings: &Settings, rounds, name: &str| {
        let place = folder.path().join(name);
        Experiment::open(place, settings.clone(), names(), rounds).unwrap()
    };
    let folders = |experiment: &Experiment| -> Vec<String> {
        experiment.runs().iter().map(RunKey::to_string).collect()
    };
    let one = open(&settings, round(samples()), "one");
    assert_eq!(folders(&one), ["8-microns", "0.5-microns"]);
    settings.train.seed = 4;
    settings.train.seeds = 2;
    settings.data.microns_per_pixel = vec![8.0];
    let other_splits: Vec<Sample> = samples()
        .into_iter()
        .map(|sample| Sample {
            split: match sample.split {
                Some(Split::Train) => Some(Split::Test),
                _ => Some(Split::Train),
            },
            ..sample
        })
        .collect();
    let rounds = [("fold-1", samples()), ("fold-2", other_splits)];
    let rounds = rounds.map(|(name, samples)| Round {
        name: Some(name.to_owned()),
        samples,
    });
    let several = open(&settings, rounds.to_vec(), "several");
    assert_eq!(
        folders(&several),
        [
            "8-microns-seed-4-fold-1",
            "8-microns-seed-5-fold-1",
            "8-microns-seed-4-fold-2",
            "8-microns-seed-5-fold-2"
        ]
    );
    let slides = |place: usize, split| -> Vec<PathBuf> {
        let samples = several.split(&several.runs()[place], split);
        samples.into_iter().map(|sample| sample.slide).collect()
    };
    assert_eq!(slides(0, Split::Train), slides(2, Split::Test));
    let table = folder.path().join("several/samples.csv");
    let table = std::fs::read_to_string(table).unwrap();
    let lines: Vec<&str> = table.lines().collect();
    assert_eq!(lines[0], "slide,label,split,patient,fold-1,fold-2");
    assert_eq!(lines[1], "a.tif,0,,,train,test");
    // The same again, and other rounds not.
    open(&settings, rounds.to_vec(), "several");
    let place = folder.path().join("several");
    let error = Experiment::open(place, settings, names(), rounds[..1].to_vec());
    assert!(error.unwrap_err().to_string().contains("other slides"));
}

/// A cohort of real files, trained on: the model file predicts what the run predicted, bit for bit.
#[test]
fn the_model_file_of_a_run_predicts_what_the_run_did() {
    use crate::cohort::{CohortConfig, SplitSizes, generate};
    use crate::predict::Predictor;

    let folder = tempfile::tempdir().unwrap();
    let cohort = CohortConfig {
        splits: SplitSizes {
            train: 4,
            validation: 2,
            test: 4,
        },
        edge_microns: [320.0, 384.0],
        ..CohortConfig::default()
    };
    let stop = AtomicBool::new(false);
    let made = generate(&cohort, &folder.path().join("cohort"), &stop, &|_, _| ());
    let samples = made.unwrap().unwrap();
    let mut settings = Settings::default();
    settings.data.microns_per_pixel = vec![8.0];
    settings.data.read.mean = [0.8, 0.6, 0.7];
    settings.model.name = "small-2x1".to_owned();
    settings.train.epochs = 2;
    settings.train.batch_size = 2;
    settings.train.ema_decay = Some(0.5);
    let run = folder.path().join("run");
    let rounds = round(samples.clone());
    let experiment = Experiment::open(&run, settings, names(), rounds).unwrap();
    let key = &experiment.runs()[0];
    let result = experiment.run(key, &stop, &mut NoObserver);
    let result = result.unwrap().unwrap();
    let again = experiment
        .run(key, &stop, &mut NoObserver)
        .unwrap()
        .unwrap();
    assert_eq!(result, again);

    let place = run.join("8-microns");
    let predictor = Predictor::open(&place.join("model.safetensors"), 64 << 20, 1).unwrap();
    assert_eq!(predictor.description().trained_by.slides, 4);
    let test = of_split(&samples, Split::Test);
    let output = folder.path().join("predictions.csv");
    let found = predictor.predict(&test, &output, &stop, &mut NoObserver);
    assert_eq!(found.unwrap().predicted, 4);
    let column = |path: &Path, name: &str| -> Vec<(String, u64)> {
        let mut reader = csv::Reader::from_path(path).unwrap();
        let headings = reader.headers().unwrap().clone();
        let place = headings.iter().position(|heading| heading == name).unwrap();
        let mut rows: Vec<(String, u64)> = reader
            .records()
            .map(|record| {
                let record = record.unwrap();
                let output: f64 = record[place].parse().unwrap();
                (record[0].to_owned(), output.to_bits())
            })
            .collect();
        rows.sort();
        rows
    };
    let expected = column(&place.join("predictions.csv"), "logit_0");
    assert_eq!(expected.len(), 4);
    assert_eq!(column(&output, "output_0"), expected);
}
