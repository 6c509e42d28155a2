//! Small trees of each published layout.

use std::fs;

use tempfile::TempDir;

use super::*;
use crate::data::{Label, LabelColumn, Split};

/// Writes files (path and content) below a root. A slide's content is its path, so that no two have one content.
fn tree(files: &[(&str, &str)]) -> TempDir {
    let root = tempfile::tempdir().unwrap();
    for (name, content) in files {
        let path = root.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, if content.is_empty() { name } else { content }).unwrap();
    }
    root
}

fn settings(root: &TempDir, task: Task) -> DataSettings {
    DataSettings {
        folder: Some(root.path().into()),
        task,
        ..DataSettings::default()
    }
}

fn read(root: &TempDir, task: Task) -> Result<DataSet> {
    settings(root, task).load(Path::new(""))
}

/// Name, label as text, and split of each slide, by name.
fn rows(data: &DataSet) -> Vec<(String, String, Option<Split>)> {
    let mut rows: Vec<_> = data
        .samples
        .iter()
        .map(|sample| {
            let label = sample.label.as_ref();
            (
                contents::name(&sample.slide).to_owned(),
                label.map_or_else(String::new, |label| label.text(data.task, &data.classes)),
                sample.split,
            )
        })
        .collect();
    rows.sort();
    rows
}

fn expect(data: &DataSet, expected: &[(&str, &str, Option<Split>)]) {
    let expected: Vec<_> = expected
        .iter()
        .map(|(name, label, split)| ((*name).to_owned(), (*label).to_owned(), *split))
        .collect();
    assert_eq!(rows(data), expected);
}

const TEST: Option<Split> = Some(Split::Test);

#[test]
fn camelyon17_older_and_newer() {
    let older = tree(&[
        (
            "stage_labels.csv",
            "patient,stage\npatient_000.zip,pN1\npatient_000_node_0.tif,itc\npatient_000_node_1.tif,macro\n",
        ),
        ("training/center_3/patient_000_node_0.tif", ""),
        ("training/center_3/patient_000_node_1.tif", ""),
        ("testing/patient_100_node_0.tif", ""),
    ]);
    assert_eq!(Layout::find(older.path()).unwrap(), Layout::Camelyon17);
    let data = read(&older, Task::Classification { classes: 4 }).unwrap();
    assert_eq!(
        data.notices,
        ["CAMELYON17, 3 slides of 2 patients, stages for 2"]
    );
    expect(
        &data,
        &[
            ("patient_000_node_0.tif", "itc", None),
            ("patient_000_node_1.tif", "macro", None),
            ("patient_100_node_0.tif", "", TEST),
        ],
    );
    let first = data
        .samples
        .iter()
        .find(|sample| sample.label.is_some())
        .unwrap();
    let further: Vec<_> = first
        .further
        .iter()
        .map(|cell| cell.text.as_str())
        .collect();
    assert_eq!(further, ["3", "pN1"]);

    let newer = tree(&[
        (
            "stages.csv",
            "patient,stage,center\npatient_004.zip,pN0,1\npatient_004_node_0.tif,micro,1\npatient_104_node_0.tif,negative,4\n",
        ),
        ("images/patient_004_node_0.tif", ""),
        ("images/patient_104_node_0.tif", ""),
        ("annotations/patient_004_node_0.xml", ""),
        ("masks/patient_004_node_0_mask.tif", ""),
    ]);
    let data = read(&newer, Task::Binary).unwrap();
    expect(
        &data,
        &[
            ("patient_004_node_0.tif", "metastasis", None),
            ("patient_104_node_0.tif", "negative", TEST),
        ],
    );
    // The rule and the table are held against each other.
    assert!(
        data.notices[1].contains("patient_004 (pN0, and pN1mi by its slides)"),
        "{:?}",
        data.notices
    );
    let error = read(&newer, Task::Regression).unwrap_err().to_string();
    assert!(
        error.contains("data.task") && error.contains("CAMELYON17"),
        "{error}"
    );
}

