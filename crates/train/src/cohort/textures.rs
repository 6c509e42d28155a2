//! Made-up pictures of ten classes that differ in texture alone, in the layout of Imagenette.
//!
//! **Made-up data.** A picture is a field of grey values whose ranks are mapped to the line from a dark to a light colour, and
//! noise. So every picture has the same share of each grey value, and colours are drawn without regard to the class: neither
//! colour nor contrast tells classes apart. Period, direction and place are drawn as well.

use std::f64::consts::{PI, TAU};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use image::codecs::jpeg::JpegEncoder;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rayon::iter::{IntoParallelRefIterator, ParallelIterator};
use serde::{Deserialize, Serialize};

use super::manifest::check_manifest;
use super::paint::smooth_noise;
use super::write::CohortProgress;
use crate::error::{Result, TrainError};
use crate::files::write_whole;

/// Names of the classes, in the order of their numbers: the folders of the pictures.
pub const CLASSES: [&str; 10] = [
    "bricks",
    "checks",
    "clouds",
    "cracks",
    "grain",
    "honeycomb",
    "marble",
    "rings",
    "spots",
    "stripes",
];

/// JPEG quality of the pictures.
const QUALITY: u8 = 95;

/// How made-up pictures are drawn. The same value draws the same pixels.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TexturesConfig {
    /// Seed of all pictures.
    pub seed: u64,
    /// Edge of the pictures in pixels, 16 to 4096.
    pub size: u32,
    /// Pictures of each class to train on.
    pub train: usize,
    /// Pictures of each class to validate with.
    pub validation: usize,
}

impl Default for TexturesConfig {
    fn default() -> Self {
        Self {
            seed: 2022,
            size: 320,
            train: 40,
            validation: 16,
        }
    }
}

/// What a folder was made from.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Manifest {
    generator: u32,
    settings: TexturesConfig,
}

/// Changes whenever the same settings would give other pixels.
const GENERATOR: u32 = 2;

/// Makes the pictures of `config` in `folder` as `train/CLASS/NNNN.jpg` and `val/CLASS/NNNN.jpg`, on all threads of the caller's
/// rayon pool; [`DataSettings`](crate::data::DataSettings) reads them. Pictures that are there already are kept, so a second
/// call returns at once and one that was cut off goes on. Returns `false` if `stop` was set before the end.
///
/// # Errors
/// [`TrainError::Setting`]; [`TrainError::Checkpoint`] if the folder holds pictures of other settings; [`TrainError::File`].
///
/// # Examples
/// ```
/// use std::sync::atomic::AtomicBool;
/// use stream_grad_train::cohort::textures::{TexturesConfig, generate};
/// use stream_grad_train::data::{DataSettings, Task};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let folder = tempfile::tempdir()?;
/// let config = TexturesConfig { size: 32, train: 2, validation: 1, ..TexturesConfig::default() };
/// generate(&config, folder.path(), &AtomicBool::new(false), &|_, _| {})?;
/// let settings = DataSettings {
///     folder: Some(folder.path().into()),
///     task: Task::Classification { classes: 10 },
///     ..DataSettings::default()
/// };
/// assert_eq!(settings.load("".as_ref())?.samples.len(), 30);
/// # Ok(())
/// # }
/// ```
pub fn generate(
    config: &TexturesConfig,
    folder: &Path,
    stop: &AtomicBool,
    progress: CohortProgress<'_>,
) -> Result<bool> {
    if !(16..=4096).contains(&config.size) {
        return Err(TrainError::setting(
            "textures.size",
            "16 to 4096",
            config.size,
        ));
    }
    let manifest = Manifest {
        generator: GENERATOR,
        settings: config.clone(),
    };
    check_manifest(
        &folder.join("textures.json"),
        &manifest,
        &[&folder.join("train")],
    )?;
    let mut pictures = Vec::new();
    for (part, count) in [("train", config.train), ("val", config.validation)] {
        for place in 0..count {
            for (class, name) in CLASSES.iter().enumerate() {
                let path = folder.join(part).join(name).join(format!("{place:04}.jpg"));
                pictures.push((path, class, pictures.len()));
            }
        }
    }
    let done = AtomicUsize::new(0);
    pictures.par_iter().try_for_each(|(path, class, number)| {
        if stop.load(Ordering::Relaxed) {
            return Ok(());
        }
        // Pictures are renamed when they are whole, so one that is there is.
        if !path.is_file() {
            let number = u64::try_from(*number).unwrap_or(u64::MAX);
            let rgb = paint(config, *class, number);
            write_whole(path, &jpeg(config.size, &rgb, path)?)?;
        }
        progress(done.fetch_add(1, Ordering::Relaxed) + 1, pictures.len());
        Ok::<(), TrainError>(())
    })?;
    Ok(done.into_inner() == pictures.len())
}

fn jpeg(size: u32, rgb: &[u8], path: &Path) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    JpegEncoder::new_with_quality(&mut bytes, QUALITY)
        .encode(rgb, size, size, image::ExtendedColorType::Rgb8)
        .map_err(|error| TrainError::file(path)(std::io::Error::other(error)))?;
    Ok(bytes)
}

