//! Reports say what was measured and where the data came from.

use stream_grad_slides::FurtherCell;

use super::*;
use crate::trainer::Prediction;

fn result(microns: f64, value: f64) -> ResolutionResult {
    ResolutionResult {
        microns_per_pixel: microns,
        mean_pixels: 1.05e6 / (microns * microns),
        test: Estimate {
            value,
            low: value - 0.05,
            high: value + 0.04,
        },
        test_slides: 160,
        skipped: SkippedSlides {
            broken: vec!["torn.tif".into()],
            ..SkippedSlides::default()
        },
        bad_regions: [("stained.tif".into(), 3)].into(),
        seconds: 100.0,
        training: Timing {
            seconds: 80.0,
            waiting_seconds: 2.0,
        },
        history: vec![EpochRecord {
            epoch: 0,
            train_loss: 0.5,
            learning_rate: 1e-3,
            validation_loss: None,
            validation_metric: Some(0.6),
        }],
    }
}

fn report(values: &[(f64, f64)]) -> Report {
    Report {
        title: "Metastasis".to_owned(),
        data: DataOrigin::MadeUp { seed: 17 },
        metric: "AUC".to_owned(),
        confidence: 0.95,
        results: values
            .iter()
            .map(|(microns, value)| result(*microns, *value))
            .collect(),
        published: vec![PublishedRow {
            source: "TPAMI 2022".to_owned(),
            figures: vec![
                PublishedFigure {
                    megapixels: 4.0,
                    value: 0.58,
                },
                PublishedFigure {
                    megapixels: 66.0,
                    value: 0.706,
                },
            ],
        }],
    }
}

#[test]
fn verdicts_compare_intervals() {
    assert_eq!(
        report(&[(8.0, 0.55), (4.0, 0.8), (2.0, 0.95)]).verdict(),
        Verdict::Separated
    );
    assert_eq!(
        report(&[(2.0, 0.60), (8.0, 0.55)]).verdict(),
        Verdict::Higher
    );
    assert_eq!(
        report(&[(8.0, 0.60), (2.0, 0.55)]).verdict(),
        Verdict::NotHigher
    );
    assert_eq!(report(&[(8.0, 0.60)]).verdict(), Verdict::OneResolution);
    assert_eq!(report(&[]).verdict(), Verdict::OneResolution);
}

#[test]
fn all_files_are_written() {
    let folder = tempfile::tempdir().unwrap();
    let report = report(&[(8.0, 0.55), (2.0, 0.95)]);
    report.write(folder.path()).unwrap();
    let read = |name: &str| std::fs::read_to_string(folder.path().join(name)).unwrap();
    let text = read("summary.txt");
    for part in [
        "made-up cohort, seed 17",
        "0.950",
        "0.900 to 0.990",
        "published: TPAMI 2022",
        "0.706",
        "wholly above",
        "2.5%",
        "8 microns, not read in training, at least once: torn.tif",
        "8 microns, regions that read as background since they are damaged: 3 of stained.tif",
    ] {
        assert!(text.contains(part), "{part:?} in {text}");
    }
    let json: serde_json::Value = serde_json::from_str(&read("summary.json")).unwrap();
    assert_eq!(json["verdict"], "separated");
    assert_eq!(json["results"][1]["test"]["value"], 0.95);
    assert_eq!(
        read("epochs.csv").lines().nth(1),
        Some("8,1,0.5,0.001,,0.6")
    );
    let resolutions = read("resolutions.csv");
    assert_eq!(resolutions.lines().count(), 3);
    let column = |line: &str, name: &str| {
        let place = resolutions
            .lines()
            .next()?
            .split(',')
            .position(|heading| heading == name)?;
        line.split(',').nth(place).map(str::to_owned)
    };
    for line in resolutions.lines().skip(1) {
        assert_eq!(column(line, "skipped_slides").as_deref(), Some("1"));
        assert_eq!(column(line, "bad_regions").as_deref(), Some("3"));
    }
    let svg = read("metric.svg");
    assert!(svg.starts_with("<svg") && svg.contains("megapixels") && svg.contains("TPAMI 2022"));
}

#[test]
fn an_empty_report_is_drawn_too() {
    let report = Report {
        published: Vec::new(),
        ..report(&[])
    };
    report.write(tempfile::tempdir().unwrap().path()).unwrap();
}

#[test]
fn predictions_have_a_column_for_each_output() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("predictions.csv");
    let prediction = Prediction {
        slide: "a, b.tif".into(),
        label: 1.0,
        logits: vec![0.5, -2.0],
        pixels: 4,
        patient: None,
        further: Vec::new(),
    };
    write_predictions(
        &path,
        &Evaluation {
            predictions: vec![prediction],
            skipped: Vec::new(),
        },
    )
    .unwrap();
    assert_eq!(
        std::fs::read_to_string(&path).unwrap(),
        "slide,label,logit_0,logit_1\n\"a, b.tif\",1,0.5,-2\n"
    );
}

#[test]
fn predictions_end_with_what_the_table_had_besides() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("predictions.csv");
    let cell = |(column, text): (&str, &str)| FurtherCell {
        column: column.to_owned(),
        text: text.to_owned(),
    };
    let prediction = |slide: &str, patient: Option<&str>, further: &[(&str, &str)]| Prediction {
        slide: slide.into(),
        label: 1.0,
        logits: vec![0.5],
        pixels: 4,
        patient: patient.map(str::to_owned),
        further: further.iter().copied().map(cell).collect(),
    };
    // Two slides of one stem, columns that clash with the table's own and with each other, and one that a slide lacks.
    let predictions = vec![
        prediction(
            "c0/n0.tif",
            Some("p1"),
            &[
                ("age", "61"),
                ("Logit_0", "0.1"),
                ("table_logit_0", "x"),
                ("prediction", "a, b"),
            ],
        ),
        prediction("c1/n0.tif", None, &[("age", "47"), ("site", "3")]),
    ];
    let evaluation = Evaluation {
        predictions,
        skipped: Vec::new(),
    };
    write_predictions(&path, &evaluation).unwrap();
    assert_eq!(
        std::fs::read_to_string(&path).unwrap(),
        "slide,label,logit_0,patient,age,table_Logit_0,table_table_logit_0,prediction,site\n\
         c0/n0.tif,1,0.5,p1,61,0.1,x,\"a, b\",\n\
         c1/n0.tif,1,0.5,,47,,,,3\n"
    );
}
