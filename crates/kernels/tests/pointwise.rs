//! Everything that works pixel by pixel, against plain loops, with poison around what they may touch.
#![allow(clippy::unwrap_used, reason = "a test that fails panics")]

mod common;

use common::{
    Buffer, POISONS, Values, bits, cast, error_beyond_rounding, on_one_and_two_threads,
    relative_error, rounded, stored, tolerance, whole,
};
use proptest::prelude::*;
use stream_grad_kernels::oracle::{self, Plane};
use stream_grad_kernels::{
    Activation, Gelu, LayerNorm, Pointwise, Storage, ViewMut, VjpOperand, accumulate,
    accumulate_channels, activation_vjp_and_bias_gradient, activation_vjp_in_place, add,
    affine_forward, affine_parameter_gradient, affine_vjp, affine_vjp_in_place, bf16, copy,
    copy_channels, fill, layer_norm_forward, layer_norm_parameter_gradient, layer_norm_vjp,
    multiply, multiply_vjp, pointwise_forward, pointwise_vjp,
};

const FUNCTIONS: [Pointwise; 6] = [
    Pointwise::Relu,
    Pointwise::Relu6,
    Pointwise::Sigmoid,
    Pointwise::Silu,
    Pointwise::Gelu(Gelu::Exact),
    Pointwise::Gelu(Gelu::Tanh),
];

#[derive(Debug, Clone)]
struct Case {
    rows: usize,
    columns: usize,
    channels: usize,
    margins: [usize; 4],
    seed: u64,
}

fn cases() -> impl Strategy<Value = Case> {
    let channels = prop_oneof![1..=5_usize, 15..=18_usize, 31..=50_usize];
    (
        0..=12_usize,
        0..=37_usize,
        channels,
        any::<[u8; 4]>(),
        any::<u64>(),
    )
        .prop_map(|(rows, columns, channels, margins, seed)| Case {
            rows,
            columns,
            channels,
            margins: margins.map(|margin| usize::from(margin % 3)),
            seed,
        })
}

fn sum(left: &[f64], right: &[f64]) -> Vec<f64> {
    left.iter().zip(right).map(|(a, b)| a + b).collect()
}

/// What a sigmoid gives a plane of.
fn before_sigmoid(output: &Plane) -> Plane {
    let values = output.data.iter();
    Plane {
        data: values.map(|y| (y / (1.0 - y)).ln()).collect(),
        ..*output
    }
}

/// A plane after each activation.
fn activated(plane: &Plane) -> [(Activation, Plane); 3] {
    let after = |function| oracle::pointwise_forward(function, plane);
    [
        (Activation::Identity, plane.clone()),
        (Activation::Relu, after(Pointwise::Relu)),
        (Activation::Relu6, after(Pointwise::Relu6)),
    ]
}

impl Case {
    fn plane<E: Storage>(&self, values: &mut Values) -> Plane {
        stored::<E>(&Plane::from_fn(
            self.rows,
            self.columns,
            self.channels,
            |_, _, _| 4.0 * values.next(),
        ))
    }

