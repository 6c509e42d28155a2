//! Networks with several outputs: the head takes all of them.

use std::num::NonZeroU64;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use rand::SeedableRng;
use stream_grad::{Conv2d, NetBuilder, Trainable};

use super::super::*;
use super::mean;
use crate::data::{ClassNames, Sample};
use crate::heatmap::{AttributionMap, ChannelSum, InputGradientOptions, grad_cam, input_gradient};
use crate::model_file::{self, Limits, ModelDescription, TrainedBy};
use crate::settings::Settings;
use crate::source::{ImageLoader, ReadSettings};
use crate::trainer::{NoObserver, Outcome, Run, Summary, TrainSettings};

/// Height and width of the image that is cut.
const EXTENT: (u64, u64) = (253, 221);

fn noise(seed: u64, height: usize, width: usize) -> Tensor {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let values: Vec<f32> = (0..3 * height * width)
        .map(|_| rng.random::<f32>() - 0.5)
        .collect();
    Tensor::from_vec(values, (1, 3, height, width), &Device::Cpu).unwrap()
}

fn image() -> Tensor {
    noise(3, 253, 221)
}

/// Two outputs, of which the second is made of the first.
fn two_outputs(vb: VarBuilder<'_>) -> Result<Net> {
    let mut net = NetBuilder::new(3);
    let stem = Conv2d::new(3, 4, 3).padding(1).stride(2);
    let stem = net.conv2d(net.input(), stem, vb.pp("stem"))?;
    let stem = net.relu(stem)?;
    let fine = net.conv2d(stem, Conv2d::new(4, 3, 3).padding(1), vb.pp("fine"))?;
    let coarse = net.conv2d(fine, Conv2d::new(3, 5, 3).stride(2), vb.pp("coarse"))?;
    Ok(net.build_named(vec![("fine".into(), fine), ("coarse".into(), coarse)])?)
}

fn model(memory_bytes: u64, seed: u64) -> StreamedModel {
    let settings = ModelSettings {
        pooling: vec![Pooling::Average, Pooling::Gem4],
        momentum: 0.0,
        memory_bytes,
        ..ModelSettings::default()
    };
    StreamedModel::of(&settings, (2, seed), two_outputs).unwrap()
}

/// The same network and head in f64, by candle's own operations on the whole image.
struct Plain(BTreeMap<String, Var>);

impl Plain {
    fn of(model: &StreamedModel) -> Self {
        let exact = |(name, tensor): (String, Tensor)| (name, variable(&tensor));
        Self(model.tensors().into_iter().map(exact).collect())
    }

    fn convolution(&self, name: &str, x: &Tensor, (padding, stride): (usize, usize)) -> Tensor {
        let [weight, bias] = ["weight", "bias"].map(|kind| &self.0[&format!("net.{name}.{kind}")]);
        let bias = bias.reshape((1, (), 1, 1)).unwrap();
        let y = x.conv2d(weight, padding, stride, 1, 1).unwrap();
        y.broadcast_add(&bias).unwrap()
    }

    fn stem(&self, image: &Tensor) -> Tensor {
        self.convolution("stem", image, (1, 2)).relu().unwrap()
    }

    fn fine(&self, stem: &Tensor) -> Tensor {
        self.convolution("fine", stem, (1, 1))
    }

    fn coarse(&self, fine: &Tensor) -> Tensor {
        self.convolution("coarse", fine, (0, 2))
    }

    /// All channels of the first pooling, output by output, then of the next.
    fn logits(&self, outputs: [&Tensor; 2]) -> Tensor {
        let average = outputs.map(|x| x.mean((2, 3)).unwrap());
        let generalised = outputs.map(|x| {
            let mean = x.powf(4.0).unwrap().mean((2, 3)).unwrap();
            (mean + 1e-6).unwrap().powf(0.25).unwrap()
        });
        let pooled = Tensor::cat(&[average, generalised].concat(), 1).unwrap();
        let [weight, bias] = ["weight", "bias"].map(|kind| &self.0[&format!("head.fc.{kind}")]);
        let logits = pooled.matmul(&weight.t().unwrap()).unwrap();
        logits.broadcast_add(bias).unwrap()
    }
}

