//! Arguments that do not fit are refused, and no arguments panic.
#![allow(clippy::unwrap_used, reason = "a test that fails panics")]

mod common;

use common::{Values, moved, whole};
use proptest::prelude::*;
use stream_grad_kernels::{
    Arithmetic, Convolution, DataGradientWeights, Epilogue, Existing, ForwardWeights, KernelError,
    Padding, PerAxis, Rect, Span, View, ViewMut, Window, conv_data_gradient, conv_forward,
    conv_weight_gradient, max_pool_forward,
};

fn is_outside<T>(result: Result<T, KernelError>) -> bool {
    matches!(result, Err(KernelError::Outside { .. }))
}

/// 3 x 3 taps that keep the size.
fn same() -> Window {
    Window::new([3, 3]).padding(Padding::all(1))
}

#[test]
fn shapes_that_do_not_match_are_refused() {
    let convolution = Convolution::new(same(), 2, 4);
    assert_eq!(
        ForwardWeights::<f32>::pack(&convolution, &[0.0_f32; 71]).unwrap_err(),
        KernelError::Length {
            what: "weights",
            expected: 72,
            found: 71
        }
    );
    let weights = ForwardWeights::pack(&convolution, &[0.0_f32; 72]).unwrap();
    let input = [0.0_f32; 18];
    let plane = whole(3, 3);
    let forward = |convolution: &Convolution, channels: usize| {
        let mut output = vec![7.0; 9 * channels];
        let result = conv_forward(
            convolution,
            &weights,
            View::new(&input, plane, 2).unwrap(),
            ViewMut::new(&mut output, plane, channels).unwrap(),
            Epilogue::default(),
            &mut [],
        );
        assert!(
            result.is_ok() || output.iter().all(|&value| value == 7.0),
            "wrote before failing"
        );
        result
    };
    assert!(forward(&convolution, 4).is_ok());
    assert!(matches!(
        forward(&convolution, 5),
        Err(KernelError::Channels {
            expected: 4,
            found: 5,
            ..
        })
    ));
    let parts = |rect: Rect| {
        let mut output = [0.0; 36];
        let to = ViewMut::new(&mut output, plane, 4).unwrap();
        let read = View::new(&input, plane, 2).unwrap().part(rect);
        assert_eq!(read.is_ok(), to.part(rect).is_ok());
        read.map(|read| read.rect())
    };
    assert_eq!(parts(plane), Ok(plane));
    assert!(is_outside(parts(moved(plane, 1, 0))));
    assert!(is_outside(parts(Rect::new(
        Span::new(i64::MAX - 2, i64::MAX),
        plane.columns
    ))));
    let mut output = [7.0; 36];
    let residual = View::new(&input, plane, 2).unwrap().part(whole(2, 3));
    let result = conv_forward(
        &Convolution::new(same(), 2, 2),
        &ForwardWeights::pack(&Convolution::new(same(), 2, 2), &[0.0_f32; 36]).unwrap(),
        View::new(&input, plane, 2).unwrap(),
        ViewMut::new(&mut output[..18], plane, 2).unwrap(),
        Epilogue {
            residual: residual.ok(),
            ..Epilogue::default()
        },
        &mut [],
    );
    assert_eq!(
        result,
        Err(KernelError::Outside {
            what: "convolution residual",
            rect: plane,
            held: whole(2, 3)
        })
    );
    assert!(output.iter().all(|&value| value == 7.0));
    let wider = Convolution {
        window: Window::new([3, 5]).padding(Padding::all(1)),
        ..convolution
    };
    assert_eq!(
        forward(&wider, 4),
        Err(KernelError::Extent {
            what: "packed weights: kernel",
            expected_height: 3,
            expected_width: 5,
            height: 3,
            width: 3,
        })
    );
    let grouped = convolution.groups(2);
    assert_eq!(
        forward(&grouped, 4),
        Err(KernelError::PackedGroups {
            expected: 2,
            found: 1,
        })
    );
    assert!(matches!(
        Convolution::new(Window::new([3, 3]), 3, 4)
            .groups(2)
            .weight_count(),
        Err(KernelError::Groups { .. })
    ));
    assert!(matches!(
        Convolution::new(Window::new([0, 3]), 3, 4).weight_count(),
        Err(KernelError::Zero {
            what: "window kernel"
        })
    ));
}

