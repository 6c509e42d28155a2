//! Writes a pyramid of every layout, kind of pixel, compression and container, for other programs to read:
//! `cargo run --example write_samples -- FOLDER`. `golden/slides/read_back.py` and `layouts.py` read them.

use std::path::{Path, PathBuf};

use stream_grad_slides::{
    ColorModel, Compression, MicronsPerPixel, PyramidLayout, PyramidOptions, PyramidWriter, Sample,
    TiffKind,
};

const HEIGHT: u32 = 300;
const WIDTH: u32 = 421;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let Some(folder) = std::env::args().nth(1).map(PathBuf::from) else {
        return Err("usage: write_samples FOLDER".into());
    };
    std::fs::create_dir_all(&folder)?;
    for (layout, name) in [
        (PyramidLayout::Aperio, "aperio"),
        (PyramidLayout::Plain, "plain"),
        (PyramidLayout::OmeTiff, "ome"),
    ] {
        for (kind, container) in [(TiffKind::Classic, "classic"), (TiffKind::Big, "big")] {
            let options = PyramidOptions::default()
                .with_layout(layout)
                .with_kind(kind)
                .with_tile_edge(128)
                .with_microns_per_pixel(MicronsPerPixel::new(0.5)?)
                .with_icc_profile(b"not a profile, but passed on".to_vec());
            write_kinds(&folder, (name, container), &options)?;
        }
    }
    println!("{}", folder.display());
    Ok(())
}

/// Writes a file of each kind of pixel and compression, named after the layout, these and the container.
fn write_kinds(
    folder: &Path,
    (layout, container): (&str, &str),
    options: &PyramidOptions,
) -> Result<(), Box<dyn std::error::Error>> {
    for (color, colors) in [(ColorModel::Rgb, "rgb"), (ColorModel::Gray, "gray")] {
        for (compression, name) in [
            (Compression::Deflate, "deflate"),
            (Compression::Lzw, "lzw"),
            (Compression::Jpeg { quality: 95 }, "jpeg95"),
            (Compression::Jpeg { quality: 80 }, "jpeg80"),
        ] {
            let options = options
                .clone()
                .with_color(color)
                .with_compression(compression);
            let place = |kind: &str| {
                folder.join(format!("{layout}-{kind}-{colors}-{name}-{container}.tiff"))
            };
            write(&place("u8"), &options, |value| {
                Ok(u8::try_from(value % 256)?)
            })?;
            if !matches!(compression, Compression::Jpeg { .. }) {
                write(&place("u16"), &options, |value| {
                    Ok(u16::try_from(value * 17 % 65_536)?)
                })?;
                write(&place("f32"), &options, |value| {
                    Ok(f32::from(u16::try_from(value)?) / 7.0)
                })?;
            }
        }
    }
    Ok(())
}

/// Pixel `(row, column)` has `row + 2 column + 50 channel` in each channel, turned into a sample.
fn write<S: Sample>(
    path: &Path,
    options: &PyramidOptions,
    sample: impl Fn(u32) -> Result<S, Box<dyn std::error::Error>>,
) -> Result<(), Box<dyn std::error::Error>> {
    let channels = match options.color {
        ColorModel::Rgb => 3,
        ColorModel::Gray => 1,
    };
    let mut writer =
        PyramidWriter::<S>::create_of_samples(path, HEIGHT.into(), WIDTH.into(), options)?;
    for row in 0..HEIGHT {
        let samples = (0..WIDTH * channels)
            .map(|index| sample(row + 2 * (index / channels) + 50 * (index % channels)))
            .collect::<Result<Vec<S>, _>>()?;
        writer.write_rows(&samples)?;
    }
    writer.finish()?;
    Ok(())
}
