//! Transposed convolutions of any shape against plain loops, by regions, with poison around what is asked for.
#![allow(clippy::unwrap_used, reason = "a test that fails panics")]

mod common;

use common::{
    Buffer, POISONS, Values, bits, cast, on_one_and_two_threads, relative_error, tolerance,
};
use proptest::prelude::*;
use stream_grad_kernels::oracle::{self, Plane};
use stream_grad_kernels::{
    ConvTranspose, Element, Existing, KernelError, Position, Region, TransposedWeights, Window,
    conv_transpose_data_gradient, conv_transpose_forward, conv_transpose_weight_gradient,
};

#[derive(Debug, Clone)]
struct Case {
    convolution: ConvTranspose,
    input: [usize; 2],
    output: [usize; 2],
    padding: [usize; 2],
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
                    padding,
                    seed,
                }
            },
        )
        .prop_filter("all is cut off", |case| {
            case.output.iter().all(|&extent| extent > 0)
        })
}

fn signed(value: usize) -> isize {
    isize::try_from(value).unwrap()
}

fn crop(plane: &Plane, region: Region) -> Plane {
    Plane::from_fn(
        region.rows,
        region.columns,
        plane.channels,
        |row, column, channel| plane.get(region.row + row, region.column + column, channel),
    )
}

/// The plane with zeros outside the region.
fn only(plane: &Plane, region: Region) -> Plane {
    Plane::from_fn(
        plane.height,
        plane.width,
        plane.channels,
        |row, column, channel| {
            let inside = (region.row..region.row + region.rows).contains(&row)
                && (region.column..region.column + region.columns).contains(&column);
            if inside {
                plane.get(row, column, channel)
            } else {
                0.0
            }
        },
    )
}

impl Case {
    /// The rows or columns of the input that outputs from `first` on read.
    fn read(&self, axis: usize, first: usize, count: usize) -> std::ops::Range<usize> {
        let Window {
            kernel,
            stride,
            dilation,
        } = self.convolution.window;
        let reach = dilation[axis] * (kernel[axis] - 1);
        let lo = (first + self.padding[axis])
            .saturating_sub(reach)
            .div_ceil(stride[axis]);
        let hi = (first + count - 1 + self.padding[axis]) / stride[axis] + 1;
        lo.min(self.input[axis])..hi.min(self.input[axis]).max(lo.min(self.input[axis]))
    }

    fn check<T: Element>(&self) {
        let (convolution, padding) = (&self.convolution, self.padding);
        let mut values = Values::new(self.seed);
        let [height, width] = self.input;
        let input = values.plane(height, width, convolution.in_channels);
        let cotangent = values.plane(self.output[0], self.output[1], convolution.out_channels);
        let weights = values.many(convolution.weight_count().unwrap());
        let bias = values.many(convolution.out_channels);
        let (given, biases) = (cast::<T>(&weights), cast::<T>(&bias));
        let forward_weights = convolution.forward_order(&given).unwrap();
        let transposed_weights = convolution.transposed_order(&given).unwrap();
        let near = |found: &[f64], expected: &[f64], what: &str| {
            let error = relative_error(found, expected);
            assert!(error < tolerance::<T>(), "{what}: {error}");
        };

        let first = [values.below(self.output[0]), values.below(self.output[1])];
        let rows = 1 + values.below(self.output[0] - first[0]);
        let columns = 1 + values.below(self.output[1] - first[1]);
        let region = Region::new(first[0], first[1], rows, columns);
        // The input's buffer holds what is read, and no more.
        let (held_rows, held_columns) = (
            self.read(0, first[0], rows),
            self.read(1, first[1], columns),
        );
        let held = Region::new(
            held_rows.start,
            held_columns.start,
            held_rows.len(),
            held_columns.len(),
        );
        let origin = |axis: usize, from: usize| {
            signed(first[axis] + padding[axis]) - signed(from * convolution.window.stride[axis])
        };
        let origin = Position::new(origin(0, held.row), origin(1, held.column));
        let held_input = Buffer::<T>::exact(&crop(&input, held));

        let whole = oracle::conv_transpose_forward(
            convolution,
            padding,
            (&weights, &bias),
            &input,
            self.output,
        );
        let no_bias = vec![0.0; bias.len()];
        let without = oracle::conv_transpose_forward(
            convolution,
            padding,
            (&weights, &no_bias),
            &input,
            self.output,
        );
        let part = only(&cotangent, region);
        let gradient =
            oracle::conv_transpose_data_gradient(convolution, padding, &weights, &part, self.input);
        let by_weights =
            oracle::conv_transpose_weight_gradient(convolution, padding, &input, &part);
        for poison in POISONS {
            let margins = [1, 2, 0, 1];
            let garbage = Plane::from_fn(rows, columns, convolution.out_channels, |_, _, _| poison);
            for (bias, expected) in [(Some(&biases[..]), &whole), (None, &without)] {
                let mut output = Buffer::<T>::around(&garbage, margins, poison);
                let at = output.region;
                let parameters = TransposedWeights {
                    weights: &forward_weights,
                    bias,
                };
                conv_transpose_forward(
                    convolution,
                    parameters,
                    held_input.image(),
                    origin,
                    output.image_mut(),
                    at,
                )
                .unwrap();
                output.assert_poison_kept(poison);
                near(
                    &output.plane().data,
                    &crop(expected, region).data,
                    "forward",
                );
            }

            let given = Buffer::<T>::around(&crop(&cotangent, region), margins, poison);
            let expected = crop(&gradient, held);
            for (existing, start) in [(Existing::Replace, poison), (Existing::Add, 0.5)] {
                let start = Plane::from_fn(
                    held.rows,
                    held.columns,
                    convolution.in_channels,
                    |_, _, _| start,
                );
                let mut to = Buffer::<T>::exact(&start);
                conv_transpose_data_gradient(
                    convolution,
                    &transposed_weights,
                    given.image(),
                    (given.region, origin),
                    to.image_mut(),
                    existing,
                )
                .unwrap();
                let added = if existing == Existing::Add { 0.5 } else { 0.0 };
                let expected: Vec<f64> = expected.data.iter().map(|value| value + added).collect();
                near(&to.plane().data, &expected, "data gradient");
            }

            let mut sums = vec![0.0; weights.len()];
            let at = (given.region, origin);
            conv_transpose_weight_gradient(
                convolution,
                held_input.image(),
                given.image(),
                at,
                &mut sums,
            )
            .unwrap();
            let sums = convolution.parameter_order(&sums).unwrap();
            assert!(
                relative_error(&sums, &by_weights) < 1e-13,
                "weight gradient"
            );
        }
    }

