//! Maps of the classes of pixels, written slide by slide.

mod sink;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use sha2::{Digest, Sha256};
use stream_grad_slides::{
    ClassMap, ColorModel, Compression, GeoJsonFrame, PyramidOptions, Reduction, SlideView, Target,
};

use super::Predicted;
use super::table::Job;
use super::trained::Trained;
use crate::data::Sample;
use crate::error::{Result, TrainError};
use crate::model::SegmentationModel;
use crate::model_file::{Limits, ModelDescription, ModelFile};
use crate::source::{ImageLoader, SlideLoader};
use crate::trainer::TrainObserver;
use sink::MapSink;

/// A trained model of pixels that is shown slides.
///
/// ```no_run
/// use std::path::Path;
/// use std::sync::atomic::AtomicBool;
/// use stream_grad_train::data::Sample;
/// use stream_grad_train::model_file::Limits;
/// use stream_grad_train::predict::MapPredictor;
/// use stream_grad_train::trainer::NoObserver;
///
/// let predictor = MapPredictor::open(Path::new("model.safetensors"), Limits::new(1 << 30, 0))?;
/// // Writes predictions.csv, predictions/a.classes.tiff and predictions/a.geojson.
/// let slides = [Sample::unlabelled("a.svs")];
/// let table = Path::new("predictions.csv");
/// let predicted = predictor.predict(&slides, table, &AtomicBool::new(false), &mut NoObserver)?;
/// # Ok::<(), stream_grad_train::TrainError>(())
/// ```
#[derive(Debug)]
pub struct MapPredictor {
    trained: Trained<SegmentationModel>,
}

/// Where the map and the outlines of each of `samples` lie, for a table at `table`: in the folder that is called as the table without
/// its ending, as `<slide>.classes.tiff` and `<slide>.geojson`. Where two slides have one name, a number for their paths follows it.
#[must_use]
pub fn map_paths(table: &Path, samples: &[Sample]) -> Vec<[PathBuf; 2]> {
    let folder = table.with_extension("");
    let stem = |sample: &Sample| {
        let stem = sample.slide.file_stem().unwrap_or_default();
        stem.to_string_lossy().into_owned()
    };
    let mut times: BTreeMap<String, usize> = BTreeMap::new();
    for sample in samples {
        *times.entry(stem(sample)).or_default() += 1;
    }
    let paths = samples.iter().map(|sample| {
        let mut name = stem(sample);
        if times.get(&name).is_some_and(|times| *times > 1) {
            let hash = Sha256::digest(sample.slide.as_os_str().as_encoded_bytes());
            name.push('-');
            name.extend(hash.iter().take(4).map(|byte| format!("{byte:02x}")));
        }
        [".classes.tiff", ".geojson"].map(|ending| folder.join(format!("{name}{ending}")))
    });
    paths.collect()
}

impl MapPredictor {
    /// Reads a model file. Images are streamed within `limits`.
    ///
    /// # Errors
    /// As [`load`](crate::model_file::load) and [`ModelFile::build_segmentation`].
    pub fn open(path: &Path, limits: Limits) -> Result<Self> {
        Ok(Self {
            trained: Trained::new(path, limits, ModelFile::build_segmentation)?,
        })
    }

    /// What the file says of the model.
    #[must_use]
    pub const fn description(&self) -> &ModelDescription {
        &self.trained.description
    }

    /// The model.
    #[must_use]
    pub const fn model(&self) -> &SegmentationModel {
        &self.trained.model
    }

