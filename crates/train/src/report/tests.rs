//! Reports from run folders of every kind, with names that would break a page if they could.

use std::path::Path;

use super::*;
use crate::data::{Label, Task};
use crate::metrics::{Metric, Outcomes};

const EVIL: &str = "<script>alert(\"a\")</script>";

fn put(folder: &Path, name: &str, text: &str) {
    let path = folder.join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, text).unwrap();
}

fn read(folder: &Path, name: &str) -> String {
    std::fs::read_to_string(folder.join(name)).unwrap()
}

fn settings(folder: &Path, task: &str) {
    let text = format!(
        "[data]\ntask = {task}\n[train]\nepochs = 3\n[report.bootstrap]\nresamples = 50\nconfidence = 0.9\nseed = 4\n"
    );
    put(folder, "run.toml", &text);
}

fn result(folder: &Path, member: &str, microns: f64) {
    let json = serde_json::json!({
        "microns_per_pixel": microns,
        "mean_pixels": 4e6 / microns,
        "skipped": {"test": [], "broken": [format!("{EVIL}.tif")], "not_finite": []},
        "bad_regions": {"stained.tif": 3},
        "seconds": 100.0,
        "planned_bytes": 1_073_741_824_u64,
        "training": {"seconds": 80.0, "waiting_seconds": 2.0},
        "history": [
            {"epoch": 0, "train_loss": 0.7, "learning_rate": 0.001, "validation_loss": null, "validation_metric": null},
            {"epoch": 1, "train_loss": 0.5, "learning_rate": 0.0005, "validation_loss": 0.6, "validation_metric": 0.75},
        ],
        "memory": {"planned_bytes": 2_147_483_648_u64},
        "machine": {"processor": "a processor"},
    });
    put(folder, &format!("{member}/result.json"), &json.to_string());
}

/// Sixteen slides of eight patients, of two classes, at two resolutions; the finer one tells them apart.
fn binary(folder: &Path) {
    settings(folder, "{ kind = \"binary\" }");
    let mut samples = "slide,label,split,patient,center\n".to_owned();
    for slide in 0..16 {
        samples += &format!(
            "s{slide}.tif,{},test,p{},\"{EVIL}\"\n",
            slide % 2,
            slide / 2
        );
    }
    put(folder, "samples.csv", &samples);
    for (microns, strength) in [(8.0, 0.0), (2.0, 9.0)] {
        let member = format!("{microns}-microns");
        result(folder, &member, microns);
        let mut predictions = "slide,label,logit_0,patient,split\n".to_owned();
        for slide in 0..16 {
            let logit = f64::from(slide * 5 % 7) - 3.0 + strength * f64::from(slide % 2);
            predictions += &format!("s{slide}.tif,{},{logit},p{},test\n", slide % 2, slide / 2);
        }
        put(folder, &format!("{member}/predictions.csv"), &predictions);
    }
    let figure = |megapixels, value| PublishedFigure { megapixels, value };
    let notes = Notes {
        title: format!("Metastasis {EVIL}"),
        asked: "Does it rise?".to_owned(),
        origin: Some(DataOrigin::MadeUp { seed: 17 }),
        remarks: vec![EVIL.to_owned()],
        published: vec![PublishedRow {
            source: format!("TPAMI 2022 {EVIL}"),
            figures: vec![figure(4.2, 0.58), figure(67.1, 0.706)],
        }],
        ..Notes::default()
    };
    notes.write(folder).unwrap();
    assert_eq!(Notes::read(folder).unwrap(), notes);
}

/// Nothing of the page is loaded from elsewhere, and nothing in it is what data made it.
fn check_page(html: &str) {
    for part in [
        "<script",
        "<link",
        "<iframe",
        "src=\"http",
        "url(",
        "@import",
    ] {
        assert!(!html.contains(part), "{part:?}");
    }
    assert!(html.starts_with("<!DOCTYPE html>") && html.contains("<html lang=\"en\">"));
    assert_eq!(
        html.matches("<svg ").count(),
        html.matches("role=\"img\" aria-label=").count()
    );
    assert_eq!(
        html.matches("<img ").count(),
        html.matches(" alt=\"").count()
    );
    assert_eq!(
        html.matches("<figure>").count(),
        html.matches("<figcaption>").count()
    );
}

