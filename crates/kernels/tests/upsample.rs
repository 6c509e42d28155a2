//! Upsampling of rectangles of planes, against plain loops on whole planes.
#![allow(clippy::unwrap_used, reason = "a test that fails panics")]

mod common;

use common::{
    Buffer, POISONS, Values, error_beyond_rounding, moved, relative_error, signed, stored,
    tolerance, whole,
};
use proptest::prelude::*;
use stream_grad_kernels::oracle::{self, Plane};
use stream_grad_kernels::{
    AlignCorners, Interpolation, KernelError, Rect, Storage, Upsample, bf16, upsample_forward,
    upsample_vjp,
};

const INTERPOLATIONS: [Interpolation; 3] = [
    Interpolation::Nearest,
    Interpolation::Bilinear(AlignCorners::No),
    Interpolation::Bilinear(AlignCorners::Yes),
];

#[derive(Debug, Clone)]
struct Case {
    upsample: Upsample,
    channels: usize,
    /// First row and column of the outputs in their plane, and how many there are.
    origin: [usize; 2],
    extent: [usize; 2],
    margins: [usize; 4],
    seed: u64,
}

fn axis() -> impl Strategy<Value = (usize, usize, usize, usize)> {
    (1..=4_usize, 1..=9_usize).prop_flat_map(|(factor, plane)| {
        (0..factor * plane).prop_flat_map(move |first| {
            (1..=factor * plane - first).prop_map(move |count| (factor, plane, first, count))
        })
    })
}

fn cases() -> impl Strategy<Value = Case> {
    (
        axis(),
        axis(),
        0..3_usize,
        1..=20_usize,
        any::<[u8; 4]>(),
        any::<u64>(),
    )
        .prop_map(
            |(rows, columns, interpolation, channels, margins, seed)| Case {
                upsample: Upsample {
                    factor: [rows.0, columns.0],
                    interpolation: INTERPOLATIONS[interpolation],
                    plane: [rows.1, columns.1],
                },
                channels,
                origin: [rows.2, columns.2],
                extent: [rows.3, columns.3],
                margins: margins.map(|margin| usize::from(margin % 3)),
                seed,
            },
        )
}

impl Case {
    fn outputs(&self) -> Rect {
        let [rows, columns] = self.extent;
        moved(
            whole(rows, columns),
            signed(self.origin[0]),
            signed(self.origin[1]),
        )
    }

    /// What the outputs read of the input, found by the oracle.
    fn needed(&self) -> Rect {
        let [row_factor, column_factor] = self.upsample.factor;
        let [height, width] = self.upsample.plane;
        let ones = Plane::from_fn(
            height * row_factor,
            width * column_factor,
            1,
            |row, column, _| {
                let inside = (self.origin[0]..self.origin[0] + self.extent[0]).contains(&row)
                    && (self.origin[1]..self.origin[1] + self.extent[1]).contains(&column);
                f64::from(u8::from(inside))
            },
        );
        let read = oracle::upsample_vjp(&self.upsample, &ones);
        let rows: Vec<usize> = (0..height)
            .filter(|&row| (0..width).any(|column| read.get(row, column, 0) > 0.0))
            .collect();
        let columns: Vec<usize> = (0..width)
            .filter(|&column| (0..height).any(|row| read.get(row, column, 0) > 0.0))
            .collect();
        let extent = |of: &[usize]| of[of.len() - 1] + 1 - of[0];
        moved(
            whole(extent(&rows), extent(&columns)),
            signed(rows[0]),
            signed(columns[0]),
        )
    }

