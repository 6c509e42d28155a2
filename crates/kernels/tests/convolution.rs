//! Convolution against plain loops, over awkward shapes, with poison wherever nothing may be read or written.
#![allow(clippy::unwrap_used, reason = "a test that fails panics")]

mod common;

use common::{
    Buffer, POISONS, Values, bits, cast, l2_error, on_one_and_two_threads, relative_error,
    tolerance,
};
use proptest::prelude::*;
use stream_grad_kernels::oracle::{self, Plane};
use stream_grad_kernels::{
    Activation, Arithmetic, Convolution, DataGradientWeights, Element, Epilogue, Existing,
    ForwardWeights, Located, Position, Region, Window, Windows, bias_gradient, conv_data_gradient,
    conv_forward, conv_weight_gradient, weight_gradient_to_oihw,
};

/// A convolution of `input` positions into `outputs`, with its first window anywhere.
#[derive(Debug, Clone)]
struct Case {
    convolution: Convolution,
    first: Position,
    /// Where the outputs lie in a larger plane.
    plane: [usize; 2],
    input: [usize; 2],
    outputs: [usize; 2],
    margins: [usize; 4],
    seed: u64,
}

/// Channels below, at and beyond one and several registers of either width.
fn channels() -> impl Strategy<Value = usize> {
    prop_oneof![
        1..=9_usize,
        Just(16),
        15..=35_usize,
        Just(64),
        60..=75_usize,
        120..=140_usize
    ]
}

fn channel_groups() -> impl Strategy<Value = (usize, usize, usize)> {
    prop_oneof![
        6 => (channels(), channels()).prop_map(|(input, output)| (input, output, 1)),
        2 => (1..=4_usize, 1..=9_usize, 1..=20_usize).prop_map(|(g, i, o)| (g * i, g * o, g)),
        2 => (2..=140_usize).prop_map(|c| (c, c, c)),
        1 => (2..=20_usize, 2..=3_usize).prop_map(|(c, m)| (c, c * m, c)),
    ]
}

fn axis() -> impl Strategy<Value = (usize, usize, usize, isize, usize, usize)> {
    axis_of(1..=7_usize, 14, 9)
}

/// Kernel, stride, dilation, first window, positions and outputs of an axis.
fn axis_of(
    kernel: impl Strategy<Value = usize>,
    most_positions: usize,
    most_outputs: usize,
) -> impl Strategy<Value = (usize, usize, usize, isize, usize, usize)> {
    (
        kernel,
        1..=4_usize,
        1..=3_usize,
        1..=most_positions,
        0..=most_outputs,
    )
        .prop_flat_map(|(kernel, stride, dilation, extent, outputs)| {
            let reach = isize::try_from((kernel - 1) * dilation + 2).unwrap();
            (-reach..=4).prop_map(move |first| (kernel, stride, dilation, first, extent, outputs))
        })
}

fn cases() -> impl Strategy<Value = Case> {
    (
        channel_groups(),
        axis(),
        axis(),
        any::<[u8; 4]>(),
        any::<u64>(),
    )
        .prop_map(
            |((in_channels, out_channels, groups), rows, columns, margins, seed)| {
                // Large kernels over many channels only make the oracle slow.
                let most = 3_000 / (in_channels / groups * out_channels).min(3_000);
                let kernel = |kernel: usize| {
                    if kernel * kernel > most.max(9) {
                        3
                    } else {
                        kernel
                    }
                };
                Case {
                    convolution: Convolution {
                        window: Window {
                            kernel: [kernel(rows.0), kernel(columns.0)],
                            stride: [rows.1, columns.1],
                            dilation: [rows.2, columns.2],
                        },
                        in_channels,
                        out_channels,
                        groups,
                        arithmetic: Arithmetic::Auto,
                    },
                    plane: [rows.5 % 2, columns.4 % 2],
                    first: Position::new(rows.3, columns.3),
                    input: [rows.4, columns.4],
                    outputs: [rows.5, columns.5],
                    margins: margins.map(|margin| usize::from(margin % 3)),
                    seed,
                }
            },
        )
}

/// Cases that Winograd's convolution computes: channels at and beyond one and several registers and blocks.
fn winograd_cases() -> impl Strategy<Value = Case> {
    let channels = || {
        prop_oneof![
            Just(32_usize),
            32..=50_usize,
            Just(64),
            60..=75_usize,
            120..=140_usize
        ]
    };
    (channels(), channels(), cases()).prop_map(|(in_channels, out_channels, case)| Case {
        convolution: Convolution::new(Window::new([3, 3]), in_channels, out_channels),
        ..case
    })
}

