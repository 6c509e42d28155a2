use std::collections::BTreeMap;
use std::path::PathBuf;

use candle_core::{DType, Device, Tensor};
use stream_grad::TileSource;
use stream_grad_models::generator;
use stream_grad_slides::{
    AnnotationOptions, Annotations, Extent, GeoJsonFrame, Heatmap, MicronsPerPixel, Slide, Target,
};

use super::*;
use crate::error::TrainError;
use crate::model::{Model, ModelSettings, Pooling, Precision, StreamedModel};
use crate::source::{ReadSettings, SlideLoader};

/// ResNet-18 with the golden files' weights, mean pooling and a linear layer.
fn resnet(memory_bytes: u64) -> StreamedModel {
    let settings = ModelSettings {
        name: "resnet18".to_owned(),
        pooling: vec![Pooling::Average],
        momentum: 0.0,
        memory_bytes,
        ..ModelSettings::default()
    };
    let model = StreamedModel::new(&settings, 3, 1).unwrap();
    let generated = |(name, tensor): (String, Tensor)| {
        let value = match name.strip_prefix("net.") {
            Some(name) => generator::parameter("resnet18", name, tensor.dims()).unwrap(),
            None => {
                let name = name.strip_prefix("head.").unwrap();
                generator::uniform_tensor(&format!("resnet18/{name}"), tensor.dims())
                    .unwrap()
                    .to_dtype(DType::F32)
                    .unwrap()
            }
        };
        (name, value)
    };
    let tensors: BTreeMap<String, Tensor> = model.tensors().into_iter().map(generated).collect();
    model.load_tensors(&tensors).unwrap();
    model
}

fn image() -> Tensor {
    let image = generator::uniform_tensor("resnet18/input", &[1, 3, 97, 83]).unwrap();
    image.to_dtype(DType::F32).unwrap()
}

fn golden() -> BTreeMap<String, Tensor> {
    let path =
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../golden/data/heatmaps.safetensors");
    let tensors = candle_core::safetensors::load(path, &Device::Cpu).unwrap();
    tensors.into_iter().collect()
}

/// The sweeps are in f32, PyTorch's values in f64. `scale`: the largest value of the maps of all outputs, since a map that is
/// nearly all clipped is a small part of what was summed.
fn assert_close(what: &str, map: &AttributionMap, expected: &Tensor, scale: f64) {
    let extent = [map.height, map.width].map(|side| usize::try_from(side).unwrap());
    assert_eq!(expected.dims(), extent, "{what}");
    let expected = crate::model::numbers(expected).unwrap();
    for (index, (found, expected)) in map.values.iter().zip(&expected).enumerate() {
        let error = (f64::from(*found) - expected).abs();
        assert!(
            error <= 2e-5 * scale,
            "{what}[{index}]: {found}, PyTorch {expected}, scale {scale}"
        );
    }
}

fn largest(tensor: &Tensor) -> f64 {
    let values = crate::model::numbers(tensor).unwrap();
    values.iter().fold(0.0, |most, value| most.max(value.abs()))
}

#[test]
fn maps_are_those_of_pytorch_however_the_image_is_cut() {
    let golden = golden();
    let conventional = resnet(1 << 30);
    let image = image();
    let height_width = TileSource::extent(&image);
    // A budget in which the image is cut into tiles, and no activations are held.
    let least = {
        let request = conventional.request(height_width.0, height_width.1);
        let request = request
            .trainable(stream_grad::Trainable::Nothing)
            .tap("image");
        let front = conventional.net().front(&request).unwrap();
        u64::try_from(front[0].peak.peak()).unwrap()
    };
    let tight = resnet(least + (1 << 16));
    let mut clipped = 0;
    for (name, expected) in golden.iter().filter(|(name, _)| *name != "logits") {
        let parts: Vec<&str> = name.split('/').collect();
        let target: usize = parts[parts.len() - 1].parse().unwrap();
        let of = |model: &StreamedModel| match parts[0] {
            "grad_cam" => {
                // The pooling's name counts layers.
                let layer = if parts[1] == "maxpool" {
                    "max_pool"
                } else {
                    parts[1]
                };
                let pool = model
                    .net()
                    .operation_names()
                    .find(|name| name.starts_with("max_pool"));
                let layer = if layer == "max_pool" {
                    pool.unwrap().to_owned()
                } else {
                    layer.to_owned()
                };
                grad_cam(model, &image, &layer, target).unwrap()
            }
            _ => {
                let options = InputGradientOptions {
                    sum: if parts[1] == "signed" {
                        ChannelSum::Signed
                    } else {
                        ChannelSum::Absolute
                    },
                    cell: parts[2].parse().unwrap(),
                };
                input_gradient(model, &image, target, &options).unwrap()
            }
        };
        let (whole, cut) = (of(&conventional), of(&tight));
        let prefix = name.trim_end_matches(char::is_numeric);
        let outputs = (0..3).map(|output| largest(&golden[&format!("{prefix}{output}")]));
        let scale = outputs.fold(0.0, f64::max);
        assert_close(name, &whole, expected, scale);
        assert_close(name, &cut, expected, scale);
        clipped += whole.values.iter().filter(|value| **value == 0.0).count();
        let logits = crate::model::numbers(&golden["logits"]).unwrap();
        for (found, expected) in whole.logits.iter().zip(&logits) {
            assert!((found - expected).abs() <= 1e-4 * expected.abs().max(1.0));
        }
    }
    assert!(clipped > 0, "Grad-CAM's ReLU was never needed");
}