#[test]
fn camelyon16_with_and_without_a_heading() {
    for heading in ["image,class,type\n", ""] {
        let table = format!("{heading}test_001.tif,negative,\ntest_002,Tumor,IDC\n");
        let root = tree(&[
            ("evaluation/reference.csv", &table),
            ("images/normal_001.tif", ""),
            ("images/tumor_009.tif", ""),
            ("images/test_001.tif", ""),
            ("images/test_002.tif", ""),
            ("images/test_003.tif", ""),
            ("masks/tumor_009_mask.tif", ""),
        ]);
        assert_eq!(Layout::find(root.path()).unwrap(), Layout::Camelyon16);
        let data = read(&root, Task::Binary).unwrap();
        assert_eq!(
            data.notices,
            ["CAMELYON16, 2 training slides, 3 test slides, truth for 2 of these"]
        );
        expect(
            &data,
            &[
                ("normal_001.tif", "negative", None),
                ("test_001.tif", "negative", TEST),
                ("test_002.tif", "metastasis", TEST),
                ("test_003.tif", "", TEST),
                ("tumor_009.tif", "metastasis", None),
            ],
        );
    }
}

#[test]
fn tupac16_in_both_spellings_of_its_folders() {
    for [training, testing] in [
        ["training_image_data", "testing_image_data"],
        ["Training_dataset", "Testing_dataset"],
    ] {
        let names = [
            format!("{training}/TUPAC-TR-001.svs"),
            format!("{training}/TUPAC-TR-003.svs"),
            format!("{testing}/TUPAC-TE-001.svs"),
        ];
        let root = tree(&[
            ("training_ground_truth.csv", "1,-0.25\n3,0.5\n2,0.125\n"),
            (&names[0], ""),
            (&names[1], ""),
            (&names[2], ""),
            ("rois/TUPAC-TR-001-ROI.csv", "1,2,3,4\n"),
        ]);
        assert_eq!(Layout::find(root.path()).unwrap(), Layout::Tupac16);
        let data = read(&root, Task::Regression).unwrap();
        assert_eq!(
            data.notices,
            ["TUPAC16, 2 training slides, scores for 2, 1 test slides without truth, to predict"]
        );
        expect(
            &data,
            &[
                ("TUPAC-TE-001.svs", "", TEST),
                ("TUPAC-TR-001.svs", "-0.25", None),
                ("TUPAC-TR-003.svs", "0.125", None),
            ],
        );
        let data = read(&root, Task::Ordinal { levels: 3 }).unwrap();
        assert_eq!(rows(&data)[2].1, "2");
        let further = data.samples.iter().map(|sample| sample.further.len());
        assert_eq!(further.sum::<usize>(), 4);
        let rounds = DataSettings {
            folds: Some(3),
            ..settings(&root, Task::Regression)
        };
        assert!(
            rounds
                .rounds(&data.samples, 0)
                .unwrap_err()
                .to_string()
                .contains("folds")
        );
    }
    for (table, part) in [
        ("1,high\n", "line 1"),
        ("1\n", "two columns"),
        ("1,2,3\n", "two columns"),
    ] {
        let root = tree(&[
            ("training_ground_truth.csv", table),
            ("a/TUPAC-TR-001.svs", ""),
        ]);
        let error = read(&root, Task::Regression).unwrap_err().to_string();
        assert!(error.contains(part), "{part:?} in {error:?}");
    }
}

