//! Transposed convolutions of any shape against plain loops, by regions, with poison around what is asked for.
#![allow(clippy::unwrap_used, reason = "a test that fails panics")]

mod common;

use common::{
    Buffer, POISONS, Values, bits, cast, error_beyond_rounding, moved, on_one_and_two_threads,
    relative_error, signed, stored, tolerance, whole,
};
use proptest::prelude::*;
use stream_grad_kernels::oracle::{self, Plane};
use stream_grad_kernels::{
    ConvTranspose, Existing, KernelError, Padding, Rect, Span, Storage, TransposedWeights, Window,
    bf16, conv_transpose_data_gradient, conv_transpose_forward, conv_transpose_weight_gradient,
};

#[derive(Debug, Clone)]
struct Case {
    convolution: ConvTranspose,
    input: [usize; 2],
    output: [usize; 2],
    seed: u64,
}

fn cases() -> impl Strategy<Value = Case> {
    let pair = |range: std::ops::RangeInclusive<usize>| [range.clone(), range];
    let channels = prop_oneof![1..=5_usize, 14..=18_usize, 30..=35_usize];
    (
        (
            pair(1..=4),
            pair(1..=3),
            pair(1..=3),
            pair(0..=3),
            pair(0..=2),
        ),
        pair(1..=9),
        (1..=3_usize, channels.clone(), channels),
        any::<u64>(),
    )
        .prop_map(
            |((kernel, stride, dilation, padding, more), input, channels, seed)| {
                let (groups, inputs, outputs) = channels;
                let window = Window {
                    kernel,
                    stride,
                    dilation,
                    padding: Padding {
                        top: padding[0],
                        left: padding[1],
                        ..Padding::default()
                    },
                };
                let extent = |axis: usize| {
                    let spread =
                        (input[axis] - 1) * stride[axis] + dilation[axis] * (kernel[axis] - 1) + 1;
                    (spread + more[axis]).saturating_sub(2 * padding[axis])
                };
                let (inputs, outputs) = if groups == 1 {
                    (inputs, outputs)
                } else {
                    (groups * inputs.min(6), groups * outputs.min(6))
                };
                Case {
                    convolution: ConvTranspose::new(window, inputs, outputs).groups(groups),
                    input,
                    output: [extent(0), extent(1)],
                    seed,
                }
            },
        )
        .prop_filter("all is cut off", |case| {
            case.output.iter().all(|&extent| extent > 0)
        })
}

/// The plane with zeros outside a part of it.
fn only(plane: &Plane, part: Rect) -> Plane {
    Plane::from_fn(
        plane.height,
        plane.width,
        plane.channels,
        |row, column, channel| {
            let pixel = moved(whole(1, 1), signed(row), signed(column));
            if part.covers(pixel) {
                plane.get(row, column, channel)
            } else {
                0.0
            }
        },
    )
}

impl Case {
    /// The rows or columns of the input that outputs from `first` on read.
    fn read(&self, axis: usize, first: usize, count: usize) -> Span {
        let Window {
            kernel,
            stride,
            dilation,
            padding,
        } = self.convolution.window;
        let padding = padding.before();
        let reach = dilation[axis] * (kernel[axis] - 1);
        let lo = (first + padding[axis])
            .saturating_sub(reach)
            .div_ceil(stride[axis]);
        let hi = (first + count - 1 + padding[axis]) / stride[axis] + 1;
        let lo = lo.min(self.input[axis]);
        Span::new(signed(lo), signed(hi.min(self.input[axis]).max(lo)))
    }

