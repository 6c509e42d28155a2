//! An image turned, cropped and coloured while it is read.

use std::cell::RefCell;
use std::mem;
use std::thread::LocalKey;

use rayon::prelude::*;
use stream_grad::{ExternalError, Rect, Stored, StridedMut, TileMut, TileSource, bf16};

use super::{Augmentation, Axes, Order, place};
use crate::error::{Result, TrainError};

/// An image seen through an augmentation.
#[derive(Debug)]
pub struct Augmented<S> {
    source: S,
    augmentation: Augmentation,
}

impl<S: TileSource> Augmented<S> {
    /// Shows `source` through `augmentation`.
    ///
    /// # Errors
    /// [`TrainError::Setting`] if the crop does not lie inside the image or is empty.
    pub fn new(source: S, augmentation: Augmentation) -> Result<Self> {
        let (height, width) = source.extent();
        let crop = augmentation.crop;
        if crop.is_empty() || !Rect::whole(height, width).covers(crop) {
            return Err(TrainError::setting(
                "augmentation's crop",
                format!("a part of an image of {height} x {width}"),
                crop.to_string(),
            ));
        }
        Ok(Self {
            source,
            augmentation,
        })
    }

    fn read_as<T: Value>(
        &self,
        image: usize,
        region: Rect,
        out: StridedMut<'_, T>,
    ) -> Result<(), ExternalError> {
        match self.augmentation.axes {
            Axes::Kept => self.read_mirrored(image, region, out),
            Axes::Swapped => self.read_turned(image, region, out),
        }
    }

    /// Rows stay rows: the region is read where it belongs, and mirrored there.
    fn read_mirrored<T: Value>(
        &self,
        image: usize,
        region: Rect,
        mut out: StridedMut<'_, T>,
    ) -> Result<(), ExternalError> {
        let origin = self.augmentation.origin(region);
        self.source
            .read(image, origin, T::tile_mut(out.reborrow()))?;
        let finish = |row: &mut [T]| self.finish_row(row);
        if self.augmentation.rows == Order::Forward {
            out.par_rows().for_each(finish);
            return Ok(());
        }
        let half = out.rows() / 2;
        let odd = out.rows() % 2;
        let (mut upper, others) = out.split_at_row(half);
        let (mut middle, mut lower) = others.split_at_row(odd);
        let pairs = upper.par_rows().zip(lower.par_rows().rev());
        pairs.for_each(|(above, below)| {
            above.swap_with_slice(below);
            finish(above);
            finish(below);
        });
        middle.par_rows().for_each(finish);
        Ok(())
    }

    /// Mirrors a row of the image and gives it its colours.
    fn finish_row<T: Value>(&self, row: &mut [T]) {
        let channels = self.source.channels();
        if self.augmentation.columns == Order::Backward {
            row.reverse();
            // Channels have changed places, too.
            pixels(row, channels).for_each(<[T]>::reverse);
        }
        colour(&self.augmentation, row, channels);
    }

    /// Rows become columns, for which the region is read into memory of its own.
    fn read_turned<T: Value>(
        &self,
        image: usize,
        region: Rect,
        mut out: StridedMut<'_, T>,
    ) -> Result<(), ExternalError> {
        let channels = self.source.channels();
        let origin = self.augmentation.origin(region);
        let length = origin.width() * channels;
        // The buffer is taken out while it is used: reading may run other tasks on this thread.
        let mut buffer = T::scratch().with(|cell| mem::take(&mut *cell.borrow_mut()));
        buffer.resize(origin.height() * length, T::default());
        let tile = StridedMut::new(&mut buffer, origin.height(), length, length)
            .ok_or("region without columns")?;
        let read = self.source.read(image, origin, T::tile_mut(tile));
        if read.is_ok() {
            let (height, width) = (region.height(), region.width());
            out.par_bands(TURNED_ROWS)
                .enumerate()
                .for_each(|(band, mut rows)| {
                    let first = band * TURNED_ROWS;
                    for column in 0..width {
                        let source_row = place(column, width, self.augmentation.columns);
                        let line = &buffer[source_row * length..][..length];
                        for row in 0..rows.rows() {
                            let source_column = place(first + row, height, self.augmentation.rows);
                            let from = &line[source_column * channels..][..channels];
                            copy_pixel(from, &mut rows.row(row)[column * channels..][..channels]);
                        }
                    }
                    for row in 0..rows.rows() {
                        colour(&self.augmentation, rows.row(row), channels);
                    }
                });
        }
        T::scratch().with(|cell| *cell.borrow_mut() = buffer);
        read
    }
}

