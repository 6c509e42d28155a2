//! Pooling against plain loops, over awkward shapes, with poison wherever nothing may be read or written.
#![allow(clippy::unwrap_used, reason = "a test that fails panics")]

mod common;

use common::{
    Buffer, POISONS, Values, bits, error_beyond_rounding, moved, on_one_and_two_threads,
    relative_error, signed, stored, tolerance, whole,
};
use proptest::prelude::*;
use stream_grad_kernels::oracle::{self, Plane};
use stream_grad_kernels::{
    AveragePool, CountIncludePad, Existing, Padding, PerAxis, Rect, Storage, ViewMut, Window,
    avg_pool_forward, avg_pool_vjp, bf16, max_pool_forward, max_pool_vjp,
};

#[derive(Debug, Clone)]
struct Case {
    window: Window,
    channels: usize,
    /// Where the first window begins in the input that is held.
    first: [i64; 2],
    /// Row and column of the first output.
    at: [i64; 2],
    input: [usize; 2],
    outputs: [usize; 2],
    margins: [usize; 4],
    seed: u64,
}

fn axis() -> impl Strategy<Value = (usize, usize, usize, i64, usize, usize)> {
    (
        1..=5_usize,
        1..=4_usize,
        1..=3_usize,
        1..=40_usize,
        0..=20_usize,
    )
        .prop_flat_map(|(kernel, stride, dilation, extent, outputs)| {
            let reach = signed((kernel - 1) * dilation + 2);
            (-reach..=4).prop_map(move |first| (kernel, stride, dilation, first, extent, outputs))
        })
}

fn cases() -> impl Strategy<Value = Case> {
    let channels = prop_oneof![1..=5_usize, 15..=18_usize, 63..=66_usize];
    let places = (any::<[u8; 2]>(), [-3..9_i64, -3..9_i64]);
    (
        axis(),
        axis(),
        channels,
        any::<[u8; 4]>(),
        places,
        any::<u64>(),
    )
        .prop_map(
            |(rows, columns, channels, margins, (padding, at), seed)| Case {
                window: Window {
                    kernel: [rows.0, columns.0],
                    stride: [rows.1, columns.1],
                    dilation: [rows.2, columns.2],
                    padding: Padding {
                        top: usize::from(padding[0] % 4),
                        left: usize::from(padding[1] % 4),
                        ..Padding::default()
                    },
                },
                channels,
                first: [rows.3, columns.3],
                at,
                input: [rows.4, columns.4],
                outputs: [rows.5, columns.5],
                margins: margins.map(|margin| usize::from(margin % 3)),
                seed,
            },
        )
}

impl Case {
    /// Those that are computed.
    fn outputs(&self) -> Rect {
        let [rows, columns] = self.outputs;
        moved(whole(rows, columns), self.at[0], self.at[1])
    }

    /// Row and column of the first pixel of the input that is held.
    fn origin(&self) -> [i64; 2] {
        let before = self.window.padding.before();
        [0, 1].map(|axis| {
            let first = self.at[axis] * signed(self.window.stride[axis]) - signed(before[axis]);
            first - self.first[axis]
        })
    }

    fn in_place(&self, input: Plane) -> Plane {
        let [row, column] = self.origin();
        input.moved(row, column)
    }

    /// Values of few kinds, so that ties are common.
    fn input(&self) -> Plane {
        let mut values = Values::new(self.seed);
        let [height, width] = self.input;
        self.in_place(Plane::from_fn(height, width, self.channels, |_, _, _| {
            (values.next() * 3.0).round()
        }))
    }

    fn cotangent(&self) -> Plane {
        let [rows, columns] = self.outputs;
        let plane = Values::new(!self.seed).plane(rows, columns, self.channels);
        plane.moved(self.at[0], self.at[1])
    }

