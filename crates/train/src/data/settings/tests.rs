//! Tables with columns of any name, classes as text, and the rounds that settings ask for.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use tempfile::TempDir;

use super::*;
use crate::data::{Label, Split};

/// A folder with three slides and a table.
fn folder(table: &str) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for name in ["a.svs", "b.svs", "c.tif"] {
        fs::write(folder.path().join(name), name).unwrap();
    }
    fs::write(folder.path().join("cases.csv"), table).unwrap();
    folder
}

fn settings() -> DataSettings {
    DataSettings {
        csv: Some("cases.csv".into()),
        ..DataSettings::default()
    }
}

fn labels(data: &DataSet) -> Vec<Option<Label>> {
    data.samples
        .iter()
        .map(|sample| sample.label.clone())
        .collect()
}

fn class(number: usize) -> Option<Label> {
    Some(Label::of_class(number))
}

#[test]
fn columns_have_any_name() {
    let folder = folder(
        "Case ID;Slide No;Grade;Part;Scale;label;age\np1;a;high;test;0.5;x;61\np2;b.svs;low;;;y;47\np3;c;;train;;z;\n",
    );
    let settings = DataSettings {
        slide_column: "slide no".to_owned(),
        label_column: "grade".into(),
        patient_column: "Case ID".to_owned(),
        split_column: "part".to_owned(),
        microns_per_pixel_column: "scale".to_owned(),
        classes: vec!["low".to_owned(), "high".to_owned()],
        ..settings()
    };
    let data = settings.load(folder.path()).unwrap();
    assert_eq!(labels(&data), [class(1), class(0), None]);
    let first = &data.samples[0];
    assert_eq!(first.slide, folder.path().join("a.svs"));
    assert_eq!(
        (first.patient.as_deref(), first.split),
        (Some("p1"), Some(Split::Test))
    );
    assert_eq!(first.microns_per_pixel.unwrap().get(), 0.5);
    let further: Vec<_> = first
        .further
        .iter()
        .map(|cell| (cell.column.as_str(), cell.text.as_str()))
        .collect();
    assert_eq!(further, [("label (table)", "x"), ("age", "61")]);
    assert_eq!(data.notices, ["3 slides, 2 with a label"]);
    // What was read can be written.
    let path = folder.path().join("samples.csv");
    crate::data::write_table(&path, &data.samples).unwrap();
    let again = crate::data::read_table(&path, Task::Binary).unwrap();
    assert_eq!(again, data.samples);
}

#[test]
fn a_column_that_is_not_there_is_named_with_those_that_are() {
    let folder = folder("slide,Grade,case\na,1,p\n");
    let with = |change: &dyn Fn(&mut DataSettings)| {
        let mut settings = DataSettings {
            label_column: "grade".into(),
            ..settings()
        };
        change(&mut settings);
        settings.load(folder.path()).unwrap_err().to_string()
    };
    let label = with(&|settings| settings.label_column = "grades".into());
    for part in ["column `grades`", "`label_column`", "it has `Grade`, "] {
        assert!(label.contains(part), "{part:?} in {label:?}");
    }
    let patient = with(&|settings| settings.patient_column = "cases".to_owned());
    for part in ["`cases`", "`patient_column`", "it has `case`, "] {
        assert!(patient.contains(part), "{part:?} in {patient:?}");
    }
    let slide = with(&|settings| settings.slide_column = "slides".to_owned());
    assert!(
        slide.contains("a column `slides`") && slide.contains("`slide`, "),
        "{slide}"
    );
    let left_out = DataSettings {
        label_column: "grade".into(),
        leave_one_out: Some("centre".to_owned()),
        ..settings()
    };
    let samples = left_out.load(folder.path()).unwrap().samples;
    let error = left_out.rounds(&samples, 0).unwrap_err().to_string();
    assert!(
        error.contains("`centre`") && error.contains("leave_one_out"),
        "{error}"
    );
}

#[test]
fn classes_that_are_text_are_in_the_order_of_the_alphabet() {
    let folder = folder("slide,label\na,macro\nb,itc\nc,negative\n");
    let three = DataSettings {
        task: Task::Classification { classes: 3 },
        ..settings()
    };
    let data = three.load(folder.path()).unwrap();
    assert_eq!(labels(&data), [class(1), class(0), class(2)]);
    assert_eq!(
        data.notices[1],
        "classes in the order of the alphabet: 0 is `itc`, 1 is `macro`, 2 is `negative` (`classes` gives another order)"
    );
    let ordered = DataSettings {
        classes: ["negative", "itc", "macro"].map(str::to_owned).into(),
        ..three.clone()
    };
    let data = ordered.load(folder.path()).unwrap();
    assert_eq!(labels(&data), [class(2), class(1), class(0)]);
    assert_eq!(data.notices.len(), 1);

    let two = settings().load(folder.path()).unwrap_err().to_string();
    for part in ["line 4", "`negative`", "`macro` (line 2), `itc` (line 3)"] {
        assert!(two.contains(part), "{part:?} in {two:?}");
    }
    let unknown = DataSettings {
        classes: ["negative", "itc", "micro"].map(str::to_owned).into(),
        ..three
    };
    let error = unknown.load(folder.path()).unwrap_err().to_string();
    for part in [
        "line 2",
        "`label`",
        "`macro`",
        "one of negative, itc, micro",
    ] {
        assert!(error.contains(part), "{part:?} in {error:?}");
    }
}

