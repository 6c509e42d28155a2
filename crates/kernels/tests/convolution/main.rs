//! Convolution against plain loops, over awkward shapes, with poison wherever nothing may be read or written.
#![allow(clippy::unwrap_used, reason = "a test that fails panics")]

mod case;
#[path = "../common/mod.rs"]
mod common;

use case::{
    Case, Data, cases, depthwise_cases, few_channel_cases, wide_winograd_cases, winograd_cases,
};
use common::{Buffer, bits, cast, l2_error, on_one_and_two_threads, signed};
use proptest::prelude::*;
use stream_grad_kernels::oracle::Plane;
use stream_grad_kernels::{
    Activation, Arithmetic, Convolution, Element, Epilogue, Existing, ForwardWeights, Padding,
    Rect, Span, Storage, Window, bf16, conv_forward,
};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(160))]

    #[test]
    fn matches_the_oracle(case in cases()) {
        case.check::<f32>();
        case.check::<f64>();
        case.check::<bf16>();
    }

    #[test]
    fn winograd_matches_the_oracle(case in winograd_cases()) {
        prop_assert!(case.convolution.is_winograd());
        case.check::<f32>();
        case.check::<f64>();
        case.check::<bf16>();
    }

    #[test]
    fn wide_winograd_matches_the_oracle(case in wide_winograd_cases()) {
        prop_assert!(case.convolution.is_winograd());
        case.check::<f32>();
        case.check::<f64>();
        case.check::<bf16>();
    }

    #[test]
    fn few_channels_match_the_oracle(case in few_channel_cases()) {
        case.check::<f32>();
        case.check::<f64>();
        case.check::<bf16>();
    }

    #[test]
    fn depthwise_matches_the_oracle(case in depthwise_cases()) {
        case.check::<f32>();
        case.check::<f64>();
        case.check::<bf16>();
    }

    /// Cutting the output into four parts, each from the part of the input it needs, changes no bit.
    #[test]
    fn forward_does_not_depend_on_the_tiling(
        case in prop_oneof![cases(), winograd_cases(), wide_winograd_cases(), depthwise_cases()],
        cut in [0..10_usize, 0..10_usize],
    ) {
        check_tiling::<f32>(&case, cut);
        check_tiling::<bf16>(&case, cut);
    }
}

fn check_tiling<E: Storage>(case: &Case, cut: [usize; 2]) {
    let data = case.data();
    let all = case.forward::<E>(&data, f64::NAN);
    let weights = ForwardWeights::<E>::pack(&case.convolution, &cast(&data.weights)).unwrap();
    let bias = cast(&data.bias);
    let residual = Buffer::<E>::exact(&data.residual);
    let mut tiled = Buffer::<E>::exact(&Plane::zeros_of(case.outputs(), data.residual.channels));
    let Rect { rows, columns } = case.outputs();
    let halves = |axis: usize, span: Span| {
        let cut = span.lo + signed(cut[axis].min(case.outputs[axis]));
        [Span::new(span.lo, cut), Span::new(cut, span.hi)]
    };
    let (window, held) = (case.convolution.window, case.held());
    let [top, left] = window.padding.before();
    for part in halves(0, rows)
        .into_iter()
        .flat_map(|rows| halves(1, columns).map(|columns| Rect::new(rows, columns)))
    {
        // The part of the input from the first position that the outputs read.
        let from = |axis: usize, outputs: Span, padding: usize, held: Span| {
            let first = outputs.lo * signed(window.stride[axis]) - signed(padding);
            Span::new(first.clamp(held.lo, held.hi), held.hi)
        };
        let read = Rect::new(
            from(0, part.rows, top, held.rows),
            from(1, part.columns, left, held.columns),
        );
        conv_forward(
            &case.convolution,
            &weights,
            Buffer::<E>::exact(&data.input.part(read)).view(),
            tiled.view_mut().part(part).unwrap(),
            Epilogue {
                bias: Some(&bias),
                residual: Some(residual.view()),
                activation: case.activation(),
            },
            &mut case.scratch(f64::NAN),
        )
        .unwrap();
    }
    assert_eq!(bits(&tiled.data), bits(&all.plane().data));
}