#[test]
fn panda_takes_grades() {
    let root = tree(&[
        (
            "train.csv",
            "image_id,data_provider,isup_grade,gleason_score\n00a,karolinska,0,0+0\n00b,radboud,5,4+5\n",
        ),
        ("train_images/00a.tiff", ""),
        ("train_images/00b.tiff", ""),
        ("train_label_masks/00a_mask.tiff", ""),
    ]);
    assert_eq!(Layout::find(root.path()).unwrap(), Layout::Panda);
    for task in [
        Task::Ordinal { levels: 6 },
        Task::Classification { classes: 6 },
        Task::Regression,
    ] {
        let data = read(&root, task).unwrap();
        expect(&data, &[("00a.tiff", "0", None), ("00b.tiff", "5", None)]);
        assert!(
            data.notices[0].starts_with("PANDA, 2 slides, grades for 2"),
            "{:?}",
            data.notices
        );
        assert_eq!(data.samples[0].further[0].text, "karolinska");
    }
    assert!(
        read(&root, Task::Binary)
            .unwrap_err()
            .to_string()
            .contains("PANDA")
    );
    fs::remove_file(root.path().join("train_images/00b.tiff")).unwrap();
    let error = read(&root, Task::Regression).unwrap_err().to_string();
    assert!(error.contains("1 of 2") && error.contains("00b"), "{error}");
}

#[test]
fn classes_without_pictures_are_named() {
    let task = Task::Classification { classes: 2 };
    let both = [
        ("train/a/1.png", ""),
        ("train/b/1.png", ""),
        ("val/a/2.png", ""),
    ];
    let root = tree(&both);
    // No picture to validate with is no reason to refuse a class; an empty folder is a slip.
    let read_as = |root: &TempDir| {
        let settings = DataSettings {
            folder: Some(root.path().to_path_buf()),
            layout: Some(Layout::Imagenette),
            task,
            ..DataSettings::default()
        };
        settings.load(Path::new(""))
    };
    assert_eq!(read_as(&root).unwrap().samples.len(), 3);
    fs::create_dir(root.path().join("val/b")).unwrap();
    let error = read_as(&root).unwrap_err().to_string();
    assert!(
        error.contains("val/b: expected pictures of this class"),
        "{error}"
    );
    let root = tree(&[
        ("train/a/1.png", ""),
        ("val/a/2.png", ""),
        ("val/b/2.png", ""),
    ]);
    let error = read_as(&root).unwrap_err().to_string();
    assert!(
        error.contains("train/b: expected pictures of this class"),
        "{error}"
    );
    let root = tree(&[("train/a/1.png", ""), ("train/b/1.png", "")]);
    let error = read_as(&root).unwrap_err().to_string();
    assert!(error.contains("below `train` and `val`"), "{error}");
}

#[test]
fn imagenette_has_its_names_in_its_order() {
    let ids = [
        "n01440764",
        "n02102040",
        "n02979186",
        "n03000684",
        "n03028079",
        "n03394916",
        "n03417042",
        "n03425413",
        "n03445777",
        "n03888257",
    ];
    let names: Vec<String> = ids
        .iter()
        .flat_map(|id| {
            [
                format!("train/{id}/{id}_1.JPEG"),
                format!("val/{id}/{id}_2.JPEG"),
            ]
        })
        .collect();
    let files: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "")).collect();
    let root = tree(&files);
    assert_eq!(Layout::find(root.path()).unwrap(), Layout::Imagenette);
    let data = read(&root, Task::Classification { classes: 10 }).unwrap();
    assert_eq!(
        data.notices,
        ["Imagenette, 10 classes, 10 training pictures, 10 to validate, 0 to test"]
    );
    assert_eq!(
        rows(&data)[0],
        (
            "n01440764_1.JPEG".to_owned(),
            "tench".to_owned(),
            Some(Split::Train)
        )
    );
    assert_eq!(rows(&data)[19].1, "parachute");
    assert_eq!(rows(&data)[19].2, Some(Split::Validation));
    let error = read(&root, Task::Binary).unwrap_err().to_string();
    assert!(error.contains("classification of 10"), "{error}");
}