#[test]
fn a_run_of_two_resolutions_is_reported_whole() {
    let folder = tempfile::tempdir().unwrap();
    binary(folder.path());
    let summary = write(folder.path()).unwrap();
    let html = read(folder.path(), "report.html");
    check_page(&html);
    for part in [
        "Metastasis &lt;script&gt;",
        "made-up cohort, seed 17",
        "resamples of patients",
        "ROC AUC over the size of the image",
        "published figures are of other slides",
        "16 slides of 8 patients",
        "train.epochs",
        "Memory planned",
        "2.00 GiB",
        "Planned peak of a step",
        "1.00 GiB",
        "a processor",
        "not read in training, at least once",
        "Regions that could not be decoded",
        "Least sure",
        "2.5%",
    ] {
        assert!(html.contains(part), "{part:?}");
    }
    // The same numbers as by hand.
    let outputs: Vec<[f64; 1]> = (0..16)
        .map(|slide| [f64::from(slide * 5 % 7) - 3.0])
        .collect();
    let labels: Vec<Label> = (0..16).map(|slide| Label::of_class(slide % 2)).collect();
    let outcomes = Outcomes::new(
        Task::Binary,
        labels.iter().zip(outputs.iter().map(|row| row.as_slice())),
    )
    .unwrap();
    let expected = outcomes.metric(Metric::RocAuc).unwrap();
    assert_eq!(summary.metric, Some(Metric::RocAuc));
    let [coarse, fine] = summary.resolutions.as_slice() else {
        panic!("{summary:?}")
    };
    assert_eq!(
        (
            coarse.metrics["roc_auc"].value,
            fine.metrics["roc_auc"].value
        ),
        (expected, 1.0)
    );
    assert_eq!(
        (
            fine.slides,
            fine.trainings[0].skipped,
            fine.trainings[0].bad_regions
        ),
        (16, 1, 3)
    );
    assert_eq!(summary.verdict, Verdict::Separated);
    let stored: Summary = serde_json::from_str(&read(folder.path(), "summary.json")).unwrap();
    assert_eq!(stored, summary);
    let text = summary.to_string();
    for part in [
        "made-up cohort, seed 17",
        "1.000",
        "published: TPAMI 2022",
        "0.706",
        "wholly on the better side",
    ] {
        assert!(text.contains(part), "{part:?} in {text}");
    }
    // Every figure and table that the page links is there.
    let mut links = 0;
    for link in html
        .split("href=\"")
        .skip(1)
        .filter_map(|rest| rest.split('"').next())
    {
        if !link.starts_with('#') {
            assert!(folder.path().join(link).is_file(), "{link}");
            links += 1;
        }
    }
    assert!(links > 20, "{links}");
    let metrics = read(folder.path(), "tables/metrics.csv");
    assert_eq!(
        metrics.lines().count(),
        1 + 2 * Metric::of(Task::Binary).len()
    );
    assert_eq!(
        read(folder.path(), "tables/loss.csv").lines().nth(1),
        Some("8-microns,validation_loss,2,0.6")
    );
    // Made anew it is the same.
    write(folder.path()).unwrap();
    assert_eq!(read(folder.path(), "report.html"), html);
}

/// Published figures stand in the report of the experiment that names them, and nowhere else.
#[test]
fn a_run_of_ones_own_has_no_published_row() {
    let folder = tempfile::tempdir().unwrap();
    binary(folder.path());
    std::fs::remove_file(folder.path().join("experiment.json")).unwrap();
    let summary = write(folder.path()).unwrap();
    let html = read(folder.path(), "report.html");
    assert!(!html.contains("published") && summary.published.is_empty());
    assert!(html.contains("ROC AUC over the size of the image"));
    assert!(summary.title.starts_with("Run "), "{}", summary.title);
}