    /// Runs `work` on a buffer that holds `start`, with poison around, and returns what it left there.
    fn run<E: Storage>(
        &self,
        start: &Plane,
        poison: f64,
        work: impl FnOnce(ViewMut<'_, E>),
    ) -> Vec<f64> {
        let mut buffer = Buffer::<E>::around(start, self.margins, poison);
        work(buffer.view_mut());
        buffer.assert_poison_kept(poison);
        buffer.plane().data
    }

    /// Two maps and what the target holds, and two numbers for each channel.
    fn operands<E: Storage>(&self) -> ([Plane; 3], [Vec<f64>; 2]) {
        let mut values = Values::new(self.seed);
        let planes = [(); 3].map(|()| self.plane::<E>(&mut values));
        (planes, [(); 2].map(|()| values.many(self.channels)))
    }

    fn check<E: Storage>(&self) {
        let ([a, b, start], [scale, shift]) = self.operands::<E>();
        let (scales, shifts) = (cast::<E::Compute>(&scale), cast::<E::Compute>(&shift));
        let added = |plane: &Plane| sum(&plane.data, &start.data);
        let near = |found: &[f64], expected: &[f64], what: &str| {
            let error = error_beyond_rounding::<E>(found, expected);
            assert!(error < tolerance::<E::Compute>(), "{what}: {error}");
        };
        for poison in POISONS {
            // Other margins than the target's.
            let left = Buffer::<E>::around(&a, self.margins.map(|m| 2 - m), poison);
            let right = Buffer::<E>::around(&b, [1, 0, 2, 1], poison);
            // More than is needed, and as much.
            let (x, g) = (left.all(), right.view());
            let garbage = Plane::from_fn(self.rows, self.columns, self.channels, |_, _, _| poison);

            let found = self.run::<E>(&garbage, poison, |to| copy(x, to).unwrap());
            assert_eq!(found, a.data);
            let found = self.run::<E>(&garbage, poison, |to| {
                fill(rounded::<E>(1.0), to);
            });
            assert!(found.iter().all(|&value| value == 1.0));
            let found = self.run::<E>(&start, poison, |to| accumulate(x, to).unwrap());
            near(&found, &added(&a), "accumulate");
            let both = Plane {
                data: sum(&a.data, &b.data),
                ..a
            };
            for (activation, expected) in activated(&both) {
                let found = self.run::<E>(&garbage, poison, |to| {
                    add(x, g, activation, to).unwrap();
                });
                near(&found, &expected.data, "add");
            }

            for (activation, output) in activated(&a) {
                let buffer = Buffer::<E>::around(&output, [2, 1, 0, 1], poison);
                let y = buffer.all();
                let expected = match activation {
                    Activation::Identity => b.clone(),
                    Activation::Relu => oracle::pointwise_vjp(Pointwise::Relu, &a, &b),
                    Activation::Relu6 => oracle::pointwise_vjp(Pointwise::Relu6, &a, &b),
                };
                let found = self.run::<E>(&b, poison, |to| {
                    activation_vjp_in_place(activation, y, to).unwrap();
                });
                assert_eq!(found, expected.data);
                let mut by_bias = vec![0.0; self.channels];
                let found = self.run::<E>(&b, poison, |to| {
                    activation_vjp_and_bias_gradient(activation, y, to, &mut by_bias).unwrap();
                });
                assert_eq!(found, expected.data);
                let sums = oracle::bias_gradient(&expected);
                assert!(relative_error(&by_bias, &sums) < 1e-13, "bias gradient");
            }

            for function in FUNCTIONS {
                let output = oracle::pointwise_forward(function, &a);
                let found = self.run::<E>(&garbage, poison, |to| {
                    pointwise_forward(function, x, to).unwrap();
                });
                near(&found, &output.data, "pointwise");
                let buffer = Buffer::<E>::around(&output, [2, 1, 0, 1], poison);
                let read = match function.vjp_operand() {
                    VjpOperand::Input => x,
                    VjpOperand::Output => buffer.all(),
                };
                let found = self.run::<E>(&start, poison, |to| {
                    pointwise_vjp(function, read, g, to).unwrap();
                });
                let expected = match function {
                    // What is read is rounded, as it is stored.
                    Pointwise::Sigmoid => {
                        let output = stored::<E>(&output);
                        oracle::pointwise_vjp(function, &before_sigmoid(&output), &b)
                    }
                    _ => oracle::pointwise_vjp(function, &a, &b),
                };
                near(&found, &added(&expected), "pointwise VJP");
            }

            let product = Plane {
                data: a.data.iter().zip(&b.data).map(|(a, b)| a * b).collect(),
                ..a
            };
            let found = self.run::<E>(&garbage, poison, |to| {
                multiply(x, g, to).unwrap();
            });
            near(&found, &product.data, "product");
            let found = self.run::<E>(&start, poison, |to| {
                multiply_vjp(x, g, to).unwrap();
            });
            near(&found, &added(&product), "VJP of a product");

            let expected = oracle::affine_forward(&a, &scale, &shift);
            for (activation, expected) in activated(&expected) {
                let found = self.run::<E>(&garbage, poison, |to| {
                    affine_forward(x, &scales, &shifts, activation, to).unwrap();
                });
                near(&found, &expected.data, "affine");
            }
            let (expected, by_scale, by_shift) = oracle::affine_vjp(&a, &scale, &b);
            let found = self.run::<E>(&start, poison, |to| affine_vjp(g, &scales, to).unwrap());
            near(&found, &added(&expected), "affine VJP");
            let found = self.run::<E>(&b, poison, |to| {
                affine_vjp_in_place(&scales, to).unwrap();
            });
            near(&found, &expected.data, "affine VJP in place");
            let mut sums = [vec![0.0; self.channels], vec![0.0; self.channels]];
            let [scale_sums, shift_sums] = &mut sums;
            affine_parameter_gradient(x, g, scale_sums, shift_sums).unwrap();
            assert!(relative_error(&sums[0], &by_scale) < 1e-13);
            assert!(relative_error(&sums[1], &by_shift) < 1e-13);
        }
    }

    fn check_norm<E: Storage>(&self) {
        let ([a, b, start], [scale, shift]) = self.operands::<E>();
        let (scales, shifts) = (cast::<E::Compute>(&scale), cast::<E::Compute>(&shift));
        let epsilon = 1e-5;
        let norm = LayerNorm {
            gamma: &scales,
            beta: &shifts,
            epsilon,
        };
        // One channel has no variance: its norm divides rounding errors by sqrt(epsilon).
        let loose = if self.channels < 3 { 1e3 } else { 10.0 } * tolerance::<E::Compute>();
        let near = |found: &[f64], expected: &[f64], what: &str| {
            let error = error_beyond_rounding::<E>(found, expected);
            assert!(error < loose, "{what}: {error}");
        };
        for poison in POISONS {
            // More than is needed, and as much.
            let left = Buffer::<E>::around(&a, self.margins.map(|m| 2 - m), poison);
            let right = Buffer::<E>::around(&b, [1, 0, 2, 1], poison);
            let (x, g) = (left.all(), right.view());
            let garbage = Plane::from_fn(self.rows, self.columns, self.channels, |_, _, _| poison);
            let expected = oracle::layer_norm_forward(&a, &scale, &shift, epsilon);
            for (activation, expected) in activated(&expected) {
                let found = self.run::<E>(&garbage, poison, |to| {
                    layer_norm_forward(norm, x, activation, to).unwrap();
                });
                near(&found, &expected.data, "layer norm");
            }
            let expected = oracle::layer_norm_vjp(&a, &scale, epsilon, &b);
            let found = self.run::<E>(&start, poison, |to| layer_norm_vjp(norm, x, g, to).unwrap());
            near(
                &found,
                &sum(&expected.input.data, &start.data),
                "layer norm VJP",
            );
            let mut sums = [vec![0.0; self.channels], vec![0.0; self.channels]];
            let [gammas, betas] = &mut sums;
            layer_norm_parameter_gradient(norm, x, g, gammas, betas).unwrap();
            let error = relative_error(&sums[0], &expected.gamma);
            assert!(error < loose, "gamma gradient: {error}");
            assert!(relative_error(&sums[1], &expected.beta) < 1e-13);
        }
    }

    /// Concatenation of two parts, and its VJP.
    fn check_channels<E: Storage>(&self, extra: usize) {
        let mut values = Values::new(self.seed);
        let first = self.plane::<E>(&mut values);
        let second = stored::<E>(&values.plane(self.rows, self.columns, extra));
        let total = self.channels + extra;
        let joined =
            Plane::from_fn(
                self.rows,
                self.columns,
                total,
                |row, column, channel| match channel.checked_sub(self.channels) {
                    None => first.get(row, column, channel),
                    Some(channel) => second.get(row, column, channel),
                },
            );
        for poison in POISONS {
            let garbage = Plane::from_fn(self.rows, self.columns, total, |_, _, _| poison);
            let a = Buffer::<E>::around(&first, [1, 2, 0, 1], poison);
            let b = Buffer::<E>::around(&second, [0, 1, 1, 2], poison);
            let found = self.run::<E>(&garbage, poison, |mut to| {
                let all = 0..self.channels;
                copy_channels(a.all(), all, to.reborrow(), 0).unwrap();
                copy_channels(b.view(), 0..extra, to, self.channels).unwrap();
            });
            assert_eq!(
                bits(&found),
                bits(&Buffer::<E>::exact(&joined).plane().data)
            );

            let cotangent = Buffer::<E>::around(&joined, [2, 0, 1, 0], poison);
            let ones = Plane::from_fn(self.rows, self.columns, extra, |_, _, _| 1.0);
            let found = self.run::<E>(&ones, poison, |to| {
                let part = self.channels..total;
                accumulate_channels(cotangent.all(), part, to, 0).unwrap();
            });
            let expected: Vec<f64> = second.data.iter().map(|value| value + 1.0).collect();
            let error = error_beyond_rounding::<E>(&found, &expected);
            assert!(error < tolerance::<E::Compute>());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn matches_the_oracle(case in cases()) {
        case.check::<f32>();
        case.check::<f64>();
        case.check::<bf16>();
    }

    #[test]
    fn layer_norm_matches_the_oracle(case in cases()) {
        case.check_norm::<f32>();
        case.check_norm::<f64>();
        case.check_norm::<bf16>();
    }

    #[test]
    fn concatenation_matches_the_oracle(case in cases(), extra in 1..20_usize) {
        case.check_channels::<f32>(extra);
        case.check_channels::<f64>(extra);
        case.check_channels::<bf16>(extra);
    }
}

/// The oracle's own derivatives, by central differences.
#[test]
fn oracle_gradients_are_derivatives() {
    let mut values = Values::new(11);
    let (x, g) = (values.plane(2, 3, 7), values.plane(2, 3, 7));
    let direction = values.plane(2, 3, 7);
    let (gamma, beta) = (values.many(7), values.many(7));
    let along = |step: f64| {
        let moved = x
            .data
            .iter()
            .zip(&direction.data)
            .map(|(x, d)| x + step * d);
        Plane {
            data: moved.collect(),
            ..x
        }
    };
    let check = |function: &dyn Fn(&Plane) -> Plane, gradient: &Plane| {
        let step = 1e-5;
        let difference =
            (function(&along(step)).dot(&g) - function(&along(-step)).dot(&g)) / (2.0 * step);
        let expected = gradient.dot(&direction);
        assert!((difference - expected).abs() < 1e-8 * expected.abs().max(1.0));
    };
    for function in FUNCTIONS {
        check(
            &|x| oracle::pointwise_forward(function, x),
            &oracle::pointwise_vjp(function, &x, &g),
        );
    }
    let norm = oracle::layer_norm_vjp(&x, &gamma, 1e-3, &g);
    check(
        &|x| oracle::layer_norm_forward(x, &gamma, &beta, 1e-3),
        &norm.input,
    );
}

/// As in PyTorch: NaN passes every function, a ReLU lets its cotangent pass and a ReLU6 does not; derivatives are 0 where they bend.
#[test]
fn functions_at_their_edges() {
    let run = |function, input: &[f32]| {
        let at = |values: &[f32]| Plane {
            data: values.iter().copied().map(f64::from).collect(),
            ..Plane::zeros(1, 1, values.len())
        };
        let x = Buffer::<f32>::exact(&at(input));
        let mut y = Buffer::<f32>::exact(&at(input));
        pointwise_forward(function, x.view(), y.view_mut()).unwrap();
        let read = match function.vjp_operand() {
            VjpOperand::Input => x.view(),
            VjpOperand::Output => y.view(),
        };
        let g = Buffer::<f32>::exact(&at(&vec![5.0; input.len()]));
        let mut gradient = vec![0.0_f32; input.len()];
        let to = ViewMut::new(&mut gradient, whole(1, 1), input.len()).unwrap();
        pointwise_vjp(function, read, g.view(), to).unwrap();
        (y.data, gradient)
    };
    for function in FUNCTIONS {
        let (y, _) = run(function, &[f32::NAN, 0.0]);
        assert!(y[0].is_nan() && !y[1].is_nan(), "{function:?}");
    }
    let (y, gradient) = run(Pointwise::Relu, &[f32::NAN, -1.0, 0.0, 2.0]);
    assert_eq!(y[1..], [0.0, 0.0, 2.0]);
    assert_eq!(gradient, [5.0, 0.0, 0.0, 5.0]);
    let (y, gradient) = run(Pointwise::Relu6, &[f32::NAN, -1.0, 0.0, 2.0, 6.0, 7.0]);
    assert_eq!(y[1..], [0.0, 0.0, 2.0, 6.0, 6.0]);
    assert_eq!(gradient, [0.0, 0.0, 0.0, 5.0, 0.0, 0.0]);
    let far = [-1e4, -100.0, 100.0, 1e4];
    let (y, gradient) = run(Pointwise::Sigmoid, &far);
    assert_eq!(y, [0.0, 0.0, 1.0, 1.0]);
    assert_eq!(gradient, [0.0; 4]);
    let (y, gradient) = run(Pointwise::Silu, &far);
    assert_eq!(y, [0.0, 0.0, 100.0, 1e4]);
    assert_eq!(gradient, [0.0, 0.0, 5.0, 5.0]);
}

#[test]
fn threads_change_no_bit() {
    let mut values = Values::new(2);
    let (x, g) = (values.plane(75, 8, 33), values.plane(75, 8, 33));
    let (x, g) = (Buffer::<f32>::exact(&x), Buffer::<f32>::exact(&g));
    let gamma = cast::<f32>(&values.many(33));
    let norm = LayerNorm {
        gamma: &gamma,
        beta: &gamma,
        epsilon: 1e-6,
    };
    let [one, two] = on_one_and_two_threads(|| {
        let mut sums = [vec![0.0; 33], vec![0.0; 33]];
        let [a, b] = &mut sums;
        layer_norm_parameter_gradient(norm, x.view(), g.view(), a, b).unwrap();
        affine_parameter_gradient(x.view(), g.view(), a, b).unwrap();
        sums.map(|sums| bits(&sums))
    });
    assert_eq!(one, two);
}
