//! Every set of instructions that kernels are compiled for, against the best of this processor.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use stream_grad_kernels::{
    Activation, AlignCorners, AveragePool, ConvTranspose, Convolution, CountIncludePad,
    DataGradientWeights, Element, Epilogue, Existing, ForcedInstructions, ForwardWeights, Gelu,
    InstructionSet, Interpolation, LayerNorm, Padding, Pointwise, Rect, Storage, TransposedWeights,
    Upsample, View, ViewMut, Window, avg_pool_forward, avg_pool_vjp, bf16, conv_data_gradient,
    conv_forward, conv_transpose_data_gradient, conv_transpose_forward,
    conv_transpose_weight_gradient, conv_weight_gradient, layer_norm_forward, layer_norm_vjp,
    max_pool_forward, max_pool_vjp, pointwise_forward, pointwise_vjp, upsample_forward,
    upsample_vjp,
};

/// Results by the best instructions, and by each other set that this processor has.
fn by_each<R>(results: impl Fn() -> R) -> (R, Vec<(InstructionSet, R)>) {
    let by = |set| {
        let _forced = ForcedInstructions::new(set)?;
        Some(results())
    };
    let others = [
        InstructionSet::Avx512,
        InstructionSet::Avx2,
        InstructionSet::Scalar,
    ];
    let others = others.into_iter();
    let others = others.filter_map(|set| Some((set, by(set)?))).collect();
    (by(InstructionSet::Best).unwrap(), others)
}

fn values<E: Storage>(count: usize, step: u32) -> Vec<E> {
    scaled(count, step, 1.0).map(rounded).collect()
}

fn scaled(count: usize, step: u32, scale: f64) -> impl Iterator<Item = f64> {
    (0_u32..)
        .take(count)
        .map(move |i| scale * (f64::from((i * step) % 1009) / 504.0 - 1.0))
}

fn rounded<E: Storage>(value: f64) -> E {
    E::narrow(E::Compute::from_f64(value))
}

/// Forward pass, data gradient and weight gradient as bits, of values and weights of about `scales`; values are made by `number`.
fn results<E: Storage>(
    convolution: &Convolution,
    scales: [f64; 2],
    number: fn(f64) -> E,
) -> [Vec<u64>; 3] {
    let (large, small) = (Rect::whole(17, 19), Rect::whole(9, 10));
    let (inner, outer) = (17 * 19, 9 * 10);
    let (inputs, outputs) = (convolution.in_channels, convolution.out_channels);
    let [scale, weight_scale] = scales;
    let parameters = |count: usize, step: u32, scale: f64| -> Vec<E::Compute> {
        scaled(count, step, scale).map(rounded).collect()
    };
    let numbers = |count: usize, step: u32, scale: f64| -> Vec<E> {
        scaled(count, step, scale).map(number).collect()
    };
    let weights = parameters(convolution.weight_count().unwrap(), 17, weight_scale);
    let input = numbers(inner * inputs, 29, scale);
    let cotangent = numbers(outer * outputs, 31, scale);
    let bias = parameters(outputs, 7, scale * weight_scale);
    let input = View::new(&input, large, inputs).unwrap();
    let cotangent = View::new(&cotangent, small, outputs).unwrap();
    let mut scratch = vec![E::ZERO; convolution.scratch_len::<E>().unwrap()];

    let mut output = vec![E::ZERO; outer * outputs];
    conv_forward(
        convolution,
        &ForwardWeights::pack(convolution, &weights).unwrap(),
        input,
        ViewMut::new(&mut output, small, outputs).unwrap(),
        Epilogue {
            bias: Some(&bias),
            residual: None,
            activation: Activation::Relu,
        },
        &mut scratch,
    )
    .unwrap();
    let mut gradient = numbers(inner * inputs, 37, scale * weight_scale);
    conv_data_gradient(
        convolution,
        &DataGradientWeights::pack(convolution, &weights).unwrap(),
        cotangent,
        ViewMut::new(&mut gradient, large, inputs).unwrap(),
        Existing::Add,
        &mut scratch,
    )
    .unwrap();
    let mut sums = vec![0.0; weights.len()];
    conv_weight_gradient(convolution, input, cotangent, &mut sums, &mut scratch).unwrap();
    let bits = |values: &[E]| {
        values
            .iter()
            .map(|value| value.widen().to_f64().to_bits())
            .collect()
    };
    [
        bits(&output),
        bits(&gradient),
        sums.iter().map(|sum| sum.to_bits()).collect(),
    ]
}

