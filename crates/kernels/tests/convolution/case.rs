//! Convolutions of any shape, and what each pass must make of them.

use crate::common::{
    Buffer, POISONS, Values, bits, cast, error_beyond_rounding, moved, relative_error, rounded,
    rounding, signed, stored, tolerance, whole,
};
use proptest::prelude::*;
use stream_grad_kernels::oracle::{self, Plane};
use stream_grad_kernels::{
    Activation, Arithmetic, Convolution, DataGradientWeights, Element, Epilogue, Existing,
    ForwardWeights, Padding, Pointwise, Rect, Storage, Window, bias_gradient, conv_data_gradient,
    conv_forward, conv_weight_gradient, weight_gradient_to_oihw,
};

/// A convolution of `input` positions into `outputs`, with its first window anywhere.
#[derive(Debug, Clone)]
pub(crate) struct Case {
    pub(crate) convolution: Convolution,
    /// Where the first window begins in the input that is held.
    pub(crate) first: [i64; 2],
    /// Row and column of the first output.
    pub(crate) at: [i64; 2],
    pub(crate) input: [usize; 2],
    pub(crate) outputs: [usize; 2],
    pub(crate) margins: [usize; 4],
    pub(crate) seed: u64,
}

/// Channels below, at and beyond one and several registers of either width.
pub(crate) fn channels() -> impl Strategy<Value = usize> {
    prop_oneof![
        1..=9_usize,
        Just(16),
        15..=35_usize,
        Just(64),
        60..=75_usize,
        120..=140_usize
    ]
}

pub(crate) fn channel_groups() -> impl Strategy<Value = (usize, usize, usize)> {
    prop_oneof![
        6 => (channels(), channels()).prop_map(|(input, output)| (input, output, 1)),
        2 => (1..=4_usize, 1..=9_usize, 1..=20_usize).prop_map(|(g, i, o)| (g * i, g * o, g)),
        2 => (2..=140_usize).prop_map(|c| (c, c, c)),
        1 => (2..=20_usize, 2..=3_usize).prop_map(|(c, m)| (c, c * m, c)),
    ]
}

pub(crate) fn axis() -> impl Strategy<Value = (usize, usize, usize, i64, usize, usize)> {
    axis_of(1..=7_usize, 14, 9)
}

/// Kernel, stride, dilation, first window, positions and outputs of an axis.
pub(crate) fn axis_of(
    kernel: impl Strategy<Value = usize>,
    most_positions: usize,
    most_outputs: usize,
) -> impl Strategy<Value = (usize, usize, usize, i64, usize, usize)> {
    (
        kernel,
        1..=4_usize,
        1..=3_usize,
        1..=most_positions,
        0..=most_outputs,
    )
        .prop_flat_map(|(kernel, stride, dilation, extent, outputs)| {
            let reach = signed((kernel - 1) * dilation + 2);
            (-reach..=4).prop_map(move |first| (kernel, stride, dilation, first, extent, outputs))
        })
}

pub(crate) fn cases() -> impl Strategy<Value = Case> {
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
                            padding: Padding {
                                top: rows.4 % 4,
                                left: columns.5 % 4,
                                ..Padding::default()
                            },
                        },
                        in_channels,
                        out_channels,
                        groups,
                        arithmetic: Arithmetic::Auto,
                    },
                    at: [signed(rows.5 % 5) - 2, signed(columns.4 % 5) - 1],
                    first: [rows.3, columns.3],
                    input: [rows.4, columns.4],
                    outputs: [rows.5, columns.5],
                    margins: margins.map(|margin| usize::from(margin % 3)),
                    seed,
                }
            },
        )
}

/// Cases that Winograd's convolution computes: channels at and beyond one and several registers and blocks.
pub(crate) fn winograd_cases() -> impl Strategy<Value = Case> {
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
        convolution: Convolution::new(
            Window::new([3, 3]).padding(case.convolution.window.padding),
            in_channels,
            out_channels,
        ),
        ..case
    })
}

/// Cases that Winograd's convolution computes, with so many channels on one side that tasks take more tiles or share patches.
pub(crate) fn wide_winograd_cases() -> impl Strategy<Value = Case> {
    let wide = prop_oneof![129..=140_usize, 250..=264_usize, 508..=530_usize];
    (wide, 32..=40_usize, any::<bool>(), cases()).prop_map(|(wide, narrow, widens, case)| {
        let (inputs, outputs) = if widens {
            (narrow, wide)
        } else {
            (wide, narrow)
        };
        Case {
            convolution: Convolution::new(
                Window::new([3, 3]).padding(case.convolution.window.padding),
                inputs,
                outputs,
            ),
            ..case
        }
    })
}

