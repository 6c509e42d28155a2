//! The loss against plain loops, PyTorch, differences, and streamed through a U-Net.

use candle_core::{DType, Device, Tensor};
use candle_nn::{VarBuilder, VarMap};
use serde::Deserialize;
use stream_grad::{
    CotangentSource, ExternalError, FeatureSink, Maps, Net, PlanRequest, Rect, Strided, StridedMut,
    TileMut, TileRef,
};
use stream_grad_models::{ResNetConfig, UNetConfig, seeded};

use super::*;
use crate::source::LabelSource;

/// Labels in memory.
struct Map {
    height: u64,
    width: u64,
    labels: Vec<u8>,
}

impl LabelSource for Map {
    fn extent(&self) -> (u64, u64) {
        (self.height, self.width)
    }

    fn read(&self, region: Rect, labels: &mut [u8]) -> Result<(), ExternalError> {
        let width = usize::try_from(self.width)?;
        let mut labels = labels.iter_mut();
        for row in region.rows.lo..region.rows.hi {
            for column in region.columns.lo..region.columns.hi {
                let place = usize::try_from(row)? * width + usize::try_from(column)?;
                *labels.next().ok_or("too few labels")? = self.labels[place];
            }
        }
        Ok(())
    }
}

/// An image of one row whose logits lie in memory, pixel by pixel.
struct Row<'a> {
    loss: &'a SegmentationLoss,
    map: Map,
}

impl<'a> Row<'a> {
    fn new(loss: &'a SegmentationLoss, labels: &[u8]) -> Self {
        let map = Map {
            height: 1,
            width: labels.len() as u64,
            labels: labels.to_vec(),
        };
        Self { loss, map }
    }

    fn region(&self) -> Rect {
        Rect::whole(1, self.map.width)
    }

    fn sums(&self, logits: &[f64]) -> SegmentationSums {
        let mut sink = self.loss.sink(&self.map);
        let tile = Strided::new(logits, 1, logits.len(), logits.len()).unwrap();
        sink.write(0, 0, self.region(), TileRef::F64(tile)).unwrap();
        sink.into_sums()
    }

    fn value(&self, logits: &[f64]) -> f64 {
        self.loss.value(&self.sums(logits))
    }

    fn gradient(&self, logits: &[f64]) -> Vec<f64> {
        let mut source = self.loss.cotangents(&self.map, &self.sums(logits));
        let mut out = vec![f64::NAN; logits.len()];
        let length = logits.len();
        let features = TileRef::F64(Strided::new(logits, 1, length, length).unwrap());
        let tile = TileMut::F64(StridedMut::new(&mut out, 1, length, length).unwrap());
        source.read(0, 0, self.region(), features, tile).unwrap();
        out
    }
}

/// The loss by the definitions, with no care for large numbers.
fn plain(loss: &SegmentationLoss, logits: &[f64], labels: &[u8]) -> f64 {
    let classes = loss.classes;
    let probability = |pixel: usize, class: usize| {
        let powers = &logits[pixel * classes..(pixel + 1) * classes];
        powers[class].exp() / powers.iter().map(|z| z.exp()).sum::<f64>()
    };
    let known: Vec<usize> = (0..labels.len())
        .filter(|pixel| labels[*pixel] != loss.ignore_index)
        .collect();
    let (mut sum, mut weights) = (0.0, 0.0);
    for &pixel in &known {
        let truth = usize::from(labels[pixel]);
        let weight = loss.class_weights.get(truth).copied().unwrap_or(1.0);
        sum -= weight * probability(pixel, truth).ln();
        weights += weight;
    }
    let mut dice = 0.0;
    for class in 0..classes {
        let own = |pixel: &&usize| usize::from(labels[**pixel]) == class;
        let count = known.iter().filter(own).count();
        if count == 0 {
            continue;
        }
        let intersection: f64 = known
            .iter()
            .filter(own)
            .map(|pixel| probability(*pixel, class))
            .sum();
        let all: f64 = known.iter().map(|pixel| probability(*pixel, class)).sum();
        let cardinality = all + count as f64;
        dice += 1.0 - (intersection + loss.smooth) / (cardinality / 2.0 + loss.smooth).max(1e-7);
    }
    loss.cross_entropy * sum / weights + loss.dice * dice / classes as f64
}