/// One input channel to a few, with kernels of any shape.
fn few_channel_cases() -> impl Strategy<Value = Case> {
    let axes = || axis_of(1..=7_usize, 30, 20);
    (1..=9_usize, 1..=40_usize, axes(), axes(), cases()).prop_map(
        |(in_channels, out_channels, rows, columns, case)| Case {
            convolution: Convolution::new(
                Window {
                    kernel: [rows.0, columns.0],
                    stride: [rows.1, columns.1],
                    dilation: [rows.2, columns.2],
                },
                in_channels,
                out_channels,
            ),
            first: Position::new(rows.3, columns.3),
            input: [rows.4, columns.4],
            outputs: [rows.5, columns.5],
            ..case
        },
    )
}

/// Depthwise convolutions of planes that are wider than a block of positions, most of which slide.
fn depthwise_cases() -> impl Strategy<Value = Case> {
    let axes = || {
        let kernel = prop_oneof![Just(3), Just(5), Just(7), 1..=10_usize];
        (axis_of(kernel, 40, 33), 1..=2_usize, 1..=2_usize)
    };
    (2..=40_usize, axes(), axes(), any::<bool>(), cases()).prop_map(
        |(channels, rows, columns, slides, case)| {
            let axes = [&rows, &columns];
            let stride = axes.map(|axis| axis.1);
            let dilation = axes.map(|axis| if slides { axis.1 } else { axis.2 });
            let window = Window {
                kernel: axes.map(|axis| axis.0.0),
                stride,
                dilation,
            };
            Case {
                convolution: Convolution::new(window, channels, channels).groups(channels),
                first: Position::new(rows.0.3, columns.0.3),
                input: axes.map(|axis| axis.0.4),
                outputs: axes.map(|axis| axis.0.5),
                ..case
            }
        },
    )
}

struct Data {
    weights: Vec<f64>,
    bias: Vec<f64>,
    input: Plane,
    residual: Plane,
    cotangent: Plane,
}

impl Case {
    fn windows(&self, region: Region) -> Windows {
        Windows::new(region, self.first).in_plane(self.plane[0], self.plane[1])
    }

    fn scratch<T: Element>(&self, poison: f64) -> Vec<T> {
        vec![T::from_f64(poison); self.convolution.scratch_len::<T>().unwrap()]
    }

    fn data(&self) -> Data {
        let mut values = Values::new(self.seed);
        let Convolution {
            in_channels,
            out_channels,
            ..
        } = self.convolution;
        let [height, width] = self.input;
        let [rows, columns] = self.outputs;
        Data {
            weights: values.many(self.convolution.weight_count().unwrap()),
            bias: values.many(out_channels),
            input: values.plane(height, width, in_channels),
            residual: values.plane(rows, columns, out_channels),
            cotangent: values.plane(rows, columns, out_channels),
        }
    }

    /// The input, with `poison` where no window reads.
    fn input_of<T: Element>(&self, data: &Data, poison: f64) -> Buffer<T> {
        let ones = Plane::from_fn(self.outputs[0], self.outputs[1], 1, |_, _, _| 1.0);
        let single = Convolution::new(self.convolution.window, 1, 1);
        let weights = vec![1.0; single.window.taps()];
        let [height, width] = self.input;
        let read = oracle::conv_data_gradient(&single, &weights, &ones, self.first, height, width);
        let plane = Plane::from_fn(
            height,
            width,
            data.input.channels,
            |row, column, channel| {
                let value = data.input.get(row, column, channel);
                if read.get(row, column, 0) > 0.0 {
                    value
                } else {
                    poison
                }
            },
        );
        Buffer::exact(&plane)
    }

    fn forward<T: Element>(&self, data: &Data, poison: f64) -> Buffer<T> {
        let [rows, columns] = self.outputs;
        let weights = ForwardWeights::pack(&self.convolution, &cast::<T>(&data.weights)).unwrap();
        let empty = Plane::from_fn(rows, columns, data.residual.channels, |_, _, _| poison);
        let mut output = Buffer::<T>::around(&empty, self.margins, poison);
        let residual = Buffer::<T>::around(&data.residual, self.margins.map(|m| 2 - m), poison);
        let windows = self.windows(output.region);
        conv_forward(
            &self.convolution,
            &weights,
            self.input_of::<T>(data, poison).image(),
            windows,
            output.image_mut(),
            Epilogue {
                bias: Some(&cast::<T>(&data.bias)),
                residual: Some(residual.located()),
                activation: Activation::Relu,
            },
            &mut self.scratch(poison),
        )
        .unwrap();
        output.assert_poison_kept(poison);
        output
    }