#[test]
fn activations_that_are_held_and_those_that_are_computed_again_give_the_same_bits() {
    let settings = |memory_bytes: u64| ModelSettings {
        memory_bytes,
        ..ModelSettings::default()
    };
    let held = StreamedModel::new(&settings(1 << 30), 2, 5).unwrap();
    let image = Tensor::rand(-1f32, 1.0, (1, 3, 256, 192), &Device::Cpu).unwrap();
    let layers: Vec<String> = held.net().operation_names().map(str::to_owned).collect();
    let layer = &layers[2];
    // The same recipe, in a budget that has no room for anything else.
    let request = held
        .request(256, 192)
        .trainable(stream_grad::Trainable::Nothing)
        .tap(layer);
    let plan = held.net().plan(request).unwrap();
    let tight = StreamedModel::new(&settings(plan.peak_bytes().get()), 2, 5).unwrap();
    let maps = [&held, &tight].map(|model| grad_cam(model, &image, layer, 1).unwrap());
    assert_eq!(maps[0], maps[1]);
    assert!(maps[0].largest() > 0.0);
}

/// What is stored has three digits, and so have maps.
#[test]
fn maps_in_bf16_are_close_to_those_in_f32() {
    let image = Tensor::rand(-1f32, 1.0, (1, 3, 160, 128), &Device::Cpu).unwrap();
    let models = [Precision::F32, Precision::Bf16].map(|dtype| {
        let settings = ModelSettings {
            dtype,
            ..ModelSettings::default()
        };
        StreamedModel::new(&settings, 2, 5).unwrap()
    });
    let layer = models[0].net().operation_names().nth(2).unwrap().to_owned();
    let options = InputGradientOptions::default();
    let maps = models.each_ref().map(|model| {
        let cam = grad_cam(model, &image, &layer, 1).unwrap();
        [cam, input_gradient(model, &image, 1, &options).unwrap()]
    });
    for (expected, found) in maps[0].iter().zip(&maps[1]) {
        let pairs = expected.values.iter().zip(&found.values);
        let square = |sum: f64, value: f32| sum + f64::from(value).powi(2);
        let difference = pairs.map(|(a, b)| a - b).fold(0.0, square);
        let norm = expected.values.iter().copied().fold(0.0, square);
        let error = (difference / norm).sqrt();
        assert!(error > 0.0 && error < 0.1, "{error}");
    }
}

#[test]
fn a_layer_or_an_output_that_is_not_there_is_named() {
    let model = StreamedModel::new(&ModelSettings::default(), 2, 5).unwrap();
    let image = Tensor::zeros((1, 3, 64, 64), DType::F32, &Device::Cpu).unwrap();
    let last = model.net().operation_names().last().unwrap().to_owned();
    let refused = grad_cam(&model, &image, "layer9", 0)
        .unwrap_err()
        .to_string();
    let known = last.strip_prefix("net.").unwrap_or(&last);
    assert!(
        refused.contains("layer9") && refused.contains(known),
        "{refused}"
    );
    let layers: Vec<String> = model.net().operation_names().map(str::to_owned).collect();
    for layer in [&layers[1], &last] {
        let refused = grad_cam(&model, &image, layer, 2).unwrap_err();
        assert!(
            matches!(&refused, TrainError::Setting { found, .. } if found == "2"),
            "{refused}"
        );
    }
    let refused = input_gradient(&model, &image, 7, &InputGradientOptions::default())
        .err()
        .unwrap();
    assert_eq!(
        refused.to_string(),
        "setting `target`: expected an output of the model, from 0 to 1, found 7"
    );
}

