use std::time::Instant;
use stream_grad_kernels::*;
fn peak() -> f64 {
    struct P;
    impl pulp::WithSimd for P {
        type Output = f64;
        #[inline(always)]
        fn with_simd<S: pulp::Simd>(self, s: S) -> f64 {
            let mut a = [s.splat_f32s(1.0); 16];
            let b = s.splat_f32s(std::hint::black_box(0.999));
            let c = s.splat_f32s(std::hint::black_box(0.001));
            let n = 20_000_000 / 16;
            let t = Instant::now();
            for _ in 0..n {
                for x in a.iter_mut() {
                    *x = s.mul_add_f32s(*x, b, c);
                }
            }
            std::hint::black_box(&a);
            (n * 16 * S::F32_LANES * 2) as f64 / t.elapsed().as_secs_f64() / 1e9
        }
    }
    (0..5)
        .map(|_| pulp::Arch::new().dispatch(P))
        .fold(0.0, f64::max)
}
fn main() {
    println!("peak/core {:.1}", peak());
    for threads in [1, 2] {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .unwrap();
        for (ci, co, k, s, n) in [
            (64, 64, 3, 1, 256usize),
            (128, 128, 3, 1, 128),
            (256, 256, 3, 1, 64),
            (512, 512, 3, 1, 32),
            (512, 512, 3, 1, 16),
            (3, 64, 7, 2, 512),
            (64, 256, 1, 1, 128),
            (64, 128, 3, 2, 256),
            (16, 16, 3, 1, 256),
            (48, 48, 3, 1, 256),
        ] {
            let conv = Convolution::new(Window::new([k, k]).stride([s, s]), ci, co);
            let w: Vec<f32> = (0..conv.weight_count().unwrap())
                .map(|i| ((i * 7919) % 1000) as f32 / 1000.0 - 0.5)
                .collect();
            let x = vec![0.5f32; n * n * ci];
            let m = n / s;
            let mut y = vec![0f32; m * m * co];
            let g = vec![0.25f32; m * m * co];
            let mut dx = vec![0f32; n * n * ci];
            let mut dw = vec![0f64; conv.weight_count().unwrap()];
            let fw = ForwardWeights::pack(&conv, &w).unwrap();
            let bw = DataGradientWeights::pack(&conv, &w).unwrap();
            let p = -((k / 2) as isize);
            let first = Position::new(p, p);
            let region = Region::whole(m, m);
            let fl = conv.flops(m * m) as f64;
            let mut t = [f64::MAX; 4];
            pool.install(|| {
                for _ in 0..5 {
                    let i = Instant::now();
                    conv_forward(
                        &conv,
                        &fw,
                        Image::new(&x, n, n, ci).unwrap(),
                        first,
                        ImageMut::new(&mut y, m, m, co).unwrap(),
                        region,
                        Epilogue::default(),
                    )
                    .unwrap();
                    t[0] = t[0].min(i.elapsed().as_secs_f64());
                    let i = Instant::now();
                    conv_data_gradient(
                        &conv,
                        &bw,
                        Image::new(&g, m, m, co).unwrap(),
                        region,
                        first,
                        ImageMut::new(&mut dx, n, n, ci).unwrap(),
                    )
                    .unwrap();
                    t[1] = t[1].min(i.elapsed().as_secs_f64());
                    let i = Instant::now();
                    conv_weight_gradient(
                        &conv,
                        Image::new(&x, n, n, ci).unwrap(),
                        first,
                        Image::new(&g, m, m, co).unwrap(),
                        region,
                        &mut dw,
                    )
                    .unwrap();
                    t[2] = t[2].min(i.elapsed().as_secs_f64());
                    let i = Instant::now();
                    std::hint::black_box(ForwardWeights::pack(&conv, &w).unwrap());
                    t[3] = t[3].min(i.elapsed().as_secs_f64());
                }
            });
            println!(
                "threads {threads} {ci}->{co} k{k} s{s} {n}: fwd {:.0} data {:.0} weight {:.0}  pack {:.2} ms",
                fl / t[0] / 1e9,
                fl / t[1] / 1e9,
                fl / t[2] / 1e9,
                t[3] * 1e3
            );
        }
    }
}
