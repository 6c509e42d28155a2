//! Kernels that memory bounds, in bytes per second, beside a plain copy of as much memory. Bytes are those that must be read
//! and written once; a kernel that adds to its destination reads it too. What only writes is slower than a copy, as memory is
//! read before it is written: `fill` says by how much, and what writes four times as much as it reads (upsampling) is near it.
//!
//! `cargo bench -p stream-grad-kernels --bench pointwise` uses every core; `RAYON_NUM_THREADS=1` uses one.

use std::hint::black_box;
use std::time::Duration;

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main};
use rayon::prelude::*;
use stream_grad_kernels::{
    Activation, AlignCorners, AveragePool, CountIncludePad, Element, Existing, Interpolation,
    KernelError, LayerNorm, Padding, Rect, Storage, Upsample, View, ViewMut, Window, accumulate,
    activation_vjp_in_place, add, affine_forward, avg_pool_forward, avg_pool_vjp, bf16, fill,
    layer_norm_forward, layer_norm_vjp, max_pool_forward, max_pool_vjp, upsample_forward,
    upsample_vjp,
};

/// Rows and columns of the larger plane of each kernel.
const EDGE: usize = 512;

/// Values that one task of the copy moves.
const CHUNK: usize = 1 << 16;

fn copy<E: Storage>(group: &mut BenchmarkGroup<'_, WallTime>, from: &[E], to: &mut [E]) {
    group.throughput(bytes::<E>(2 * from.len()));
    group.bench_function("copy", |bencher| {
        bencher.iter(|| {
            to.par_chunks_mut(CHUNK)
                .zip(from.par_chunks(CHUNK))
                .for_each(|(to, from)| to.copy_from_slice(from));
            black_box(&mut *to);
        });
    });
}

fn bytes<E>(values: usize) -> Throughput {
    Throughput::Bytes((values * size_of::<E>()) as u64)
}

/// The nearest number that is stored.
fn number<E: Storage>(value: f64) -> E {
    E::narrow(E::Compute::from_f64(value))
}

/// Times a kernel that touches `values` values.
fn kernel<E: Storage>(
    group: &mut BenchmarkGroup<'_, WallTime>,
    name: &str,
    values: usize,
    mut run: impl FnMut() -> Result<(), KernelError>,
) -> Result<(), KernelError> {
    run()?;
    group.throughput(bytes::<E>(values));
    group.bench_function(name, |bencher| bencher.iter(|| black_box(run())));
    Ok(())
}

/// The kernels on planes of `channels` channels, which are stored as what `stored` says.
fn plane<E: Storage>(
    criterion: &mut Criterion,
    channels: usize,
    stored: &str,
) -> Result<(), KernelError> {
    let mut group = criterion.benchmark_group(format!("{channels} channels{stored}"));
    let (values, small) = (EDGE * EDGE * channels, EDGE * EDGE * channels / 4);
    let (a, b) = (
        vec![number::<E>(0.5); values],
        vec![number::<E>(-0.25); values],
    );
    let mut to = vec![E::ZERO; values];
    copy(&mut group, &a, &mut to);

    let edge = EDGE as u64;
    let (whole, quarter) = (Rect::whole(edge, edge), Rect::whole(edge / 2, edge / 2));
    let (x, y) = (
        View::new(&a, whole, channels)?,
        View::new(&b, whole, channels)?,
    );
    let parameters = vec![E::Compute::from_f64(0.75); channels];
    let relu = Activation::Relu;
    let norm = LayerNorm {
        gamma: &parameters,
        beta: &parameters,
        epsilon: 1e-5,
    };
    kernel::<E>(&mut group, "fill", values, || {
        let to = ViewMut::new(&mut to, whole, channels)?;
        fill(number(0.25), to);
        Ok(())
    })?;
    kernel::<E>(&mut group, "add", 3 * values, || {
        let to = ViewMut::new(&mut to, whole, channels)?;
        add(x, y, relu, to)
    })?;
    kernel::<E>(&mut group, "accumulate", 3 * values, || {
        let to = ViewMut::new(&mut to, whole, channels)?;
        accumulate(x, to)
    })?;
    kernel::<E>(&mut group, "affine", 2 * values, || {
        let to = ViewMut::new(&mut to, whole, channels)?;
        affine_forward(x, &parameters, &parameters, relu, to)
    })?;
    kernel::<E>(&mut group, "ReLU VJP", 3 * values, || {
        let to = ViewMut::new(&mut to, whole, channels)?;
        activation_vjp_in_place(relu, x, to)
    })?;
    kernel::<E>(&mut group, "layer norm", 2 * values, || {
        let to = ViewMut::new(&mut to, whole, channels)?;
        layer_norm_forward(norm, x, relu, to)
    })?;
    kernel::<E>(&mut group, "layer norm VJP", 4 * values, || {
        let to = ViewMut::new(&mut to, whole, channels)?;
        layer_norm_vjp(norm, x, y, to)
    })?;

    let window = Window::new([3, 3]).stride([2, 2]).padding(Padding::all(1));
    let half_cotangent = View::new(&b[..small], quarter, channels)?;
    kernel::<E>(&mut group, "max pool", values + small, || {
        let to = ViewMut::new(&mut to[..small], quarter, channels)?;
        max_pool_forward(&window, x, to)
    })?;
    kernel::<E>(&mut group, "max pool VJP", 3 * values + small, || {
        let to = ViewMut::new(&mut to, whole, channels)?;
        max_pool_vjp(&window, x, half_cotangent, to, Existing::Add)
    })?;
    let window = Window::new([2, 2]).stride([2, 2]);
    let pool = AveragePool::new(window, CountIncludePad::Yes);
    kernel::<E>(&mut group, "average pool", values + small, || {
        let to = ViewMut::new(&mut to[..small], quarter, channels)?;
        avg_pool_forward(&pool, x, to)
    })?;
    kernel::<E>(&mut group, "average pool VJP", 2 * values + small, || {
        let to = ViewMut::new(&mut to, whole, channels)?;
        avg_pool_vjp(&pool, half_cotangent, to, Existing::Add)
    })?;
    for (name, interpolation) in [
        ("nearest", Interpolation::Nearest),
        ("bilinear", Interpolation::Bilinear(AlignCorners::No)),
    ] {
        let upsample = Upsample {
            factor: [2, 2],
            interpolation,
            plane: [EDGE / 2, EDGE / 2],
        };
        let from = View::new(&a[..small], quarter, channels)?;
        kernel::<E>(
            &mut group,
            &format!("upsample, {name}"),
            values + small,
            || {
                let to = ViewMut::new(&mut to, whole, channels)?;
                upsample_forward(&upsample, from, to)
            },
        )?;
        let name = format!("upsample VJP, {name}");
        kernel::<E>(&mut group, &name, values + 2 * small, || {
            let to = ViewMut::new(&mut to[..small], quarter, channels)?;
            upsample_vjp(&upsample, y, to)
        })?;
    }
    group.finish();
    Ok(())
}

fn planes(criterion: &mut Criterion) {
    for channels in [8, 64, 256] {
        let single = plane::<f32>(criterion, channels, "");
        if let Err(error) = single.and_then(|()| plane::<bf16>(criterion, channels, ", bf16")) {
            eprintln!("{channels} channels: {error}");
            std::process::exit(1);
        }
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_millis(500));
    targets = planes
}
criterion_main!(benches);
