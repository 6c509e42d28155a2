//! Settings of a training that are given by flags.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use stream_grad::ByteCount;

use super::TrainedType;

/// What is predicted from a slide.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum TaskKind {
    /// One of two classes
    Binary,
    /// One of several classes
    Classification,
    /// Any of several labels at once
    MultiLabel,
    /// One of several levels that have an order
    Ordinal,
    /// A number
    Regression,
    /// A class for each pixel
    Segmentation,
}

/// Flags that stand for keys of a run.toml and go before them.
#[derive(Debug, Clone, PartialEq, Default, Args)]
pub struct SettingsArguments {
    /// Table of slides, with a row for each: commas, semicolons or tabs between the columns
    #[arg(long, value_name = "FILE", help_heading = "Data")]
    pub csv: Option<PathBuf>,
    /// Folder of the slides, where --csv names them only; without --csv, a published data set as it lies on disk
    #[arg(long, value_name = "DIR", help_heading = "Data")]
    pub folder: Option<PathBuf>,
    /// What is predicted
    #[arg(long, value_enum, value_name = "KIND", help_heading = "Data")]
    pub task: Option<TaskKind>,
    /// Names of the classes, labels or levels as they stand in the table, in their order
    #[arg(
        long,
        value_name = "A,B,...",
        value_delimiter = ',',
        help_heading = "Data"
    )]
    pub classes: Vec<String>,
    /// Column with the slides' files
    #[arg(long, value_name = "NAME", help_heading = "Data")]
    pub slide_column: Option<String>,
    /// Column with the labels, or, with commas between them, a column for each of several labels
    #[arg(
        long,
        value_name = "NAME",
        value_delimiter = ',',
        help_heading = "Data"
    )]
    pub label_column: Vec<String>,
    /// Column with the masks or annotations, of --task segmentation
    #[arg(long, value_name = "NAME", help_heading = "Data")]
    pub mask_column: Option<String>,
    /// Column with the patients, of whom each has all slides in one split
    #[arg(long, value_name = "NAME", help_heading = "Data")]
    pub patient_column: Option<String>,
    /// Column with the splits: train, validation, test, or blank for one that is drawn
    #[arg(long, value_name = "NAME", help_heading = "Data")]
    pub split_column: Option<String>,
    /// Microns per pixel to train at, one after another
    #[arg(
        long,
        value_name = "MICRONS,...",
        value_delimiter = ',',
        help_heading = "Data"
    )]
    pub mpp: Vec<f64>,
    /// Microns per pixel of slides that state none, or a wrong number
    #[arg(long, value_name = "MICRONS", help_heading = "Data")]
    pub slide_mpp: Option<f64>,
    /// Parts of a cross-validation by patient
    #[arg(long, value_name = "COUNT", help_heading = "Data")]
    pub folds: Option<u32>,
    /// The network, such as small-16x1 or resnet18
    #[arg(long, value_name = "NAME", help_heading = "Model")]
    pub model: Option<String>,
    /// Type that activations and their gradients are stored as
    #[arg(long, value_enum, value_name = "TYPE", help_heading = "Model")]
    pub dtype: Option<TrainedType>,
    /// Largest number of heap bytes that streaming may hold, as 4GiB
    #[arg(long, value_name = "BYTES", help_heading = "Model")]
    pub memory: Option<ByteCount>,
    /// Folder for a file of what does not fit in --memory
    #[arg(long, value_name = "DIR", help_heading = "Model")]
    pub offload: Option<PathBuf>,
    /// Number of threads, at most four for each core
    #[arg(long, value_name = "COUNT", help_heading = "Model")]
    pub threads: Option<u32>,
    /// Passes over the training split
    #[arg(long, value_name = "COUNT", help_heading = "Training")]
    pub epochs: Option<u32>,
    /// Slides whose gradients are averaged for one step
    #[arg(long, value_name = "COUNT", help_heading = "Training")]
    pub batch_size: Option<u32>,
    /// Highest learning rate
    #[arg(long, value_name = "RATE", help_heading = "Training")]
    pub learning_rate: Option<f64>,
    /// Seed of weights, orders and augmentation
    #[arg(long, value_name = "NUMBER", help_heading = "Training")]
    pub seed: Option<u32>,
    /// Trainings from as many seeds, of which mean and spread are reported
    #[arg(long, value_name = "COUNT", help_heading = "Training")]
    pub seeds: Option<u32>,
    /// Any other key of a run.toml, as train.max_norm=0.5
    #[arg(long, value_name = "KEY=VALUE", help_heading = "Training")]
    pub set: Vec<String>,
}
