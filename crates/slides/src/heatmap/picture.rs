//! Heat maps as files.

use std::io::Cursor;
use std::path::Path;

use image::{ImageFormat, RgbImage};

use super::{Heatmap, HeatmapStyle};
use crate::error::{Result, SlideError};
use crate::files::write_whole;
use crate::geometry::Region;
use crate::numbers::to_usize;
use crate::view::SlideView;
use crate::write::{Compression, PyramidLayout, PyramidOptions, PyramidWriter};

/// Rows that are drawn at once.
const BAND: u64 = 256;

impl Heatmap {
    /// Draws all of `view` with the heat map over it, in bands of rows from the top, and hands each to `take` as RGB: for files
    /// that are larger than memory.
    ///
    /// # Errors
    /// As [`draw_over`](Self::draw_over), or whatever `take` refuses.
    pub fn draw_bands(
        &self,
        view: &SlideView,
        style: &HeatmapStyle,
        take: &mut dyn FnMut(&[u8]) -> Result<()>,
    ) -> Result<()> {
        let whole = view.extent().region();
        let mut rgb = Vec::new();
        let mut top = whole.rows.start;
        while top < whole.rows.end {
            let end = top.saturating_add_unsigned(BAND).min(whole.rows.end);
            let band = Region::new(top..end, whole.columns.clone());
            rgb.resize(to_usize(band.height() * band.width() * 3), 0);
            self.draw_over(view, &band, &mut rgb, style)?;
            take(&rgb)?;
            top = end;
        }
        Ok(())
    }

    /// Writes a PNG of `view`, which must be small enough to be held in memory, such as
    /// [`Slide::overview`](crate::Slide::overview), with the heat map over it; beside its place first and then renamed.
    ///
    /// # Errors
    /// [`SlideError::LimitExceeded`] for a view beyond [`Limits::image_bytes`](crate::Limits::image_bytes), otherwise as
    /// [`draw_over`](Self::draw_over); [`SlideError::Encode`], [`SlideError::Io`].
    pub fn write_png(
        &self,
        path: impl AsRef<Path>,
        view: &SlideView,
        style: &HeatmapStyle,
    ) -> Result<()> {
        let path = path.as_ref();
        let mut picture: RgbImage = view.to_image()?;
        let whole = view.extent().region();
        super::check(style)?;
        self.blend(view, &whole, picture.as_mut(), style)?;
        let mut bytes = Cursor::new(Vec::new());
        picture
            .write_to(&mut bytes, ImageFormat::Png)
            .map_err(|error| SlideError::Encode {
                path: path.to_path_buf(),
                reason: error.to_string(),
            })?;
        write_whole(path, bytes.get_ref())
    }

    /// Writes `view` with the heat map over it as a tiled TIFF pyramid in Aperio's layout, which says the view's scale where the
    /// slide has one; beside its place first and then renamed.
    ///
    /// # Errors
    /// As [`draw_over`](Self::draw_over) and [`PyramidWriter`].
    pub fn write_pyramid(
        &self,
        path: impl AsRef<Path>,
        view: &SlideView,
        style: &HeatmapStyle,
    ) -> Result<()> {
        let extent = view.extent();
        let mut options = PyramidOptions::default()
            .with_layout(PyramidLayout::Aperio)
            .with_compression(Compression::Jpeg { quality: 85 });
        if let Ok(scale) = view.scale() {
            options = options.with_microns_per_pixel(scale.x);
        }
        let mut pyramid = PyramidWriter::create(path, extent.height, extent.width, &options)?;
        self.draw_bands(view, style, &mut |rows| pyramid.write_rows(rows))?;
        pyramid.finish()
    }
}