/// A leaf in f64.
fn variable(tensor: &Tensor) -> Var {
    Var::from_tensor(&tensor.detach().to_dtype(DType::F64).unwrap()).unwrap()
}

/// Another gradient for each logit.
fn loss(logits: &Tensor) -> Result<Tensor> {
    let first = (logits.narrow(1, 0, 1)? * 3.0)?;
    Ok((first.sum_all()? + logits.sqr()?.sum_all()?)?)
}

/// The sweeps are in f32, what is expected in f64.
fn assert_close(what: &str, found: &[f64], expected: &Tensor, scale: f64) {
    let expected = numbers(expected).unwrap();
    assert!(scale > 0.0, "{what}: nothing would be tested");
    assert_eq!(found.len(), expected.len(), "{what}");
    for (index, (found, expected)) in found.iter().zip(&expected).enumerate() {
        assert!(
            (found - expected).abs() <= 1e-5 * scale,
            "{what}[{index}]: {found}, expected {expected}, scale {scale}"
        );
    }
}

fn largest(tensor: &Tensor) -> f64 {
    let values = numbers(tensor).unwrap();
    values.iter().fold(0.0, |most, value| most.max(value.abs()))
}

#[test]
fn gradients_are_those_of_a_plain_computation_however_the_image_is_cut() {
    let (height, width) = EXTENT;
    let plain = Plain::of(&model(1 << 30, 7));
    let fine = plain.fine(&plain.stem(&variable(&image())));
    let logits = plain.logits([&fine, &plain.coarse(&fine)]);
    let expected = loss(&logits).unwrap().backward().unwrap();
    let mut seen = Vec::new();
    for edge in [256, 48] {
        let model = model(1 << 30, 7);
        let cut = PlanRequest::new(height, width).tile(edge);
        let plan = model.net().plan(cut).unwrap();
        assert_eq!(plan.tiles() > 1, edge < height);
        model.load_recipes(vec![plan.recipe().clone()]);
        let found = model.gradients(&image(), &loss).unwrap();
        assert_close("logits", &found.logits, &logits, largest(&logits));
        // 2 poolings of 3 and 5 channels.
        assert_eq!(found.pooled.dims(), [1, 16]);
        assert_eq!(plain.0.len(), 8);
        for (name, variable) in &plain.0 {
            let expected = expected.get(variable).unwrap();
            let found = numbers(found.gradients.get(name).unwrap()).unwrap();
            assert_close(name, &found, expected, largest(expected));
        }
        let bits =
            |values: &[f64]| -> Vec<u64> { values.iter().map(|value| value.to_bits()).collect() };
        seen.push(bits(&found.logits));
        seen.push(bits(&model.predict(&image()).unwrap()));
    }
    assert!(seen.iter().all(|logits| *logits == seen[0]), "{seen:?}");
}

