//! Whole maps in memory: features and gradients gathered from tiles, images and cotangents handed out to them.

use stream_grad_kernels::{Element, Storage, zeros};
use stream_grad_tiling::Rect;

use crate::element::Stored;
use crate::error::ExternalError;
use crate::exchange::{CotangentSource, FeatureSink, InputGradientSink, TileSource};
use crate::planar::PlanarRegion;
use crate::tile::{TileMut, TileRef};

/// Whole maps `[N, C, H, W]`, one for each output of a network, or the images themselves, of plans that store `E`.
///
/// Their values are of the type that `E` is computed in: what a caller does with a whole map is arithmetic, parts that are added
/// are not rounded each time, and a widened value is the value that was stored.
#[derive(Debug, Clone)]
pub struct WholeMaps<E: Storage> {
    maps: Vec<WholeMap<E::Compute>>,
}

/// One of [`WholeMaps`], contiguous.
#[derive(Debug, Clone, PartialEq)]
pub struct WholeMap<T> {
    /// Its values, in the order of the shape.
    pub data: Vec<T>,
    /// `[N, C, H, W]`.
    pub shape: [usize; 4],
}

impl<E: Stored> WholeMaps<E> {
    /// Maps of zeros.
    #[must_use]
    pub fn zeros(shapes: &[[usize; 4]]) -> Self {
        let maps = shapes.iter().map(|&shape| WholeMap {
            data: zeros(shape.iter().product()),
            shape,
        });
        Self {
            maps: maps.collect(),
        }
    }

