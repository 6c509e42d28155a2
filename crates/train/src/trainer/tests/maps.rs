//! The loop on pixels: a narrow U-Net that learns what is bright.

use std::path::PathBuf;

use stream_grad::{ExternalError, Rect};
use stream_grad_models::{ResNetConfig, UNetConfig};

use super::*;
use crate::augment::Orientations;
use crate::loss::SegmentationLoss;
use crate::model::{PixelModel, SegmentationModel, TaskModel};
use crate::source::{LabelLoader, LabelSource};

const HEIGHT: usize = 64;
const WIDTH: usize = 96;

/// Label maps in memory by name.
struct Maps(BTreeMap<PathBuf, Arc<Map>>);

struct Map(Vec<u8>);

impl LabelSource for Map {
    fn extent(&self) -> (u64, u64) {
        (HEIGHT as u64, WIDTH as u64)
    }

    fn read(&self, region: Rect, labels: &mut [u8]) -> std::result::Result<(), ExternalError> {
        let mut labels = labels.iter_mut();
        for row in region.rows.lo..region.rows.hi {
            for column in region.columns.lo..region.columns.hi {
                let place = usize::try_from(row)? * WIDTH + usize::try_from(column)?;
                *labels.next().ok_or("too few labels")? = self.0[place];
            }
        }
        Ok(())
    }
}

impl LabelLoader for Maps {
    fn labels(&self, slide: &Path, map: &Path) -> Result<Arc<dyn LabelSource>> {
        match self.0.get(map) {
            Some(map) => Ok(Arc::clone(map) as Arc<dyn LabelSource>),
            None => Err(TrainError::LabelMap {
                map: map.to_path_buf(),
                slide: slide.to_path_buf(),
                expected: "a map".to_owned(),
                found: "none".to_owned(),
            }),
        }
    }
}

/// Slides with a bright rectangle, whose pixels are the second class; the first column has no class.
fn pictures(slides: usize) -> (Vec<Sample>, Images, Maps) {
    let (mut images, mut maps) = (BTreeMap::new(), BTreeMap::new());
    let mut samples = Vec::new();
    for index in 0..slides {
        let (top, left) = (index * 13 % 30, index * 29 % 50);
        let is_bright = |row: usize, column: usize| {
            (top..top + 30).contains(&row) && (left..left + 40).contains(&column)
        };
        let mut rng = ChaCha8Rng::seed_from_u64(u64::try_from(index).unwrap());
        let values: Vec<f32> = (0..3 * HEIGHT * WIDTH)
            .map(|place| {
                let (row, column) = (place / WIDTH % HEIGHT, place % WIDTH);
                let shift = if is_bright(row, column) { 1.0 } else { -1.0 };
                rng.random::<f32>() - 0.5 + shift
            })
            .collect();
        let labels = (0..HEIGHT * WIDTH).map(|place| {
            let (row, column) = (place / WIDTH, place % WIDTH);
            if column == 0 {
                255
            } else {
                u8::from(is_bright(row, column))
            }
        });
        let (slide, map) = (
            PathBuf::from(format!("slide_{index:02}")),
            PathBuf::from(format!("map_{index:02}")),
        );
        let image = Tensor::from_vec(values, (1, 3, HEIGHT, WIDTH), &Device::Cpu).unwrap();
        images.insert(slide.clone(), image);
        maps.insert(map.clone(), Arc::new(Map(labels.collect())));
        samples.push(Sample::new(slide, crate::data::Label::Map(map)));
    }
    (samples, Images(images), Maps(maps))
}

fn unet() -> SegmentationModel {
    let settings = ModelSettings {
        memory_bytes: 64 << 20,
        ..ModelSettings::default()
    };
    SegmentationModel::of(&settings, (2, 5), |vb| {
        let mut config = UNetConfig::new(ResNetConfig::resnet18().base_width(4), 2);
        config.decoder_channels = [16, 12, 8, 8, 4];
        Ok(config.build(vb)?)
    })
    .unwrap()
}

fn settings_of_maps(epochs: u64) -> TrainSettings {
    TrainSettings {
        epochs,
        batch_size: 2,
        learning_rate: 1e-2,
        checkpoint_every: 1,
        validate_every: 1,
        monitor: Monitor::Metric,
        augmentation: AugmentationSettings {
            orientations: Orientations::All,
            ..AugmentationSettings::none()
        },
        ..TrainSettings::default()
    }
}

struct Case {
    settings: TrainSettings,
    samples: Vec<Sample>,
    images: Images,
    maps: Maps,
    loss: SegmentationLoss,
}

