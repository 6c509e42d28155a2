//! Logits that become a map of classes, row by row.

use std::collections::VecDeque;
use std::path::Path;

use stream_grad::{ExternalError, FeatureSink, Rect, Strided, TileRef};
use stream_grad_slides::{Extent, PyramidOptions, PyramidWriter, SlideView};

use crate::error::Result;
use crate::loss::likeliest;

/// What a map has outside of the image.
const NONE: u8 = u8::MAX;

/// The most cells of the reduced map that is outlined.
const MOST_CELLS: u64 = 1 << 23;

/// Writes the likeliest class of each pixel. Rows that are not complete yet wait: as many as a row of tiles or blocks has.
pub(super) struct MapSink {
    writer: PyramidWriter<u8>,
    /// Of the whole slide, in pixels of the map.
    whole: Extent,
    /// Where the image begins in it, and its size.
    corner: (u64, u64),
    image: Extent,
    waiting: VecDeque<Waiting>,
    /// The image's first row that waits.
    next_row: u64,
    counts: Vec<u64>,
    is_finite: bool,
    reduced: Reduced,
}

/// A row of the image, some of whose pixels are there.
struct Waiting {
    classes: Vec<u8>,
    known: usize,
}

/// Every `step`-th pixel of every `step`-th row.
struct Reduced {
    step: u64,
    rows: u64,
    cells: Vec<u8>,
}

/// What a finished map is summed up to.
pub(super) struct Written {
    /// Pixels of each class.
    pub(super) counts: Vec<u64>,
    /// The map reduced by `step` to at most [`MOST_CELLS`] pixels: those of a level of its pyramid.
    pub(super) coarse: Vec<u8>,
    pub(super) step: u64,
}

impl MapSink {
    /// Begins the file `path`: a map of `whole`, in which an image of size `image` lies at `corner`.
    pub(super) fn new(
        path: &Path,
        (whole, corner, image): (&SlideView, (u64, u64), Extent),
        classes: usize,
        options: &PyramidOptions,
    ) -> Result<Self> {
        let whole = whole.extent();
        let mut sink = Self {
            writer: PyramidWriter::create(path, whole.height, whole.width, options)?,
            whole,
            corner,
            image,
            waiting: VecDeque::new(),
            next_row: 0,
            counts: vec![0; classes],
            is_finite: true,
            reduced: Reduced::of(whole),
        };
        sink.fill(corner.0)?;
        Ok(sink)
    }

    /// Completes the file; nothing where a logit was no finite number, and no file then.
    pub(super) fn finish(mut self) -> Result<Option<Written>> {
        if !self.is_finite {
            return Ok(None);
        }
        let below = self.corner.0 + self.next_row;
        self.fill(self.whole.height.saturating_sub(below))?;
        self.writer.finish()?;
        Ok(Some(Written {
            counts: self.counts,
            coarse: self.reduced.cells,
            step: self.reduced.step,
        }))
    }

    /// Adds rows without an image.
    fn fill(&mut self, rows: u64) -> Result<()> {
        let row = vec![NONE; length(self.whole.width)];
        for _ in 0..rows {
            self.push(&row)?;
        }
        Ok(())
    }

    /// Adds a row of the map.
    fn push(&mut self, row: &[u8]) -> Result<()> {
        self.reduced.push(row);
        Ok(self.writer.write_rows(row)?)
    }

    fn take<T: Copy + PartialOrd + Into<f64>>(
        &mut self,
        logits: Strided<'_, T>,
        region: Rect,
    ) -> Result<()> {
        let width = length(self.image.width);
        let left = length(region.columns.lo.unsigned_abs());
        let top = region.rows.lo.unsigned_abs();
        for (row, at) in (top..).take(region.height()).enumerate() {
            let place = length(at.saturating_sub(self.next_row));
            while self.waiting.len() <= place {
                self.waiting.push_back(Waiting {
                    classes: vec![NONE; width],
                    known: 0,
                });
            }
            let pixels = logits.row(row).chunks_exact(self.counts.len().max(1));
            let waiting = &mut self.waiting[place];
            waiting.known += pixels.len();
            for (class, logits) in waiting.classes[left..].iter_mut().zip(pixels) {
                let is_finite = |logit: &T| {
                    let logit: f64 = (*logit).into();
                    logit.is_finite()
                };
                self.is_finite &= logits.iter().all(is_finite);
                let likeliest = likeliest(logits);
                self.counts[likeliest] += 1;
                *class = u8::try_from(likeliest).unwrap_or(NONE);
            }
        }
        while self.waiting.front().is_some_and(|row| row.known >= width) {
            let Some(row) = self.waiting.pop_front() else {
                break;
            };
            let mut line = vec![NONE; length(self.whole.width)];
            let left = length(self.corner.1);
            line[left..left + width].copy_from_slice(&row.classes);
            self.push(&line)?;
            self.next_row += 1;
        }
        Ok(())
    }
}

impl FeatureSink for MapSink {
    fn write(
        &mut self,
        _image: usize,
        _output: usize,
        region: Rect,
        features: TileRef<'_>,
    ) -> std::result::Result<(), ExternalError> {
        match features {
            TileRef::F32(logits) => self.take(logits, region)?,
            TileRef::F64(logits) => self.take(logits, region)?,
            TileRef::BF16(logits) => self.take(logits, region)?,
        }
        Ok(())
    }
}

impl Reduced {
    fn of(whole: Extent) -> Self {
        let mut step = 1;
        while whole.height.div_ceil(step) * whole.width.div_ceil(step) > MOST_CELLS {
            step *= 2;
        }
        Self {
            step,
            rows: 0,
            cells: Vec::new(),
        }
    }

    fn push(&mut self, row: &[u8]) {
        if self.rows.is_multiple_of(self.step) {
            self.cells.extend(row.iter().step_by(length(self.step)));
        }
        self.rows += 1;
    }
}

fn length(pixels: u64) -> usize {
    usize::try_from(pixels).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests;