/// Numbers from -2 to 2 that look like noise.
fn noise(seed: u64, count: usize) -> Vec<f64> {
    let mut state = seed;
    let mut next = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        f64::from((state >> 33) as u32) / f64::from(1_u32 << 31) * 4.0 - 2.0
    };
    (0..count).map(|_| next()).collect()
}

fn losses() -> Vec<SegmentationLoss> {
    let new = || SegmentationLoss::new(3);
    vec![
        new(),
        SegmentationLoss { dice: 0.0, ..new() },
        SegmentationLoss {
            cross_entropy: 0.0,
            ..new()
        },
        SegmentationLoss {
            class_weights: vec![0.5, 2.0, 0.25],
            dice: 0.75,
            smooth: 1.0,
            ..new()
        },
        // One of the classes has no say.
        SegmentationLoss {
            ignore_index: 0,
            ..new()
        },
    ]
}

#[test]
fn values_are_those_of_plain_loops() {
    for (seed, loss) in losses().into_iter().enumerate() {
        let logits = noise(seed as u64, 3 * 40);
        // The third class is in no pixel of the second map.
        for labels in [[0, 1, 2, 255, 1], [0, 1, 255, 1, 1]] {
            let labels: Vec<u8> = labels.repeat(8);
            let labels: Vec<u8> = match loss.ignore_index {
                255 => labels,
                other => labels
                    .into_iter()
                    .map(|label| if label == 255 { other } else { label })
                    .collect(),
            };
            let (found, expected) = (
                Row::new(&loss, &labels).value(&logits),
                plain(&loss, &logits, &labels),
            );
            assert!((found - expected).abs() < 1e-13, "{found}, {expected}");
        }
    }
}

#[test]
fn gradients_are_those_of_differences() {
    let labels = [0, 1, 2, 255, 1, 0, 1];
    for (seed, loss) in losses().into_iter().enumerate() {
        let labels = labels.map(|label| {
            if label == 255 {
                loss.ignore_index
            } else {
                label
            }
        });
        let row = Row::new(&loss, &labels);
        let logits = noise(100 + seed as u64, 3 * labels.len());
        for (place, found) in row.gradient(&logits).into_iter().enumerate() {
            let moved = |by: f64| {
                let mut logits = logits.clone();
                logits[place] += by;
                row.value(&logits)
            };
            let expected = (moved(1e-5) - moved(-1e-5)) / 2e-5;
            assert!((found - expected).abs() < 1e-9, "{found}, {expected}");
        }
    }
}

#[derive(Deserialize)]
struct Golden {
    classes: usize,
    ignore_index: u8,
    class_weights: Option<Vec<f64>>,
    cross_entropy: f64,
    dice: f64,
    smooth: f64,
    labels: Vec<u8>,
    logits: Vec<f64>,
    loss: f64,
    gradient: Vec<f64>,
}

/// PyTorch and `segmentation_models_pytorch`: see `tests/golden/segmentation.py`.
#[test]
fn losses_and_gradients_are_those_of_pytorch() {
    let golden = include_str!("../../../tests/golden/segmentation.json");
    let mut golden: serde_json::Value = serde_json::from_str(golden).unwrap();
    let cases: Vec<Golden> = serde_json::from_value(golden["losses"].take()).unwrap();
    assert!(cases.len() > 10);
    for case in cases {
        let loss = SegmentationLoss {
            classes: case.classes,
            ignore_index: case.ignore_index,
            class_weights: case.class_weights.unwrap_or_default(),
            cross_entropy: case.cross_entropy,
            dice: case.dice,
            smooth: case.smooth,
        };
        loss.check().unwrap();
        let row = Row::new(&loss, &case.labels);
        let value = row.value(&case.logits);
        let close = |a: f64, b: f64| (a - b).abs() <= 1e-12 * b.abs().max(1.0);
        assert!(close(value, case.loss), "{value}, {}", case.loss);
        for (found, expected) in row.gradient(&case.logits).iter().zip(&case.gradient) {
            assert!(close(*found, *expected), "{found}, {expected}");
        }
    }
}