    /// Maps of small numbers between -1 and 1 that look like noise, the same on every run.
    #[must_use]
    pub fn noise(shapes: &[[usize; 4]]) -> Self {
        let mut maps = Self::zeros(shapes);
        let mut seed = 0_u64;
        for value in maps.maps.iter_mut().flat_map(|map| &mut map.data) {
            seed = seed.wrapping_add(0x9E37_79B9_7F4A_7C15);
            let mixed = (seed ^ (seed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
            // 31 bits fit.
            let bits = u32::try_from(mixed >> 33).unwrap_or(0);
            *value = E::Compute::from_f64(f64::from(bits) / f64::from(1_u32 << 30) - 1.0);
        }
        maps
    }

    /// The maps.
    #[must_use]
    pub fn into_maps(self) -> Vec<WholeMap<E::Compute>> {
        self.maps
    }

    fn scatter(
        &mut self,
        (image, output): (usize, usize),
        region: Rect,
        tile: TileRef<'_>,
        combine: impl Fn(&mut E::Compute, E::Compute),
    ) -> Result<(), ExternalError> {
        let map = self.maps.get_mut(output).ok_or("no such output")?;
        let tile = E::from_tile(tile).ok_or("a tile of another dtype")?;
        let place = PlanarRegion::contiguous(map.shape, image, region)?;
        if region.is_empty() {
            return Ok(());
        }
        for row in 0..region.height() {
            let values = tile.row(row);
            for channel in 0..place.channels {
                let start = place.start(channel, row);
                let line = &mut map.data[start..start + region.width()];
                for (column, value) in line.iter_mut().enumerate() {
                    combine(value, values[column * place.channels + channel].widen());
                }
            }
        }
        Ok(())
    }

    /// The value of each channel in a region, if it is the same everywhere.
    fn color(
        &self,
        (image, output): (usize, usize),
        region: Rect,
    ) -> Result<Option<Vec<f64>>, ExternalError> {
        let map = self.maps.get(output).ok_or("no such output")?;
        let place = PlanarRegion::contiguous(map.shape, image, region)?;
        Ok(place.color(&map.data))
    }

    fn gather(
        &self,
        (image, output): (usize, usize),
        region: Rect,
        out: TileMut<'_>,
    ) -> Result<(), ExternalError> {
        let map = self.maps.get(output).ok_or("no such output")?;
        let place = PlanarRegion::contiguous(map.shape, image, region)?;
        let mut tile = E::from_tile_mut(out).ok_or("a tile of another dtype")?;
        place.copy(&map.data, &mut tile);
        Ok(())
    }
}

/// The first of the maps is the images.
impl<E: Stored> TileSource for WholeMaps<E> {
    fn batch(&self) -> usize {
        self.maps.first().map_or(0, |map| map.shape[0])
    }

    fn channels(&self) -> usize {
        self.maps.first().map_or(0, |map| map.shape[1])
    }

    fn extent(&self) -> (u64, u64) {
        let extent = |axis: usize| self.maps.first().map_or(0, |map| map.shape[axis] as u64);
        (extent(2), extent(3))
    }

    fn one_color(&self, image: usize, region: Rect) -> Result<Option<Vec<f64>>, ExternalError> {
        self.color((image, 0), region)
    }

    fn read(&self, image: usize, region: Rect, out: TileMut<'_>) -> Result<(), ExternalError> {
        self.gather((image, 0), region, out)
    }
}

/// Cotangents follow from the features where they are the same as at the first position: most of them, behind a mean, and behind a
/// maximum.
impl<E: Stored> CotangentSource for WholeMaps<E> {
    fn follows_from_features(&self, image: usize, output: usize, region: Rect) -> bool {
        let color = |region| {
            let color = self.color((image, output), region).ok().flatten()?;
            Some(color.into_iter().map(f64::to_bits).collect::<Vec<_>>())
        };
        let there = color(region);
        there.is_some() && there == color(Rect::whole(1, 1))
    }

    fn read(
        &mut self,
        image: usize,
        output: usize,
        region: Rect,
        _features: TileRef<'_>,
        out: TileMut<'_>,
    ) -> Result<(), ExternalError> {
        self.gather((image, output), region, out)
    }
}

impl<E: Stored> FeatureSink for WholeMaps<E> {
    fn write(
        &mut self,
        image: usize,
        output: usize,
        region: Rect,
        features: TileRef<'_>,
    ) -> Result<(), ExternalError> {
        self.scatter((image, output), region, features, |place, value| {
            *place = value
        })
    }
}

impl<E: Stored> InputGradientSink for WholeMaps<E> {
    fn add(
        &mut self,
        image: usize,
        region: Rect,
        gradient: TileRef<'_>,
    ) -> Result<(), ExternalError> {
        self.scatter((image, 0), region, gradient, |place, value| *place += value)
    }
}

#[cfg(test)]
mod tests {
    use stream_grad_tiling::{PerAxis, Span};

    use super::*;

    #[test]
    fn colors_are_told_bit_for_bit() {
        let mut maps = WholeMaps::<f32>::zeros(&[[2, 2, 4, 5]]);
        // Row 2, column 3 of channel 1 of the second image.
        maps.maps[0].data[3 * 20 + 13] = -0.0;
        let rect = |rows: [i64; 2], columns: [i64; 2]| {
            PerAxis::new(
                Span::new(rows[0], rows[1]),
                Span::new(columns[0], columns[1]),
            )
        };
        let told = |image, region| TileSource::one_color(&maps, image, region).ok().flatten();
        assert_eq!(told(0, rect([0, 4], [0, 5])), Some(vec![0.0, 0.0]));
        assert_eq!(told(1, rect([0, 4], [0, 5])), None);
        assert_eq!(told(1, rect([0, 4], [0, 3])), Some(vec![0.0, 0.0]));
        let negative = told(1, rect([2, 3], [3, 4])).unwrap_or_default();
        assert!(negative[1].is_sign_negative(), "{negative:?}");
        assert_eq!(told(0, rect([0, 4], [2, 2])), None);
        assert!(TileSource::one_color(&maps, 0, rect([0, 5], [0, 5])).is_err());
        // What is the same, but not the same as at the first position, does not follow.
        let follows = |region| maps.follows_from_features(1, 0, region);
        assert!(follows(rect([0, 2], [0, 5])) && !follows(rect([2, 3], [3, 4])));
        assert!(!follows(rect([0, 4], [0, 5])));
    }
}
