//! Regions of maps whose channels are planes of their own: `[N, C, H, W]`, with any strides.

use rayon::prelude::*;
use stream_grad_kernels::parallel_for;
use stream_grad_tiling::Rect;

use crate::element::Stored;
use crate::error::ExternalError;
use crate::tile::StridedMut;

/// Where a region of one image lies in the memory of such maps, in values.
pub(crate) struct PlanarRegion {
    /// Of the first value.
    origin: usize,
    /// From one channel, one row and one column to the next.
    strides: [usize; 3],
    pub(crate) channels: usize,
    height: usize,
    width: usize,
}

impl PlanarRegion {
    /// A region of an image of maps of `shape`, `[N, C, H, W]`, whose values lie `strides` apart, the first at `start`.
    pub(crate) fn new(
        shape: [usize; 4],
        (start, strides): (usize, [usize; 4]),
        image: usize,
        region: Rect,
    ) -> Result<Self, ExternalError> {
        let [batch, channels, height, width] = shape;
        let plane = Rect::whole(height as u64, width as u64);
        if image >= batch || !plane.covers(region) {
            return Err(format!("image {image}, {region} lies outside maps of {shape:?}").into());
        }
        let row = usize::try_from(region.rows.lo)?;
        let column = usize::try_from(region.columns.lo)?;
        let [of_image, of_channel, of_row, of_column] = strides;
        Ok(Self {
            origin: start + image * of_image + row * of_row + column * of_column,
            strides: [of_channel, of_row, of_column],
            channels,
            height: region.height(),
            width: region.width(),
        })
    }

    /// A region of maps that lie one after another without gaps.
    pub(crate) fn contiguous(
        shape: [usize; 4],
        image: usize,
        region: Rect,
    ) -> Result<Self, ExternalError> {
        let [_, channels, height, width] = shape;
        let plane = height * width;
        Self::new(
            shape,
            (0, [channels * plane, plane, width, 1]),
            image,
            region,
        )
    }

    /// The place of the first value of a row of a channel.
    pub(crate) fn start(&self, channel: usize, row: usize) -> usize {
        let [of_channel, of_row, _] = self.strides;
        self.origin + channel * of_channel + row * of_row
    }

    /// The value of each channel, if it is the same at every position, bit for bit; of an empty region, none.
    pub(crate) fn color<T: Into<f64> + Copy>(&self, data: &[T]) -> Option<Vec<f64>> {
        let at = |place: usize| -> f64 { data[place].into() };
        let of_channel = |channel: usize| {
            let first = (self.height * self.width > 0).then(|| at(self.start(channel, 0)))?;
            let same = (0..self.height).all(|row| {
                let mut places = self.places(channel, row);
                places.all(|place| at(place).to_bits() == first.to_bits())
            });
            same.then_some(first)
        };
        (0..self.channels).map(of_channel).collect()
    }

    /// Rounds the region's values into a tile, on all threads of the caller's rayon pool.
    pub(crate) fn copy<T: Into<f64> + Copy + Sync, E: Stored>(
        &self,
        data: &[T],
        tile: &mut StridedMut<'_, E>,
    ) {
        let rows = tile.par_rows().enumerate().take(self.height);
        parallel_for(rows, |(row, out)| {
            for channel in 0..self.channels {
                let values = out.iter_mut().skip(channel).step_by(self.channels);
                for (value, place) in values.zip(self.places(channel, row)) {
                    *value = E::rounded(data[place].into());
                }
            }
        });
    }

    /// The places of the values of a row of a channel.
    fn places(&self, channel: usize, row: usize) -> impl Iterator<Item = usize> {
        let (start, step) = (self.start(channel, row), self.strides[2]);
        (0..self.width).map(move |column| start + column * step)
    }
}
