//! Writes a slide of three pieces of tissue on 15% of its area and glass elsewhere, for what a filled background saves of a whole slide:
//!
//! `cargo run --release -p stream-grad-bench --example tissue_slide -- FILE [edge]`, by default 32768 pixels of half a micron, then
//! `stream-grad vjp --slide FILE --model resnet34 --weights WEIGHTS --output GRADIENTS --memory 8GiB --background fill`, and the same with
//! `as_read`.

use std::path::PathBuf;

use anyhow::Context;
use stream_grad_slides::{Compression, MicronsPerPixel, PyramidOptions, PyramidWriter};

/// Where the pieces lie, in thousandths of the edge: row and column of their middles.
const PIECES: [[u64; 2]; 3] = [[250, 300], [580, 640], [760, 220]];

/// Square of a piece's radius, in millionths of the edge's: each is a twentieth of the area.
const SQUARE: u64 = 15_915;

fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let path: PathBuf = arguments.next().context("which file?")?.into();
    let edge: u64 = arguments.next().as_deref().unwrap_or("32768").parse()?;
    let options = PyramidOptions::default()
        .with_compression(Compression::Jpeg { quality: 80 })
        .with_microns_per_pixel(MicronsPerPixel::new(0.5)?);
    let mut writer = PyramidWriter::create(&path, edge, edge, &options)?;
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut row = vec![0_u8; usize::try_from(edge * 3)?];
    for y in 0..edge {
        for (x, pixel) in (0..edge).zip(row.chunks_exact_mut(3)) {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            let [grain, ..] = state.to_le_bytes();
            let color = if is_tissue(edge, [y, x]) {
                [150 + grain / 4, 70 + grain / 4, 140 + grain / 4]
            } else {
                [240 + grain / 64; 3]
            };
            pixel.copy_from_slice(&color);
        }
        writer.write_rows(&row)?;
    }
    writer.finish()?;
    Ok(())
}

/// Whether a pixel, by row and column, lies in a piece.
fn is_tissue(edge: u64, pixel: [u64; 2]) -> bool {
    PIECES.iter().any(|middle| {
        let squares = [0, 1].map(|axis| {
            let distance = (pixel[axis] * 1000).abs_diff(middle[axis] * edge);
            distance * distance
        });
        squares[0] + squares[1] < SQUARE * edge * edge
    })
}
