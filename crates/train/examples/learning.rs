//! Trains this crate's defaults on a file of labelled pictures, and prints one line of JSON: the metric on its test pictures (area
//! under the curve, or Spearman's correlation with `regression`) and the seconds that it took.
//!
//! `cargo run --release -p stream-grad-train --example learning -- PICTURES.safetensors SEED [EPOCHS] [regression] [KEY=VALUE ...]`
//!
//! `crates/bench/peers/learning/compare.py` makes the pictures and puts a PyTorch net beside it. A `KEY=VALUE`, such as
//! `train.learning_rate=0.004`, changes a setting.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use candle_core::{DType, Device, Tensor, safetensors};
use stream_grad::TileSource;
use stream_grad_train::TrainError;
use stream_grad_train::data::{Sample, Split, Task};
use stream_grad_train::model::StreamedModel;
use stream_grad_train::settings::Settings;
use stream_grad_train::source::ImageLoader;
use stream_grad_train::trainer::{NoObserver, Run, evaluate};

type AnyError = Box<dyn std::error::Error>;

fn main() -> Result<(), AnyError> {
    let mut arguments: Vec<String> = std::env::args().skip(1).collect();
    let changes = arguments.iter().filter(|argument| argument.contains('='));
    let toml: Vec<String> = changes.cloned().collect();
    arguments.retain(|argument| !argument.contains('='));
    let is_regression = arguments.iter().any(|argument| argument == "regression");
    arguments.retain(|argument| argument != "regression");
    let [file, seed, rest @ ..] = arguments.as_slice() else {
        return Err(
            "expected PICTURES.safetensors SEED [EPOCHS] [regression] [KEY=VALUE ...]".into(),
        );
    };
    let mut settings = Settings::from_toml(&toml.join("\n"))?;
    settings.train.seed = seed.parse()?;
    settings.train.epochs = rest.first().map_or(Ok(12), |epochs| epochs.parse())?;
    settings.train.validate_every = 0;
    settings.data.task = if is_regression {
        Task::Regression
    } else {
        Task::Binary
    };

    let pictures = Pictures::read(Path::new(file))?;
    let [train, test] = [Split::Train, Split::Test].map(|split| pictures.split(split));
    let start = Instant::now();
    let model = StreamedModel::new(
        &settings.model,
        settings.data.task.outputs(),
        settings.train.seed,
    )?;
    let run = Run {
        settings: &settings.train,
        task: settings.data.task,
        train: &train,
        validation: &[],
        model: (&model).into(),
        loader: &pictures,
        folder: None,
    };
    let stop = AtomicBool::new(false);
    run.execute(&stop, &mut NoObserver)?;
    let set = (test.as_slice(), Split::Test);
    let evaluation = evaluate(&model, &pictures, set, &stop, &mut NoObserver)?;
    let metric = evaluation.ok_or("stopped")?.metric(settings.data.task)?;
    let seconds = start.elapsed().as_secs_f64();
    println!("{{\"metric\": {metric}, \"seconds\": {seconds:.3}}}");
    Ok(())
}

/// Pictures in memory, under numbers for names.
struct Pictures {
    images: BTreeMap<PathBuf, Tensor>,
    samples: Vec<Sample>,
}

impl Pictures {
    fn read(path: &Path) -> Result<Self, AnyError> {
        let tensors = safetensors::load(path, &Device::Cpu)?;
        let tensor = |name: &str| {
            tensors
                .get(name)
                .ok_or(format!("{}: no `{name}`", path.display()))
        };
        let images = tensor("images")?
            .to_dtype(DType::F32)?
            .permute((0, 3, 1, 2))?
            .contiguous()?;
        let labels = tensor("labels")?.to_vec1::<f64>()?;
        let test = tensor("test")?.to_vec1::<u8>()?;
        // As a user sets `read.mean` and `read.deviation`: those of the training split, channel by channel.
        let train: Vec<u32> = (0_u32..)
            .zip(&test)
            .filter(|(_, test)| **test == 0)
            .map(|(place, _)| place)
            .collect();
        let chosen = images.index_select(&Tensor::new(train, &Device::Cpu)?, 0)?;
        let mean = chosen.mean_keepdim((0, 2, 3))?;
        let variance = chosen
            .broadcast_sub(&mean)?
            .sqr()?
            .mean_keepdim((0, 2, 3))?;
        let images = images
            .broadcast_sub(&mean)?
            .broadcast_div(&variance.sqrt()?)?;
        let mut pictures = Self {
            images: BTreeMap::new(),
            samples: Vec::new(),
        };
        for (place, (label, test)) in labels.into_iter().zip(test).enumerate() {
            let slide = PathBuf::from(format!("{place:05}"));
            pictures
                .images
                .insert(slide.clone(), images.narrow(0, place, 1)?.contiguous()?);
            let split = if test == 0 { Split::Train } else { Split::Test };
            pictures.samples.push(Sample {
                split: Some(split),
                ..Sample::new(slide, label)
            });
        }
        Ok(pictures)
    }

    fn split(&self, split: Split) -> Vec<Sample> {
        stream_grad_train::data::of_split(&self.samples, split)
    }
}

impl ImageLoader for Pictures {
    fn expect(&self, _: &[&Path]) {}

    fn load(&self, slide: &Path) -> Result<Arc<dyn TileSource>, TrainError> {
        match self.images.get(slide) {
            Some(image) => Ok(Arc::new(image.clone())),
            None => Err(TrainError::File {
                path: slide.to_path_buf(),
                source: std::io::Error::from(std::io::ErrorKind::NotFound),
            }),
        }
    }
}