#[test]
fn scratch_and_arithmetic_are_checked() {
    let winograd = Convolution::new(same(), 528, 32);
    let direct = winograd.arithmetic(Arithmetic::Direct);
    assert!(winograd.is_winograd() && !direct.is_winograd());
    let needed = |convolution: &Convolution| convolution.scratch_len::<f32>().unwrap();
    let weights = vec![0.0_f32; 9 * 528 * 32];
    let input = [0.0_f32; 9 * 528];
    let plane = whole(3, 3);
    let forward = |convolution: &Convolution, packed: &Convolution, scratch: usize| {
        conv_forward(
            convolution,
            &ForwardWeights::pack(packed, &weights).unwrap(),
            View::new(&input, plane, 528).unwrap(),
            ViewMut::new(&mut [0.0; 9 * 32], plane, 32).unwrap(),
            Epilogue::default(),
            &mut vec![0.0; scratch],
        )
    };
    let gradient = |convolution: &Convolution, scratch: usize| {
        conv_weight_gradient(
            convolution,
            View::new(&input, plane, 528).unwrap(),
            View::new(&[0.0; 9 * 32], plane, 32).unwrap(),
            &mut vec![0.0; weights.len()],
            &mut vec![0.0; scratch],
        )
    };
    let is_short = |result| {
        matches!(
            result,
            Err(KernelError::Length {
                what: "convolution scratch",
                ..
            })
        )
    };
    assert_eq!(forward(&winograd, &winograd, needed(&winograd)), Ok(()));
    assert_eq!(forward(&direct, &direct, 0), Ok(()));
    assert!(is_short(forward(&winograd, &winograd, 0)));
    for convolution in [winograd, direct] {
        assert_eq!(gradient(&convolution, needed(&convolution)), Ok(()));
        assert!(is_short(gradient(&convolution, 0)));
    }
    assert!(matches!(
        forward(&direct, &winograd, needed(&winograd)),
        Err(KernelError::Arithmetic {
            expected: "direct",
            ..
        })
    ));
}

/// Extreme numbers: everything is either computed or refused.
fn extreme() -> impl Strategy<Value = usize> {
    prop_oneof![
        0..=4_usize,
        Just(usize::MAX),
        Just(usize::MAX / 2),
        Just(1 << 40)
    ]
}

fn extreme_position() -> impl Strategy<Value = i64> {
    prop_oneof![-3..=3_i64, Just(i64::MIN), Just(i64::MAX), Just(-(1 << 40))]
}

fn extreme_rect() -> impl Strategy<Value = Rect> {
    [0; 4]
        .map(|_| extreme_position())
        .prop_map(|[top, bottom, left, right]| {
            Rect::new(Span::new(top, bottom), Span::new(left, right))
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn no_argument_panics(
        kernel in [1..=3_usize, 1..=3],
        stride in [extreme(), extreme()],
        dilation in [extreme(), extreme()],
        padding in [extreme(), extreme()],
        at in [extreme_position(), extreme_position()],
        outputs in extreme_rect(),
        seed in any::<u64>(),
    ) {
        let padding = Padding { top: padding[0], left: padding[1], ..Padding::default() };
        let window = Window { kernel, stride, dilation, padding };
        let convolution = Convolution::new(window, 2, 3);
        let weights = Values::new(seed).many(6 * window.taps());
        // Anywhere, if there are as many positions.
        let plane = whole(4, 5);
        let held = plane.translate(PerAxis::new(at[0], at[1])).unwrap_or(plane);
        let (input, cotangent) = ([1.0_f64; 40], [1.0_f64; 60]);
        let input = View::new(&input, held, 2).unwrap();
        let cotangent = View::new(&cotangent, plane, 3).unwrap();
        let mut output = [0.0_f64; 60];
        let mut output = ViewMut::new(&mut output, plane, 3).unwrap();
        let part = output.reborrow().part(outputs);
        prop_assert_eq!(part.is_ok(), plane.covers(outputs));
        prop_assert_eq!(cotangent.part(outputs).is_ok(), part.is_ok());
        let (Ok(part), Ok(cotangent)) = (part, cotangent.part(outputs)) else {
            return Ok(());
        };
        // Either is computed or refused.
        if let Ok(weights) = ForwardWeights::pack(&convolution, &weights) {
            let _ = conv_forward(&convolution, &weights, input, part, Epilogue::default(), &mut []);
        }
        let mut gradient = [0.0_f64; 40];
        if let Ok(weights) = DataGradientWeights::pack(&convolution, &weights) {
            let to = ViewMut::new(&mut gradient, held, 2).unwrap();
            let _ = conv_data_gradient(&convolution, &weights, cotangent, to, Existing::Add, &mut []);
        }
        let mut sums = vec![0.0; weights.len()];
        let mut scratch = vec![0.0; convolution.scratch_len::<f64>().unwrap_or(0)];
        let _ = conv_weight_gradient(&convolution, input, cotangent, &mut sums, &mut scratch);
        let wide = View::new(&[1.0_f64; 60], held, 3).unwrap();
        let part = output.part(outputs).unwrap();
        let _ = max_pool_forward(&window, wide, part);
    }

    #[test]
    fn extents_are_checked(
        rows in [extreme_position(), extreme_position()],
        columns in [extreme_position(), extreme_position()],
        channels in extreme(),
    ) {
        let rect = Rect::new(Span::new(rows[0], rows[1]), Span::new(columns[0], columns[1]));
        let pixels = usize::try_from(rect.area()).ok();
        let fits = pixels.and_then(|count| count.checked_mul(channels)) == Some(8);
        prop_assert_eq!(View::new(&[0.0_f32; 8], rect, channels).is_ok(), fits);
    }
}