/// One input channel to a few, with kernels of any shape.
pub(crate) fn few_channel_cases() -> impl Strategy<Value = Case> {
    let axes = || axis_of(1..=7_usize, 30, 20);
    (1..=9_usize, 1..=40_usize, axes(), axes(), cases()).prop_map(
        |(in_channels, out_channels, rows, columns, case)| Case {
            convolution: Convolution::new(
                Window {
                    kernel: [rows.0, columns.0],
                    stride: [rows.1, columns.1],
                    dilation: [rows.2, columns.2],
                    padding: case.convolution.window.padding,
                },
                in_channels,
                out_channels,
            ),
            first: [rows.3, columns.3],
            input: [rows.4, columns.4],
            outputs: [rows.5, columns.5],
            ..case
        },
    )
}

/// Depthwise convolutions of planes that are wider than a block of positions, most of which slide.
pub(crate) fn depthwise_cases() -> impl Strategy<Value = Case> {
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
                padding: case.convolution.window.padding,
            };
            Case {
                convolution: Convolution::new(window, channels, channels).groups(channels),
                first: [rows.0.3, columns.0.3],
                input: axes.map(|axis| axis.0.4),
                outputs: axes.map(|axis| axis.0.5),
                ..case
            }
        },
    )
}

pub(crate) struct Data {
    pub(crate) weights: Vec<f64>,
    pub(crate) bias: Vec<f64>,
    pub(crate) input: Plane,
    pub(crate) residual: Plane,
    pub(crate) cotangent: Plane,
}

impl Case {
    /// Those that are computed.
    pub(crate) fn outputs(&self) -> Rect {
        let [rows, columns] = self.outputs;
        moved(whole(rows, columns), self.at[0], self.at[1])
    }

    /// What is held of the input.
    pub(crate) fn held(&self) -> Rect {
        let ([height, width], window) = (self.input, self.convolution.window);
        let before = window.padding.before();
        let [row, column] = [0, 1].map(|axis| {
            let first = self.at[axis] * signed(window.stride[axis]) - signed(before[axis]);
            first - self.first[axis]
        });
        moved(whole(height, width), row, column)
    }

    /// A plane of zeros, as large as the input.
    pub(crate) fn zeros(&self) -> Plane {
        Plane::zeros_of(self.held(), self.convolution.in_channels)
    }

    pub(crate) fn scratch<E: Storage>(&self, poison: f64) -> Vec<E> {
        vec![rounded(poison); self.convolution.scratch_len::<E>().unwrap()]
    }

    pub(crate) fn data(&self) -> Data {
        let mut values = Values::new(self.seed);
        let Convolution {
            in_channels,
            out_channels,
            ..
        } = self.convolution;
        let [height, width] = self.input;
        let [rows, columns] = self.outputs;
        let [row, column] = self.at;
        let held = self.held();
        Data {
            weights: values.many(self.convolution.weight_count().unwrap()),
            bias: values.many(out_channels),
            input: values
                .plane(height, width, in_channels)
                .moved(held.rows.lo, held.columns.lo),
            residual: values.plane(rows, columns, out_channels).moved(row, column),
            cotangent: values.plane(rows, columns, out_channels).moved(row, column),
        }
    }

    /// The same as it is stored; biases are not.
    pub(crate) fn data_of<E: Storage>(&self) -> Data {
        let data = self.data();
        Data {
            weights: data
                .weights
                .iter()
                .map(|&w| rounded::<E>(w).widen().to_f64())
                .collect(),
            bias: data.bias,
            input: stored::<E>(&data.input),
            residual: stored::<E>(&data.residual),
            cotangent: stored::<E>(&data.cotangent),
        }
    }

    /// The input, with `poison` where no window reads.
    pub(crate) fn input_of<E: Storage>(&self, data: &Data, poison: f64) -> Buffer<E> {
        let mut ones = Plane::zeros_of(self.outputs(), 1);
        ones.data.fill(1.0);
        let single = Convolution::new(self.convolution.window, 1, 1);
        let weights = vec![1.0; single.window.taps()];
        let read = oracle::conv_data_gradient(&single, &weights, &ones, self.held());
        let mut plane = data.input.clone();
        for (pixel, &read) in plane.data.chunks_exact_mut(plane.channels).zip(&read.data) {
            if read <= 0.0 {
                pixel.fill(poison);
            }
        }
        Buffer::around(&plane, self.margins.map(|m| (m + 1) % 3), poison)
    }

    pub(crate) fn forward<E: Storage>(&self, data: &Data, poison: f64) -> Buffer<E> {
        let weights = ForwardWeights::<E>::pack(&self.convolution, &cast(&data.weights)).unwrap();
        let mut empty = data.residual.clone();
        empty.data.fill(poison);
        let mut output = Buffer::<E>::around(&empty, self.margins, poison);
        let residual = Buffer::<E>::around(&data.residual, self.margins.map(|m| 2 - m), poison);
        conv_forward(
            &self.convolution,
            &weights,
            self.input_of::<E>(data, poison).view(),
            output.view_mut(),
            Epilogue {
                bias: Some(&cast(&data.bias)),
                residual: Some(residual.all()),
                activation: self.activation(),
            },
            &mut self.scratch(poison),
        )
        .unwrap();
        output.assert_poison_kept(poison);
        output
    }