/// Rows that are turned together: so many pixels lie side by side in the image and share its cache lines, which come from far away
/// where an image's rows are longer than a page.
const TURNED_ROWS: usize = 16;

/// Copies the values of a pixel.
fn copy_pixel<T: Copy>(from: &[T], to: &mut [T]) {
    if let ([a, b, c], [to_a, to_b, to_c]) = (from, &mut *to) {
        // The usual case needs no call.
        (*to_a, *to_b, *to_c) = (*a, *b, *c);
    } else {
        to.copy_from_slice(from);
    }
}

fn pixels<T>(row: &mut [T], channels: usize) -> impl Iterator<Item = &mut [T]> {
    row.chunks_exact_mut(channels.max(1))
}

/// Changes contrast and brightness of a row of pixels.
fn colour<T: Value>(augmentation: &Augmentation, row: &mut [T], channels: usize) {
    if augmentation.keeps_colour() {
        return;
    }
    let contrast = augmentation.contrast.map(T::Compute::from);
    let brightness = augmentation.brightness.map(T::Compute::from);
    let changed = |value: T, contrast, brightness| T::narrow(value.widen() * contrast + brightness);
    if channels == 3 {
        // The usual case has a loop of fixed length, which becomes vectors.
        for pixel in row.as_chunks_mut::<3>().0 {
            for channel in 0..3 {
                pixel[channel] = changed(pixel[channel], contrast[channel], brightness[channel]);
            }
        }
        return;
    }
    for pixel in pixels(row, channels) {
        let changes = contrast.iter().zip(&brightness);
        for (value, (contrast, brightness)) in pixel.iter_mut().zip(changes) {
            *value = changed(*value, *contrast, *brightness);
        }
    }
}

/// What pixels are made of.
trait Value: Stored<Compute: From<f32>> {
    /// Memory of each thread for a region that is turned.
    fn scratch() -> &'static LocalKey<RefCell<Vec<Self>>>;
}

macro_rules! value {
    ($number:ident) => {
        impl Value for $number {
            fn scratch() -> &'static LocalKey<RefCell<Vec<Self>>> {
                thread_local!(static SCRATCH: RefCell<Vec<$number>> = const { RefCell::new(Vec::new()) });
                &SCRATCH
            }
        }
    };
}

value!(f32);
value!(f64);
value!(bf16);

impl<S: TileSource> TileSource for Augmented<S> {
    fn batch(&self) -> usize {
        self.source.batch()
    }

    fn channels(&self) -> usize {
        self.source.channels()
    }

    fn extent(&self) -> (u64, u64) {
        self.augmentation.extent()
    }

    fn expect_reads(&self, reads: &mut dyn Iterator<Item = (usize, Rect)>) {
        let origins = reads.map(|(image, region)| (image, self.augmentation.origin(region)));
        self.source.expect_reads(&mut { origins });
    }

    /// Turns, mirroring, crops and changes of colour leave one colour one colour.
    fn one_color(&self, image: usize, region: Rect) -> Result<Option<Vec<f64>>, ExternalError> {
        let color = self
            .source
            .one_color(image, self.augmentation.origin(region))?;
        Ok(color.map(|mut color| {
            let channels = color.len();
            colour(&self.augmentation, &mut color, channels);
            color
        }))
    }

    fn read(&self, image: usize, region: Rect, out: TileMut<'_>) -> Result<(), ExternalError> {
        if self.augmentation.keeps_orientation() && self.augmentation.keeps_colour() {
            return self
                .source
                .read(image, self.augmentation.origin(region), out);
        }
        match out {
            TileMut::F32(tile) => self.read_as(image, region, tile),
            TileMut::F64(tile) => self.read_as(image, region, tile),
            TileMut::BF16(tile) => self.read_as(image, region, tile),
        }
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Tensor};
    use stream_grad::Span;

    use super::*;

    const HEIGHT: i64 = 5;
    /// Of two bands of rows that are turned together, and some.
    const WIDTH: i64 = 37;