#[test]
fn labels_that_cannot_be_read_are_named_by_row_and_column() {
    let four = Task::Classification { classes: 4 };
    for (table, task, parts) in [
        (
            "slide,label\na,1\nb,2\n",
            Task::Binary,
            vec!["line 3", "`label`", "`2`", "0 to 1"],
        ),
        (
            "slide,label\na,yes\nb,NA\n",
            Task::Binary,
            vec!["line 3", "`NA`", "to be predicted"],
        ),
        (
            "slide,label\na,yes\nb,yes\n",
            Task::Binary,
            vec!["2 names", "1 (yes)"],
        ),
        ("slide,label\na,x\nb,y\n", four, vec!["4 names", "2 (x, y)"]),
        (
            "slide,label\na,1.5\nb,high\n",
            Task::Regression,
            vec!["line 3", "`high`", "finite"],
        ),
        ("slide,label\na,1\nx,0\n", Task::Binary, vec!["1 of 2", "x"]),
        ("slide,label\n", Task::Binary, vec!["no rows"]),
    ] {
        let folder = folder(table);
        let settings = DataSettings { task, ..settings() };
        let error = settings.load(folder.path()).unwrap_err().to_string();
        for part in parts {
            assert!(error.contains(part), "{part:?} in {error:?}");
        }
    }
}

#[test]
fn several_labels_are_one_column_or_one_each() {
    let set = |labels: [bool; 2]| Some(Label::Set(labels.into()));
    let two = Task::MultiLabel { labels: 2 };
    let one = folder("slide,label\na,necrosis;fat\nb,;\nc,\n");
    let settings_of_one = DataSettings {
        task: two,
        ..settings()
    };
    let data = settings_of_one.load(one.path()).unwrap();
    assert_eq!(
        labels(&data),
        [set([true, true]), set([false, false]), None]
    );
    assert_eq!(
        data.classes,
        crate::data::ClassNames::new(["fat", "necrosis"]).unwrap()
    );

    let each = folder("slide,Fat,necrosis\na,1,no\nb,0,0\nc,,\n");
    let columns = |names: &[&str]| {
        LabelColumn::Several(names.iter().map(|name| (*name).to_owned()).collect())
    };
    let settings_of_each = DataSettings {
        task: two,
        label_column: columns(&["fat", "necrosis"]),
        ..settings()
    };
    let data = settings_of_each.load(each.path()).unwrap();
    assert_eq!(
        labels(&data),
        [set([true, false]), set([false, false]), None]
    );
    assert!(data.samples[0].further.is_empty());

    let wrong = folder("slide,fat,necrosis\na,1,maybe\nb,,1\n");
    let error = settings_of_each.load(wrong.path()).unwrap_err().to_string();
    assert!(
        error.contains("line 2") && error.contains("`necrosis`") && error.contains("`maybe`"),
        "{error}"
    );
    let three = DataSettings {
        label_column: columns(&["fat", "necrosis", "mitosis"]),
        ..settings_of_each
    };
    assert!(
        three
            .check()
            .unwrap_err()
            .to_string()
            .contains("data.label_column")
    );
    let binary = DataSettings {
        label_column: columns(&["fat"]),
        ..settings()
    };
    assert!(
        binary
            .check()
            .unwrap_err()
            .to_string()
            .contains("one label")
    );
}

#[test]
fn slides_to_predict_need_no_label() {
    let folder = folder("slide,age\na,61\n");
    assert!(matches!(
        settings().load(folder.path()),
        Err(TrainError::NoColumn { column, setting: "label_column", .. }) if column == "label"
    ));
    let data = settings().load_to_predict(folder.path()).unwrap();
    assert_eq!(
        (labels(&data), data.samples[0].further.len()),
        (vec![None], 1)
    );
    let plain = DataSettings {
        folder: Some(folder.path().into()),
        ..DataSettings::default()
    };
    let data = plain.load_to_predict("".as_ref()).unwrap();
    assert_eq!(labels(&data), [None, None, None]);
    assert_eq!(
        data.notices,
        ["a folder of 3 slides without labels, to predict"]
    );
}

#[test]
fn slides_lie_in_another_folder_and_lack_their_extension() {
    let folder = folder("slide,label\na,1\nb,0\n");
    let slides = tempfile::tempdir().unwrap();
    for name in ["a.mrxs", "b.ndpi"] {
        fs::write(slides.path().join(name), name).unwrap();
    }
    let settings = DataSettings {
        folder: Some(slides.path().into()),
        ..settings()
    };
    let data = settings.load(folder.path()).unwrap();
    assert_eq!(data.samples[1].slide, slides.path().join("b.ndpi"));
    fs::write(slides.path().join("b.tif"), "another").unwrap();
    let error = settings.load(folder.path()).unwrap_err().to_string();
    assert!(
        error.contains("b.ndpi") && error.contains("b.tif"),
        "{error}"
    );
}