/// RGB values of picture `number`, row by row.
fn paint(config: &TexturesConfig, class: usize, number: u64) -> Vec<u8> {
    let mut rng = ChaCha8Rng::seed_from_u64(config.seed);
    rng.set_stream(number);
    let texture = Texture::draw(&mut rng);
    let mut colour = |levels: std::ops::Range<f64>| -> [f64; 3] {
        std::array::from_fn(|_| rng.random_range(levels.clone()))
    };
    let (dark, light) = (colour(30.0..110.0), colour(145.0..225.0));
    let noise = rng.random_range(4.0..12.0);
    let size = config.size;
    let pixels = (0..size).flat_map(|row| (0..size).map(move |column| (row, column)));
    let field: Vec<f64> = pixels
        .map(|(row, column)| texture.value(class, f64::from(row), f64::from(column)))
        .collect();
    let mut rgb = Vec::with_capacity(field.len() * 3);
    for rank in ranks(&field) {
        for (dark, light) in dark.iter().zip(light) {
            let value = dark + (light - dark) * rank + noise * (rng.random::<f64>() - 0.5) * 3.46;
            rgb.push(grey_level(value));
        }
    }
    rgb
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "clamped to 0..=255 before the cast"
)]
fn grey_level(value: f64) -> u8 {
    value.round().clamp(0.0, 255.0) as u8
}

/// For each value its place among all, from 0 to 1; ties in the order of places.
#[expect(
    clippy::cast_precision_loss,
    reason = "a picture has fewer than 2^52 pixels"
)]
fn ranks(field: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..field.len()).collect();
    order.sort_by(|a, b| field[*a].total_cmp(&field[*b]));
    let mut ranks = vec![0.0; field.len()];
    for (rank, place) in order.into_iter().enumerate() {
        ranks[place] = rank as f64 / field.len() as f64;
    }
    ranks
}

/// What is drawn for a picture, whatever its class.
struct Texture {
    /// Pixels from one repetition to the next.
    period: f64,
    angle: f64,
    /// Where the pattern begins, in periods.
    offset: [f64; 2],
    seed: u64,
}

impl Texture {
    fn draw(rng: &mut ChaCha8Rng) -> Self {
        Self {
            period: 14.0 * 1.5_f64.powf(rng.random()),
            angle: rng.random_range(0.0..TAU),
            offset: [
                rng.random_range(100.0..200.0),
                rng.random_range(100.0..200.0),
            ],
            seed: rng.random(),
        }
    }

    /// The field of a class at a pixel.
    fn value(&self, class: usize, row: f64, column: f64) -> f64 {
        let (sine, cosine) = self.angle.sin_cos();
        let noise = |layer: u64, period: f64| {
            smooth_noise(self.seed ^ layer, [row + 1.0, column + 1.0], period)
        };
        // A slow bend, so that nothing is as straight as a grid of pixels.
        let bend = 0.35 * noise(1, 6.0 * self.period);
        let along = (column * cosine + row * sine) / self.period + self.offset[0] + bend;
        let across = (row * cosine - column * sine) / self.period + self.offset[1] + bend;
        let wave = |position: f64| (TAU * position).sin();
        match CLASSES.get(class).copied().unwrap_or_default() {
            "bricks" => {
                let shift = 0.5 * f64::from(u8::from(across.floor().rem_euclid(2.0) >= 1.0));
                let edge = |position: f64| (PI * position).sin().abs();
                edge(across).min(edge(0.5 * along + shift) * 2.0)
            }
            "checks" => wave(along) * wave(across),
            "clouds" => {
                noise(2, 2.0 * self.period)
                    + 0.5 * noise(3, self.period)
                    + 0.25 * noise(4, self.period / 2.0)
            }
            "cracks" => {
                let [first, second] = self.nearest(along, across);
                second - first
            }
            "grain" => noise(5, self.period / 4.0),
            "honeycomb" => {
                let third = |turn: f64| {
                    wave(along * (turn * TAU / 3.0).cos() + across * (turn * TAU / 3.0).sin())
                };
                third(0.0) + third(1.0) + third(2.0)
            }
            "marble" => {
                wave(along + 0.9 * noise(6, 2.0 * self.period) + 0.4 * noise(7, self.period))
            }
            "rings" => {
                wave((column - self.centre(8)).hypot(row - self.centre(9)) / self.period + bend)
            }
            "spots" => -self.nearest(along, across)[0],
            _ => wave(along),
        }
    }

    /// A place about the middle of a picture of 320 pixels.
    fn centre(&self, layer: u64) -> f64 {
        160.0 + 120.0 * smooth_noise(self.seed ^ layer, [3.0, 5.0], 4.0)
    }

    /// Distances to the nearest two of points that lie one in each unit square, at random.
    fn nearest(&self, along: f64, across: f64) -> [f64; 2] {
        let mut nearest = [f64::INFINITY; 2];
        for rows in -1..=1_i8 {
            for columns in -1..=1_i8 {
                let row = across.floor() + f64::from(rows);
                let column = along.floor() + f64::from(columns);
                let jitter = |layer: u64| {
                    0.5 + 0.4 * smooth_noise(self.seed ^ layer, [row + 500.0, column + 500.0], 1.0)
                };
                let distance = (row + jitter(10) - across).hypot(column + jitter(11) - along);
                if distance < nearest[0] {
                    nearest = [distance, nearest[0]];
                } else if distance < nearest[1] {
                    nearest[1] = distance;
                }
            }
        }
        nearest
    }
}

#[cfg(test)]
mod tests;