    fn forward<E: Storage>(&self, poison: f64, pool: impl Fn(ViewMut<'_, E>)) -> Plane {
        let empty = Plane::from_fn(
            self.outputs[0],
            self.outputs[1],
            self.channels,
            |_, _, _| poison,
        );
        let empty = empty.moved(self.at[0], self.at[1]);
        let mut output = Buffer::<E>::around(&empty, self.margins, poison);
        pool(output.view_mut());
        output.assert_poison_kept(poison);
        output.plane()
    }

    fn check<E: Storage>(&self) {
        let ([height, width], outputs) = (self.input, self.outputs());
        let (plane, start) = (
            self.input(),
            self.in_place(Values::new(3).plane(height, width, self.channels)),
        );
        let (start, cotangent) = (stored::<E>(&start), stored::<E>(&self.cotangent()));
        let expected_of = |gradient: &Plane, existing: Existing| -> Vec<f64> {
            let values = gradient.data.iter().zip(&start.data);
            match existing {
                Existing::Add => values.map(|(a, b)| a + b).collect(),
                Existing::Replace => gradient.data.clone(),
            }
        };
        // What is replaced is never read.
        let destination = |existing: Existing, poison: f64| match existing {
            Existing::Add => Buffer::<E>::around(&start, [1, 0, 2, 1], poison),
            Existing::Replace => {
                let mut start = start.clone();
                start.data.fill(poison);
                Buffer::around(&start, [0, 2, 1, 1], poison)
            }
        };

        let expected = oracle::max_pool_forward(&self.window, &plane, outputs);
        let expected_gradient = oracle::max_pool_vjp(&self.window, &plane, &cotangent);
        for poison in POISONS {
            let input = Buffer::<E>::around(&plane, [2, 1, 0, 1], poison);
            let found = self.forward::<E>(poison, |output| {
                max_pool_forward(&self.window, input.view(), output).unwrap();
            });
            assert_eq!(found, expected, "max-pool");
            let cotangent = Buffer::<E>::around(&cotangent, self.margins, poison);
            for existing in [Existing::Add, Existing::Replace] {
                let mut gradient = destination(existing, poison);
                max_pool_vjp(
                    &self.window,
                    input.view(),
                    cotangent.view(),
                    gradient.view_mut(),
                    existing,
                )
                .unwrap();
                gradient.assert_poison_kept(poison);
                let expected = expected_of(&expected_gradient, existing);
                let error = error_beyond_rounding::<E>(&gradient.plane().data, &expected);
                assert!(
                    error < tolerance::<E::Compute>(),
                    "max-pool VJP, {existing:?}"
                );
            }
        }

        // Padding that ends one position after the input.
        let [row, column] = self.origin();
        let end = PerAxis::new(row + signed(height + 1), column + signed(width + 1));
        for (divisor, end) in [
            (CountIncludePad::Yes, None),
            (CountIncludePad::Yes, Some(end)),
            (CountIncludePad::No, None),
            (CountIncludePad::No, Some(end)),
        ] {
            let pool = AveragePool {
                end,
                ..AveragePool::new(self.window, divisor)
            };
            let expected = oracle::avg_pool_forward(&pool, &plane, outputs);
            let expected_gradient = oracle::avg_pool_vjp(&pool, &cotangent, plane.rect());
            for poison in POISONS {
                let input = Buffer::<E>::around(&plane, [1, 1, 2, 0], poison);
                let found = self.forward::<E>(poison, |output| {
                    avg_pool_forward(&pool, input.view(), output).unwrap();
                });
                let error = error_beyond_rounding::<E>(&found.data, &expected.data);
                assert!(error < tolerance::<E::Compute>(), "average-pool");
                let cotangent = Buffer::<E>::around(&cotangent, self.margins, poison);
                for existing in [Existing::Add, Existing::Replace] {
                    let mut gradient = destination(existing, poison);
                    avg_pool_vjp(&pool, cotangent.view(), gradient.view_mut(), existing).unwrap();
                    gradient.assert_poison_kept(poison);
                    let expected = expected_of(&expected_gradient, existing);
                    let error = error_beyond_rounding::<E>(&gradient.plane().data, &expected);
                    assert!(
                        error < tolerance::<E::Compute>(),
                        "average-pool VJP, {existing:?}"
                    );
                }
            }
        }
    }

    /// For those rows of the input.
    fn max_gradient(&self, input: &Plane, rows: std::ops::Range<usize>) -> Vec<f64> {
        let cotangent = Buffer::<f64>::exact(&self.cotangent());
        let [_, width] = self.input;
        let [row, column] = self.origin();
        let start = Plane::zeros(rows.len(), width, self.channels);
        let start = start.moved(row + signed(rows.start), column);
        let mut gradient = Buffer::<f64>::exact(&start);
        max_pool_vjp(
            &self.window,
            Buffer::<f64>::exact(input).view(),
            cotangent.view(),
            gradient.view_mut(),
            Existing::Add,
        )
        .unwrap();
        gradient.data
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn matches_the_oracle(case in cases()) {
        case.check::<f32>();
        case.check::<f64>();
        case.check::<bf16>();
    }

    /// A cotangent buffer that holds some rows only gets what the whole one gets there.
    #[test]
    fn max_pool_gradient_may_go_to_a_part_of_the_plane(case in cases(), from in 0..40_usize) {
        let [height, width] = case.input;
        let (input, from) = (case.input(), from % height);
        let whole = case.max_gradient(&input, 0..height);
        let part = case.max_gradient(&input, from..height);
        prop_assert_eq!(bits(&part), bits(&whole[from * width * case.channels..]));
    }
}

fn stem() -> Case {
    Case {
        window: Window::new([3, 3]).stride([2, 2]).padding(Padding::all(1)),
        channels: 20,
        first: [-1, -1],
        at: [0, 0],
        input: [70, 31],
        outputs: [35, 16],
        margins: [0; 4],
        seed: 5,
    }
}

#[test]
fn threads_change_no_bit() {
    let case = stem();
    let input = case.input();
    let [one, two] = on_one_and_two_threads(|| bits(&case.max_gradient(&input, 0..70)));
    assert_eq!(one, two);
}

#[test]
fn nan_wins_and_takes_the_gradient() {
    let case = stem();
    let mut input = case.input();
    *input.at(8, 8, 3) = f64::NAN;
    *input.at(8, 9, 3) = f64::NAN;
    let found = case.forward::<f64>(0.0, |output| {
        max_pool_forward(&case.window, Buffer::exact(&input).view(), output).unwrap();
    });
    let expected = oracle::max_pool_forward(&case.window, &input, case.outputs());
    assert_eq!(bits(&found.data), bits(&expected.data));
    assert!(found.get(4, 4, 3).is_nan() && !found.get(4, 4, 2).is_nan());
    let expected = oracle::max_pool_vjp(&case.window, &input, &case.cotangent());
    let found = case.max_gradient(&input, 0..70);
    assert!(relative_error(&found, &expected.data) < 1e-13);
}
