//! `reproduce camelyon` and `reproduce tupac` as a user runs them.

#![expect(clippy::unwrap_used, reason = "a failure is the test's message")]

use std::path::Path;
use std::process::{Command, Output};

/// A cohort of few small tumours, trained on for one epoch at a coarse resolution.
const SETTINGS: &str = "
[data]
microns_per_pixel = [16.0, 8.0]
[train]
epochs = 1
batch_size = 4
[report.bootstrap]
resamples = 50
[cohort.splits]
train = 12
validation = 0
test = 2
";

/// Lymph nodes of few patients, trained on for one epoch at a coarse resolution.
const NODES: &str = "
[data]
microns_per_pixel = [16.0]
[train]
epochs = 1
batch_size = 5
[report.bootstrap]
resamples = 50
[cohort]
edge_microns = [512.0, 512.0]
[cohort.splits]
train = 20
validation = 0
test = 10
[cohort.anatomy]
regions = [1, 2]
";

fn reproduce(folder: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_xtask-pipelines"))
        .current_dir(folder)
        .env("XDG_CACHE_HOME", env!("CARGO_TARGET_TMPDIR"))
        .arg("reproduce")
        .args(arguments)
        .output()
        .unwrap()
}

fn text(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap()
}

#[test]
fn tupac_scores_every_slide_once_and_predicts_those_without_truth() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("small.toml"), SETTINGS).unwrap();
    let arguments = ["tupac", "--settings", "small.toml", "--output", "out"];
    let output = reproduce(folder.path(), &arguments);
    let messages = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{messages}");
    let printed = String::from_utf8(output.stdout).unwrap();
    assert_eq!(printed.matches("by colour").count(), 2, "{printed}");

    let out = folder.path().join("out");
    let summary: serde_json::Value =
        serde_json::from_str(&text(&out.join("summary.json"))).unwrap();
    assert_eq!(summary["metric"], "spearman");
    for resolution in summary["resolutions"].as_array().unwrap() {
        assert_eq!(resolution["slides"], 12);
        assert_eq!(resolution["trainings"].as_array().unwrap().len(), 3);
    }
    assert_eq!(summary["published"][0]["figures"][1]["value"], 0.57);
    let report = text(&out.join("report.html"));
    for part in ["0.617", "by cellularity", "2 slides have no truth"] {
        assert!(report.contains(part), "the report lacks {part}");
    }

    // Means of the tables of the three folds.
    let table = out.join("test-predictions.csv");
    let means = text(&table);
    let rows: Vec<Vec<&str>> = means
        .lines()
        .map(|line| line.split(',').collect())
        .collect();
    let heading = [
        "slide",
        "patient",
        "predicted_at_16_microns",
        "predicted_at_8_microns",
    ];
    assert_eq!(rows[0], heading);
    assert_eq!(rows.len(), 3);
    for (column, microns) in [(2, 16), (3, 8)] {
        let mut sum = 0.0;
        for fold in 1..=3 {
            let own = out.join(format!(
                "{microns}-microns-fold-{fold}/test-predictions.csv"
            ));
            let own = text(&own);
            let row = own
                .lines()
                .find(|line| line.starts_with(rows[1][0]))
                .unwrap();
            sum += row.split(',').nth(1).unwrap().parse::<f64>().unwrap();
        }
        let mean: f64 = rows[1][column].parse().unwrap();
        assert!(
            (mean - sum / 3.0).abs() <= 1e-9 * mean.abs(),
            "{mean} {sum}"
        );
    }

    // The same command finds everything done.
    let weights = |fold: u8| {
        let path = out.join(format!("8-microns-fold-{fold}/model.safetensors"));
        std::fs::metadata(path).unwrap().modified().unwrap()
    };
    let before = [1, 2, 3].map(weights);
    let again = reproduce(folder.path(), &arguments);
    assert!(again.status.success());
    assert_eq!([1, 2, 3].map(weights), before);
    assert_eq!(text(&table), means);

    published_layout(folder.path(), &out.join("cohort"));
}