/// Large enough for many tasks, several panels, several blocks of terms, and pixels that are not a multiple of a group.
fn large(in_channels: usize, out_channels: usize, groups: usize, stride: usize) -> Case {
    Case {
        convolution: Convolution {
            window: Window::new([3, 3])
                .stride([stride, stride])
                .padding(Padding::all(1)),
            in_channels,
            out_channels,
            groups,
            arithmetic: Arithmetic::Auto,
        },
        first: [-1, -1],
        at: [0, 1],
        input: [37, 41],
        outputs: [36usize.div_ceil(stride), 41usize.div_ceil(stride)],
        margins: [1, 2, 1, 0],
        seed: 7,
    }
}

fn large_cases() -> [Case; 8] {
    let with_kernel = |kernel: usize, case: Case| Case {
        convolution: Convolution {
            window: Window {
                kernel: [kernel, kernel],
                padding: Padding::all(3),
                ..case.convolution.window
            },
            ..case.convolution
        },
        first: [-3, -3],
        ..case
    };
    [
        large(70, 150, 1, 1),
        large(200, 40, 1, 1),
        large(300, 200, 1, 1),
        large(528, 40, 1, 1),
        large(24, 70, 2, 2),
        large(90, 90, 90, 1),
        with_kernel(7, large(3, 64, 1, 2)),
        with_kernel(7, large(40, 40, 40, 1)),
    ]
}

#[test]
fn threads_change_no_bit() {
    for case in large_cases() {
        let data = case.data();
        let [one, two] =
            on_one_and_two_threads(|| (passes::<f32>(&case, &data), passes::<bf16>(&case, &data)));
        assert_eq!(one, two);
    }
}

/// Bits of the forward pass and of all gradients.
fn passes<E: Storage>(case: &Case, data: &Data) -> [Vec<u64>; 4] {
    let start = case.zeros();
    let gradient = case.data_gradient::<E>(data, &start, Existing::Add, f64::NAN);
    let (weights, bias) = case.parameter_gradients::<E>(data, f64::NAN);
    [
        bits(&case.forward::<E>(data, f64::NAN).data),
        bits(&gradient.data),
        bits(&weights),
        bits(&bias),
    ]
}

#[test]
fn single_precision_error_is_small() {
    for case in large_cases() {
        let data = case.data();
        let start = case.zeros();
        let single = case.forward::<f32>(&data, f64::NAN).plane();
        let double = case.forward::<f64>(&data, f64::NAN).plane();
        assert!(l2_error(&single.data, &double.data) < 5e-7, "forward");
        let single = case
            .data_gradient::<f32>(&data, &start, Existing::Add, f64::NAN)
            .plane();
        let double = case
            .data_gradient::<f64>(&data, &start, Existing::Add, f64::NAN)
            .plane();
        assert!(l2_error(&single.data, &double.data) < 5e-7, "data gradient");
        let single = case.parameter_gradients::<f32>(&data, f64::NAN).0;
        let double = case.parameter_gradients::<f64>(&data, f64::NAN).0;
        assert!(l2_error(&single, &double) < 5e-7, "weight gradient");
    }
}

/// `<A x, g> = <x, A^T g> = <w, dw>` for the kernels alone.
#[test]
fn gradients_are_adjoint_to_the_forward_pass() {
    for case in large_cases() {
        let data = case.data();
        let weights = ForwardWeights::pack(&case.convolution, &data.weights).unwrap();
        let input = Buffer::<f64>::exact(&data.input);
        let mut output = Buffer::<f64>::exact(&data.residual);
        conv_forward(
            &case.convolution,
            &weights,
            input.view(),
            output.view_mut(),
            Epilogue::default(),
            &mut case.scratch(f64::NAN),
        )
        .unwrap();
        let forward = output.plane().dot(&data.cotangent);
        let start = case.zeros();
        let backward = case
            .data_gradient::<f64>(&data, &start, Existing::Add, f64::NAN)
            .plane()
            .dot(&data.input);
        let (gradient, _) = case.parameter_gradients::<f64>(&data, f64::NAN);
        let by_weights: f64 = gradient
            .iter()
            .zip(&data.weights)
            .map(|(g, w)| (g - 1.0) * w)
            .sum();
        assert!((forward - backward).abs() < 1e-11 * forward.abs().max(1.0));
        assert!((forward - by_weights).abs() < 1e-11 * forward.abs().max(1.0));
    }
}

