//! Arguments that do not fit are refused, and no arguments panic.
#![allow(clippy::unwrap_used, reason = "a test that fails panics")]

mod common;

use common::Values;
use proptest::prelude::*;
use stream_grad_kernels::{
    Arithmetic, Convolution, DataGradientWeights, Epilogue, Existing, ForwardWeights, Image,
    ImageMut, KernelError, Position, Region, Window, Windows, conv_data_gradient, conv_forward,
    conv_weight_gradient, max_pool_forward,
};

fn region_error<T>(result: Result<T, KernelError>) -> bool {
    matches!(result, Err(KernelError::RegionOutside { .. }))
}

#[test]
fn shapes_that_do_not_match_are_refused() {
    let convolution = Convolution::new(Window::new([3, 3]), 2, 4);
    assert_eq!(
        ForwardWeights::pack(&convolution, &[0.0_f32; 71]).unwrap_err(),
        KernelError::Length {
            what: "weights",
            expected: 72,
            found: 71
        }
    );
    let weights = ForwardWeights::pack(&convolution, &[0.0_f32; 72]).unwrap();
    let input = [0.0_f32; 18];
    let forward = |convolution: &Convolution, channels: usize, region: Region| {
        let mut output = vec![7.0; 9 * channels];
        let result = conv_forward(
            convolution,
            &weights,
            Image::new(&input, 3, 3, 2).unwrap(),
            Windows::new(region, Position::new(-1, -1)),
            ImageMut::new(&mut output, 3, 3, channels).unwrap(),
            Epilogue::default(),
            &mut [],
        );
        assert!(
            result.is_ok() || output.iter().all(|&value| value == 7.0),
            "wrote before failing"
        );
        result
    };
    let whole = Region::whole(3, 3);
    assert!(forward(&convolution, 4, whole).is_ok());
    assert!(matches!(
        forward(&convolution, 5, whole),
        Err(KernelError::Channels {
            expected: 4,
            found: 5,
            ..
        })
    ));
    assert!(region_error(forward(
        &convolution,
        4,
        Region::new(1, 0, 3, 3)
    )));
    assert!(region_error(forward(
        &convolution,
        4,
        Region::new(usize::MAX, 0, 2, 3)
    )));
    let wider = Convolution {
        window: Window::new([3, 5]),
        ..convolution
    };
    assert!(matches!(
        forward(&wider, 4, whole),
        Err(KernelError::Extent { .. })
    ));
    let grouped = convolution.groups(2);
    assert!(matches!(
        forward(&grouped, 4, whole),
        Err(KernelError::Channels { .. })
    ));
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
    let winograd = Convolution::new(Window::new([3, 3]), 528, 32);
    let direct = winograd.arithmetic(Arithmetic::Direct);
    assert!(winograd.is_winograd() && !direct.is_winograd());
    let needed = |convolution: &Convolution| convolution.scratch_len::<f32>().unwrap();
    let weights = vec![0.0_f32; 9 * 528 * 32];
    let input = [0.0_f32; 9 * 528];
    let windows = Windows::new(Region::whole(3, 3), Position::new(-1, -1));
    let forward = |convolution: &Convolution, packed: &Convolution, scratch: usize| {
        conv_forward(
            convolution,
            &ForwardWeights::pack(packed, &weights).unwrap(),
            Image::new(&input, 3, 3, 528).unwrap(),
            windows,
            ImageMut::new(&mut [0.0; 9 * 32], 3, 3, 32).unwrap(),
            Epilogue::default(),
            &mut vec![0.0; scratch],
        )
    };
    let gradient = |convolution: &Convolution, scratch: usize| {
        conv_weight_gradient(
            convolution,
            Image::new(&input, 3, 3, 528).unwrap(),
            windows,
            Image::new(&[0.0; 9 * 32], 3, 3, 32).unwrap(),
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

fn extreme_position() -> impl Strategy<Value = isize> {
    prop_oneof![
        -3..=3_isize,
        Just(isize::MIN),
        Just(isize::MAX),
        Just(-(1 << 40))
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn no_argument_panics(
        kernel in [1..=3_usize, 1..=3],
        stride in [extreme(), extreme()],
        dilation in [extreme(), extreme()],
        first in [extreme_position(), extreme_position()],
        region in [extreme(), extreme(), extreme(), extreme()],
        seed in any::<u64>(),
    ) {
        let window = Window { kernel, stride, dilation };
        let convolution = Convolution::new(window, 2, 3);
        let weights = Values::new(seed).many(6 * window.taps());
        let first = Position::new(first[0], first[1]);
        let region = Region::new(region[0], region[1], region[2], region[3]);
        let windows = Windows::new(region, first);
        let (input, cotangent) = ([1.0_f64; 40], [1.0_f64; 60]);
        let input = Image::new(&input, 4, 5, 2).unwrap();
        let cotangent = Image::new(&cotangent, 4, 5, 3).unwrap();
        let mut output = [0.0_f64; 60];
        let mut output = ImageMut::new(&mut output, 4, 5, 3).unwrap();
        let inside = region.row.checked_add(region.rows).is_some_and(|end| end <= 4)
            && region.column.checked_add(region.columns).is_some_and(|end| end <= 5);
        if let Ok(weights) = ForwardWeights::pack(&convolution, &weights) {
            let result = conv_forward(
                &convolution, &weights, input, windows, output.reborrow(), Epilogue::default(), &mut [],
            );
            prop_assert!(inside || result.is_err());
        }
        let mut gradient = [0.0_f64; 40];
        if let Ok(weights) = DataGradientWeights::pack(&convolution, &weights) {
            let to = ImageMut::new(&mut gradient, 4, 5, 2).unwrap();
            let result = conv_data_gradient(&convolution, &weights, cotangent, windows, to, Existing::Add, &mut []);
            prop_assert!(inside || result.is_err());
        }
        let mut sums = vec![0.0; weights.len()];
        let mut scratch = vec![0.0; convolution.scratch_len::<f64>().unwrap_or(0)];
        let result =
            conv_weight_gradient(&convolution, input, windows, cotangent, &mut sums, &mut scratch);
        prop_assert!(inside || result.is_err());
        let wide = Image::new(&[1.0_f64; 60], 4, 5, 3).map(|image| {
            max_pool_forward(&window, image, first, output.reborrow(), region)
        });
        prop_assert!(inside || wide.unwrap().is_err());
    }

    #[test]
    fn image_sizes_are_checked(height in extreme(), width in extreme(), channels in extreme()) {
        let fits = height.checked_mul(width).and_then(|count| count.checked_mul(channels)) == Some(8);
        prop_assert_eq!(Image::new(&[0.0_f32; 8], height, width, channels).is_ok(), fits);
    }
}