/// The same slides in the layout of TUPAC16, whose test slides have no truth.
fn published_layout(folder: &Path, cohort: &Path) {
    let published = folder.join("tupac16");
    let (training, test) = (
        published.join("training_image_data"),
        published.join("testing_image_data"),
    );
    std::fs::create_dir_all(&training).unwrap();
    std::fs::create_dir_all(&test).unwrap();
    let mut truth = String::new();
    for slide in 0..14 {
        let name = if slide < 12 {
            truth += &format!("{},{}\n", slide % 3 + 1, f64::from(slide) / 10.0 - 0.5);
            training.join(format!("TUPAC-TR-{:03}.svs", slide + 1))
        } else {
            test.join(format!("TUPAC-TE-{:03}.svs", slide - 11))
        };
        std::fs::copy(cohort.join(format!("slide_{slide:04}.tif")), name).unwrap();
    }
    std::fs::write(published.join("training_ground_truth.csv"), truth).unwrap();
    std::fs::write(
        folder.join("coarse.toml"),
        "[data]\nmicrons_per_pixel = [8.0]\n[train]\nepochs = 1\n",
    )
    .unwrap();
    let settings = ["--settings", "coarse.toml", "--output", "published"];
    let arguments = [&["tupac", "--data", "tupac16"][..], &settings].concat();
    let output = reproduce(folder, &arguments);
    let messages = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{messages}");
    let printed = String::from_utf8(output.stdout).unwrap();
    let found =
        "TUPAC16, 12 training slides, scores for 12, 2 test slides without truth, to predict";
    assert!(printed.contains(found), "{printed}");
    // Real slides are not said to be made up, nor looked at by a linear model.
    assert!(!printed.contains("by colour"), "{printed}");
    let out = folder.join("published");
    assert!(!text(&out.join("report.html")).contains("are made up"));
    let means = text(&out.join("test-predictions.csv"));
    assert!(
        means.contains("TUPAC-TE-001.svs") && means.lines().count() == 3,
        "{means}"
    );
}

#[test]
fn tupac_refuses_settings_that_name_slides() {
    let folder = tempfile::tempdir().unwrap();
    let settings = folder.path().join("wrong.toml");
    std::fs::write(&settings, "[data]\ncsv = \"a.csv\"\n").unwrap();
    let output = reproduce(folder.path(), &["tupac", "--settings", "wrong.toml"]);
    let messages = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{messages}");
    assert!(messages.contains("--csv or --data"), "{messages}");
    assert!(!folder.path().join("runs").exists());
}

