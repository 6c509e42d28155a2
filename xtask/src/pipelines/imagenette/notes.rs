//! What the report of the comparison is told.

use stream_grad_train::optimizer::OptimizerKind;
use stream_grad_train::report::{AxisScale, DataOrigin, Notes, PlotNote, TableNote};

use super::result::{COMPARED, CURVES, DIFFERENCES, ImagenetteResult, PUBLISHED, WEIGHTS};
use super::settings::Settings;

/// Titles that name a plot's two lines.
const LOSSES: [&str; 2] = ["training loss", "validation loss"];
const ACCURACIES: [&str; 2] = ["training accuracy", "validation accuracy"];

/// The question, both curves, and how far they are apart.
pub(super) fn notes(result: &ImagenetteResult, settings: &Settings, pictures: Pictures) -> Notes {
    let curves = |title: &str, lines: [&str; 2]| PlotNote {
        title: title.to_owned(),
        caption: format!(
            "Both trainings: {} solid, {} dashed. Where a line hides another they coincide.",
            lines[0], lines[1]
        ),
        file: CURVES.into(),
        x: "epoch".to_owned(),
        y: lines.map(str::to_owned).to_vec(),
        y_label: title.to_lowercase(),
        series: Some("way".to_owned()),
        ..PlotNote::default()
    };
    let apart = PlotNote {
        title: "Difference of the curves".to_owned(),
        caption: "How far the curves are apart, both in f32; differences of 0 are not shown."
            .to_owned(),
        file: DIFFERENCES.into(),
        x: "epoch".to_owned(),
        y: [LOSSES, ACCURACIES]
            .concat()
            .into_iter()
            .map(str::to_owned)
            .collect(),
        y_label: "difference".to_owned(),
        y_scale: AxisScale::Log,
        ..PlotNote::default()
    };
    Notes {
        title: "Training streamed and conventionally".to_owned(),
        asked: "Does a network whose first layers are streamed tile by tile learn as the same network on whole images does? Both trainings begin with the same weights and see the same parts of the same pictures in the same order.".to_owned(),
        remarks: remarks(result, settings, &pictures),
        origin: Some(pictures.origin),
        plots: vec![curves("Loss", LOSSES), curves("Accuracy", ACCURACIES), apart],
        tables: vec![
            TableNote {
                title: "Streamed and conventional".to_owned(),
                caption: "After the last epoch, and the largest difference over all epochs; published figures are read off the notebook's plots.".to_owned(),
                file: COMPARED.into(),
            },
            TableNote {
                title: "Final weights".to_owned(),
                caption: "Largest magnitude of the conventional training's weights, largest difference of the streamed one's, and the norm of the difference over that of the weights.".to_owned(),
                file: WEIGHTS.into(),
            },
        ],
        ..Notes::default()
    }
}

/// What both are trained on.
pub(super) struct Pictures {
    pub(super) origin: DataOrigin,
    pub(super) train: usize,
    pub(super) validation: usize,
}

fn remarks(result: &ImagenetteResult, settings: &Settings, pictures: &Pictures) -> Vec<String> {
    let train = &settings.train;
    let optimizer = match train.optimizer {
        OptimizerKind::Sgd {
            momentum,
            weight_decay,
        } => format!("SGD with momentum {momentum} and weight decay {weight_decay:e}"),
        OptimizerKind::Muon { weight_decay, .. } => {
            format!("Muon and AdamW with weight decay {weight_decay:e}")
        }
        OptimizerKind::AdamW { weight_decay, .. } => {
            format!("AdamW with weight decay {weight_decay:e}")
        }
    };
    let mut remarks = Vec::new();
    if let DataOrigin::MadeUp { .. } = pictures.origin {
        remarks.push(
            "The pictures are made up, ten classes of textures: figures say how the method behaves, and their accuracy is not \
             to be compared with the published one."
                .to_owned(),
        );
    }
    remarks.push(format!(
        "Here: {} pictures to learn from, {} to validate with, {} epochs of crops of {size} x {size} pixels, batch {}, learning rate \
         {}, {optimizer}, seed {}, tile {}. The notebook: 9,469 and 3,925 pictures, 200 epochs, crops of 320 x 320 pixels, batch 32, \
         learning rate 1e-3, SGD without momentum, weight decay 1e-6, tile 32.",
        pictures.train,
        pictures.validation,
        train.epochs,
        train.batch_size,
        train.learning_rate,
        train.seed,
        settings.tile,
        size = settings.pictures.size,
    ));
    remarks.push(
        "The network is the notebook's, with its 395,178 parameters: two stages of convolution, ReLU and pooling that are streamed, and \
         the rest, which is conventional in both trainings and the same code. Conventional are the same two stages in one piece with \
         candle's autograd; their maximum pooling is written out, since that of candle's own has another gradient. Images go through one \
         at a time, and gradients are averaged over the batch. Training accuracy and loss are means over the pictures as they came; the \
         notebook's are means over batches."
            .to_owned(),
    );
    if let Some(first) = result.left_out.first() {
        remarks.push(format!(
            "Pictures that could not be used at least once: {}, the first is {first}.",
            result.left_out.len()
        ));
    }
    remarks.push(format!("Published figures: {}.", PUBLISHED.source));
    remarks
}

#[cfg(test)]
mod tests {
    use super::super::result::tests::result;
    use super::*;

    #[test]
    fn the_report_says_what_differs_from_the_notebook() {
        let folder = tempfile::tempdir().unwrap();
        let result = result();
        result.write(folder.path()).unwrap();
        let pictures = Pictures {
            origin: DataOrigin::MadeUp { seed: 3 },
            train: 7,
            validation: 5,
        };
        let notes = notes(&result, &Settings::default(), pictures);
        notes.write(folder.path()).unwrap();
        stream_grad_train::report::write(folder.path()).unwrap();
        let page = std::fs::read_to_string(folder.path().join("report.html")).unwrap();
        for part in [
            "made up",
            "7 pictures to learn from, 5 to validate with",
            "about 0.70",
            "broken.jpg",
            "0.weight",
            "conventional",
        ] {
            assert!(page.contains(part), "the report lacks {part}");
        }
    }
}
