//! Data sets, training loop, checkpoints, metrics and reports for gradient streaming.
//!
//! A *slide* is an image of any size; a [`Sample`](data::Sample) is a slide and its label. [`trainer::Run`] trains a
//! [`Model`](model::Model) on samples whose images a [`ImageLoader`](source::ImageLoader) gives, one slide at a time, and
//! tells a [`TrainObserver`](trainer::TrainObserver) what happens. [`heatmap`] shows which parts of a slide speak for an output of a
//! model. [`cohort`] makes slides to train on where there are none.

pub mod augment;
pub mod calibration;
mod change;
pub mod checkpoint;
pub mod cohort;
pub mod data;
mod error;
pub mod experiment;
mod files;
pub mod gradients;
pub mod heatmap;
mod in_place;
pub mod loss;
pub mod machine;
pub mod metrics;
pub mod model;
pub mod model_file;
pub mod optimizer;
pub mod predict;
pub mod report;
pub mod schedule;
mod sealed;
pub mod settings;
pub mod source;
pub mod trainer;

pub use error::{Result, TrainError};
