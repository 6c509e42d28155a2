//! The two sweeps over an image: sums of the logits as they are finished, and their cotangents.

use std::fmt;

use rayon::prelude::*;
use stream_grad::{
    CotangentSource, ExternalError, FeatureSink, Rect, Stored, Strided, StridedMut, TileMut,
    TileRef,
};

use super::sums::Factors;
use super::{SegmentationLoss, SegmentationSums};
use crate::source::LabelSource;

/// Rows that one task adds up. Sums depend on it in their last bits, and so not on the number of threads.
const BAND: usize = 16;

impl SegmentationLoss {
    /// Takes the logits of the forward sweep.
    #[must_use]
    pub fn sink<'a>(&'a self, labels: &'a dyn LabelSource) -> SegmentationSink<'a> {
        SegmentationSink {
            labels: Labels::new(self, labels),
            sums: SegmentationSums::new(self.classes),
        }
    }

    /// Gives the cotangents of the logits in the backward sweep, from what the forward sweep summed.
    #[must_use]
    pub fn cotangents<'a>(
        &'a self,
        labels: &'a dyn LabelSource,
        sums: &SegmentationSums,
    ) -> SegmentationCotangents<'a> {
        SegmentationCotangents {
            labels: Labels::new(self, labels),
            factors: sums.factors(self),
        }
    }
}

/// Adds up what the loss needs while logits leave the forward sweep. Regions are added in the order in which they come.
pub struct SegmentationSink<'a> {
    labels: Labels<'a>,
    sums: SegmentationSums,
}

impl fmt::Debug for SegmentationSink<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SegmentationSink")
            .field("loss", self.labels.loss)
            .field("sums", &self.sums)
            .finish_non_exhaustive()
    }
}

impl SegmentationSink<'_> {
    /// The sums so far.
    #[must_use]
    pub fn into_sums(self) -> SegmentationSums {
        self.sums
    }

    fn add<T: Copy + Into<f64> + Send + Sync>(
        &mut self,
        logits: Strided<'_, T>,
        region: Rect,
    ) -> Result<(), ExternalError> {
        let loss = self.labels.loss;
        let labels = self.labels.read(region)?;
        let width = region.width();
        let band = |band: usize| {
            let mut sums = SegmentationSums::new(loss.classes);
            let mut probabilities = vec![0.0; loss.classes];
            for row in band * BAND..((band + 1) * BAND).min(region.height()) {
                let labels = &labels[row * width..(row + 1) * width];
                sums.add_row(loss, (logits.row(row), labels), &mut probabilities);
            }
            sums
        };
        let bands = 0..region.height().div_ceil(BAND);
        let bands: Vec<SegmentationSums> = bands.into_par_iter().map(band).collect();
        bands.iter().for_each(|band| self.sums.add(band));
        Ok(())
    }
}

impl FeatureSink for SegmentationSink<'_> {
    fn write(
        &mut self,
        _image: usize,
        _output: usize,
        region: Rect,
        features: TileRef<'_>,
    ) -> Result<(), ExternalError> {
        match features {
            TileRef::F32(logits) => self.add(logits, region),
            TileRef::F64(logits) => self.add(logits, region),
            TileRef::BF16(logits) => self.add(logits, region),
        }
    }
}

/// Makes cotangents of the logits that the backward sweep hands out, and of the labels there.
pub struct SegmentationCotangents<'a> {
    labels: Labels<'a>,
    factors: Factors,
}

impl fmt::Debug for SegmentationCotangents<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SegmentationCotangents")
            .field("loss", self.labels.loss)
            .field("factors", &self.factors)
            .finish_non_exhaustive()
    }
}

impl SegmentationCotangents<'_> {
    fn give<T: Stored + Into<f64>>(
        &mut self,
        logits: Strided<'_, T>,
        region: Rect,
        mut out: StridedMut<'_, T>,
    ) -> Result<(), ExternalError> {
        let (loss, factors) = (self.labels.loss, &self.factors);
        let labels = self.labels.read(region)?;
        let width = region.width();
        out.par_rows().enumerate().for_each_init(
            || vec![0.0; loss.classes],
            |probabilities, (row, cotangents)| {
                let labels = &labels[row * width..(row + 1) * width];
                factors.write_row(loss, (logits.row(row), labels), probabilities, cotangents);
            },
        );
        Ok(())
    }
}

impl CotangentSource for SegmentationCotangents<'_> {
    /// They follow from the logits where all labels are that of the first pixel.
    fn follows_from_features(&self, _image: usize, _output: usize, region: Rect) -> bool {
        self.labels.are_as_the_first(region).unwrap_or(false)
    }

    fn read(
        &mut self,
        _image: usize,
        _output: usize,
        region: Rect,
        features: TileRef<'_>,
        out: TileMut<'_>,
    ) -> Result<(), ExternalError> {
        match (features, out) {
            (TileRef::F32(logits), TileMut::F32(out)) => self.give(logits, region, out),
            (TileRef::F64(logits), TileMut::F64(out)) => self.give(logits, region, out),
            (TileRef::BF16(logits), TileMut::BF16(out)) => self.give(logits, region, out),
            _ => Err("logits and their cotangents are of two precisions".into()),
        }
    }
}

/// Labels, region by region, that are classes of the loss or its ignore index.
struct Labels<'a> {
    loss: &'a SegmentationLoss,
    source: &'a dyn LabelSource,
    region: Vec<u8>,
}

impl<'a> Labels<'a> {
    const fn new(loss: &'a SegmentationLoss, source: &'a dyn LabelSource) -> Self {
        Self {
            loss,
            source,
            region: Vec::new(),
        }
    }

    /// Whether all labels of a region are that of the first pixel of all.
    fn are_as_the_first(&self, region: Rect) -> Result<bool, ExternalError> {
        let mut first = [0];
        self.source.read(Rect::whole(1, 1), &mut first)?;
        let mut labels = vec![0; region.height() * region.width()];
        self.source.read(region, &mut labels)?;
        Ok(labels.iter().all(|&label| label == first[0]))
    }

    fn read(&mut self, region: Rect) -> Result<&[u8], ExternalError> {
        let width = region.width();
        self.region.clear();
        self.region.resize(region.height() * width, 0);
        self.source.read(region, &mut self.region)?;
        let SegmentationLoss {
            classes,
            ignore_index,
            ..
        } = *self.loss;
        let is_wrong = |label: &u8| usize::from(*label) >= classes && *label != ignore_index;
        match self.region.iter().position(is_wrong) {
            None => Ok(&self.region),
            Some(place) => Err(format!(
                "label {} at row {}, column {} of the image; expected a class from 0 to {}, or {ignore_index} for none",
                self.region[place],
                region.rows.lo.unsigned_abs() + (place / width) as u64,
                region.columns.lo.unsigned_abs() + (place % width) as u64,
                classes.saturating_sub(1),
            )
            .into()),
        }
    }
}