    /// The gradient added to `start`, or in place of it.
    fn data_gradient<T: Element>(
        &self,
        data: &Data,
        start: &Plane,
        existing: Existing,
        poison: f64,
    ) -> Buffer<T> {
        let weights =
            DataGradientWeights::pack(&self.convolution, &cast::<T>(&data.weights)).unwrap();
        let cotangent = Buffer::<T>::around(&data.cotangent, self.margins, poison);
        let mut gradient = Buffer::<T>::exact(start);
        conv_data_gradient(
            &self.convolution,
            &weights,
            cotangent.image(),
            self.windows(cotangent.region),
            gradient.image_mut(),
            existing,
            &mut self.scratch(poison),
        )
        .unwrap();
        gradient
    }

    /// The weight and bias gradients, added to ones.
    fn parameter_gradients<T: Element>(&self, data: &Data, poison: f64) -> (Vec<f64>, Vec<f64>) {
        let cotangent = Buffer::<T>::around(&data.cotangent, self.margins, poison);
        let mut gradient = vec![1.0; data.weights.len()];
        conv_weight_gradient(
            &self.convolution,
            self.input_of::<T>(data, poison).image(),
            self.windows(cotangent.region),
            cotangent.image(),
            &mut gradient,
            &mut self.scratch(poison),
        )
        .unwrap();
        let mut oihw = vec![0.0; gradient.len()];
        weight_gradient_to_oihw(&self.convolution, &gradient, &mut oihw).unwrap();
        let mut bias = vec![1.0; self.convolution.out_channels];
        bias_gradient(cotangent.image(), cotangent.region, &mut bias).unwrap();
        (oihw, bias)
    }

    fn check<T: Element>(&self) {
        let data = self.data();
        let [rows, columns] = self.outputs;
        let [height, width] = self.input;

        let mut expected = oracle::conv_forward(
            &self.convolution,
            &data.weights,
            Some(&data.bias),
            &data.input,
            self.first,
            rows,
            columns,
        );
        for (value, more) in expected.data.iter_mut().zip(&data.residual.data) {
            *value += more;
        }
        let expected = oracle::relu_forward(&expected);
        let found = POISONS.map(|poison| self.forward::<T>(&data, poison).plane());
        assert!(
            relative_error(&found[0].data, &expected.data) < tolerance::<T>(),
            "forward"
        );
        assert_eq!(
            bits(&found[0].data),
            bits(&found[1].data),
            "forward read poison"
        );
        assert_eq!(
            bits(&found[0].data),
            bits(&found[2].data),
            "forward read poison"
        );

        let start = Values::new(!self.seed).plane(height, width, data.input.channels);
        let mut expected = oracle::conv_data_gradient(
            &self.convolution,
            &data.weights,
            &data.cotangent,
            self.first,
            height,
            width,
        );
        let replaced = POISONS.map(|poison| {
            let mut start = start.clone();
            start.data.fill(poison);
            let existing = Existing::Replace;
            let gradient = self.data_gradient::<T>(&data, &start, existing, poison);
            gradient.plane()
        });
        assert!(
            relative_error(&replaced[0].data, &expected.data) < tolerance::<T>(),
            "data gradient in place of another"
        );
        for other in &replaced[1..] {
            assert_eq!(
                bits(&replaced[0].data),
                bits(&other.data),
                "data gradient read what it replaces"
            );
        }
        for (value, more) in expected.data.iter_mut().zip(&start.data) {
            *value += more;
        }
        let found = POISONS.map(|poison| {
            let gradient = self.data_gradient::<T>(&data, &start, Existing::Add, poison);
            gradient.plane()
        });
        assert!(
            relative_error(&found[0].data, &expected.data) < tolerance::<T>(),
            "data gradient"
        );
        assert_eq!(
            bits(&found[0].data),
            bits(&found[1].data),
            "data gradient read poison"
        );
        assert_eq!(
            bits(&found[0].data),
            bits(&found[2].data),
            "data gradient read poison"
        );

        let expected = oracle::conv_weight_gradient(
            &self.convolution,
            &data.input,
            self.first,
            &data.cotangent,
        );
        let expected: Vec<f64> = expected.iter().map(|value| value + 1.0).collect();
        let expected_bias: Vec<f64> = oracle::bias_gradient(&data.cotangent)
            .iter()
            .map(|value| value + 1.0)
            .collect();
        let found = POISONS.map(|poison| self.parameter_gradients::<T>(&data, poison));
        assert!(
            relative_error(&found[0].0, &expected) < tolerance::<T>(),
            "weight gradient"
        );
        assert!(
            relative_error(&found[0].1, &expected_bias) < 1e-13,
            "bias gradient"
        );
        for other in &found[1..] {
            assert_eq!(
                bits(&found[0].0),
                bits(&other.0),
                "weight gradient read poison"
            );
            assert_eq!(
                bits(&found[0].1),
                bits(&other.1),
                "bias gradient read poison"
            );
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(160))]