#[test]
fn pixels_of_no_class_have_no_say() {
    let loss = SegmentationLoss::new(2);
    let logits = [0.5, -1.0, 2.0, 1.0];
    let (both, first) = (Row::new(&loss, &[0, 255]), Row::new(&loss, &[0]));
    assert_eq!(both.value(&logits), first.value(&logits[..2]));
    let gradient = both.gradient(&logits);
    assert_eq!(gradient[..2], first.gradient(&logits[..2]));
    assert_eq!(gradient[2..], [0.0, 0.0]);
    assert_eq!(both.sums(&logits).confusion().pixels(), 1);
    // Whatever stands there.
    let broken = [0.5, -1.0, f64::NAN, f64::INFINITY];
    assert_eq!(both.value(&broken), both.value(&logits));
    assert_eq!(both.gradient(&broken), gradient);
}

#[test]
fn an_image_without_labels_has_a_loss_and_gradients_of_zero() {
    let weightless = SegmentationLoss {
        class_weights: vec![0.0, 1.0],
        dice: 0.0,
        ..SegmentationLoss::new(2)
    };
    for (loss, labels) in [(SegmentationLoss::new(2), [255; 2]), (weightless, [0, 255])] {
        let row = Row::new(&loss, &labels);
        let logits = [0.5, -1.0, 2.0, 1.0];
        assert_eq!(row.value(&logits), 0.0);
        assert_eq!(row.gradient(&logits), [0.0; 4]);
    }
}

#[test]
fn logits_that_are_no_numbers_make_no_loss_and_large_ones_do() {
    let loss = SegmentationLoss::new(2);
    let row = Row::new(&loss, &[0, 1]);
    for wrong in [f64::NAN, f64::INFINITY] {
        assert!(row.value(&[wrong, 0.0, 0.0, 1.0]).is_nan(), "{wrong}");
    }
    // The true class is impossible.
    assert_eq!(
        row.value(&[f64::NEG_INFINITY, 0.0, 0.0, 1.0]),
        f64::INFINITY
    );
    let large = row.value(&[1e300, -1e300, 700.0, 0.0]);
    assert!(large.is_finite() && large > 300.0, "{large}");
}

#[test]
fn a_label_that_is_no_class_is_named_with_its_place() {
    let loss = SegmentationLoss::new(3);
    let row = Row::new(&loss, &[0, 255, 3]);
    let logits = [0.0; 9];
    let tile = Strided::new(&logits, 1, 9, 9).unwrap();
    let written = loss
        .sink(&row.map)
        .write(0, 0, row.region(), TileRef::F64(tile));
    let message = written.unwrap_err().to_string();
    for part in ["label 3", "row 0, column 2", "from 0 to 2", "255"] {
        assert!(message.contains(part), "{part} in {message}");
    }
}

#[test]
fn senseless_settings_are_refused() {
    let new = || SegmentationLoss::new(2);
    for (loss, part) in [
        (
            SegmentationLoss {
                dice: -1.0,
                ..new()
            },
            "dice_weight",
        ),
        (
            SegmentationLoss {
                cross_entropy: f64::NAN,
                ..new()
            },
            "cross_entropy_weight",
        ),
        (
            SegmentationLoss {
                smooth: f64::INFINITY,
                ..new()
            },
            "dice_smooth",
        ),
        (
            SegmentationLoss {
                cross_entropy: 0.0,
                dice: 0.0,
                ..new()
            },
            "one of them above 0",
        ),
        (
            SegmentationLoss {
                class_weights: vec![1.0],
                ..new()
            },
            "2 finite numbers",
        ),
    ] {
        let message = loss.check().unwrap_err().to_string();
        assert!(message.contains(part), "{part} in {message}");
    }
}

