//! Folders of experiments, and runs in them.

use super::*;
use crate::data::Task;
use crate::model_file::Limits;
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
    let keys = first.runs();
    drop(first);
    assert_eq!(open(Settings::default(), samples()).unwrap().runs(), keys);

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
    for part in [
        "other slides",
        "`b.tif,1,train,` there",
        "`b.tif,0,train,` here",
    ] {
        assert!(error.contains(part), "{part:?} in {error}");
    }
    let mut more = samples();
    more.push(sample("e.tif", 1.0, Split::Train));
    let error = open(Settings::default(), more).unwrap_err();
    assert!(
        matches!(&error, TrainError::OtherSlides { folder: named, difference, .. }
            if named == folder.path() && difference == "there are 4 there and 5 here"),
        "{error}"
    );
}

#[test]
fn one_process_at_a_time_has_a_folder() {
    let folder = tempfile::tempdir().unwrap();
    let open = || {
        let settings = Settings::default();
        Experiment::open(folder.path(), settings, names(), round(samples()))
    };
    let first = open().unwrap();
    let is_in_use = || {
        let error = open().unwrap_err();
        let named = matches!(&error, TrainError::InUse { folder: named } if named == folder.path());
        assert!(
            named && error.to_string().contains("another process"),
            "{error}"
        );
    };
    is_in_use();
    // Whatever has a part in it keeps it.
    let part = first.clone();
    drop(first);
    is_in_use();
    drop(part);
    open().unwrap();
}

/// Slides that were moved are the same, and others in their place are not.
#[test]
fn slides_may_lie_in_another_folder_than_before() {
    let folder = tempfile::tempdir().unwrap();
    let place = |name: &str| folder.path().join(name);
    let write = |data: &str, contents: [&str; 4]| -> Vec<Sample> {
        std::fs::create_dir_all(place(data)).unwrap();
        let samples = samples().into_iter().zip(contents);
        let moved = samples.map(|(sample, content)| {
            let slide = place(data).join(&sample.slide);
            std::fs::write(&slide, content).unwrap();
            Sample { slide, ..sample }
        });
        moved.collect()
    };
    let contents = ["one", "two", "three", "four"];
    let open = |data: &str, samples: Vec<Sample>| {
        let mut settings = Settings::default();
        settings.data.csv = Some(place(data).join("slides.csv"));
        Experiment::open(place("run"), settings, names(), round(samples)).map(drop)
    };
    let stored = |name: &str| std::fs::read_to_string(place("run").join(name)).unwrap();
    open("here", write("here", contents)).unwrap();
    open("there", write("there", contents)).unwrap();
    for file in ["samples.csv", "run.toml"] {
        let text = stored(file);
        assert!(
            !text.contains("here/a.tif") || text.contains("/there/"),
            "{text}"
        );
        assert!(text.contains("/there/"), "{text}");
    }
    let before = [
        stored("samples.csv"),
        stored("run.toml"),
        stored("contents.csv"),
    ];

    let other = write("else", ["one", "two", "three", "FOUR"]);
    let error = open("else", other).unwrap_err().to_string();
    for part in ["other slides", "else/d.tif", "another content"] {
        assert!(error.contains(part), "{part:?} in {error}");
    }
    let mut relabelled = write("again", contents);
    relabelled[0].patient = Some("p".to_owned());
    let error = open("again", relabelled).unwrap_err().to_string();
    assert!(error.contains("line 2 is"), "{error}");
    let missing = write("gone", contents);
    std::fs::remove_file(place("gone/c.tif")).unwrap();
    let error = open("gone", missing).unwrap_err().to_string();
    assert!(error.contains("c.tif cannot be read"), "{error}");
    let after = [
        stored("samples.csv"),
        stored("run.toml"),
        stored("contents.csv"),
    ];
    assert_eq!(after, before);
}

/// Of three classes one has no slide to learn from, or none to test on.
#[test]
fn classes_without_a_slide_are_refused_or_told() {
    let folder = tempfile::tempdir().unwrap();
    let mut settings = Settings::default();
    settings.data.task = Task::Classification { classes: 3 };
    let open = |third: Split, name: &str| {
        let mut samples = samples();
        samples.push(sample("e.tif", 2.0, third));
        let names = ClassNames::new(["low", "mid", "high"]).unwrap();
        let rounds = vec![Round {
            name: Some("fold-1".to_owned()),
            samples,
        }];
        Experiment::open(folder.path().join(name), settings.clone(), names, rounds)
    };
    let error = open(Split::Test, "refused").unwrap_err().to_string();
    for part in ["the training split of fold-1", "`high`", "add some"] {
        assert!(error.contains(part), "{part:?} in {error}");
    }
    assert!(!folder.path().join("refused").exists());
    // A test split of one class, as that of a centre may be.
    let centre = vec![Round {
        name: Some("center-b".to_owned()),
        samples: samples()[..3].to_vec(),
    }];
    let place = folder.path().join("centre");
    let told = Experiment::open(place, Settings::default(), names(), centre).unwrap();
    let told: Vec<String> = told.warnings().iter().map(ToString::to_string).collect();
    assert_eq!(
        told,
        ["no slide of class `1` in the test split of center-b: it is not measured there"]
    );
    let told = open(Split::Train, "told").unwrap();
    let told: Vec<String> = told.warnings().iter().map(ToString::to_string).collect();
    assert_eq!(
        told,
        ["no slide of class `high` in the test split of fold-1: it is not measured there"]
    );
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
        matches!(&error, TrainError::AllSlidesFailed { phase, count: 2, slide, last }
            if phase == "epoch 1" && ["a.tif", "b.tif"].map(Path::new).contains(&slide.as_path())
                && last.starts_with(slide.to_str().unwrap())),
        "{error:?}"
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
    drop(several);
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
    let predictor =
        Predictor::open(&place.join("model.safetensors"), Limits::new(64 << 20, 1)).unwrap();
    assert_eq!(predictor.description().trained_by.slides, 4);
    assert!(result.result.planned_bytes > 0);
    let predicted = [Split::Validation, Split::Test].map(|split| of_split(&samples, split));
    let predicted = predicted.concat();
    let output = folder.path().join("predictions.csv");
    let found = predictor.predict(&predicted, &output, &stop, &mut NoObserver);
    assert_eq!(found.unwrap().predicted, 6);
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
    assert_eq!(expected.len(), 6);
    assert_eq!(column(&output, "output_0"), expected);
}
