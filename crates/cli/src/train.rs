//! `stream-grad train`: training on a group's own slides.

use std::path::{Path, PathBuf};

use stream_grad_train::report::{DataOrigin, Notes};

use crate::arguments::TrainArguments;
use crate::exit::WrongUse;
use crate::settings::{base, settings};
use crate::stop;
use crate::tell;
use crate::training::Training;

/// Trains, or goes on with what was stopped.
///
/// # Errors
/// [`WrongUse`] for settings that cannot be used; [`Stopped`](crate::exit::Stopped) after Ctrl-C; whatever data and training refuse.
pub fn run(arguments: &TrainArguments) -> anyhow::Result<()> {
    let file = arguments.file.as_deref();
    let Some(output) = arguments.output() else {
        return Err(WrongUse::error(
            "nothing to train on: give a file of settings, which `stream-grad init` writes, or --csv with a table of slides",
        ));
    };
    let mut settings = settings(file, &arguments.settings)?;
    let stop = stop::on_ctrl_c()?;
    let base = std::path::absolute(base(file).join("."))?;
    // In the folder of results settings lie elsewhere.
    let data = &mut settings.data;
    for path in [&mut data.csv, &mut data.folder].into_iter().flatten() {
        *path = base.join(&path);
    }
    let data = settings.data.load(&base)?;
    data.notices.iter().for_each(tell);
    settings.data.task = data.task;
    let inputs: Vec<PathBuf> = settings.data.csv.iter().cloned().collect();
    let place = settings.data.csv.as_ref().or(settings.data.folder.as_ref());
    let place = place.map_or_else(String::new, |place| place.display().to_string());
    let name = Path::new(&place).file_name().unwrap_or_default();
    let title = format!("Training on {}", name.to_string_lossy());
    let notes = Notes {
        title,
        origin: Some(DataOrigin::Given { place }),
        classes: data.classes.iter().map(str::to_owned).collect(),
        ..Notes::default()
    };
    let training = Training {
        classes: data.classes,
        rounds: settings.data.rounds(&data.samples, settings.train.seed)?,
        inputs,
        notes,
        settings,
    };
    training.run(&output, &stop).map(drop)
}