    fn check<E: Storage>(&self) {
        let mut values = Values::new(self.seed);
        let [height, width] = self.upsample.plane;
        let plane = stored::<E>(&values.plane(height, width, self.channels));
        let expected = oracle::upsample_forward(&self.upsample, &plane);
        let (outputs, needed) = (self.outputs(), self.needed());
        let expected = expected.part(outputs);
        let in_place = |plane: Plane, rect: Rect| plane.moved(rect.rows.lo, rect.columns.lo);
        let cotangent = values.plane(self.extent[0], self.extent[1], self.channels);
        let cotangent = in_place(stored::<E>(&cotangent), outputs);
        let start = Plane::zeros_of(needed, self.channels);
        let start = values.plane(start.height, start.width, self.channels);
        let start = in_place(stored::<E>(&start), needed);
        let [row_factor, column_factor] = self.upsample.factor;
        let mut whole = Plane::zeros(height * row_factor, width * column_factor, self.channels);
        for row in 0..self.extent[0] {
            for column in 0..self.extent[1] {
                for channel in 0..self.channels {
                    *whole.at(self.origin[0] + row, self.origin[1] + column, channel) =
                        cotangent.get(row, column, channel);
                }
            }
        }
        let gradient = oracle::upsample_vjp(&self.upsample, &whole);
        let gradient = gradient.part(needed);
        let gradient: Vec<f64> = gradient
            .data
            .iter()
            .zip(&start.data)
            .map(|(a, b)| a + b)
            .collect();

        for poison in POISONS {
            // Buffers may reach beyond the planes.
            let input = Buffer::<E>::around(&plane.part(needed), [1, 3, 0, 2], poison);
            let mut garbage = expected.clone();
            garbage.data.fill(poison);
            let mut output = Buffer::<E>::around(&garbage, self.margins, poison);
            upsample_forward(&self.upsample, input.all(), output.view_mut()).unwrap();
            output.assert_poison_kept(poison);
            let error = error_beyond_rounding::<E>(&output.plane().data, &expected.data);
            assert!(error < tolerance::<E::Compute>(), "forward");

            let cotangent = Buffer::<E>::around(&cotangent, self.margins, poison);
            let mut sums = Buffer::<E>::around(&start, [2, 0, 1, 1], poison);
            upsample_vjp(&self.upsample, cotangent.view(), sums.view_mut()).unwrap();
            sums.assert_poison_kept(poison);
            let error = error_beyond_rounding::<E>(&sums.plane().data, &gradient);
            assert!(error < tolerance::<E::Compute>(), "VJP");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn matches_the_oracle(case in cases()) {
        case.check::<f32>();
        case.check::<f64>();
        case.check::<bf16>();
    }
}

/// More channels than a task sums at once for several pixels, or for one.
#[test]
fn many_channels_match_the_oracle() {
    for channels in [300, 700, 4100] {
        for interpolation in INTERPOLATIONS {
            let case = Case {
                upsample: Upsample {
                    factor: [3, 2],
                    interpolation,
                    plane: [2, 20],
                },
                channels,
                origin: [1, 1],
                extent: [4, 38],
                margins: [0, 1, 2, 1],
                seed: 7,
            };
            case.check::<f32>();
            case.check::<bf16>();
        }
    }
}

/// Values that PyTorch's `interpolate` gives for [0, 1, 2] by a factor of 2.
#[test]
fn bilinear_is_that_of_pytorch() {
    let input = Buffer::<f64>::exact(&Plane::from_fn(1, 3, 1, |_, column, _| {
        f64::from(u8::try_from(column).unwrap())
    }));
    for (align, expected) in [
        (AlignCorners::No, [0.0, 0.25, 0.75, 1.25, 1.75, 2.0]),
        (AlignCorners::Yes, [0.0, 0.4, 0.8, 1.2, 1.6, 2.0]),
    ] {
        let interpolation = Interpolation::Bilinear(align);
        let upsample = Upsample {
            factor: [1, 2],
            interpolation,
            plane: [1, 3],
        };
        let mut output = Buffer::<f64>::exact(&Plane::zeros(1, 6, 1));
        upsample_forward(&upsample, input.view(), output.view_mut()).unwrap();
        assert!(relative_error(&output.data, &expected) < 1e-15);
    }
}

#[test]
fn a_missing_input_is_an_error() {
    let interpolation = Interpolation::Bilinear(AlignCorners::No);
    let upsample = Upsample {
        factor: [2, 2],
        interpolation,
        plane: [4, 4],
    };
    let input = Buffer::<f32>::exact(&Plane::zeros(2, 4, 1));
    let forward = |first: i64| {
        let mut output = Buffer::<f32>::exact(&Plane::zeros(4, 8, 1).moved(first, 0));
        upsample_forward(&upsample, input.view(), output.view_mut())
    };
    assert!(matches!(
        forward(0),
        Err(KernelError::PositionOutside { .. })
    ));
    assert!(matches!(forward(5), Err(KernelError::Outside { .. })));
    assert!(matches!(forward(-1), Err(KernelError::Outside { .. })));
}
