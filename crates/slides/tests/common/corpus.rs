//! The corpus: every file that the reader is tried with, and what it must be.

use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use stream_grad_slides::{
    ColorModel, Compression, MicronsPerPixel, PyramidOptions, PyramidWriter, Slide, TiffKind,
};
use tiff::encoder::{TiffEncoder, colortype};

use super::picture;

/// Sides of the pictures that are written.
pub(crate) const HEIGHT: usize = 300;
pub(crate) const WIDTH: usize = 420;

/// Where a file of the corpus comes from.
pub(crate) enum Origin {
    /// The test assets of the `openslide-rs` crate: SHA-256 of the file.
    Asset(&'static str),
    /// Written when it is needed: SHA-256 of the pixels of level 0 as RGB.
    Written(fn(&Path), Pixels),
}

/// What must be read.
pub(crate) enum Pixels {
    /// Exactly the pixels written. Files with one picture have one hash, however they are stored.
    Sha256(&'static str),
    /// The same but for JPEG of quality 90 or more.
    Jpeg,
}

/// A file of the corpus.
pub(crate) struct Entry {
    pub(crate) name: &'static str,
    pub(crate) origin: Origin,
}

/// Pixels of `picture(HEIGHT, WIDTH)`.
const COLOURS: &str = "42eee036fcc8cd70cc450e9e77091e1c798c058c574d5f55105117aa053b5e55";
/// The red channel of them as grey.
const GREYS: &str = "f17dfec7a157ee9f16ee1e3d3b737c6a0f948b4a9685f87ffe38bc88a7bd3fb6";

/// All files, the real slide (Aperio's CMU-1-Small-Region) first.
pub(crate) const CORPUS: [Entry; 16] = [
    asset(
        "default.svs",
        "ed92d5a9f2e86df67640d6f92ce3e231419ce127131697fbbce42ad5e002c8a7",
    ),
    asset(
        "small.svs",
        "01ab0fea0c0bf62e67e22f2f754c4be40c16a286d112584a7edd6e2e49014122",
    ),
    asset(
        "unreadable.svs",
        "393e1995e46ec5c2ea3f1ec35dc8ccb58fb9e2a4fcd0d9077b93db200226df75",
    ),
    asset(
        "unopenable.tiff",
        "46e6c28ae5a050ba8c17bc0dc91f6bba87b1f9b831da283b1e717e21af6c6af6",
    ),
    asset(
        "boxes.tiff",
        "0dfb5df358e5519eae1ca127cdffae4688287a88fee15fcadb7e47372f2c413d",
    ),
    asset(
        "boxes.png",
        "647e1034f65cdbf473b78918a89180adbfb2ca3ffa735ce813730ed2ea6fdac7",
    ),
    written("jpeg.svs", jpeg_svs, Pixels::Jpeg),
    written("deflate.tiff", deflate_tiled, Pixels::Sha256(COLOURS)),
    written("lzw-big.tiff", lzw_big, Pixels::Sha256(COLOURS)),
    written("grey.tiff", grey_tiled, Pixels::Sha256(GREYS)),
    written("grey-jpeg.tiff", grey_jpeg, Pixels::Jpeg),
    // Twins: one picture in strips and in tiles.
    written("striped.tiff", striped, Pixels::Sha256(COLOURS)),
    written("striped-big.tiff", striped_big, Pixels::Sha256(COLOURS)),
    written("plain.png", png, Pixels::Sha256(COLOURS)),
    written("deep.png", png_of_16_bits, Pixels::Sha256(COLOURS)),
    written("plain.jpg", jpg, Pixels::Jpeg),
];

const fn asset(name: &'static str, sha256: &'static str) -> Entry {
    Entry {
        name,
        origin: Origin::Asset(sha256),
    }
}

const fn written(name: &'static str, write: fn(&Path), pixels: Pixels) -> Entry {
    Entry {
        name,
        origin: Origin::Written(write, pixels),
    }
}

impl Entry {
    /// The file: an asset where it lies, else written into `folder`.
    pub(crate) fn file(&self, folder: &Path) -> PathBuf {
        match self.origin {
            Origin::Asset(_) => super::asset(self.name),
            Origin::Written(write, _) => {
                let path = folder.join(self.name);
                write(&path);
                path
            }
        }
    }
}

pub(crate) fn sha256(bytes: &[u8]) -> String {
    let digest = Sha256::digest(bytes);
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Level 0 as RGB.
pub(crate) fn level_0(slide: &Slide) -> Vec<u8> {
    let extent = slide.extent();
    let mut rgb = vec![0; usize::try_from(extent.height * extent.width * 3).unwrap()];
    slide
        .read_level(stream_grad_slides::Level(0), &extent.region(), &mut rgb)
        .unwrap();
    rgb
}

/// The red channel.
pub(crate) fn greys() -> Vec<u8> {
    picture(HEIGHT, WIDTH).into_iter().step_by(3).collect()
}

fn pyramid(path: &Path, options: &PyramidOptions, samples: &[u8]) {
    let (height, width) = (HEIGHT as u64, WIDTH as u64);
    let mut writer =
        PyramidWriter::create(path, height, width, &options.clone().with_tile_edge(128)).unwrap();
    writer.write_rows(samples).unwrap();
    writer.finish().unwrap();
}

fn jpeg_svs(path: &Path) {
    let options = PyramidOptions::default()
        .with_microns_per_pixel(MicronsPerPixel::new(0.5).unwrap())
        .with_objective_power(20.0);
    pyramid(path, &options, &picture(HEIGHT, WIDTH));
}

fn deflate_tiled(path: &Path) {
    let options = PyramidOptions::default().with_compression(Compression::Deflate);
    pyramid(path, &options, &picture(HEIGHT, WIDTH));
}

fn lzw_big(path: &Path) {
    let options = PyramidOptions::default()
        .with_compression(Compression::Lzw)
        .with_kind(TiffKind::Big);
    pyramid(path, &options, &picture(HEIGHT, WIDTH));
}

fn grey_tiled(path: &Path) {
    let options = PyramidOptions::default()
        .with_compression(Compression::Lzw)
        .with_color(ColorModel::Gray);
    pyramid(path, &options, &greys());
}

fn grey_jpeg(path: &Path) {
    pyramid(
        path,
        &PyramidOptions::default().with_color(ColorModel::Gray),
        &greys(),
    );
}

fn striped(path: &Path) {
    let file = std::io::BufWriter::new(std::fs::File::create(path).unwrap());
    let mut encoder = TiffEncoder::new(file).unwrap();
    encoder
        .write_image::<colortype::RGB8>(WIDTH as u32, HEIGHT as u32, &picture(HEIGHT, WIDTH))
        .unwrap();
}

fn striped_big(path: &Path) {
    let file = std::io::BufWriter::new(std::fs::File::create(path).unwrap());
    let mut encoder = TiffEncoder::new_big(file).unwrap();
    encoder
        .write_image::<colortype::RGB8>(WIDTH as u32, HEIGHT as u32, &picture(HEIGHT, WIDTH))
        .unwrap();
}

fn as_image() -> image::RgbImage {
    image::RgbImage::from_raw(WIDTH as u32, HEIGHT as u32, picture(HEIGHT, WIDTH)).unwrap()
}

fn png(path: &Path) {
    as_image().save(path).unwrap();
}

/// Each byte twice: 16 bits that round to the byte.
fn png_of_16_bits(path: &Path) {
    let wide = as_image()
        .into_raw()
        .into_iter()
        .map(|byte| u16::from(byte) * 257)
        .collect();
    let image: image::ImageBuffer<image::Rgb<u16>, Vec<u16>> =
        image::ImageBuffer::from_raw(WIDTH as u32, HEIGHT as u32, wide).unwrap();
    image.save(path).unwrap();
}

fn jpg(path: &Path) {
    let file = std::fs::File::create(path).unwrap();
    let encoder = image::codecs::jpeg::JpegEncoder::new_with_quality(file, 92);
    as_image().write_with_encoder(encoder).unwrap();
}