#[test]
fn every_task_has_a_report() {
    let cases = [
        ("{ kind = \"classification\", classes = 3 }", 3, "Confusion"),
        (
            "{ kind = \"multi_label\", labels = 2 }",
            2,
            "Precision and recall",
        ),
        ("{ kind = \"ordinal\", levels = 4 }", 3, "expected level"),
        ("{ kind = \"regression\" }", 1, "Farthest from the truth"),
    ];
    for (task, outputs, part) in cases {
        let folder = tempfile::tempdir().unwrap();
        settings(folder.path(), task);
        let heads: Vec<String> = (0..outputs)
            .map(|output| format!("logit_{output}"))
            .collect();
        for fold in 0..2 {
            let mut text = format!("slide,label,{},split\n", heads.join(","));
            for slide in 0..12 {
                let label = match outputs {
                    2 => ["0", "1", "0;1", ";"][slide % 4].to_owned(),
                    _ => (slide % 3).to_string(),
                };
                let logits: Vec<String> = (0..outputs)
                    .map(|output| ((slide * 7 + output * 3 + fold) % 5).to_string())
                    .collect();
                text += &format!("f{fold}s{slide}.tif,{label},{},test\n", logits.join(","));
            }
            // Slides to predict have no label, and do not count.
            text += &format!(
                "unknown{fold}.tif,,{},test\n",
                vec!["0.5"; outputs].join(",")
            );
            put(
                folder.path(),
                &format!("4-microns-fold-{fold}/predictions.csv"),
                &text,
            );
        }
        let summary = write(folder.path()).unwrap();
        let html = read(folder.path(), "report.html");
        check_page(&html);
        assert!(
            html.contains(part) && html.contains("all 2 folds together"),
            "{task}"
        );
        let [resolution] = summary.resolutions.as_slice() else {
            panic!("{summary:?}")
        };
        assert_eq!(
            (resolution.slides, resolution.trainings.len()),
            (24, 2),
            "{task}"
        );
        assert!(
            resolution.spread().is_some() && summary.to_string().contains("over 2 trainings"),
            "{task}"
        );
        let known = Metric::of(settings_task(task)).len();
        assert_eq!(
            resolution.metrics.len(),
            known,
            "{task}: {:?}",
            resolution.metrics
        );
    }
}

/// Four patients: stages pN0, pN1mi, pN1 and pN2, of which the third is taken for pN1mi.
#[test]
fn patients_of_lymph_nodes_have_stages() {
    let nodes = [
        ("p0", "0", "0"),
        ("p0", "0", "0"),
        ("p1", "2", "2"),
        ("p1", "1", "0"),
        ("p2", "3", "2"),
        ("p2", "0", "1"),
        ("p3", "3", "3"),
        ("p3", "3", "2"),
        ("p3", "2", "2"),
        ("p3", "2", "3"),
        // Without a patient there is no stage.
        ("", "3", "0"),
    ];
    let table = |with_patients: bool| {
        let mut text = "slide,label,logit_0,logit_1,logit_2,logit_3,patient\n".to_owned();
        for (place, (patient, label, predicted)) in nodes.into_iter().enumerate() {
            let logits: Vec<&str> = ["0", "1", "2", "3"]
                .map(|class| if class == predicted { "5" } else { "0" })
                .to_vec();
            let patient = if with_patients { patient } else { "" };
            text += &format!("{place}.tif,{label},{},{patient}\n", logits.join(","));
        }
        text
    };
    let folder = tempfile::tempdir().unwrap();
    let task = "{ kind = \"classification\", classes = 4 }";
    let named = |names: &str| {
        settings(folder.path(), &format!("{task}\nclasses = [{names}]"));
    };
    named("\"negative\", \"itc\", \"micro\", \"macro\"");
    put(folder.path(), "2-microns/predictions.csv", &table(true));
    let summary = write(folder.path()).unwrap();
    let kappa = summary.resolutions[0].patient_stage_kappa.unwrap();
    // Ranks 0, 2, 3, 4 and 0, 2, 2, 4: one squared difference of 1, and 68 over all pairs of a true and a predicted one.
    assert!((kappa.value - (1.0 - 4.0 / 68.0)).abs() < 1e-12, "{kappa}");
    assert!(kappa.low <= kappa.value && kappa.high >= kappa.value);
    let html = read(folder.path(), "report.html");
    check_page(&html);
    assert!(html.contains("Stages of patients") && html.contains("pN1mi"));
    assert_eq!(
        read(folder.path(), "tables/patient-stages.csv"),
        "resolution,patient,truth,predicted\n2-microns,p0,pN0,pN0\n2-microns,p1,pN1mi,pN1mi\n2-microns,p2,pN1,pN1mi\n2-microns,p3,pN2,pN2\n"
    );
    assert!(
        summary
            .to_string()
            .contains("stages of patients, quadratic kappa 0.9")
    );

    // Neither other classes nor slides without patients have them.
    put(folder.path(), "2-microns/predictions.csv", &table(false));
    assert!(
        write(folder.path()).unwrap().resolutions[0]
            .patient_stage_kappa
            .is_none()
    );
    put(folder.path(), "2-microns/predictions.csv", &table(true));
    named("\"a\", \"b\", \"c\", \"d\"");
    assert!(
        write(folder.path()).unwrap().resolutions[0]
            .patient_stage_kappa
            .is_none()
    );
    assert!(!read(folder.path(), "report.html").contains("Stages of patients"));
}

