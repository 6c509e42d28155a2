//! Draws a map of values over a slide and writes it as a pyramid with the slide's scale, and as Deep Zoom:
//! `cargo run --example heatmap -- SLIDE OUT.tiff [OUT.dzi]`.
//!
//! The values are the amount of haematoxylin in squares of 64 x 64 pixels at 2 microns per pixel, of those that hold tissue;
//! in their place would stand a network's predictions.
//!
//! Of a slide with bounds, only what lies inside is drawn, as QuPath shows it.

use std::error::Error;

use stream_grad_slides::{
    DeepZoomOptions, DeepZoomWriter, Extent, Heatmap, HeatmapStyle, Mask, MicronsPerPixel, Region,
    Slide, Target, TissueOptions, separate_hed,
};

const SQUARE: i64 = 64;

fn main() -> Result<(), Box<dyn Error>> {
    run(&std::env::args().skip(1).collect::<Vec<_>>())
}

pub(crate) fn run(arguments: &[String]) -> Result<(), Box<dyn Error>> {
    let [input, output, rest @ ..] = arguments else {
        return Err("usage: heatmap SLIDE OUT.tiff [OUT.dzi]".into());
    };
    let slide = Slide::open(input)?;
    for output in [output].into_iter().chain(rest) {
        slide.check_output(output)?;
    }
    let edge = MicronsPerPixel::new(2.0)?;
    let view = slide
        .view(Target::MicronsPerPixel(edge))?
        .cropped_to_bounds()?;
    let Extent { height, width } = view.extent();
    // Whole squares; the map is spread over just these.
    let (rows, columns) = (
        height / SQUARE.unsigned_abs(),
        width / SQUARE.unsigned_abs(),
    );
    let (rows, columns) = (i64::try_from(rows)?, i64::try_from(columns)?);
    let view = view.cropped(&Region::new(0..rows * SQUARE, 0..columns * SQUARE))?;

    let mask = Mask::of_tissue(&slide, &TissueOptions::default())?;
    let mut values = Vec::new();
    let mut rgb = vec![0; 64 * 64 * 3];
    let mut stains = vec![0.0; rgb.len()];
    for row in 0..rows {
        for column in 0..columns {
            let region = Region::new(
                row * SQUARE..(row + 1) * SQUARE,
                column * SQUARE..(column + 1) * SQUARE,
            );
            if mask.share_in(&view, &region) < 0.25 {
                values.push(f32::NAN);
                continue;
            }
            view.read(&region, &mut rgb)?;
            separate_hed(&rgb, &mut stains)?;
            values.push(stains.iter().step_by(3).sum::<f32>() / 4096.0);
        }
    }
    let highest = values.iter().copied().fold(f32::MIN_POSITIVE, f32::max);
    let map = Heatmap::over(
        &view,
        Extent {
            height: rows.try_into()?,
            width: columns.try_into()?,
        },
        values,
    )?;

    let style = HeatmapStyle {
        values: 0.0..=highest,
        ..HeatmapStyle::default()
    };
    map.write_pyramid(output, &view, &style)?;
    if let Some(path) = rest.first() {
        let Extent { height, width } = view.extent();
        let mut zoom = DeepZoomWriter::create(path, height, width, &DeepZoomOptions::default())?;
        map.draw_bands(&view, &style, &mut |rows| zoom.write_rows(rows))?;
        zoom.finish()?;
    }
    println!("{output}: {rows} x {columns} values up to {highest:.3}");
    Ok(())
}