/// A square of another colour on a slide.
fn write_slide(path: &std::path::Path) {
    let colour = |x: u32, y: u32| {
        let square = (300..420).contains(&x) && (100..220).contains(&y);
        if square {
            [90, 40, 140]
        } else {
            [230, 200 - u8::try_from(x % 40).unwrap(), 225]
        }
    };
    let picture = image::RgbImage::from_fn(640, 480, |x, y| image::Rgb(colour(x, y)));
    picture.save(path).unwrap();
}

#[test]
fn one_call_writes_pictures_outlines_and_a_summary_that_agree() {
    let folder = tempfile::tempdir().unwrap();
    let slide = folder.path().join("a.slide.png");
    write_slide(&slide);
    let read = ReadSettings {
        scale_override: Some(0.5),
        ..ReadSettings::default()
    };
    let loader = SlideLoader::new(MicronsPerPixel::new(1.0).unwrap(), read).unwrap();
    let model = StreamedModel::new(&ModelSettings::default(), 2, 5).unwrap();
    let out = folder.path().join("out");
    let method = HeatmapMethod::InputGradient(InputGradientOptions::default());
    let mut options = HeatmapOptions::new(method, 1);
    options.label = Some("tumour".to_owned());
    options.overlay_edge = 320;
    let files = write(&model, &loader, &slide, &out, &options).unwrap();
    let name = |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().to_owned();
    assert_eq!(
        [
            &files.overlay,
            &files.pyramid,
            &files.contours,
            &files.summary
        ]
        .map(name),
        [
            "a.slide.overlay.png",
            "a.slide.heatmap.tiff",
            "a.slide.geojson",
            "a.slide.json"
        ]
    );
    assert_eq!((files.map.height, files.map.width), (30, 40));

    assert_eq!(image::image_dimensions(&files.overlay).unwrap(), (320, 240));
    let pyramid = Slide::open(&files.pyramid).unwrap();
    assert_eq!(
        pyramid.extent(),
        Extent {
            height: 240,
            width: 320
        }
    );
    assert!((pyramid.scale().unwrap().x.get() - 1.0).abs() < 1e-9);

    // The outlines hold the cells, in pixels of level 0.
    let opened = Slide::open(&slide).unwrap();
    let frame = GeoJsonFrame::bounds_of(&opened);
    let drawn = Annotations::read(&files.contours, &AnnotationOptions::new(frame)).unwrap();
    assert_eq!(drawn.passed_over, []);
    let view = opened.view(Target::Downsample(16.0)).unwrap();
    for threshold in [0.25_f32, 0.5, 0.75] {
        let class = format!("tumour >= {threshold}");
        let labels = drawn.annotations.label_map(&view, &[(Some(&class), 1)]);
        let labels = labels.to_image().unwrap().into_raw();
        let reaches = |value: &f32| u8::from(value / files.map.largest() >= threshold);
        let expected: Vec<u8> = files.map.values.iter().map(reaches).collect();
        assert_eq!(labels, expected, "{class}");
        assert!(expected.contains(&1));
    }
    let summary = std::fs::read(&files.summary).unwrap();
    let summary: serde_json::Value = serde_json::from_slice(&summary).unwrap();
    assert_eq!(
        summary["level_0"],
        serde_json::json!([[0.0, 0.0], [480.0, 640.0]])
    );
    assert_eq!(summary["values"].as_array().unwrap().len(), 1200);

    // Grad-CAM at the last layer of the same slide.
    let last = model.net().operation_names().last().unwrap().to_owned();
    options.method = HeatmapMethod::GradCam { layer: last };
    let again = write(&model, &loader, &slide, &out, &options).unwrap();
    assert_eq!(again.map.logits.len(), 2);
    let view = loader.view(&slide).unwrap();
    let extent = Extent {
        height: again.map.height,
        width: again.map.width,
    };
    assert!(Heatmap::over(&view, extent, again.map.values).is_ok());

    // Nothing is made of options that cannot be.
    for threshold in [0.0, 1.5, f32::NAN] {
        let wrong = HeatmapOptions {
            thresholds: vec![0.5, threshold],
            ..options.clone()
        };
        let nowhere = folder.path().join("nowhere");
        let refused = write(&model, &loader, &slide, &nowhere, &wrong)
            .err()
            .unwrap();
        assert_eq!(
            refused.to_string(),
            format!(
                "setting `thresholds`: expected shares of the largest magnitude, above 0 and at most 1, found {threshold}"
            )
        );
        assert!(!nowhere.exists());
    }
}