fn settings_task(task: &str) -> Task {
    let table: toml::Table = toml::from_str(&format!("task = {task}")).unwrap();
    table["task"].clone().try_into().unwrap()
}

#[test]
fn a_test_split_of_one_class_is_said_and_the_rest_is_there() {
    let folder = tempfile::tempdir().unwrap();
    settings(folder.path(), "{ kind = \"binary\" }");
    let text = "slide,label,logit_0\na.tif,1,0.5\nb.tif,1,-0.5\n";
    put(folder.path(), "2-microns/predictions.csv", text);
    let summary = write(folder.path()).unwrap();
    let html = read(folder.path(), "report.html");
    assert!(html.contains("2 positive and 0 negative"), "{html}");
    assert!(!summary.resolutions[0].metrics.contains_key("roc_auc"));
    assert_eq!(summary.resolutions[0].metrics["accuracy"].value, 0.5);
}

/// What an earlier report drew goes with it, and nothing that it did not draw.
#[test]
fn figures_of_an_earlier_report_are_removed() {
    let folder = tempfile::tempdir().unwrap();
    binary(folder.path());
    let before = write(folder.path()).unwrap();
    let over = Path::new("figures/metric-over-resolution.svg");
    assert!(before.files.iter().any(|file| file == over));
    assert!(folder.path().join(over).is_file());
    put(folder.path(), "figures/mine.svg", "mine");
    put(folder.path(), "notes.csv", "mine");
    // A list that was tampered with leads nowhere else.
    let mut listed = before.clone();
    listed
        .files
        .extend(["notes.csv", "tables/../notes.csv"].map(Into::into));
    let json = serde_json::to_string(&listed).unwrap();
    put(folder.path(), "summary.json", &json);

    std::fs::remove_dir_all(folder.path().join("8-microns")).unwrap();
    Notes::default().write(folder.path()).unwrap();
    let after = write(folder.path()).unwrap();
    assert!(!after.files.iter().any(|file| file == over));
    assert!(!folder.path().join(over).exists());
    for file in &after.files {
        assert!(folder.path().join(file).is_file(), "{}", file.display());
    }
    for mine in ["figures/mine.svg", "notes.csv"] {
        assert_eq!(read(folder.path(), mine), "mine");
    }
}

/// Whether a finer resolution is better is asked slide by slide.
#[test]
fn a_difference_that_may_be_chance_is_called_so() {
    let verdict = |better: usize| {
        let folder = tempfile::tempdir().unwrap();
        settings(folder.path(), "{ kind = \"binary\" }");
        for (microns, right) in [(8, 20), (2, 20 + better)] {
            let mut text = "slide,label,logit_0,split\n".to_owned();
            for slide in 0..40 {
                let label = slide % 2;
                // The first of the slides are told apart, the others are not.
                let is_high = (label == 1) == (slide < right);
                let logit = if is_high { 1.0 } else { -1.0 };
                text += &format!("s{slide}.tif,{label},{logit},test\n");
            }
            put(
                folder.path(),
                &format!("{microns}-microns/predictions.csv"),
                &text,
            );
        }
        let summary = write(folder.path()).unwrap();
        let html = read(folder.path(), "report.html");
        assert!(html.contains("finest less coarsest, on the same slides"));
        (summary.verdict, summary.difference.unwrap())
    };
    let (chance, difference) = verdict(1);
    assert_eq!(chance, Verdict::MaybeChance);
    assert!(
        difference.value > 0.0 && difference.low <= 0.0,
        "{difference}"
    );
    // Intervals of 20 and 26 of 40 overlap; on the same slides, six are better and none is worse.
    let (better, difference) = verdict(6);
    assert_eq!(better, Verdict::Better);
    assert!(difference.low > 0.0, "{difference}");
    assert_eq!(verdict(0).0, Verdict::NotBetter);
    assert_eq!(verdict(20).0, Verdict::Separated);
}

/// Of several labels each is counted, and so are slides that have none.
#[test]
fn slides_count_for_each_of_their_labels() {
    let folder = tempfile::tempdir().unwrap();
    settings(folder.path(), "{ kind = \"multi_label\", labels = 2 }");
    let text = "slide,label,split\na.tif,0;1,train\nb.tif,1,train\nc.tif,;,test\n";
    put(folder.path(), "samples.csv", text);
    write(folder.path()).unwrap();
    let counts = read(folder.path(), "tables/slides-by-label.csv");
    let expected =
        "label,train,validation,test,no split\n0,1,0,0,0\n1,2,0,0,0\n(none of them),0,0,1,0\n";
    assert_eq!(counts, expected);
}