/// Every instruction set does the same fused multiply-adds in the same order.
#[test]
fn instruction_sets_agree_to_the_bit() {
    let of = |kernel| Window::new(kernel).padding(Padding::all(1));
    let window = of([3, 3]).stride([2, 2]);
    for convolution in [
        Convolution::new(window, 5, 70),
        Convolution::new(window, 70, 20),
        Convolution::new(window, 21, 35),
        Convolution::new(window, 12, 20).groups(4),
        Convolution::new(window, 37, 37).groups(37),
        Convolution::new(of([7, 7]), 37, 37).groups(37),
        Convolution::new(of([3, 5]), 37, 37).groups(37),
        Convolution::new(of([7, 7]).stride([2, 2]), 3, 64),
        Convolution::new(of([3, 3]), 37, 70),
        Convolution::new(of([3, 3]), 140, 40),
        Convolution::new(of([3, 3]), 528, 40),
    ] {
        // Among the last ones' products are many that are subnormal or near, and factors that are.
        let small = [1e-18, 1e-20];
        let smallest = [1e-38, 1.0];
        let (best, others) = by_each(|| {
            [
                results::<f32>(&convolution, [1.0, 1.0], rounded),
                results::<f64>(&convolution, [1.0, 1.0], rounded),
                results(&convolution, [1.0, 1.0], bf16::from_f64),
                results(&convolution, small, bf16::from_f64),
                results(&convolution, smallest, bf16::from_f64),
            ]
        });
        let kinds = ["f32", "f64", "bf16", "small bf16", "smallest bf16"];
        for (set, found) in others {
            for ((found, best), kind) in found.iter().zip(&best).zip(kinds) {
                for pass in 0..3 {
                    let what = ["forward", "data gradient", "weight gradient"][pass];
                    let equal = found[pass] == best[pass];
                    assert!(equal, "{what}, {kind}, {set:?}: {convolution:?}");
                }
            }
        }
    }
}

/// Layer norm with its VJP, and bilinear upsampling with its VJP.
fn pointwise_results<T: Element>(channels: usize) -> [Vec<f64>; 4] {
    let (height, width) = (5, 7);
    let count = height * width * channels;
    let (input, cotangent) = (values::<T>(count, 29), values::<T>(4 * count, 31));
    let (gamma, beta) = (values::<T>(channels, 17), values::<T>(channels, 7));
    let (small, large) = (Rect::whole(5, 7), Rect::whole(10, 14));
    let input = View::new(&input, small, channels).unwrap();
    let norm = LayerNorm {
        gamma: &gamma,
        beta: &beta,
        epsilon: 1e-3,
    };
    let upsample = Upsample {
        factor: [2, 2],
        interpolation: Interpolation::Bilinear(AlignCorners::No),
        plane: [height, width],
    };
    let given = View::new(&cotangent[..count], small, channels).unwrap();
    let upsampled = View::new(&cotangent, large, channels).unwrap();
    let mut results = [count, count, 4 * count, count].map(|count| vec![T::ONE; count]);
    let [normal, by_norm, output, by_upsampling] = &mut results;
    let view = |values| ViewMut::new(values, small, channels).unwrap();
    layer_norm_forward(norm, input, Activation::Relu, view(normal)).unwrap();
    layer_norm_vjp(norm, input, given, view(by_norm)).unwrap();
    let output = ViewMut::new(output, large, channels).unwrap();
    upsample_forward(&upsample, input, output).unwrap();
    upsample_vjp(&upsample, upsampled, view(by_upsampling)).unwrap();
    results.map(|values| values.into_iter().map(T::to_f64).collect())
}

/// Sums over channels are in another order where registers are shorter.
#[test]
fn instruction_sets_agree_on_norms_and_upsampling() {
    for channels in [1, 3, 8, 17, 50] {
        let (best, others) = by_each(|| {
            [
                pointwise_results::<f32>(channels),
                pointwise_results::<f64>(channels),
            ]
        });
        for (set, found) in others {
            for (number, tolerance) in [1e-5, 1e-13].into_iter().enumerate() {
                for (found, best) in found[number].iter().zip(&best[number]) {
                    let scale = best
                        .iter()
                        .fold(1.0_f64, |most, value| most.max(value.abs()));
                    let near = |(a, b): (&f64, &f64)| (a - b).abs() <= tolerance * scale;
                    assert!(
                        found.iter().zip(best).all(near),
                        "{set:?}: {channels} channels"
                    );
                }
            }
        }
    }
}