#[test]
fn camelyon_takes_four_classes_and_other_layouts() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("nodes.toml"), NODES).unwrap();
    let run = |arguments: &[&str], output: &str| {
        let settings = ["--settings", "nodes.toml", "--output", output];
        let result = reproduce(
            folder.path(),
            &[&["camelyon"][..], arguments, &settings].concat(),
        );
        let messages = String::from_utf8(result.stderr).unwrap();
        assert!(result.status.success(), "{messages}");
        let out = folder.path().join(output);
        let summary: serde_json::Value =
            serde_json::from_str(&text(&out.join("summary.json"))).unwrap();
        let printed = String::from_utf8(result.stdout).unwrap();
        (printed, summary, text(&out.join("report.html")))
    };

    let (printed, summary, report) = run(&["--classes", "4"], "stages");
    assert!(
        printed.contains("stages of patients, quadratic kappa"),
        "{printed}"
    );
    let resolution = &summary["resolutions"][0];
    assert_eq!(
        (&summary["metric"], &resolution["slides"]),
        (&"quadratic_kappa".into(), &10.into())
    );
    assert!(resolution["patient_stage_kappa"]["value"].is_number());
    for part in ["Stages of patients", "pN0(i+)", "-0.13 to 0.89"] {
        assert!(report.contains(part), "the report lacks {part}");
    }
    // The published AUC is of two classes.
    assert!(!report.contains("0.706") && summary["published"][0].is_null());
    let stages = text(&folder.path().join("stages/tables/patient-stages.csv"));
    assert_eq!(stages.lines().count(), 3, "{stages}");
    assert!(stages.contains(",pN0(i+),"), "{stages}");

    // The same slides as other data sets.
    let slide = |number: usize| {
        folder
            .path()
            .join(format!("stages/cohort/slide_{number:04}.tif"))
    };
    let copy = |number: usize, to: &str| {
        let to = folder.path().join(to);
        std::fs::create_dir_all(to.parent().unwrap()).unwrap();
        std::fs::copy(slide(number), to).unwrap();
    };
    let mut camelyon17 = "patient,stage\n".to_owned();
    for patient in [0, 1, 100, 101] {
        for node in 0..5 {
            let name = format!("patient_{patient:03}_node_{node}.tif");
            copy(
                node + patient % 100 * 5,
                &format!("camelyon17/training/{name}"),
            );
            let stage = ["negative", "itc", "micro", "macro"][(node + patient) % 4];
            camelyon17 += &format!("{name},{stage}\n");
        }
    }
    std::fs::write(
        folder.path().join("camelyon17/stage_labels.csv"),
        camelyon17,
    )
    .unwrap();
    let arguments = ["--data", "camelyon17", "--classes", "4"];
    let (printed, summary, _) = run(&arguments, "from-17");
    assert!(
        printed.contains("CAMELYON17, 20 slides of 4 patients"),
        "{printed}"
    );
    let kappa = &summary["resolutions"][0]["patient_stage_kappa"];
    assert!(kappa.is_object(), "{summary}");

    let mut reference = "image,class\n".to_owned();
    for number in 0..4 {
        copy(number, &format!("camelyon16/images/normal_00{number}.tif"));
        copy(
            number + 4,
            &format!("camelyon16/images/tumor_00{number}.tif"),
        );
        copy(
            number + 8,
            &format!("camelyon16/images/test_00{number}.tif"),
        );
        let class = ["negative", "macro"][number % 2];
        reference += &format!("test_00{number},{class}\n");
    }
    std::fs::write(folder.path().join("camelyon16/reference.csv"), reference).unwrap();
    let (printed, summary, report) = run(&["--data", "camelyon16"], "from-16");
    assert!(printed.contains("CAMELYON16"), "{printed}");
    assert_eq!(
        (&summary["metric"], &summary["resolutions"][0]["slides"]),
        (&"roc_auc".into(), &4.into())
    );
    assert!(!report.contains("Stages of patients"));

    let mut grades = "image_id,data_provider,isup_grade,gleason_score\n".to_owned();
    for number in 0..18 {
        copy(number, &format!("panda/train_images/{number:032x}.tiff"));
        grades += &format!("{number:032x},radboud,{},0+0\n", number % 6);
    }
    std::fs::write(folder.path().join("panda/train.csv"), grades).unwrap();
    let (printed, summary, report) = run(&["--data", "panda", "--epochs", "1"], "from-panda");
    assert!(
        printed.contains("PANDA, 18 slides, grades for 18"),
        "{printed}"
    );
    assert_eq!(summary["metric"], "quadratic_kappa");
    assert!(report.contains("ISUP grades") && !report.contains("0.706"));
}

#[test]
fn camelyon_names_a_number_of_slides_that_it_cannot_split() {
    let folder = tempfile::tempdir().unwrap();
    let output = reproduce(
        folder.path(),
        &["camelyon", "--classes", "4", "--slides", "8"],
    );
    let messages = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{messages}");
    assert!(
        messages.contains("a multiple of 5 from 10 on, found 8"),
        "{messages}"
    );
    assert!(!folder.path().join("runs").exists());
}