#[test]
fn the_streaming_pipeline_has_a_table_for_each_split() {
    let root = tree(&[
        ("train.csv", "slide_id,label\na,normal\nb,tumour\n"),
        ("val.csv", "slide_id,label\nc,tumour\n"),
        ("images/a.tif", ""),
        ("images/b.tif", ""),
        ("images/c.tif", ""),
    ]);
    assert_eq!(
        Layout::find(root.path()).unwrap(),
        Layout::StreamingPipeline
    );
    let data = read(&root, Task::Binary).unwrap();
    expect(
        &data,
        &[
            ("a.tif", "normal", Some(Split::Train)),
            ("b.tif", "tumour", Some(Split::Train)),
            ("c.tif", "tumour", Some(Split::Validation)),
        ],
    );
    assert!(
        data.notices[0].contains("2 training slides, 1 to validate"),
        "{:?}",
        data.notices
    );
    assert!(
        data.notices[1].contains("1 is `tumour`"),
        "{:?}",
        data.notices
    );
    fs::write(root.path().join("val.csv"), "slide_id,label\nc,new\n").unwrap();
    let error = read(&root, Task::Binary).unwrap_err().to_string();
    assert!(
        error.contains("val.csv") && error.contains("`new`"),
        "{error}"
    );
}

#[test]
fn clam_takes_its_file_of_splits() {
    let root = tree(&[
        (
            "dataset_csv/tumor.csv",
            "case_id,slide_id,label\np1,s1,normal_tissue\np1,s2,tumor_tissue\np2,s3,tumor_tissue\n",
        ),
        (
            "splits/task/splits_0.csv",
            ",train,val,test\n0,s1,,s3\n1,s2,,\n",
        ),
        ("slides/s1.svs", ""),
        ("slides/s2.svs", ""),
        ("slides/s3.svs", ""),
    ]);
    assert_eq!(Layout::find(root.path()).unwrap(), Layout::Clam);
    let data = read(&root, Task::Binary).unwrap();
    expect(
        &data,
        &[
            ("s1.svs", "normal_tissue", Some(Split::Train)),
            ("s2.svs", "tumor_tissue", Some(Split::Train)),
            ("s3.svs", "tumor_tissue", TEST),
        ],
    );
    assert_eq!(data.samples[0].patient.as_deref(), Some("p1"));
    assert!(
        data.notices[0].ends_with("splits: splits_0.csv"),
        "{:?}",
        data.notices
    );
    let drawn = DataSettings {
        split_column: String::new(),
        ..settings(&root, Task::Binary)
    };
    let data = drawn.load(Path::new("")).unwrap();
    assert!(data.samples.iter().all(|sample| sample.split.is_none()));
    fs::write(
        root.path().join("splits/task/splits_0.csv"),
        "train,val,test\ns1,s1,\n",
    )
    .unwrap();
    let error = read(&root, Task::Binary).unwrap_err().to_string();
    assert!(
        error.contains("splits_0.csv") && error.contains("`s1`"),
        "{error}"
    );
}

#[test]
fn stamp_joins_its_tables() {
    let root = tree(&[
        ("clini.csv", "PATIENT,isMSIH,SITE\np1,MSS,a\np2,MSIH,b\n"),
        (
            "slide.csv",
            "PATIENT,FILENAME\np1,s1.svs\np1,sub/s2.h5\np2,s3\np3,s4.svs\n",
        ),
        ("slides/s1.svs", ""),
        ("slides/s2.svs", ""),
        ("slides/s3.ndpi", ""),
        ("slides/s4.svs", ""),
    ]);
    assert_eq!(Layout::find(root.path()).unwrap(), Layout::Stamp);
    let stamp = DataSettings {
        label_column: LabelColumn::One("isMSIH".to_owned()),
        classes: vec!["MSS".to_owned(), "MSIH".to_owned()],
        ..settings(&root, Task::Binary)
    };
    let data = stamp.load(Path::new("")).unwrap();
    expect(
        &data,
        &[
            ("s1.svs", "MSS", None),
            ("s2.svs", "MSS", None),
            ("s3.ndpi", "MSIH", None),
            ("s4.svs", "", None),
        ],
    );
    assert_eq!(data.samples[2].further[0].text, "b");
    assert_eq!(data.samples[2].label, Some(Label::of_class(1)));
    let error = read(&root, Task::Binary).unwrap_err().to_string();
    assert!(
        error.contains("clini.csv") && error.contains("`isMSIH`"),
        "{error}"
    );
    fs::write(
        root.path().join("clini.csv"),
        "PATIENT,isMSIH\np1,MSS\np1,MSIH\n",
    )
    .unwrap();
    let error = stamp.load(Path::new("")).unwrap_err().to_string();
    assert!(
        error.contains("line 3") && error.contains("`p1`"),
        "{error}"
    );
}