    fn check<E: Storage>(&self) {
        let convolution = &self.convolution;
        let mut values = Values::new(self.seed);
        let [height, width] = self.input;
        let input = stored::<E>(&values.plane(height, width, convolution.in_channels));
        let cotangent =
            stored::<E>(&values.plane(self.output[0], self.output[1], convolution.out_channels));
        let weights = values.many(convolution.weight_count().unwrap());
        let bias = values.many(convolution.out_channels);
        let (given, biases) = (cast::<E::Compute>(&weights), cast::<E::Compute>(&bias));
        let forward_weights = convolution.forward_order(&given).unwrap();
        let transposed_weights = convolution.transposed_order(&given).unwrap();
        let near = |found: &[f64], expected: &[f64], what: &str| {
            let error = error_beyond_rounding::<E>(found, expected);
            assert!(error < tolerance::<E::Compute>(), "{what}: {error}");
        };

        let first = [values.below(self.output[0]), values.below(self.output[1])];
        let rows = 1 + values.below(self.output[0] - first[0]);
        let columns = 1 + values.below(self.output[1] - first[1]);
        let outputs = moved(whole(rows, columns), signed(first[0]), signed(first[1]));
        // The input's buffer holds what is read, and no more.
        let held = Rect::new(
            self.read(0, first[0], rows),
            self.read(1, first[1], columns),
        );
        let held_input = Buffer::<E>::exact(&input.part(held));

        let all =
            oracle::conv_transpose_forward(convolution, (&weights, &bias), &input, self.output);
        let no_bias = vec![0.0; bias.len()];
        let without =
            oracle::conv_transpose_forward(convolution, (&weights, &no_bias), &input, self.output);
        let part = only(&cotangent, outputs);
        let gradient =
            oracle::conv_transpose_data_gradient(convolution, &weights, &part, self.input);
        let by_weights = oracle::conv_transpose_weight_gradient(convolution, &input, &part);
        for poison in POISONS {
            let margins = [1, 2, 0, 1];
            let mut garbage = Plane::zeros_of(outputs, convolution.out_channels);
            garbage.data.fill(poison);
            for (bias, expected) in [(Some(&biases[..]), &all), (None, &without)] {
                let mut output = Buffer::<E>::around(&garbage, margins, poison);
                let parameters = TransposedWeights {
                    weights: &forward_weights,
                    bias,
                };
                conv_transpose_forward(
                    convolution,
                    parameters,
                    held_input.view(),
                    output.view_mut(),
                )
                .unwrap();
                output.assert_poison_kept(poison);
                near(
                    &output.plane().data,
                    &expected.part(outputs).data,
                    "forward",
                );
            }

            let given = Buffer::<E>::around(&cotangent.part(outputs), margins, poison);
            let expected = gradient.part(held);
            for (existing, start) in [(Existing::Replace, poison), (Existing::Add, 0.5)] {
                let mut begin = Plane::zeros_of(held, convolution.in_channels);
                begin.data.fill(start);
                let mut to = Buffer::<E>::around(&begin, [0, 1, 1, 2], poison);
                conv_transpose_data_gradient(
                    convolution,
                    &transposed_weights,
                    given.view(),
                    to.view_mut(),
                    existing,
                )
                .unwrap();
                to.assert_poison_kept(poison);
                let added = if existing == Existing::Add { 0.5 } else { 0.0 };
                let expected: Vec<f64> = expected.data.iter().map(|value| value + added).collect();
                near(&to.plane().data, &expected, "data gradient");
            }

            let mut sums = vec![0.0; weights.len()];
            let (x, g) = (held_input.view(), given.view());
            conv_transpose_weight_gradient(convolution, x, g, &mut sums).unwrap();
            let sums = convolution.parameter_order(&sums).unwrap();
            assert!(
                relative_error(&sums, &by_weights) < 1e-13,
                "weight gradient"
            );
        }
    }

