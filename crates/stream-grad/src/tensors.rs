//! Whole tensors where the engine asks region by region.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hasher};
use std::sync::{Mutex, PoisonError};

use candle_core::Tensor;

use crate::{CotangentSource, ExternalError, Rect, Span, StridedMut, TileMut, TileRef, TileSource};

/// The most features of an image that are told apart; positions with others are taken not to follow from them.
const MOST_FEATURES: usize = 512;

/// Whole cotangents as tensors `[N, C, H, W]`, one for each output.
pub(crate) struct TensorCotangents {
    cotangents: Vec<Tensor>,
    /// The features that these are cotangents of, where they are known.
    features: Vec<Tensor>,
    found: Mutex<Found>,
}

/// What was found out of cotangents, by image and output.
#[derive(Default)]
struct Found {
    /// Whether they are the same everywhere.
    constant: HashMap<(usize, usize), bool>,
    /// A position with the features of this hash.
    positions: HashMap<(usize, usize, u64), Rect>,
}

impl TensorCotangents {
    /// Cotangents of features that are not known.
    pub(crate) fn new(cotangents: Vec<Tensor>) -> Self {
        Self::of_features(cotangents, Vec::new())
    }

    /// Cotangents of these features.
    pub(crate) fn of_features(cotangents: Vec<Tensor>, features: Vec<Tensor>) -> Self {
        Self {
            cotangents,
            features,
            found: Mutex::default(),
        }
    }

    /// Whether the cotangents in a region are those of the first position.
    fn are_as_the_first(&self, image: usize, output: usize, region: Rect) -> bool {
        let color = |region| {
            let color = self.cotangents.get(output)?.one_color(image, region);
            let color = color.ok().flatten()?.into_iter();
            Some(color.map(f64::to_bits).collect::<Vec<_>>())
        };
        let there = color(region);
        there.is_some() && there == color(Rect::whole(1, 1))
    }

    fn is_constant(&self, (image, output): (usize, usize), cotangents: &Tensor) -> bool {
        let (height, width) = cotangents.extent();
        self.are_as_the_first(image, output, Rect::whole(height, width))
    }

    /// Whether positions of a region with the same features, and positions of those that were asked about before, have the same
    /// cotangents.
    fn are_as_their_features(
        &self,
        (image, output): (usize, usize),
        region: Rect,
    ) -> Result<bool, ExternalError> {
        let (Some(features), Some(cotangents)) =
            (self.features.get(output), self.cotangents.get(output))
        else {
            return Ok(false);
        };
        let Found {
            constant,
            positions,
        } = &mut *self.found.lock().unwrap_or_else(PoisonError::into_inner);
        let is_constant = || self.is_constant((image, output), cotangents);
        if *constant.entry((image, output)).or_insert_with(is_constant) {
            return Ok(true);
        }
        for row in region.rows.lo..region.rows.hi {
            for column in region.columns.lo..region.columns.hi {
                let position = Rect::new(Span::new(row, row + 1), Span::new(column, column + 1));
                let found = bits(features, image, position)?;
                let mut hasher = DefaultHasher::new();
                found.iter().for_each(|&bits| hasher.write_u64(bits));
                let key = (image, output, hasher.finish());
                let Some(&other) = positions.get(&key) else {
                    if positions.len() == MOST_FEATURES {
                        return Ok(false);
                    }
                    positions.insert(key, position);
                    continue;
                };
                let same = found == bits(features, image, other)?
                    && bits(cotangents, image, position)? == bits(cotangents, image, other)?;
                if !same {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }
}

/// The values of all channels at a position.
fn bits(tensor: &Tensor, image: usize, position: Rect) -> Result<Vec<u64>, ExternalError> {
    let channels = tensor.channels();
    let mut values = vec![0.0; channels];
    let row = StridedMut::new(&mut values, 1, channels, channels).ok_or("no channels")?;
    TileSource::read(tensor, image, position, TileMut::F64(row))?;
    Ok(values.into_iter().map(f64::to_bits).collect())
}

/// Behind a mean, cotangents are the same everywhere. Behind poolings and functions of single positions they are where the features
/// are, but for where a maximum lies.
impl CotangentSource for TensorCotangents {
    fn follows_from_features(&self, image: usize, output: usize, region: Rect) -> bool {
        if self.features.is_empty() {
            return self.are_as_the_first(image, output, region);
        }
        let follow = self.are_as_their_features((image, output), region);
        follow.unwrap_or(false)
    }

    fn read(
        &mut self,
        image: usize,
        output: usize,
        region: Rect,
        _features: TileRef<'_>,
        out: TileMut<'_>,
    ) -> Result<(), ExternalError> {
        TileSource::read(
            self.cotangents.get(output).ok_or("no such output")?,
            image,
            region,
            out,
        )
    }
}