    /// The gradient added to `start`, or in place of it.
    pub(crate) fn data_gradient<E: Storage>(
        &self,
        data: &Data,
        start: &Plane,
        existing: Existing,
        poison: f64,
    ) -> Buffer<E> {
        let weights =
            DataGradientWeights::<E>::pack(&self.convolution, &cast(&data.weights)).unwrap();
        let cotangent = Buffer::<E>::around(&data.cotangent, self.margins, poison);
        let mut gradient = Buffer::<E>::around(start, self.margins.map(|m| (m + 2) % 3), poison);
        conv_data_gradient(
            &self.convolution,
            &weights,
            cotangent.view(),
            gradient.view_mut(),
            existing,
            &mut self.scratch(poison),
        )
        .unwrap();
        gradient.assert_poison_kept(poison);
        gradient
    }

    /// The weight and bias gradients, added to ones.
    pub(crate) fn parameter_gradients<E: Storage>(
        &self,
        data: &Data,
        poison: f64,
    ) -> (Vec<f64>, Vec<f64>) {
        let cotangent = Buffer::<E>::around(&data.cotangent, self.margins, poison);
        let widened = Buffer::<E::Compute>::around(&data.cotangent, self.margins, poison);
        let mut gradient = vec![1.0; data.weights.len()];
        conv_weight_gradient(
            &self.convolution,
            self.input_of::<E>(data, poison).view(),
            cotangent.view(),
            &mut gradient,
            &mut self.scratch(poison),
        )
        .unwrap();
        let mut oihw = vec![0.0; gradient.len()];
        weight_gradient_to_oihw(&self.convolution, &gradient, &mut oihw).unwrap();
        let mut bias = vec![1.0; self.convolution.out_channels];
        bias_gradient(widened.view(), &mut bias).unwrap();
        (oihw, bias)
    }

    /// Either ReLU where sums are short. Long ones would nearly all be 6 or 0: errors are measured by the largest of them.
    pub(crate) fn activation(&self) -> Activation {
        let Convolution {
            window,
            in_channels,
            groups,
            ..
        } = self.convolution;
        let terms = in_channels / groups * window.taps();
        if terms > 64 || self.seed.is_multiple_of(2) {
            Activation::Relu
        } else {
            Activation::Relu6
        }
    }

    /// What rounding in the middle may change of a value, besides what sums do in the precision that is computed in.
    fn bound<E: Storage>(&self) -> f64 {
        // Winograd's transforms are stored as activations are: each product has two factors that were rounded.
        let transforms = if self.convolution.is_winograd() {
            2.0 * rounding::<E>()
        } else {
            0.0
        };
        tolerance::<E::Compute>() + transforms
    }

    pub(crate) fn check<E: Storage>(&self) {
        let data = self.data_of::<E>();

        let mut expected = oracle::conv_forward(
            &self.convolution,
            &data.weights,
            Some(&data.bias),
            &data.input,
            self.outputs(),
        );
        for (value, more) in expected.data.iter_mut().zip(&data.residual.data) {
            *value += more;
        }
        let function = match self.activation() {
            Activation::Relu6 => Pointwise::Relu6,
            _ => Pointwise::Relu,
        };
        let expected = oracle::pointwise_forward(function, &expected);
        let found = POISONS.map(|poison| self.forward::<E>(&data, poison).plane());
        assert!(
            error_beyond_rounding::<E>(&found[0].data, &expected.data) < self.bound::<E>(),
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

        let [height, width] = self.input;
        let start = Values::new(!self.seed).plane(height, width, data.input.channels);
        let start = stored::<E>(&start.moved(self.held().rows.lo, self.held().columns.lo));
        let mut expected = oracle::conv_data_gradient(
            &self.convolution,
            &data.weights,
            &data.cotangent,
            self.held(),
        );
        let replaced = POISONS.map(|poison| {
            let mut start = start.clone();
            start.data.fill(poison);
            let existing = Existing::Replace;
            let gradient = self.data_gradient::<E>(&data, &start, existing, poison);
            gradient.plane()
        });
        assert!(
            error_beyond_rounding::<E>(&replaced[0].data, &expected.data) < self.bound::<E>(),
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
            let gradient = self.data_gradient::<E>(&data, &start, Existing::Add, poison);
            gradient.plane()
        });
        assert!(
            error_beyond_rounding::<E>(&found[0].data, &expected.data) < self.bound::<E>(),
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

        let expected =
            oracle::conv_weight_gradient(&self.convolution, &data.input, &data.cotangent);
        let expected: Vec<f64> = expected.iter().map(|value| value + 1.0).collect();
        let expected_bias: Vec<f64> = oracle::bias_gradient(&data.cotangent)
            .iter()
            .map(|value| value + 1.0)
            .collect();
        let found = POISONS.map(|poison| self.parameter_gradients::<E>(&data, poison));
        assert!(
            relative_error(&found[0].0, &expected) < self.bound::<E>(),
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