    /// The bits of all outputs, computed at once and one by one.
    fn check_bits<T: Element>(&self) {
        let convolution = &self.convolution;
        let mut values = Values::new(self.seed);
        let input = values.plane(self.input[0], self.input[1], convolution.in_channels);
        let input = Buffer::<T>::exact(&input);
        let weights = cast::<T>(&values.many(convolution.weight_count().unwrap()));
        let parameters = TransposedWeights {
            weights: &convolution.forward_order(&weights).unwrap(),
            bias: None,
        };
        let blank = Plane::zeros(self.output[0], self.output[1], convolution.out_channels);
        let [mut whole, mut single] = [0; 2].map(|_| Buffer::<T>::exact(&blank));
        let place = |row: usize, column: usize| {
            Position::new(
                signed(row + self.padding[0]),
                signed(column + self.padding[1]),
            )
        };
        let all = whole.region;
        conv_transpose_forward(
            convolution,
            parameters,
            input.image(),
            place(0, 0),
            whole.image_mut(),
            all,
        )
        .unwrap();
        for row in 0..self.output[0] {
            for column in 0..self.output[1] {
                let one = Region::new(row, column, 1, 1);
                let origin = place(row, column);
                conv_transpose_forward(
                    convolution,
                    parameters,
                    input.image(),
                    origin,
                    single.image_mut(),
                    one,
                )
                .unwrap();
            }
        }
        assert_eq!(bits(&whole.data), bits(&single.data));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn matches_the_oracle(case in cases()) {
        case.check::<f32>();
        case.check::<f64>();
    }

    #[test]
    fn no_bit_depends_on_the_region(case in cases()) {
        case.check_bits::<f32>();
        case.check_bits::<f64>();
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
    };
    let convolution = ConvTranspose::new(window, 4, 6).groups(2);
    let (padding, extents) = ([1, 2], [9, 7]);
    let (x, y) = (values.plane(5, 4, 4), values.plane(9, 7, 6));
    let weights = values.many(convolution.weight_count().unwrap());
    let output =
        oracle::conv_transpose_forward(&convolution, padding, (&weights, &[0.0; 6]), &x, extents);
    let expected = output.dot(&y);
    let gradient =
        oracle::conv_transpose_data_gradient(&convolution, padding, &weights, &y, [5, 4]);
    assert!((gradient.dot(&x) - expected).abs() < 1e-12);
    let by_weights = oracle::conv_transpose_weight_gradient(&convolution, padding, &x, &y);
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
        let at = (g.region, Position::new(0, 0));
        conv_transpose_weight_gradient(&convolution, x.image(), g.image(), at, &mut sums).unwrap();
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
    assert!(matches!(
        count(ConvTranspose::new(window, 4, 6).groups(4)),
        KernelError::Groups {
            groups: 4,
            in_channels: 4,
            out_channels: 6
        }
    ));
    assert!(matches!(
        count(ConvTranspose::new(Window::new([0, 1]), 1, 1)),
        KernelError::Zero { .. }
    ));
    assert!(matches!(
        count(ConvTranspose::new(window, usize::MAX / 2, 2)),
        KernelError::Overflow { .. }
    ));
    let one = ConvTranspose::new(window, 1, 1);
    assert!(matches!(
        one.forward_order(&[1.0; 3]).unwrap_err(),
        KernelError::Length {
            expected: 4,
            found: 3,
            ..
        }
    ));
}
