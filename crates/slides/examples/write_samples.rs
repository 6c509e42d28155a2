//! Writes a pyramid of every kind of pixel, compression and container, for other programs to read:
//! `cargo run --example write_samples -- FOLDER`. `golden/slides/read_back.py` reads them with tifffile.

use std::path::{Path, PathBuf};

use stream_grad_slides::{
    ColorModel, Compression, MicronsPerPixel, PyramidOptions, PyramidWriter, Sample, TiffKind,
};

const HEIGHT: u32 = 300;
const WIDTH: u32 = 421;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let Some(folder) = std::env::args().nth(1).map(PathBuf::from) else {
        return Err("usage: write_samples FOLDER".into());
    };
    std::fs::create_dir_all(&folder)?;
    for (kind, container) in [(TiffKind::Classic, "classic"), (TiffKind::Big, "big")] {
        for (color, colors) in [(ColorModel::Rgb, "rgb"), (ColorModel::Gray, "gray")] {
            let options = PyramidOptions::default()
                .with_kind(kind)
                .with_color(color)
                .with_tile_edge(128)
                .with_microns_per_pixel(MicronsPerPixel::new(0.5)?)
                .with_icc_profile(b"not a profile, but passed on".to_vec());
            for (compression, name) in [
                (Compression::Deflate, "deflate"),
                (Compression::Lzw, "lzw"),
                (Compression::Jpeg { quality: 95 }, "jpeg95"),
                (Compression::Jpeg { quality: 80 }, "jpeg80"),
            ] {
                let options = options.clone().with_compression(compression);
                let place =
                    |kind: &str| folder.join(format!("{kind}-{colors}-{name}-{container}.tiff"));
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
    }
    println!("{}", folder.display());
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