    const EXTENT: (u64, u64) = (HEIGHT.cast_unsigned(), WIDTH.cast_unsigned());

    fn image(channels: i64) -> Tensor {
        let values: Vec<f64> = (0..channels * HEIGHT * WIDTH)
            .map(|value| value as f64)
            .collect();
        let channels = usize::try_from(channels).unwrap();
        Tensor::from_vec(values, (1, channels, 5, 37), &Device::Cpu).unwrap()
    }

    /// The value of channel `channel` at (row, column) of the image.
    fn value(row: i64, column: i64, channel: i64) -> f64 {
        ((channel * HEIGHT + row) * WIDTH + column) as f64
    }

    /// The values of a region, read into rows that lie apart.
    fn read(source: &dyn TileSource, region: Rect) -> Vec<f64> {
        let length = region.width() * source.channels();
        let pitch = length + 4;
        let mut out = vec![f64::NAN; region.height() * pitch];
        let tile = StridedMut::new(&mut out, region.height(), length, pitch).unwrap();
        source.read(0, region, TileMut::F64(tile)).unwrap();
        let rows = out.chunks_exact(pitch).map(|row| row.split_at(length));
        rows.flat_map(|(row, gap)| {
            assert!(gap.iter().all(|value| value.is_nan()), "{gap:?}");
            row.to_vec()
        })
        .collect()
    }

    /// Where the pixel at (row, column) of the result lies in the image, written out for each case.
    fn expected(augmentation: &Augmentation, row: i64, column: i64) -> (i64, i64) {
        let (height, width) = augmentation.extent();
        let (height, width) = (height.cast_signed(), width.cast_signed());
        let row = if augmentation.rows == Order::Backward {
            height - 1 - row
        } else {
            row
        };
        let column = if augmentation.columns == Order::Backward {
            width - 1 - column
        } else {
            column
        };
        let (row, column) = if augmentation.axes == Axes::Swapped {
            (column, row)
        } else {
            (row, column)
        };
        (
            row + augmentation.crop.rows.lo,
            column + augmentation.crop.columns.lo,
        )
    }

    #[test]
    fn every_region_shows_the_pixels_of_its_coordinates() {
        for (case, channels) in (0..16_u32).flat_map(|case| [(case, 3), (case, 4), (case, 1)]) {
            let order = |bit: u32| {
                if case >> bit & 1 == 1 {
                    Order::Backward
                } else {
                    Order::Forward
                }
            };
            let crop = if case >> 3 == 1 {
                Rect::new(Span::new(1, 4), Span::new(2, 7))
            } else {
                Rect::whole(EXTENT.0, EXTENT.1)
            };
            let axes = if case >> 2 & 1 == 1 {
                Axes::Swapped
            } else {
                Axes::Kept
            };
            let augmentation = Augmentation {
                crop,
                axes,
                rows: order(0),
                columns: order(1),
                contrast: [1.0, 2.0, 0.5],
                brightness: [0.0, -1.0, 0.25],
            };
            let source = Augmented::new(image(channels), augmentation.clone()).unwrap();
            let whole = Rect::whole(source.extent().0, source.extent().1);
            let (height, width) = (whole.rows.hi, whole.columns.hi);
            for region in [
                whole,
                Rect::new(Span::new(1, 3), Span::new(2, 3)),
                Rect::new(Span::new(height - 1, height), Span::new(0, width - 1)),
            ] {
                let found = read(&source, region);
                let mut values = found.iter();
                for row in region.rows.lo..region.rows.hi {
                    for column in region.columns.lo..region.columns.hi {
                        let (from_row, from_column) = expected(&augmentation, row, column);
                        for channel in 0..channels {
                            let index = usize::try_from(channel).unwrap();
                            let contrast = augmentation.contrast.get(index).copied();
                            let contrast = f64::from(contrast.unwrap_or(1.0));
                            let brightness = augmentation.brightness.get(index).copied();
                            let brightness = f64::from(brightness.unwrap_or(0.0));
                            assert_eq!(
                                *values.next().unwrap(),
                                value(from_row, from_column, channel) * contrast + brightness
                            );
                        }
                    }
                }
                assert!(values.next().is_none());
            }
        }
    }
}