    #[test]
    fn matches_the_oracle(case in cases()) {
        case.check::<f32>();
        case.check::<f64>();
    }

    #[test]
    fn winograd_matches_the_oracle(case in winograd_cases()) {
        prop_assert!(case.convolution.is_winograd());
        case.check::<f32>();
        case.check::<f64>();
    }

    #[test]
    fn few_channels_match_the_oracle(case in few_channel_cases()) {
        case.check::<f32>();
        case.check::<f64>();
    }

    #[test]
    fn depthwise_matches_the_oracle(case in depthwise_cases()) {
        case.check::<f32>();
        case.check::<f64>();
    }

    /// Cutting the output into four regions, each from the part of the input it needs, changes no bit.
    #[test]
    fn forward_does_not_depend_on_the_tiling(
        case in prop_oneof![cases(), winograd_cases(), depthwise_cases()],
        cut in [0..10_usize, 0..10_usize],
    ) {
        let data = case.data();
        let [rows, columns] = case.outputs;
        let whole = case.forward::<f32>(&data, f64::NAN);
        let weights = ForwardWeights::pack(&case.convolution, &cast::<f32>(&data.weights)).unwrap();
        let bias = cast::<f32>(&data.bias);
        let residual = Buffer::<f32>::exact(&data.residual);
        let mut tiled = Buffer::<f32>::exact(&Plane::zeros(rows, columns, data.residual.channels));
        let halves = |axis: usize| {
            let (end, cut) = (case.outputs[axis], cut[axis].min(case.outputs[axis]));
            [(0, cut), (cut, end)]
        };
        for (top, bottom) in halves(0) {
            for (left, right) in halves(1) {
                // The part of the input from the first position that the region reads.
                let [row, column] = [(0, top, case.first.row), (1, left, case.first.column)].map(
                    |(axis, start, first)| {
                        let stride = case.convolution.window.stride[axis];
                        let first = first + isize::try_from(start * stride).unwrap();
                        let skip = usize::try_from(first).unwrap_or_default().min(case.input[axis]);
                        (skip, first - isize::try_from(skip).unwrap())
                    },
                );
                let part = Plane::from_fn(
                    data.input.height - row.0,
                    data.input.width - column.0,
                    data.input.channels,
                    |r, c, channel| data.input.get(r + row.0, c + column.0, channel),
                );
                let region = Region::new(top, left, bottom - top, right - left);
                let windows = Windows::new(region, Position::new(row.1, column.1))
                    .in_plane(case.plane[0] + top, case.plane[1] + left);
                conv_forward(
                    &case.convolution,
                    &weights,
                    Buffer::<f32>::exact(&part).image(),
                    windows,
                    tiled.image_mut(),
                    Epilogue {
                        bias: Some(&bias),
                        residual: Some(Located::new(residual.image(), top, left)),
                        activation: Activation::Relu,
                    },
                    &mut case.scratch(f64::NAN),
                )
                .unwrap();
            }
        }
        prop_assert_eq!(bits(&tiled.data), bits(&whole.plane().data));
    }
}

/// Large enough for many tasks, several panels, several blocks of terms, and pixels that are not a multiple of a group.
fn large(in_channels: usize, out_channels: usize, groups: usize, stride: usize) -> Case {
    Case {
        convolution: Convolution {
            window: Window::new([3, 3]).stride([stride, stride]),
            in_channels,
            out_channels,
            groups,
            arithmetic: Arithmetic::Auto,
        },
        first: Position::new(-1, -1),
        plane: [0, 1],
        input: [37, 41],
        outputs: [36usize.div_ceil(stride), 41usize.div_ceil(stride)],
        margins: [1, 2, 1, 0],
        seed: 7,
    }
}