    /// Predicts `samples` and writes, for each, the likeliest class of every pixel and outlines of the classes, to where [`map_paths`]
    /// says. Then it adds a row to the table `path`: slide, map, outlines, pixels of each class, and the further columns of the
    /// slides' table. A table that an earlier call left goes on; a slide that stands in it is not predicted again.
    ///
    /// The map is a pyramid of bytes, whose scale is that at which the model reads slides and whose levels are by the nearest pixel. It
    /// covers the whole slide; what lies outside of the part that is an image (`trim`) is 255. So it is a mask that
    /// [`ClassMask`](stream_grad_slides::ClassMask) reads. Outlines are `GeoJSON` as QuPath places it, of every class but the first, the
    /// background; of a map of more than 8 Mi pixels they are those of the finest level of its pyramid that has no more.
    ///
    /// Of the map, only as many rows are in memory as a row of tiles or blocks of the plan has, and that level.
    ///
    /// # Errors
    /// As [`Predictor::predict`](super::Predictor::predict).
    pub fn predict(
        &self,
        samples: &[Sample],
        path: &Path,
        stop: &AtomicBool,
        observer: &mut dyn TrainObserver,
    ) -> Result<Predicted> {
        let description = &self.trained.description;
        let loader = self.trained.loader(description.read.clone())?;
        loader.state_scales(samples);
        let places: BTreeMap<&Path, [PathBuf; 2]> = samples
            .iter()
            .map(|sample| sample.slide.as_path())
            .zip(map_paths(path, samples))
            .collect();
        let mut columns = ["map", "outlines"].map(str::to_owned).to_vec();
        let classes = description.classes.iter();
        columns.extend(classes.map(|class| format!("pixels_{class}")));
        let job = Job {
            samples,
            path,
            digest: &self.trained.digest,
            columns,
        };
        job.run(&loader, (stop, observer), |sample| {
            let Some(paths) = places.get(sample.slide.as_path()) else {
                return Ok(None);
            };
            let Some(counts) = self.write(&loader, &sample.slide, paths)? else {
                return Ok(None);
            };
            let paths = paths.iter().map(|path| path.display().to_string());
            Ok(Some(
                paths.chain(counts.iter().map(u64::to_string)).collect(),
            ))
        })
    }

    /// Writes map and outlines of a slide, and returns the number of pixels of each class; nothing where a logit is no finite number.
    fn write(
        &self,
        loader: &SlideLoader,
        slide: &Path,
        [map, outlines]: &[PathBuf; 2],
    ) -> Result<Option<Vec<u64>>> {
        let view = loader.view(slide)?;
        for output in [map, outlines] {
            view.slide().check_output(output)?;
        }
        if let Some(folder) = map.parent() {
            std::fs::create_dir_all(folder).map_err(TrainError::file(folder))?;
        }
        let scale = self.trained.scale()?;
        let whole = view.slide().view(Target::MicronsPerPixel(scale))?;
        let options = PyramidOptions::default()
            .with_color(ColorModel::Gray)
            .with_compression(Compression::Deflate)
            .with_reduction(Reduction::Nearest)
            .with_microns_per_pixel(scale);
        let mut sink = MapSink::new(
            map,
            (&whole, corner(&view), view.extent()),
            self.trained.model.classes(),
            &options,
        )?;
        let image = loader.load(slide)?;
        self.trained.model.logits_to(&*image, &mut sink)?;
        drop(image);
        let Some(found) = sink.finish()? else {
            return Ok(None);
        };
        let names: Vec<(u8, &str)> = (1..=u8::MAX)
            .zip(self.trained.description.classes.iter().skip(1))
            .collect();
        ClassMap::over(&whole, found.step, found.coarse)?
            .outlines(&names)?
            .write_geojson(outlines, GeoJsonFrame::bounds_of(view.slide()))?;
        Ok(Some(found.counts))
    }
}

/// Where the corner of a part of a slide lies in the whole, in pixels of both.
fn corner(part: &SlideView) -> (u64, u64) {
    let (row, column) = part.to_level_0(0.0, 0.0);
    let (rows, columns) = part.downsample();
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a whole number of pixels inside the slide"
    )]
    let place = |position: f64, step: f64| (position / step).round() as u64;
    (place(row, rows), place(column, columns))
}