#[test]
fn what_is_no_layout_says_what_is_there() {
    let root = tree(&[("notes.csv", "a,b\n1,2\n"), ("more/x.txt", "text")]);
    let error = read(&root, Task::Binary).unwrap_err().to_string();
    assert!(
        error.contains("2 files, 0 of them slides, notes.csv"),
        "{error}"
    );
    let forced = DataSettings {
        layout: Some(Layout::Tupac16),
        ..settings(&root, Task::Regression)
    };
    let error = forced.load(Path::new("")).unwrap_err().to_string();
    assert!(error.contains("TUPAC16"), "{error}");
    let nowhere = root.path().join("nowhere");
    let error = Layout::find(&nowhere).unwrap_err();
    assert!(
        matches!(&error, TrainError::File { path, source }
            if *path == nowhere && source.kind() == std::io::ErrorKind::NotFound),
        "{error}"
    );
}

/// Trees of odd files in any layout are read or refused, whichever layout is asked for; what is read obeys the rules.
#[test]
fn odd_trees_are_read_or_refused() {
    let tables = [
        "",
        "\n",
        ",,\n",
        "patient,stage\n",
        "patient,stage\npatient_001_node_1.tif,itc\n",
        "\u{feff}slide_id,label\na,1\n",
        "slide_id,label\na\n",
        "image,class\ntest_001\n",
        "1,2\n1,2\n",
        "x",
        "PATIENT,FILENAME\n,a.svs\n",
        "PATIENT,label\n,\n,\n",
        "case_id,slide_id,label\n,,\np,a,1\n",
        "image_id,isup_grade\na,9\n",
        "train,val,test\n,,\na,a,a\n",
        "\"",
        "a,b\n\"c\n",
    ];
    let names = [
        "stage_labels.csv",
        "stages.csv",
        "reference.csv",
        "training_ground_truth.csv",
        "train.csv",
        "val.csv",
        "splits_0.csv",
        "clini.csv",
        "slide.csv",
    ];
    let slides = [
        "a.svs",
        "train/x/a.png",
        "val/;/b.png",
        "TUPAC-TR-000.svs",
        "TUPAC-TR-99999999999999999999.svs",
        "TUPAC-TE-.svs",
        "test_001.tif",
        "normal_.tif",
        "patient_x_node_.tif",
        "_node_.tif",
        "a/b/c/d/e/f/g.svs",
    ];
    let tasks = [
        Task::Binary,
        Task::Classification { classes: 4 },
        Task::Ordinal { levels: 6 },
        Task::MultiLabel { labels: 1 },
        Task::Regression,
    ];
    let mut read_trees = 0;
    for (number, content) in tables.iter().enumerate() {
        for (shift, name) in names.iter().enumerate() {
            let other = names[(number + 3 * shift + 1) % names.len()];
            let root = tree(&[
                (name, if content.is_empty() { " " } else { content }),
                (other, tables[(number + shift) % tables.len()]),
                (slides[(number + shift) % slides.len()], ""),
                (slides[(2 * number + 5 * shift + 1) % slides.len()], ""),
            ]);
            for layout in Layout::ALL {
                let task = tasks[(number + shift) % tasks.len()];
                let settings = DataSettings {
                    layout: Some(layout),
                    ..settings(&root, task)
                };
                let Ok(data) = settings.load(Path::new("")) else {
                    continue;
                };
                read_trees += 1;
                assert!(!data.samples.is_empty() && !data.notices.is_empty());
                assert!(data.samples.iter().all(|sample| sample.slide.is_file()));
                let labels = data
                    .samples
                    .iter()
                    .filter_map(|sample| sample.label.as_ref());
                assert!(labels.into_iter().all(|label| task.accepts(label)));
            }
        }
    }
    assert!(read_trees > 50, "{read_trees}");
}