impl Case {
    fn new(epochs: u64) -> Self {
        let (samples, images, maps) = pictures(6);
        let settings = settings_of_maps(epochs);
        let loss = settings.segmentation_loss(2, 255);
        Self {
            settings,
            samples,
            images,
            maps,
            loss,
        }
    }

    fn run<'a>(&'a self, model: &'a SegmentationModel, folder: Option<&'a Path>) -> Run<'a> {
        let (train, validation) = self.samples.split_at(4);
        Run {
            settings: &self.settings,
            task: Task::Segmentation { classes: 2 },
            train,
            validation,
            model: TaskModel::Pixels(PixelModel {
                model,
                labels: &self.maps,
                loss: &self.loss,
            }),
            loader: &self.images,
            folder,
        }
    }
}

fn weights(model: &SegmentationModel) -> Vec<(String, Vec<u32>)> {
    let bits = |tensor: Tensor| -> Vec<u32> {
        let values: Vec<f32> = tensor.flatten_all().unwrap().to_vec1().unwrap();
        values.into_iter().map(f32::to_bits).collect()
    };
    let tensors = model.tensors().into_iter();
    tensors.map(|(name, tensor)| (name, bits(tensor))).collect()
}

#[test]
fn a_unet_learns_what_is_bright() {
    let case = Case::new(12);
    let model = unet();
    let folder = tempfile::tempdir().unwrap();
    let run = case.run(&model, Some(folder.path()));
    let outcome = run
        .execute(&AtomicBool::new(false), &mut NoObserver)
        .unwrap();
    let summary = finished(outcome);
    let (first, last) = (&summary.history[0], &summary.history[11]);
    assert!(
        last.train_loss < 0.5 * first.train_loss,
        "{first:?}, {last:?}"
    );
    assert!(last.validation_metric > Some(0.8), "{last:?}");
    assert!(last.validation_iou < last.validation_metric, "{last:?}");
    assert!(last.train_dice > first.train_dice, "{first:?}, {last:?}");
    assert_eq!(last.train_accuracy, None);
    let best = summary.best.unwrap();
    let metrics = summary.history.iter().map(|epoch| epoch.validation_metric);
    assert_eq!(
        metrics.max_by(|a, b| a.partial_cmp(b).unwrap()),
        Some(Some(best.value))
    );
    let steps = std::fs::read_to_string(folder.path().join("steps.csv")).unwrap();
    let heading = steps.lines().next().unwrap();
    assert!(heading.contains("loss,dice,iou,gradient_norm"), "{heading}");
    assert_eq!(steps.lines().count(), 1 + 12 * 2);
}

/// Stopped in the middle of groups and between epochs: bit for bit as never stopped.
#[test]
fn a_stopped_segmentation_goes_on_as_if_it_had_not() {
    let case = Case::new(3);
    let whole = unet();
    let outcome = case
        .run(&whole, None)
        .execute(&AtomicBool::new(false), &mut NoObserver);
    let expected = finished(outcome.unwrap());
    let folder = tempfile::tempdir().unwrap();
    let mut budgets = [1, 4, 3].into_iter();
    let (model, summary) = loop {
        let model = unet();
        let counts = |event: &TrainEvent<'_>| {
            matches!(
                event,
                TrainEvent::SlideTrained { .. } | TrainEvent::SlideEvaluated { .. }
            )
        };
        let run = case.run(&model, Some(folder.path()));
        let budget = budgets.next().unwrap_or(1000);
        match stopped_at(&run, (budget, counts), &mut |_| {}) {
            Outcome::Finished(summary) => break (model, summary),
            Outcome::Stopped => {}
        }
    };
    assert_eq!(summary.history, expected.history);
    assert_eq!(weights(&model), weights(&whole));
}

#[test]
fn label_maps_and_models_that_do_not_fit_are_refused_before_the_first_step() {
    let mut case = Case::new(1);
    let model = unet();
    case.samples[5].label = Some(crate::data::Label::Map("lost".into()));
    let stop = AtomicBool::new(false);
    let error = case.run(&model, None).execute(&stop, &mut NoObserver);
    let error = error.unwrap_err();
    assert!(matches!(error, TrainError::LabelMap { .. }), "{error}");

    let case = Case::new(1);
    let run = Run {
        task: Task::Binary,
        ..case.run(&model, None)
    };
    let error = run.execute(&stop, &mut NoObserver).unwrap_err();
    assert!(error.to_string().contains("Binary"), "{error}");
    let run = Run {
        task: Task::Segmentation { classes: 3 },
        ..case.run(&model, None)
    };
    let error = run.execute(&stop, &mut NoObserver).unwrap_err();
    assert!(error.to_string().contains("found 2 and 2"), "{error}");
}
