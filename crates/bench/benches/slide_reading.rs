//! Reading slides region by region, against bare OpenSlide calls for the same regions, with one and two threads.
//!
//! `cargo bench -p stream-grad-bench --bench slide_reading`. The real slide is the one that the `openslide-rs` crate is
//! tested with; the other is a pyramid of 32768 x 32768 pixels, written once into cargo's folder (it takes a minute and some
//! hundred megabytes). `SLIDE_READING_EDGE` sets another edge.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_docs,
    reason = "a benchmark: a panic is how it fails"
)]

use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use openslide_rs::{Address, OpenSlide, Region as BareRegion, Size};
use rayon::prelude::*;
use stream_grad_slides::{Compression, Level, PyramidOptions, PyramidWriter, Region, Slide};

/// Edge of the regions that are read.
const REGION: u32 = 1024;

/// Regions of the large slide that are read; all of it would take half a minute each time.
const REGIONS: usize = 48;

fn reading(criterion: &mut Criterion) {
    for (name, path) in [("real", real_slide()), ("pyramid", written_pyramid())] {
        let regions = regions(&path);
        let pixels: u64 = regions
            .iter()
            .map(|(_, size)| u64::from(size.w) * u64::from(size.h))
            .sum();
        let mut group = criterion.benchmark_group(name);
        group.sample_size(10);
        group.throughput(Throughput::Elements(pixels));
        for threads in [1, 2] {
            group.bench_function(format!("openslide/{threads}"), |bencher| {
                bencher.iter(|| bare(&path, &regions, threads));
            });
            let pool = rayon::ThreadPoolBuilder::new()
                .num_threads(threads)
                .build()
                .unwrap();
            group.bench_function(format!("slides/{threads}"), |bencher| {
                bencher.iter(|| pool.install(|| ours(&path, &regions)));
            });
        }
        group.finish();
    }
}

/// OpenSlide's own calls, and nothing done to the pixels.
fn bare(path: &Path, regions: &[(Address, Size)], threads: usize) {
    let slide = OpenSlide::new(path).unwrap();
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some(&(address, size)) = regions.get(next.fetch_add(1, Ordering::Relaxed))
                {
                    let region = BareRegion {
                        address,
                        level: 0,
                        size,
                    };
                    black_box(slide.read_region(&region).unwrap());
                }
            });
        }
    });
}

/// The same regions as RGB over the background, through the cache of blocks, on the threads of the current pool.
fn ours(path: &Path, regions: &[(Address, Size)]) {
    let slide = Slide::open(path).unwrap();
    regions
        .par_iter()
        .for_each_init(Vec::new, |rgb, &(Address { x, y }, Size { w, h })| {
            rgb.resize(usize::try_from(u64::from(w) * u64::from(h) * 3).unwrap(), 0);
            let span =
                |start: u32, length: u32| i64::from(start)..i64::from(start) + i64::from(length);
            slide
                .read_level(Level(0), &Region::new(span(y, h), span(x, w)), rgb)
                .unwrap();
            black_box(rgb);
        });
}

/// Regions side by side; of a large slide, evenly chosen rows of eight.
fn regions(path: &Path) -> Vec<(Address, Size)> {
    let slide = OpenSlide::new(path).unwrap();
    let Size {
        w: width,
        h: height,
    } = slide.all_level_dimensions()[0];
    let step = usize::try_from(REGION).unwrap();
    let all: Vec<(Address, Size)> = (0..height)
        .step_by(step)
        .flat_map(|y| (0..width).step_by(step).map(move |x| (y, x)))
        .map(|(y, x)| {
            let size = Size {
                w: REGION.min(width - x),
                h: REGION.min(height - y),
            };
            (Address { x, y }, size)
        })
        .collect();
    let rows: Vec<&[(Address, Size)]> = all.chunks(8).collect();
    let every = rows.len().div_ceil(REGIONS / 8).max(1);
    rows.into_iter().step_by(every).flatten().copied().collect()
}

/// `default.svs` of the `openslide-rs` crate, where cargo unpacked it.
fn real_slide() -> PathBuf {
    let home = std::env::var_os("CARGO_HOME").map_or_else(
        || std::env::home_dir().unwrap().join(".cargo"),
        PathBuf::from,
    );
    let registries = std::fs::read_dir(home.join("registry/src")).unwrap();
    registries
        .flatten()
        .flat_map(|registry| std::fs::read_dir(registry.path()).unwrap().flatten())
        .map(|package| package.path())
        .find(|package| {
            let name = package.file_name().unwrap_or_default().to_string_lossy();
            name.starts_with("openslide-rs-")
        })
        .expect("cargo has unpacked openslide-rs")
        .join("tests/assets/default.svs")
}

/// A pyramid whose tiles are of ordinary size as JPEG: waves, and a grain.
fn written_pyramid() -> PathBuf {
    let edge: u64 =
        std::env::var("SLIDE_READING_EDGE").map_or(32_768, |text| text.parse().unwrap());
    let path =
        PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("slide-reading-{edge}.tiff"));
    if path.exists() {
        return path;
    }
    let options = PyramidOptions::default().with_compression(Compression::Jpeg { quality: 80 });
    let mut writer = PyramidWriter::create(&path, edge, edge, &options).unwrap();
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut row = vec![0; usize::try_from(edge * 3).unwrap()];
    for y in 0..edge {
        for (x, pixel) in (0_u64..).zip(row.chunks_exact_mut(3)) {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            let wave = (x / 3 + y / 5) % 256;
            let wave = wave.min(255 - wave);
            for (channel, value) in (1_u64..).zip(pixel) {
                *value = u8::try_from(100 + wave / channel + (state >> (8 * channel)) % 8).unwrap();
            }
        }
        writer.write_rows(&row).unwrap();
    }
    writer.finish().unwrap();
    path
}

criterion_group!(benches, reading);
criterion_main!(benches);