/// Transposed convolution, both gradients, and every function of single values with its VJP, as bits.
fn plain_loop_results<T: Element>() -> Vec<Vec<u64>> {
    let bits = |values: &[T]| values.iter().map(|v| v.to_f64().to_bits()).collect();
    let window = Window::new([3, 2]).stride([2, 2]);
    let convolution = ConvTranspose::new(window, 21, 35);
    let weights = values::<T>(convolution.weight_count().unwrap(), 17);
    let [forward, transposed] = [
        convolution.forward_order(&weights).unwrap(),
        convolution.transposed_order(&weights).unwrap(),
    ];
    let (input, cotangent) = (values::<T>(5 * 7 * 21, 29), values::<T>(11 * 14 * 35, 31));
    let (small, large) = (Rect::whole(5, 7), Rect::whole(11, 14));
    let x = View::new(&input, small, 21).unwrap();
    let g = View::new(&cotangent, large, 35).unwrap();
    let parameters = TransposedWeights {
        weights: &forward,
        bias: None,
    };
    let (mut output, mut gradient) = (vec![T::ZERO; cotangent.len()], vec![T::ONE; input.len()]);
    let to = ViewMut::new(&mut output, large, 35).unwrap();
    conv_transpose_forward(&convolution, parameters, x, to).unwrap();
    let to = ViewMut::new(&mut gradient, small, 21).unwrap();
    conv_transpose_data_gradient(&convolution, &transposed, g, to, Existing::Add).unwrap();
    let mut sums = vec![0.0; weights.len()];
    conv_transpose_weight_gradient(&convolution, x, g, &mut sums).unwrap();
    let mut results = vec![bits(&output), bits(&gradient)];
    results.push(sums.iter().map(|sum| sum.to_bits()).collect());
    for function in [
        Pointwise::Relu,
        Pointwise::Relu6,
        Pointwise::Sigmoid,
        Pointwise::Silu,
        Pointwise::Gelu(Gelu::Exact),
        Pointwise::Gelu(Gelu::Tanh),
    ] {
        let (mut y, mut back) = (vec![T::ZERO; input.len()], vec![T::ONE; input.len()]);
        let to = ViewMut::new(&mut y, small, 21).unwrap();
        pointwise_forward(function, x, to).unwrap();
        let to = ViewMut::new(&mut back, small, 21).unwrap();
        pointwise_vjp(function, x, x, to).unwrap();
        results.extend([bits(&y), bits(&back)]);
    }
    results
}

/// Both kinds of pooling with their VJPs, as bits.
fn pooling_results<T: Element>() -> Vec<Vec<u64>> {
    let bits = |values: &[T]| values.iter().map(|v| v.to_f64().to_bits()).collect();
    let window = Window::new([3, 3]).stride([2, 1]).dilation([1, 2]);
    let window = window.padding(Padding::all(1));
    let average = AveragePool::new(window, CountIncludePad::No);
    let (input, cotangent) = (values::<T>(9 * 8 * 37, 29), values::<T>(5 * 6 * 37, 31));
    let (read, made) = (Rect::whole(9, 8), Rect::whole(5, 6));
    let x = View::new(&input, read, 37).unwrap();
    let g = View::new(&cotangent, made, 37).unwrap();
    let (mut most, mut mean) = (
        vec![T::ZERO; cotangent.len()],
        vec![T::ZERO; cotangent.len()],
    );
    let (mut of_most, mut of_mean) = (vec![T::ONE; input.len()], vec![T::ONE; input.len()]);
    let to = ViewMut::new(&mut most, made, 37).unwrap();
    max_pool_forward(&window, x, to).unwrap();
    let to = ViewMut::new(&mut mean, made, 37).unwrap();
    avg_pool_forward(&average, x, to).unwrap();
    let to = ViewMut::new(&mut of_most, read, 37).unwrap();
    max_pool_vjp(&window, x, g, to, Existing::Add).unwrap();
    let to = ViewMut::new(&mut of_mean, read, 37).unwrap();
    avg_pool_vjp(&average, g, to, Existing::Add).unwrap();
    vec![bits(&most), bits(&mean), bits(&of_most), bits(&of_mean)]
}

/// Loops that the compiler vectorises, without fused multiply-adds.
#[test]
fn instruction_sets_agree_on_plain_loops_to_the_bit() {
    let (best, others) = by_each(|| {
        (
            [plain_loop_results::<f32>(), pooling_results::<f32>()].concat(),
            [plain_loop_results::<f64>(), pooling_results::<f64>()].concat(),
        )
    });
    for (set, found) in others {
        for (place, (found, best)) in found.0.iter().zip(&best.0).enumerate() {
            assert!(found == best, "f32, result {place}, {set:?}");
        }
        for (place, (found, best)) in found.1.iter().zip(&best.1).enumerate() {
            assert!(found == best, "f64, result {place}, {set:?}");
        }
    }
}
