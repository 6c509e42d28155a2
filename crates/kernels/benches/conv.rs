//! Convolutions of ResNet-18, in f32 and bf16, in GFLOP/s (criterion's "elements" are floating-point operations, counted as those of the direct
//! sum), beside a matrix product on all cores and the rate at which one core can do fused multiply-adds at all.
//!
//! `cargo bench -p stream-grad-kernels` uses every core; `RAYON_NUM_THREADS=1` uses one.

use std::hint::black_box;
use std::time::Duration;

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main};
use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;
use stream_grad_kernels::{
    Arithmetic, Convolution, DataGradientWeights, Element, Epilogue, Existing, ForwardWeights,
    KernelError, Padding, Rect, Storage, View, ViewMut, Window, bf16, conv_data_gradient,
    conv_forward, conv_weight_gradient,
};

/// Independent chains of fused multiply-adds that stay in registers.
struct MultiplyAdds {
    rounds: u64,
}

const CHAINS: usize = 16;

impl WithSimd for MultiplyAdds {
    /// Floating-point operations done.
    type Output = u64;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> u64 {
        let mut sums = [simd.splat_f32s(1.0); CHAINS];
        let (factor, term) = (
            simd.splat_f32s(black_box(0.999)),
            simd.splat_f32s(black_box(0.001)),
        );
        for _ in 0..self.rounds {
            for sum in &mut sums {
                *sum = simd.mul_add_f32s(*sum, factor, term);
            }
        }
        black_box(sums);
        let lanes = [CHAINS, S::F32_LANES, 2].iter().product::<usize>();
        self.rounds * u64::try_from(lanes).unwrap_or_default()
    }
}

fn multiply_adds(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("fused multiply-adds, one core");
    let run = || Arch::new().dispatch(MultiplyAdds { rounds: 100_000 });
    group.throughput(Throughput::Elements(run()));
    group.bench_function("peak", |bencher| bencher.iter(run));
    group.finish();
}

/// A square matrix product, in bands of rows over all threads: what convolutions are held against.
fn matrix_product(criterion: &mut Criterion) {
    const EDGE: usize = 1024;
    const BAND: usize = EDGE / 4;
    let (left, right) = (vec![0.5_f32; EDGE * EDGE], vec![0.25_f32; EDGE * EDGE]);
    let mut product = vec![0.0_f32; EDGE * EDGE];
    let pitch = isize::try_from(EDGE).unwrap_or_default();
    let mut group = criterion.benchmark_group("matrix product of the crate gemm");
    let products = [EDGE, EDGE, EDGE, 2].iter().product::<usize>();
    let products = u64::try_from(products).unwrap_or_default();
    group.throughput(Throughput::Elements(products));
    group.bench_function(format!("{EDGE} x {EDGE} x {EDGE}"), |bencher| {
        bencher.iter(|| {
            let rows = left.par_chunks(BAND * EDGE);
            let bands = product.par_chunks_mut(BAND * EDGE).zip(rows);
            bands.for_each(|(product, left)| {
                #[expect(unsafe_code, reason = "the crate takes pointers")]
                // SAFETY: the slices hold BAND x EDGE, BAND x EDGE and EDGE x EDGE values, row by row.
                unsafe {
                    gemm::gemm(
                        BAND,
                        EDGE,
                        EDGE,
                        product.as_mut_ptr(),
                        1,
                        pitch,
                        false,
                        left.as_ptr(),
                        1,
                        pitch,
                        right.as_ptr(),
                        1,
                        pitch,
                        0.0,
                        1.0,
                        false,
                        false,
                        false,
                        gemm::Parallelism::None,
                    );
                }
            });
        });
    });
    group.finish();
}

/// A convolution with "same" padding of a square image.
struct Case {
    convolution: Convolution,
    size: usize,
}

impl Case {
    const fn new(channels: [usize; 2], kernel: usize, stride: usize, size: usize) -> Self {
        let window = Window::new([kernel, kernel])
            .stride([stride, stride])
            .padding(Padding::all(kernel / 2));
        Self {
            convolution: Convolution::new(window, channels[0], channels[1]),
            size,
        }
    }

    const fn depthwise(channels: usize, kernel: usize, size: usize) -> Self {
        let case = Self::new([channels, channels], kernel, 1, size);
        Self {
            convolution: case.convolution.groups(channels),
            size,
        }
    }

    const fn direct(self) -> Self {
        Self {
            convolution: self.convolution.arithmetic(Arithmetic::Direct),
            ..self
        }
    }

