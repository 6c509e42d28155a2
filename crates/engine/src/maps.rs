//! Whole maps in memory: features and gradients gathered from tiles, images and cotangents handed out to them.

use rayon::prelude::*;
use stream_grad_kernels::{Element, zeros};
use stream_grad_tiling::Rect;

use crate::element::Stored;
use crate::error::ExternalError;
use crate::exchange::{CotangentSource, FeatureSink, InputGradientSink, TileSource};
use crate::tile::{TileMut, TileRef};

/// Whole maps `[N, C, H, W]`, one for each output of a network, or the images themselves.
#[derive(Debug, Clone)]
pub struct WholeMaps<T> {
    maps: Vec<WholeMap<T>>,
}

/// One of [`WholeMaps`], contiguous.
#[derive(Debug, Clone, PartialEq)]
pub struct WholeMap<T> {
    /// Its values, in the order of the shape.
    pub data: Vec<T>,
    /// `[N, C, H, W]`.
    pub shape: [usize; 4],
}

impl<T: Element + Stored> WholeMaps<T> {
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
            *value = T::rounded(f64::from(bits) / f64::from(1_u32 << 30) - 1.0);
        }
        maps
    }

    /// The maps.
    #[must_use]
    pub fn into_maps(self) -> Vec<WholeMap<T>> {
        self.maps
    }

    fn scatter(
        &mut self,
        (image, output): (usize, usize),
        region: Rect,
        tile: TileRef<'_>,
        combine: impl Fn(&mut T, T),
    ) -> Result<(), ExternalError> {
        let map = self.maps.get_mut(output).ok_or("no such output")?;
        let tile = T::from_tile(tile).ok_or("a tile of another dtype")?;
        let place = MapPlace::new(&map.shape, image, region)?;
        if region.is_empty() {
            return Ok(());
        }
        for row in 0..region.height() {
            let values = tile.row(row);
            for channel in 0..place.channels {
                let start = place.start(channel, row);
                let line = &mut map.data[start..start + region.width()];
                for (column, value) in line.iter_mut().enumerate() {
                    combine(value, values[column * place.channels + channel]);
                }
            }
        }
        Ok(())
    }

    fn gather(
        &self,
        (image, output): (usize, usize),
        region: Rect,
        out: TileMut<'_>,
    ) -> Result<(), ExternalError> {
        let map = self.maps.get(output).ok_or("no such output")?;
        let place = MapPlace::new(&map.shape, image, region)?;
        let mut tile = T::from_tile_mut(out).ok_or("a tile of another dtype")?;
        if region.is_empty() {
            return Ok(());
        }
        tile.par_rows().enumerate().for_each(|(row, values)| {
            for channel in 0..place.channels {
                let start = place.start(channel, row);
                let line = &map.data[start..start + region.width()];
                for (column, &value) in line.iter().enumerate() {
                    values[column * place.channels + channel] = value;
                }
            }
        });
        Ok(())
    }
}

/// The first of the maps is the images.
impl<T: Element + Stored> TileSource for WholeMaps<T> {
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

    fn read(&self, image: usize, region: Rect, out: TileMut<'_>) -> Result<(), ExternalError> {
        self.gather((image, 0), region, out)
    }
}

impl<T: Element + Stored> CotangentSource for WholeMaps<T> {
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

impl<T: Element + Stored> FeatureSink for WholeMaps<T> {
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

impl<T: Element + Stored> InputGradientSink for WholeMaps<T> {
    fn add(
        &mut self,
        image: usize,
        region: Rect,
        gradient: TileRef<'_>,
    ) -> Result<(), ExternalError> {
        self.scatter((image, 0), region, gradient, |place, value| *place += value)
    }
}

/// Where a region of one image lies in a contiguous `[N, C, H, W]` map.
struct MapPlace {
    origin: usize,
    channels: usize,
    height: usize,
    width: usize,
}

impl MapPlace {
    fn new(
        &[batch, channels, height, width]: &[usize; 4],
        image: usize,
        region: Rect,
    ) -> Result<Self, ExternalError> {
        let map = Rect::whole(height as u64, width as u64);
        if image >= batch || !map.covers(region) {
            return Err(format!(
                "image {image}, {region} lies outside {batch} maps of {height} x {width}"
            )
            .into());
        }
        let row = usize::try_from(region.rows.lo)?;
        let column = usize::try_from(region.columns.lo)?;
        Ok(Self {
            origin: (image * channels * height + row) * width + column,
            channels,
            height,
            width,
        })
    }

    fn start(&self, channel: usize, row: usize) -> usize {
        self.origin + (channel * self.height + row) * self.width
    }
}