/// The first output is read by what makes the second: its gradient is that of both.
#[test]
fn heat_maps_are_those_of_a_plain_computation_however_the_image_is_cut() {
    let (height, width) = EXTENT;
    let whole = model(1 << 30, 7);
    let tapped = |model: &StreamedModel| {
        let request = model.request(height, width).tap("image");
        request.trainable(Trainable::Nothing)
    };
    let least = whole.net().front(&tapped(&whole)).unwrap()[0].peak.peak();
    let cut = model(u64::try_from(least).unwrap() + (1 << 16), 7);
    assert!(cut.net().plan(tapped(&cut)).unwrap().tiles() > 1);

    let plain = Plain::of(&whole);
    let pixels = variable(&image());
    let stem = variable(&plain.stem(&pixels));
    let fine = variable(&plain.fine(&stem));
    let coarse = variable(&plain.coarse(&fine));
    let of_fine = |fine: &Tensor| plain.logits([fine, &plain.coarse(fine)]);
    let of_stem = |stem: &Tensor| of_fine(&plain.fine(stem));
    let mut positive = 0;
    for target in 0..2 {
        let gradient = |logits: Tensor, leaf: &Var| {
            let logit = logits.narrow(1, target, 1).unwrap().sum_all().unwrap();
            logit.backward().unwrap().get(leaf).unwrap().clone()
        };
        let logits = of_stem(&stem);
        for (layer, leaf, gradient) in [
            ("stem", &stem, gradient(of_stem(&stem), &stem)),
            ("fine", &fine, gradient(of_fine(&fine), &fine)),
            (
                "net.coarse",
                &coarse,
                gradient(plain.logits([&fine, &coarse]), &coarse),
            ),
        ] {
            let weights = gradient.mean((2, 3)).unwrap();
            let weights = weights.reshape((1, (), 1, 1)).unwrap();
            let sums = leaf.broadcast_mul(&weights).unwrap().sum(1).unwrap();
            let expected = sums.relu().unwrap();
            for model in [&whole, &cut] {
                let found = grad_cam(model, &image(), layer, target).unwrap();
                assert_map(layer, &found, &expected, largest(&sums));
                assert_close(layer, &found.logits, &logits, largest(&logits));
                positive += found.values.iter().filter(|value| **value > 0.0).count();
            }
        }

        let gradient = gradient(of_stem(&plain.stem(&pixels)), &pixels);
        for (sum, expected) in [
            (ChannelSum::Signed, gradient.sum(1).unwrap()),
            (
                ChannelSum::Absolute,
                gradient.abs().unwrap().sum(1).unwrap(),
            ),
        ] {
            let options = InputGradientOptions {
                sum,
                cell: NonZeroU64::MIN,
            };
            for model in [&whole, &cut] {
                let found = input_gradient(model, &image(), target, &options).unwrap();
                assert_map("image", &found, &expected, largest(&expected));
            }
        }
    }
    assert!(positive > 0, "all maps are clipped");
}

/// `expected`: `[1, H, W]`.
fn assert_map(what: &str, found: &AttributionMap, expected: &Tensor, scale: f64) {
    let extent = [found.height, found.width].map(|side| usize::try_from(side).unwrap());
    assert_eq!(expected.dims()[1..], extent, "{what}");
    let values: Vec<f64> = found.values.iter().map(|&value| value.into()).collect();
    assert_close(what, &values, expected, scale);
}

/// A head that reads one output alone trains what makes that output, and no other.
#[test]
fn every_level_of_a_pyramid_reaches_the_logits_and_gets_a_gradient() {
    let settings = ModelSettings {
        name: "resnet18_fpn".to_owned(),
        momentum: 0.0,
        ..ModelSettings::default()
    };
    let model = StreamedModel::new(&settings, 1, 5).unwrap();
    let channels: Vec<usize> = model.net().output_channels().collect();
    assert_eq!(channels, [256; 5]);
    let image = noise(1, 64, 64);
    // Copies: a variable cannot be set to its own memory.
    let own = model.tensors().into_iter();
    let mut tensors: BTreeMap<String, Tensor> = own
        .map(|(name, tensor)| (name, tensor.copy().unwrap()))
        .collect();
    let weight = tensors["head.fc.weight"].clone();
    assert_eq!(weight.dims(), [1, 5 * 256]);
    let mut logits = Vec::new();
    for output in 0..5 {
        let read = (0..5 * 256).map(|input| f32::from(u8::from(input / 256 == output)));
        let read = Tensor::from_iter(read, &Device::Cpu).unwrap();
        let read = (read.reshape((1, ())).unwrap() * 0.01).unwrap();
        tensors.insert("head.fc.weight".to_owned(), read);
        model.load_tensors(&tensors).unwrap();
        let found = model.gradients(&image, &mean).unwrap();
        logits.push(found.logits[0]);
        let moves = |name: &str| largest(found.gradients.get(name).unwrap()) > 0.0;
        // The last output is pooled from the one before it.
        let own = output.min(3);
        for level in 0..4 {
            let name = format!("net.fpn.layer_blocks.{level}.0.weight");
            assert_eq!(moves(&name), level == own, "{name} for output {output}");
        }
        assert!(moves("net.body.conv1.weight"), "output {output}");
    }
    for (place, logit) in logits.iter().enumerate() {
        assert!(!logits[..place].contains(logit), "{logits:?}");
    }
}