/// Relative L2 errors of the three passes.
fn errors<E: Storage>(case: &Case, exact: &Case) -> [f64; 3] {
    let data = case.data();
    let start = case.zeros();
    let double = exact.forward::<f64>(&data, f64::NAN).plane();
    let forward = case.forward::<E>(&data, f64::NAN).plane();
    let gradient = exact
        .data_gradient::<f64>(&data, &start, Existing::Add, f64::NAN)
        .plane();
    let single = case
        .data_gradient::<E>(&data, &start, Existing::Add, f64::NAN)
        .plane();
    let by_weights = exact.parameter_gradients::<f64>(&data, f64::NAN).0;
    [
        l2_error(&forward.data, &double.data),
        l2_error(&single.data, &gradient.data),
        l2_error(
            &case.parameter_gradients::<E>(&data, f64::NAN).0,
            &by_weights,
        ),
    ]
}

#[test]
fn winograd_errs_at_most_three_times_as_much_as_direct_arithmetic() {
    for (inputs, outputs) in [(64, 64), (70, 150), (256, 128), (512, 64), (528, 64)] {
        let winograd = large(inputs, outputs, 1, 1);
        let mut direct = winograd.clone();
        direct.convolution = direct.convolution.arithmetic(Arithmetic::Direct);
        assert!(winograd.convolution.is_winograd() && !direct.convolution.is_winograd());
        let (found, bound) = (
            errors::<f32>(&winograd, &direct),
            errors::<f32>(&direct, &direct),
        );
        println!("{inputs}-{outputs}: {found:?}, direct {bound:?}");
        for (found, bound) in found.iter().zip(bound) {
            assert!(*found <= 3.0 * bound, "{found} against {bound}");
        }
        let (found, bound) = (
            errors::<bf16>(&winograd, &direct),
            errors::<bf16>(&direct, &direct),
        );
        println!("{inputs}-{outputs} in bf16: {found:?}, direct {bound:?}");
        for (found, bound) in found.iter().zip(bound) {
            assert!(*found <= 3.0 * bound, "{found} against {bound}");
        }
    }
}

/// A NaN reaches exactly the outputs whose windows hold it, ReLU or not.
#[test]
fn nan_reaches_its_windows_and_no_other() {
    nan_reaches_its_windows::<f32>();
    nan_reaches_its_windows::<bf16>();
}

fn nan_reaches_its_windows<E: Storage>() {
    for (channels, nan) in [(5, [4, 5]), (40, [4, 5]), (40, [5, 5]), (40, [3, 4])] {
        let window = Window::new([3, 3]).padding(Padding::all(1));
        let convolution = Convolution::new(window, channels, 4 * channels);
        let weights = vec![E::Compute::from_f64(0.5); convolution.weight_count().unwrap()];
        let weights = ForwardWeights::<E>::pack(&convolution, &weights).unwrap();
        let mut input = Plane::from_fn(9, 10, channels, |_, _, _| 1.0);
        *input.at(nan[0], nan[1], 2) = f64::NAN;
        let mut output = Buffer::<E>::exact(&Plane::zeros(9, 10, 4 * channels));
        conv_forward(
            &convolution,
            &weights,
            Buffer::exact(&input).view(),
            output.view_mut(),
            Epilogue {
                activation: Activation::Relu,
                ..Epilogue::default()
            },
            &mut vec![E::ZERO; convolution.scratch_len::<E>().unwrap()],
        )
        .unwrap();
        for row in 0..9_usize {
            for column in 0..10_usize {
                let near = row.abs_diff(nan[0]) <= 1 && column.abs_diff(nan[1]) <= 1;
                let pixel = output.view().pixel(signed(row), signed(column));
                let is_nan = |value: &E| value.widen().to_f64().is_nan();
                assert!(pixel.iter().all(|value| is_nan(value) == near));
            }
        }
    }
}
