//! The cotangent of a sum.

use stream_grad::{CotangentSource, ExternalError, Rect, TileMut, TileRef};

/// Cotangents that are all one: gradients of the features' sum.
#[derive(Debug, Clone, Copy)]
pub struct Ones;

impl CotangentSource for Ones {
    fn follows_from_features(&self, _image: usize, _output: usize, _region: Rect) -> bool {
        true
    }

    fn read(
        &mut self,
        _image: usize,
        _output: usize,
        region: Rect,
        _features: TileRef<'_>,
        out: TileMut<'_>,
    ) -> Result<(), ExternalError> {
        match out {
            TileMut::F32(mut tile) => {
                (0..region.height()).for_each(|row| tile.row(row).fill(1.0));
            }
            TileMut::F64(mut tile) => {
                (0..region.height()).for_each(|row| tile.row(row).fill(1.0));
            }
        }
        Ok(())
    }
}