/// Noise by the number that a slide is called.
struct Noise;

impl ImageLoader for Noise {
    fn expect(&self, _: &[&Path]) {}

    fn load(&self, slide: &Path) -> Result<Arc<dyn TileSource>> {
        let seed = slide.to_str().unwrap().parse().unwrap();
        Ok(Arc::new(noise(seed, 64, 64)))
    }
}

/// Trains on four slides.
fn train(settings: &TrainSettings, model: &StreamedModel, folder: Option<&Path>) -> Summary {
    let sample = |number: u8| Sample::new(number.to_string(), f64::from(number % 2));
    let samples: Vec<Sample> = (0..4).map(sample).collect();
    let run = Run {
        settings,
        task: Task::Binary,
        train: &samples,
        validation: &[],
        model: model.into(),
        loader: &Noise,
        folder,
    };
    match run.execute(&AtomicBool::new(false), &mut NoObserver) {
        Ok(Outcome::Finished(summary)) => summary,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_pyramid_is_trained_by_its_name_and_predicts_from_its_file() {
    let text = "[data]\ntask = { kind = \"binary\" }\n[model]\nname = \"resnet18_fpn\"\n\
                [train]\nepochs = 1\nbatch_size = 4\n";
    let Settings {
        data, model, train, ..
    } = Settings::from_toml(text).unwrap();
    let BuiltModel::Slides(trained) = BuiltModel::new(&model, data.task, 0).unwrap() else {
        panic!("not a model of slides");
    };
    // Biases do not decay: they move by gradients alone.
    let biases = || {
        let name = |level: usize| format!("net.fpn.layer_blocks.{level}.0.bias");
        let tensors = trained.tensors();
        [0, 1, 2, 3].map(|level| numbers(&tensors[&name(level)]).unwrap())
    };
    let before = biases();
    let summary = self::train(&train, &trained, None);
    assert!(summary.history[0].train_loss.is_finite());
    for (before, after) in before.iter().zip(&biases()) {
        assert_ne!(before, after);
    }

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    let description = ModelDescription {
        model,
        task: data.task,
        classes: ClassNames::numbered(data.task),
        microns_per_pixel: 1.0,
        read: ReadSettings::default(),
        trained_by: TrainedBy::new(0, 0),
    };
    model_file::save(&path, &description, &trained.tensors()).unwrap();
    let read = model_file::load(&path)
        .unwrap()
        .build(Limits::new(1 << 30, 1))
        .unwrap();
    let [expected, found] = [&trained, &read].map(|model| {
        let logits = model.predict(&noise(9, 64, 64)).unwrap();
        logits.into_iter().map(f64::to_bits).collect::<Vec<_>>()
    });
    assert_eq!(found, expected);
}

#[test]
fn a_run_with_several_outputs_goes_on_from_its_checkpoint() {
    let settings = TrainSettings {
        epochs: 1,
        batch_size: 2,
        ..TrainSettings::default()
    };
    // Of another seed, so that what is equal came from the checkpoint.
    let [first, second] = [1, 2].map(|seed| {
        let settings = ModelSettings {
            pooling: vec![Pooling::Average, Pooling::Maximum],
            ..ModelSettings::default()
        };
        StreamedModel::of(&settings, (1, seed), two_outputs).unwrap()
    });
    let folder = tempfile::tempdir().unwrap();
    train(&settings, &first, Some(folder.path()));
    train(&settings, &second, Some(folder.path()));
    let values = |model: &StreamedModel| -> BTreeMap<String, Vec<f64>> {
        let tensors = model.tensors().into_iter();
        let values = tensors.map(|(name, tensor)| (name, numbers(&tensor).unwrap()));
        values.collect()
    };
    assert_eq!(values(&first), values(&second));
    assert_eq!(values(&first)["head.updates"].len(), 1);
    assert!(values(&first)["head.updates"][0] > 0.0);
    assert_eq!(first.recipes(), second.recipes());
}