fn narrow_unet() -> Net {
    let variables = VarMap::new();
    let vb: VarBuilder<'_> = seeded(&variables, 3, DType::F64, &Device::Cpu);
    let mut config = UNetConfig::new(ResNetConfig::resnet18().base_width(2), 3);
    config.decoder_channels = [8, 6, 4, 3, 2];
    config.build(vb).unwrap()
}

/// Loss, confusion and gradients of a U-Net in double precision, its logits streamed.
fn streamed(request: PlanRequest) -> (f64, crate::metrics::Confusion, Vec<Vec<f64>>) {
    let net = narrow_unet();
    let (height, width) = (96, 64);
    let image = Tensor::from_vec(noise(1, 3 * 96 * 64), (1, 3, 96, 64), &Device::Cpu).unwrap();
    let labels = noise(2, 96 * 64).into_iter().map(|value| match value {
        value if value < -1.0 => 255,
        value if value < 0.5 => 0,
        value if value < 1.5 => 1,
        _ => 2,
    });
    let map = Map {
        height,
        width,
        labels: labels.collect(),
    };
    let plan = net.plan(request.features(Maps::Streamed)).unwrap();
    let loss = SegmentationLoss {
        class_weights: vec![0.5, 1.0, 2.0],
        smooth: 0.5,
        ..SegmentationLoss::new(3)
    };
    let mut sink = loss.sink(&map);
    let residuals = plan.forward_to(&image, &mut sink).unwrap();
    let sums = sink.into_sums();
    let mut cotangents = loss.cotangents(&map, &sums);
    let store = plan.vjp_from(residuals, &mut cotangents, None).unwrap();
    let gradients = net.parameters().iter().filter_map(|parameter| {
        let gradient = store.get(&parameter.tensor)?;
        Some(gradient.flatten_all().unwrap().to_vec1::<f64>().unwrap())
    });
    (
        loss.value(&sums),
        sums.confusion().clone(),
        gradients.collect(),
    )
}

/// Small tiles, and blocks of them, give what one tile gives: all pixels are in the sums once.
#[test]
fn a_streamed_unet_has_the_loss_and_gradients_of_one_tile() {
    let request = || PlanRequest::new(96, 64).dtype(DType::F64);
    let (loss, confusion, gradients) = streamed(request());
    assert!(gradients.len() > 40);
    let largest = gradients
        .iter()
        .flatten()
        .fold(0.0_f64, |largest, value| largest.max(value.abs()));
    assert!(largest > 1e-6, "{largest}");
    for request in [
        request().tile(32),
        request().tile_extent(37, 64),
        request().tile(32).block(64),
    ] {
        let (other_loss, other_confusion, others) = streamed(request);
        assert!((loss - other_loss).abs() <= 1e-12 * loss);
        assert_eq!(confusion, other_confusion);
        for (gradient, other) in gradients.iter().flatten().zip(others.iter().flatten()) {
            let difference = (gradient - other).abs();
            assert!(difference <= 1e-12 * largest, "{gradient}, {other}");
        }
    }
}

/// Logits and their cotangents are rounded to three digits.
#[test]
fn a_unet_in_bf16_has_about_the_loss_and_gradients() {
    let request = |dtype: DType| PlanRequest::new(96, 64).dtype(dtype).tile(32);
    let (loss, _, gradients) = streamed(request(DType::F64));
    let (other_loss, _, others) = streamed(request(DType::BF16));
    assert!(
        (loss - other_loss).abs() <= 1e-2 * loss,
        "{loss}, {other_loss}"
    );
    let square = |sum: f64, value: f64| sum + value * value;
    let pairs = gradients.iter().flatten().zip(others.iter().flatten());
    let difference = pairs.map(|(a, b)| a - b).fold(0.0, square);
    let norm = gradients.iter().flatten().copied().fold(0.0, square);
    let error = (difference / norm).sqrt();
    assert!(error > 0.0 && error < 0.1, "{error}");
}
