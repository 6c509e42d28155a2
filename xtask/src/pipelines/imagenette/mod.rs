//! `cargo xtask reproduce imagenette`: the notebook's classifier, trained twice from one seed, streamed and conventionally, on the same
//! pictures in the same order.
//!
//! Source: StreamingCNN, notebook on Imagenette. Conventional is candle with its autograd, whose maximum pooling is written so that
//! its gradient is right. What follows the first two stages is the same code in both.

mod model;
mod notes;
mod result;
mod settings;
mod training;

use std::path::Path;
use std::sync::atomic::AtomicBool;

use stream_grad_cli::exit::Stopped;
use stream_grad_cli::progress::counting_bar;
use stream_grad_files::refuse_input;
use stream_grad_train::cohort::textures::{self, TexturesConfig};
use stream_grad_train::data::{DataSet, DataSettings, Layout, Split, Task, check_labels, of_split};
use stream_grad_train::report::{self, DataOrigin};
use xtask::arguments::ImagenetteArguments;

use model::{CLASSES, Way};
use notes::Pictures;
use result::ImagenetteResult;
use settings::Settings;
use training::Training;

/// Trains both, or goes on with what was stopped, and compares them.
pub(crate) fn run(arguments: &ImagenetteArguments, stop: &AtomicBool) -> anyhow::Result<()> {
    let output = arguments.output();
    let settings = Settings::of(arguments)?;
    if let Some(path) = &arguments.settings {
        refuse_input(&output.join(settings::FILE), std::slice::from_ref(path))?;
    }
    // Nothing is written before what was given is seen to be of use.
    let given = arguments.data.as_deref().map(load).transpose()?;
    settings.claim(&output)?;
    let (data, origin) = match (given, &arguments.data) {
        (Some(data), Some(folder)) => {
            let place = folder.display().to_string();
            (data, DataOrigin::Given { place })
        }
        _ => made_up(&settings.textures, &output, stop)?,
    };
    for notice in &data.notices {
        println!("{notice}");
    }
    let split = |split| of_split(&data.samples, split);
    let training = Training {
        settings: &settings,
        train: &split(Split::Train),
        validation: &split(Split::Validation),
        folder: &output,
    };
    check_labels("the training split", training.train)?;
    check_labels("the validation split", training.validation)?;
    let streamed = training.run(
        Way::Streamed {
            tile: settings.tile,
        },
        stop,
    )?;
    let conventional = training.run(Way::Conventional, stop)?;
    let result = ImagenetteResult::new(&streamed, &conventional)?;
    result.write(&output)?;
    let pictures = Pictures {
        origin,
        train: training.train.len(),
        validation: training.validation.len(),
    };
    notes::notes(&result, &settings, pictures).write(&output)?;
    report::write(&output)?;
    println!("\n{result}");
    println!("The report is {}", output.join("report.html").display());
    Ok(())
}

/// Made-up pictures, which are written into `output`.
fn made_up(
    config: &TexturesConfig,
    output: &Path,
    stop: &AtomicBool,
) -> anyhow::Result<(DataSet, DataOrigin)> {
    let folder = output.join("textures");
    let count = (config.train + config.validation) * textures::CLASSES.len();
    let bar = counting_bar("writing made-up textures", count as u64);
    let made = textures::generate(config, &folder, stop, &|done, _| {
        bar.set_position(done as u64);
    });
    bar.abandon();
    if !made? {
        return Err(Stopped::error("while writing the textures"));
    }
    let seed = config.seed;
    Ok((load(&folder)?, DataOrigin::MadeUp { seed }))
}

/// Pictures in a folder for each class.
fn load(folder: &Path) -> anyhow::Result<DataSet> {
    let data = DataSettings {
        folder: Some(folder.to_path_buf()),
        layout: Some(Layout::Imagenette),
        task: Task::Classification { classes: CLASSES },
        ..DataSettings::default()
    };
    Ok(data.load(Path::new(""))?)
}