/// A run that was stopped in its first epoch has settings and samples alone.
#[test]
fn what_is_not_there_is_left_out() {
    let folder = tempfile::tempdir().unwrap();
    settings(folder.path(), "{ kind = \"regression\" }");
    put(
        folder.path(),
        "samples.csv",
        "slide,label,split\na.tif,1.5,train\nb.tif,-2,train\n",
    );
    let summary = write(folder.path()).unwrap();
    assert_eq!(summary.verdict, Verdict::OneResolution);
    let html = read(folder.path(), "report.html");
    assert!(html.contains("Labels by split") && html.contains("-2.00") && !html.contains("<svg"));
    put(folder.path(), "2-microns/result.json", "{ no JSON");
    let error = write(folder.path()).unwrap_err();
    assert!(
        matches!(&error, TrainError::Json { path, .. } if path.ends_with("2-microns/result.json")),
        "{error}"
    );
}

#[test]
fn an_experiment_without_slides_has_plots_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    put(
        folder.path(),
        "memory.csv",
        "net,edge,planned,measured\nresnet18,1024,0.5,0.4\nresnet18,2048,1.123456789,\n",
    );
    let plot = |y: &str| PlotNote {
        title: format!("Memory {EVIL}"),
        file: "memory.csv".into(),
        x: "edge".to_owned(),
        y: vec!["planned".to_owned(), y.to_owned()],
        series: Some("net".to_owned()),
        x_scale: AxisScale::Log,
        ..PlotNote::default()
    };
    let table = TableNote {
        file: "memory.csv".into(),
        ..TableNote::default()
    };
    let notes = Notes {
        plots: vec![plot("measured")],
        tables: vec![table],
        ..Notes::default()
    };
    notes.write(folder.path()).unwrap();
    write(folder.path()).unwrap();
    let html = read(folder.path(), "report.html");
    check_page(&html);
    assert!(
        html.contains("resnet18, planned") && html.contains(">1.12<"),
        "{html}"
    );
    Notes {
        plots: vec![plot("speed")],
        ..notes
    }
    .write(folder.path())
    .unwrap();
    let error = write(folder.path()).unwrap_err().to_string();
    assert!(error.contains("missing column `speed`"), "{error}");
}

/// Pictures are kept: a report can be made anew after the slides are gone.
#[test]
fn slides_and_their_heat_maps_are_shown() {
    let folder = tempfile::tempdir().unwrap();
    binary(folder.path());
    let slide = folder.path().join("s1.png");
    image::RgbImage::from_pixel(40, 20, image::Rgb([200, 120, 180]))
        .save(&slide)
        .unwrap();
    let member = folder.path().join("2-microns");
    let text = read(&member, "predictions.csv")
        .replace("s1.tif", "s1.png")
        .replace("s1.png,1,11", "s1.png,1,99");
    std::fs::write(member.join("predictions.csv"), text).unwrap();
    std::fs::create_dir(member.join("heatmaps")).unwrap();
    std::fs::copy(&slide, member.join("heatmaps/s1-gradcam.png")).unwrap();
    std::fs::copy(&slide, member.join("heatmaps/s100.png")).unwrap();
    write(folder.path()).unwrap();
    let html = read(folder.path(), "report.html");
    assert_eq!(html.matches("data:image/jpeg;base64,").count(), 2);
    assert!(html.contains("alt=\"Heat map of s1.png\"") && html.contains("No picture"));
    std::fs::remove_file(slide).unwrap();
    write(folder.path()).unwrap();
    assert_eq!(read(folder.path(), "report.html"), html);
}

#[test]
fn reports_are_linked_by_one_page() {
    let folder = tempfile::tempdir().unwrap();
    for run in ["camelyon", "a & b"] {
        std::fs::create_dir(folder.path().join(run)).unwrap();
        binary(&folder.path().join(run));
        write(&folder.path().join(run)).unwrap();
    }
    index(
        folder.path(),
        "All experiments",
        &["camelyon".into(), "a & b".into()],
    )
    .unwrap();
    let html = read(folder.path(), "index.html");
    check_page(&html);
    assert!(
        html.contains("camelyon/report.html")
            && html.contains("a &amp; b/report.html")
            && html.contains("1.000 (1.000 to 1.000)")
    );
    let error = index(folder.path(), "None", &["nowhere".into()]).unwrap_err();
    assert!(
        matches!(&error, TrainError::File { path, source }
            if path.ends_with("nowhere/summary.json") && source.kind() == std::io::ErrorKind::NotFound),
        "{error}"
    );
}