fn large_cases() -> [Case; 5] {
    let with_kernel = |kernel: usize, case: Case| Case {
        convolution: Convolution {
            window: Window {
                kernel: [kernel, kernel],
                ..case.convolution.window
            },
            ..case.convolution
        },
        first: Position::new(-3, -3),
        ..case
    };
    [
        large(70, 150, 1, 1),
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
        let start = Plane::zeros(case.input[0], case.input[1], data.input.channels);
        let [one, two] = on_one_and_two_threads(|| {
            (
                bits(&case.forward::<f32>(&data, f64::NAN).data),
                bits(
                    &case
                        .data_gradient::<f32>(&data, &start, Existing::Add, f64::NAN)
                        .data,
                ),
                case.parameter_gradients::<f32>(&data, f64::NAN),
            )
        });
        assert_eq!(one, two);
    }
}

#[test]
fn single_precision_error_is_small() {
    for case in large_cases() {
        let data = case.data();
        let start = Plane::zeros(case.input[0], case.input[1], data.input.channels);
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
        let windows = case.windows(output.region);
        conv_forward(
            &case.convolution,
            &weights,
            input.image(),
            windows,
            output.image_mut(),
            Epilogue::default(),
            &mut case.scratch(f64::NAN),
        )
        .unwrap();
        let forward = output.plane().dot(&data.cotangent);
        let start = Plane::zeros(case.input[0], case.input[1], data.input.channels);
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

/// Relative L2 errors of the three passes in single precision.
fn errors(case: &Case, exact: &Case) -> [f64; 3] {
    let data = case.data();
    let start = Plane::zeros(case.input[0], case.input[1], data.input.channels);
    let double = exact.forward::<f64>(&data, f64::NAN).plane();
    let forward = case.forward::<f32>(&data, f64::NAN).plane();
    let gradient = exact
        .data_gradient::<f64>(&data, &start, Existing::Add, f64::NAN)
        .plane();
    let single = case
        .data_gradient::<f32>(&data, &start, Existing::Add, f64::NAN)
        .plane();
    let by_weights = exact.parameter_gradients::<f64>(&data, f64::NAN).0;
    [
        l2_error(&forward.data, &double.data),
        l2_error(&single.data, &gradient.data),
        l2_error(
            &case.parameter_gradients::<f32>(&data, f64::NAN).0,
            &by_weights,
        ),
    ]
}

#[test]
fn winograd_errs_at_most_three_times_as_much_as_direct_arithmetic() {
    for (inputs, outputs) in [(64, 64), (70, 150), (256, 128), (512, 64)] {
        let winograd = large(inputs, outputs, 1, 1);
        let mut direct = winograd.clone();
        direct.convolution = direct.convolution.arithmetic(Arithmetic::Direct);
        assert!(winograd.convolution.is_winograd() && !direct.convolution.is_winograd());
        let (found, bound) = (errors(&winograd, &direct), errors(&direct, &direct));
        println!("{inputs}-{outputs}: {found:?}, direct {bound:?}");
        for (found, bound) in found.iter().zip(bound) {
            assert!(*found <= 3.0 * bound, "{found} against {bound}");
        }
    }
}

/// A NaN reaches exactly the outputs whose windows hold it, ReLU or not.
#[test]
fn nan_reaches_its_windows_and_no_other() {
    for (channels, nan) in [(5, [4, 5]), (40, [4, 5]), (40, [5, 5]), (40, [3, 4])] {
        let convolution = Convolution::new(Window::new([3, 3]), channels, 4 * channels);
        let weights = vec![0.5_f32; convolution.weight_count().unwrap()];
        let weights = ForwardWeights::pack(&convolution, &weights).unwrap();
        let mut input = Plane::from_fn(9, 10, channels, |_, _, _| 1.0);
        *input.at(nan[0], nan[1], 2) = f64::NAN;
        let mut output = Buffer::<f32>::exact(&Plane::zeros(9, 10, 4 * channels));
        let windows = Windows::new(output.region, Position::new(-1, -1));
        conv_forward(
            &convolution,
            &weights,
            Buffer::exact(&input).image(),
            windows,
            output.image_mut(),
            Epilogue {
                activation: Activation::Relu,
                ..Epilogue::default()
            },
            &mut vec![0.0; convolution.scratch_len::<f32>().unwrap()],
        )
        .unwrap();
        for row in 0..9_usize {
            for column in 0..10_usize {
                let near = row.abs_diff(nan[0]) <= 1 && column.abs_diff(nan[1]) <= 1;
                let pixel = output.image().pixel(row, column);
                assert!(pixel.iter().all(|value| value.is_nan() == near));
            }
        }
    }
}