#[test]
fn settings_survive_toml_and_bad_ones_are_named() {
    let settings = DataSettings {
        label_column: LabelColumn::Several(vec!["a".to_owned(), "b".to_owned()]),
        task: Task::MultiLabel { labels: 2 },
        layout: Some(Layout::StreamingPipeline),
        folds: Some(5),
        ..settings()
    };
    let text = toml::to_string_pretty(&settings).unwrap();
    assert!(text.contains("layout = \"streaming_pipeline\""), "{text}");
    assert_eq!(toml::from_str::<DataSettings>(&text).unwrap(), settings);
    assert_eq!(
        toml::from_str::<DataSettings>("").unwrap(),
        DataSettings::default()
    );
    for (text, part) in [
        ("folds = 2", "data.folds"),
        (
            "folds = 3\nleave_one_out = \"center\"",
            "data.leave_one_out",
        ),
        ("microns_per_pixel = [0.0]", "data.microns_per_pixel"),
        ("slide_column = \" \"", "data.slide_column"),
        ("label_column = \"\"", "data.label_column"),
        ("classes = [\"a\", \"b\", \"c\"]", "classes"),
        ("splits = { validation = 0.5, test = 0.5 }", "data.splits"),
    ] {
        let settings: DataSettings = toml::from_str(text).unwrap();
        let error = settings.check().unwrap_err().to_string();
        assert!(error.contains(part), "{part:?} in {error:?}");
    }
    assert!(
        DataSettings::default()
            .load("".as_ref())
            .unwrap_err()
            .to_string()
            .contains("`csv`")
    );
}

/// Twelve patients of two slides in three centres, and one slide to predict.
fn cohort() -> Vec<Sample> {
    let mut samples: Vec<Sample> = (0..24_usize)
        .map(|slide| Sample {
            patient: Some(format!("p{}", slide / 2)),
            further: vec![stream_grad_slides::FurtherCell {
                column: "Center".to_owned(),
                text: format!("{}/x", slide / 8),
            }],
            ..Sample::new(format!("{slide}.svs"), Label::of_class(slide / 2 % 2))
        })
        .collect();
    samples.push(Sample::unlabelled("new.svs"));
    samples
}

#[test]
fn each_labelled_slide_is_tested_once_in_folds_and_in_centres() {
    let samples = cohort();
    for (settings, names) in [
        (
            DataSettings {
                folds: Some(3),
                ..settings()
            },
            ["fold-1", "fold-2", "fold-3"],
        ),
        (
            DataSettings {
                leave_one_out: Some("center".to_owned()),
                ..settings()
            },
            ["center-0_x", "center-1_x", "center-2_x"],
        ),
    ] {
        let rounds = settings.rounds(&samples, 1).unwrap();
        let found: Vec<_> = rounds
            .iter()
            .filter_map(|round| round.name.as_deref())
            .collect();
        assert_eq!(found, names);
        let mut tested: BTreeMap<&Path, usize> = BTreeMap::new();
        for round in &rounds {
            assert_eq!(round.samples.len(), 24);
            crate::data::check_patients(&round.samples).unwrap();
            let splits: BTreeSet<_> = round
                .samples
                .iter()
                .map(|sample| sample.split.unwrap())
                .collect();
            assert!(splits.contains(&Split::Train) && splits.contains(&Split::Test));
            for sample in &round.samples {
                *tested.entry(&sample.slide).or_default() +=
                    usize::from(sample.split == Some(Split::Test));
            }
        }
        assert!(tested.values().all(|count| *count == 1), "{tested:?}");
    }
    let one = settings().rounds(&samples, 1).unwrap();
    assert_eq!((one.len(), one[0].name.clone()), (1, None));
    assert!(one[0].samples.iter().all(|sample| sample.split.is_some()));
}

#[test]
fn a_centre_that_cannot_be_left_out_is_refused() {
    let settings = DataSettings {
        leave_one_out: Some("center".to_owned()),
        ..settings()
    };
    let mut one = cohort();
    one.truncate(8);
    let error = settings.rounds(&one, 0).unwrap_err().to_string();
    assert!(
        error.contains("two or more values") && error.contains("`0/x` alone"),
        "{error}"
    );
    let mut both = cohort();
    both[8].patient = Some("p0".to_owned());
    assert!(matches!(
        settings.rounds(&both, 0),
        Err(TrainError::SplitPatient { patient, .. }) if patient == "p0"
    ));
    let mut blank = cohort();
    blank[3].further[0].text = String::new();
    let error = settings.rounds(&blank, 0).unwrap_err().to_string();
    assert!(error.contains("3.svs"), "{error}");
    let mut with_split = cohort();
    with_split[0].split = Some(Split::Train);
    // The slide without a label does not count.
    assert!(matches!(
        settings.rounds(&with_split, 0),
        Err(TrainError::Splits { count: 1, total: 24, first, .. })
            if first == with_split[0].slide
    ));
}