    fn name<E>(&self) -> String {
        let Convolution {
            window,
            in_channels,
            out_channels,
            groups,
            arithmetic,
        } = self.convolution;
        let [kernel, _] = window.kernel;
        let grouped = if groups == 1 {
            String::new()
        } else {
            format!(" in {groups} groups")
        };
        let (stride, size) = (window.stride[0], self.size);
        let direct = match arithmetic {
            Arithmetic::Auto => "",
            Arithmetic::Direct => ", direct",
        };
        format!(
            "{in_channels}-{out_channels} k{kernel} s{stride}{grouped}, {size} x {size}{direct}, {}",
            std::any::type_name::<E>()
                .rsplit(':')
                .next()
                .unwrap_or_default()
        )
    }

    /// Measures all passes on numbers of one kind.
    fn run<E: Storage>(&self, criterion: &mut Criterion) -> Result<(), KernelError> {
        let convolution = self.convolution;
        let Convolution {
            in_channels,
            out_channels,
            ..
        } = convolution;
        let window = convolution.window;
        let (size, outputs) = (self.size, self.size / window.stride[0]);
        let square = |edge: usize| Rect::whole(edge as u64, edge as u64);
        let (large, small) = (square(size), square(outputs));
        let count = convolution.weight_count()?;
        let number = |value| E::narrow(E::Compute::from_f64(value));
        let weights = vec![E::Compute::from_f64(0.01); count];
        let input = vec![number(0.5); size * size * in_channels];
        let cotangent = vec![number(0.25); outputs * outputs * out_channels];
        let input = View::new(&input, large, in_channels)?;
        let cotangent = View::new(&cotangent, small, out_channels)?;
        let mut output = vec![E::ZERO; outputs * outputs * out_channels];
        let mut gradient = vec![E::ZERO; size * size * in_channels];
        let mut sums = vec![0.0; count];
        let mut scratch = vec![E::ZERO; convolution.scratch_len::<E>()?];

        let mut group = criterion.benchmark_group(self.name::<E>());
        group.throughput(Throughput::Elements(convolution.flops(outputs * outputs)));
        let forward_weights = ForwardWeights::pack(&convolution, &weights)?;
        measure(&mut group, "forward", || {
            let output = ViewMut::new(&mut output, small, out_channels)?;
            let epilogue = Epilogue::default();
            conv_forward(
                &convolution,
                &forward_weights,
                input,
                output,
                epilogue,
                &mut scratch,
            )
        });
        let data_weights = DataGradientWeights::pack(&convolution, &weights)?;
        measure(&mut group, "data gradient", || {
            let to = ViewMut::new(&mut gradient, large, in_channels)?;
            conv_data_gradient(
                &convolution,
                &data_weights,
                cotangent,
                to,
                Existing::Add,
                &mut scratch,
            )
        });
        measure(&mut group, "weight gradient", || {
            conv_weight_gradient(&convolution, input, cotangent, &mut sums, &mut scratch)
        });
        group.finish();
        Ok(())
    }
}

fn measure(
    group: &mut BenchmarkGroup<'_, WallTime>,
    name: &str,
    mut work: impl FnMut() -> Result<(), KernelError>,
) {
    group.bench_function(name, |bencher| bencher.iter(|| black_box(work()).is_ok()));
}

fn convolutions(criterion: &mut Criterion) {
    for case in [
        Case::new([3, 64], 7, 2, 512),
        Case::new([64, 64], 3, 1, 256).direct(),
        Case::new([256, 256], 3, 1, 64).direct(),
        Case::new([64, 64], 3, 1, 128),
        Case::new([64, 64], 3, 1, 256),
        Case::new([64, 128], 3, 2, 128),
        Case::new([64, 128], 1, 2, 128),
        Case::new([128, 128], 3, 1, 128),
        Case::new([256, 256], 3, 1, 64),
        Case::new([512, 512], 3, 1, 32),
        Case::new([512, 512], 3, 1, 16),
        Case::new([64, 256], 1, 1, 128),
        Case::new([64, 256], 1, 1, 256),
        Case::new([256, 64], 1, 1, 256),
        Case::depthwise(96, 3, 128),
        Case::depthwise(96, 7, 128),
    ] {
        // Every shape above is well formed; a refusal would show as a missing line.
        let results = [case.run::<f32>(criterion), case.run::<bf16>(criterion)];
        for error in results.into_iter().filter_map(Result::err) {
            eprintln!("{}: {error}", case.name::<f32>());
        }
    }
}

fn quick() -> Criterion {
    Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(100))
        .measurement_time(Duration::from_millis(400))
        .without_plots()
}

criterion_group! {
    name = benches;
    config = quick();
    targets = multiply_adds, matrix_product, convolutions
}
criterion_main!(benches);
