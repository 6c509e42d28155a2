//! What the report of the comparison is told.

use stream_grad_train::report::{Notes, TableNote};

use super::result::{NumericsResult, TABLE};

/// The question and the table of differences, with the published ones beside them.
pub(super) fn notes(result: &NumericsResult) -> Notes {
    let &NumericsResult {
        image, tile, seed, ..
    } = result;
    Notes {
        title: "Streamed and whole computation in f64".to_owned(),
        asked: "Are the output and the gradients of a network that is streamed tile by tile those of the same network on the whole image?".to_owned(),
        remarks: vec![
            format!(
                "An image of {image} x {image} pixels of normal noise (seed {seed}), streamed with a tile of {tile} pixels; the loss \
                 is the sum of the output. The network is the notebook's: three times two 3x3 convolutions with ReLU and \
                 max-pooling by 2."
            ),
            format!("Published figures: {}.", result.published().source),
        ],
        tables: vec![TableNote {
            title: "Differences".to_owned(),
            caption: "Largest magnitude of the whole computation's values, largest difference of the streamed one's, and the norm of the \
                      difference over that of the values; the published range of the largest difference beside them."
                .to_owned(),
            file: TABLE.into(),
        }],
        ..Notes::default()
    }
}
