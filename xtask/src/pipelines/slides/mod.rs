//! What the experiments on slides share: settings, slides of a published data set, of a table or of a made-up cohort, and what the
//! report says of these.

mod settings;

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use stream_grad_cli::exit::Stopped;
use stream_grad_cli::progress::counting_bar;
use stream_grad_train::augment::AugmentationSettings;
use stream_grad_train::cohort::{CohortConfig, Subject, generate};
use stream_grad_train::data::{ClassNames, DataSettings, Layout, NodeStage, Sample};
use stream_grad_train::model::{ModelSettings, Precision};
use stream_grad_train::report::DataOrigin;
use stream_grad_train::settings::Settings;
use xtask::arguments::{SlidesArguments, TrainedType};

/// Settings of a training for something small in a large image, in tissue that has no upper side.
pub(crate) fn for_small_things() -> Settings {
    let mut settings = Settings {
        model: ModelSettings::small(),
        ..Settings::default()
    };
    settings.train.augmentation = AugmentationSettings::strong();
    settings
}

/// The settings of a training and of the made-up cohort: `defaults`, on which a file goes and then the flags.
pub(crate) fn settings(
    arguments: &SlidesArguments,
    defaults: (Settings, CohortConfig),
) -> anyhow::Result<(Settings, CohortConfig)> {
    let (mut settings, cohort) = match &arguments.settings {
        Some(path) => settings::read(path, defaults)?,
        None => defaults,
    };
    if let Some(dtype) = arguments.dtype {
        settings.model.dtype = match dtype {
            TrainedType::F32 => Precision::F32,
            TrainedType::Bf16 => Precision::Bf16,
        };
    }
    if arguments.offload.is_some() {
        settings.model.offload.clone_from(&arguments.offload);
    }
    if arguments.slide_mpp.is_some() {
        settings.data.read.scale_override = arguments.slide_mpp;
    }
    settings.check()?;
    cohort.check()?;
    Ok((settings, cohort))
}

/// Whether the slides of the flags are those of the made-up cohort.
pub(crate) fn are_made_up(arguments: &SlidesArguments) -> bool {
    arguments.data.is_none() && arguments.csv.is_none()
}

/// The published layout of `--data`. What is wrong with a folder is told when its slides are read.
pub(crate) fn layout(arguments: &SlidesArguments) -> Option<Layout> {
    Layout::find(arguments.data.as_deref()?).ok()
}

/// The slides of an experiment.
pub(crate) struct Slides {
    /// With labels, or to be predicted.
    pub(crate) samples: Vec<Sample>,
    /// Names of the classes, levels or labels.
    pub(crate) classes: ClassNames,
    /// Where they come from.
    pub(crate) origin: DataOrigin,
}

/// The slides of the flags, or those of the cohort, which are written into `output`.
pub(crate) fn load(
    arguments: &SlidesArguments,
    output: &Path,
    (settings, cohort): (&DataSettings, &CohortConfig),
    stop: &AtomicBool,
) -> anyhow::Result<Slides> {
    let (csv, folder) = (arguments.csv.clone(), arguments.data.clone());
    let Some(place) = csv.as_ref().or(folder.as_ref()) else {
        let classes = match cohort.subject {
            Subject::NodeStages => ClassNames::new(NodeStage::NAMES)?,
            Subject::Metastasis | Subject::Mitoses { .. } => ClassNames::numbered(settings.task),
        };
        return Ok(Slides {
            samples: made_up(output, cohort, stop)?,
            classes,
            origin: DataOrigin::MadeUp { seed: cohort.seed },
        });
    };
    let origin = DataOrigin::Given {
        place: place.display().to_string(),
    };
    let settings = DataSettings {
        csv,
        folder,
        ..settings.clone()
    };
    let data = settings.load(Path::new(""))?;
    data.notices.iter().for_each(|notice| println!("{notice}"));
    Ok(Slides {
        samples: data.samples,
        classes: data.classes,
        origin,
    })
}

fn made_up(output: &Path, cohort: &CohortConfig, stop: &AtomicBool) -> anyhow::Result<Vec<Sample>> {
    let slides = cohort.splits.total();
    let bar = counting_bar("writing the made-up cohort", slides as u64);
    let made = generate(cohort, &output.join("cohort"), stop, &|done, _| {
        bar.set_position(done as u64)
    });
    bar.abandon();
    made?.ok_or_else(|| Stopped::error("while writing the cohort"))
}

/// What a reader of the report must know of the slides.
pub(crate) fn remarks(origin: &DataOrigin) -> Vec<String> {
    match origin {
        DataOrigin::MadeUp { .. } => vec![
            "The slides are made up: figures say how the method behaves, nothing about real tissue."
                .to_owned(),
        ],
        DataOrigin::Given { .. } => Vec::new(),
    }
}

/// Files that an experiment reads and must not write over.
pub(crate) fn inputs(arguments: &SlidesArguments) -> Vec<PathBuf> {
    let files = [&arguments.csv, &arguments.settings];
    files.into_iter().flatten().cloned().collect()
}