    /// The bits of all outputs, computed at once and one by one.
    fn check_bits<E: Storage>(&self) {
        let convolution = &self.convolution;
        let mut values = Values::new(self.seed);
        let input = values.plane(self.input[0], self.input[1], convolution.in_channels);
        let input = Buffer::<E>::exact(&input);
        let weights = cast::<E::Compute>(&values.many(convolution.weight_count().unwrap()));
        let parameters = TransposedWeights {
            weights: &convolution.forward_order(&weights).unwrap(),
            bias: None,
        };
        let blank = Plane::zeros(self.output[0], self.output[1], convolution.out_channels);
        let [mut all, mut single] = [0; 2].map(|_| Buffer::<E>::exact(&blank));
        conv_transpose_forward(convolution, parameters, input.view(), all.view_mut()).unwrap();
        for row in 0..self.output[0] {
            for column in 0..self.output[1] {
                let one = moved(whole(1, 1), signed(row), signed(column));
                let to = single.view_mut().part(one).unwrap();
                conv_transpose_forward(convolution, parameters, input.view(), to).unwrap();
            }
        }
        assert_eq!(bits(&all.data), bits(&single.data));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn matches_the_oracle(case in cases()) {
        case.check::<f32>();
        case.check::<f64>();
        case.check::<bf16>();
    }

    #[test]
    fn no_bit_depends_on_the_region(case in cases()) {
        case.check_bits::<f32>();
        case.check_bits::<f64>();
        case.check_bits::<bf16>();
    }
}

/// `<A x, y> = <x, A' y>`, and the weights' gradient is the derivative along any weights.
#[test]
fn the_oracle_is_its_own_adjoint() {
    let mut values = Values::new(3);
    let window = Window {
        kernel: [3, 2],
        stride: [2, 3],
        dilation: [1, 2],
        padding: Padding {
            top: 1,
            left: 2,
            ..Padding::default()
        },
    };
    let convolution = ConvTranspose::new(window, 4, 6).groups(2);
    let extents = [9, 7];
    let (x, y) = (values.plane(5, 4, 4), values.plane(9, 7, 6));
    let weights = values.many(convolution.weight_count().unwrap());
    let output = oracle::conv_transpose_forward(&convolution, (&weights, &[0.0; 6]), &x, extents);
    let expected = output.dot(&y);
    let gradient = oracle::conv_transpose_data_gradient(&convolution, &weights, &y, [5, 4]);
    assert!((gradient.dot(&x) - expected).abs() < 1e-12);
    let by_weights = oracle::conv_transpose_weight_gradient(&convolution, &x, &y);
    let along: f64 = by_weights.iter().zip(&weights).map(|(a, b)| a * b).sum();
    assert!((along - expected).abs() < 1e-12);
}

#[test]
fn threads_change_no_bit() {
    let mut values = Values::new(5);
    let convolution = ConvTranspose::new(Window::new([2, 2]).stride([2, 2]), 20, 33);
    let (x, g) = (values.plane(30, 6, 20), values.plane(60, 12, 33));
    let (x, g) = (Buffer::<f32>::exact(&x), Buffer::<f32>::exact(&g));
    let [one, two] = on_one_and_two_threads(|| {
        let mut sums = vec![0.0; convolution.weight_count().unwrap()];
        conv_transpose_weight_gradient(&convolution, x.view(), g.view(), &mut sums).unwrap();
        bits(&sums)
    });
    assert_eq!(one, two);
}

#[test]
fn settings_that_cannot_be_are_refused() {
    let window = Window::new([2, 2]);
    let count = |convolution: ConvTranspose| convolution.weight_count().unwrap_err();
    assert_eq!(
        count(ConvTranspose::new(window, 0, 1)),
        KernelError::Zero {
            what: "input channels"
        }
    );
    assert_eq!(
        count(ConvTranspose::new(window, 1, 1).groups(0)),
        KernelError::Zero { what: "groups" }
    );
    assert_eq!(
        count(ConvTranspose::new(window, 4, 6).groups(4)),
        KernelError::Groups {
            groups: 4,
            in_channels: 4,
            out_channels: 6
        }
    );
    assert_eq!(
        count(ConvTranspose::new(Window::new([0, 1]), 1, 1)),
        KernelError::Zero {
            what: "window kernel"
        }
    );
    assert_eq!(
        count(ConvTranspose::new(window, usize::MAX / 2, 2)),
        KernelError::Overflow {
            what: "weights of a transposed convolution"
        }
    );
    let one = ConvTranspose::new(window, 1, 1);
    assert_eq!(
        one.forward_order(&[1.0; 3]).unwrap_err(),
        KernelError::Length {
            what: "weights of a transposed convolution",
            expected: 4,
            found: 3,
        }
    );
}
