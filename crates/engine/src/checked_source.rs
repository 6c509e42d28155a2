//! A source that is not believed.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use stream_grad_kernels::bf16;
use stream_grad_tiling::Rect;

use crate::element::{DType, Stored};
use crate::error::ExternalError;
use crate::exchange::TileSource;
use crate::tile::{StridedMut, TileMut};

/// A source, of which it is checked that what it calls [of one colour](TileSource::one_color) is, and that what it calls by the same
/// values has the same pixels. For tests: it reads every region of which that is said.
///
/// ```
/// use stream_grad_engine::{CheckedSource, DType, Rect, TileSource, WholeMaps};
/// let black = WholeMaps::<f32>::zeros(&[[1, 3, 20, 20]]);
/// let source = CheckedSource::new(black, DType::F32);
/// assert_eq!(source.one_color(0, Rect::whole(4, 4))?, Some(vec![0.0; 3]));
/// # Ok::<(), stream_grad_engine::ExternalError>(())
/// ```
#[derive(Debug, Clone)]
pub struct CheckedSource<S> {
    source: S,
    dtype: DType,
    /// The pixel that was first read of what was said, both as bits.
    pixels: Arc<Mutex<BTreeMap<Vec<u64>, Vec<u64>>>>,
}

impl<S: TileSource> CheckedSource<S> {
    /// Checks a source for plans of this dtype.
    pub fn new(source: S, dtype: DType) -> Self {
        Self {
            source,
            dtype,
            pixels: Arc::default(),
        }
    }

    /// The source.
    pub const fn source(&self) -> &S {
        &self.source
    }

    /// The first pixel of `region` that is another than the first of which this was said, and its values.
    fn find_other<T: Stored>(
        &self,
        image: usize,
        region: Rect,
        color: &[f64],
    ) -> Result<Option<(i64, i64, Vec<f64>)>, ExternalError> {
        let (channels, width) = (self.source.channels(), region.width());
        let row_length = width * channels;
        let mut values = vec![T::default(); region.height() * row_length];
        let rows = StridedMut::new(&mut values, region.height(), row_length, row_length);
        let rows = rows.ok_or("a region that has no rows")?;
        self.source.read(image, region, T::tile_mut(rows))?;
        let bits = |values: &[f64]| values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
        let mut known = self.pixels.lock().unwrap_or_else(PoisonError::into_inner);
        for (row, line) in (region.rows.lo..).zip(values.chunks_exact(row_length.max(1))) {
            for (column, pixel) in (region.columns.lo..).zip(line.chunks_exact(channels.max(1))) {
                let pixel: Vec<f64> = pixel.iter().map(|value| value.widened()).collect();
                let found = bits(&pixel);
                if *known.entry(bits(color)).or_insert_with(|| found.clone()) != found {
                    return Ok(Some((row, column, pixel)));
                }
            }
        }
        Ok(None)
    }
}

impl<S: TileSource> TileSource for CheckedSource<S> {
    fn batch(&self) -> usize {
        self.source.batch()
    }

    fn channels(&self) -> usize {
        self.source.channels()
    }

    fn extent(&self) -> (u64, u64) {
        self.source.extent()
    }

    fn expect_reads(&self, reads: &mut dyn Iterator<Item = (usize, Rect)>) {
        self.source.expect_reads(reads);
    }

    /// # Errors
    /// Those of the source, and a pixel of another colour.
    fn one_color(&self, image: usize, region: Rect) -> Result<Option<Vec<f64>>, ExternalError> {
        let Some(color) = self.source.one_color(image, region)? else {
            return Ok(None);
        };
        let other = match self.dtype {
            DType::F32 => self.find_other::<f32>(image, region, &color)?,
            DType::F64 => self.find_other::<f64>(image, region, &color)?,
            DType::BF16 => self.find_other::<bf16>(image, region, &color)?,
        };
        match other {
            None => Ok(Some(color)),
            Some((row, column, found)) => Err(format!(
                "image {image}, {region} is said to be of one colour, {color:?}, and row {row}, column {column} is another: {found:?}"
            )
            .into()),
        }
    }

    fn read(&self, image: usize, region: Rect, out: TileMut<'_>) -> Result<(), ExternalError> {
        self.source.read(image, region, out)
    }
}
