//! Packed weights can be read again.
#![allow(clippy::unwrap_used, reason = "a test that fails panics")]

mod common;

use common::{Values, cast, rounding, tolerance};
use proptest::prelude::*;
use stream_grad_kernels::{
    Arithmetic, Convolution, DataGradientWeights, Element, KernelError, Storage, Window, bf16,
};

fn check<E: Storage>(convolution: &Convolution, seed: u64) {
    let values = cast::<E>(&Values::new(seed).many(convolution.weight_count().unwrap()));
    let values: Vec<E::Compute> = values.iter().map(|value| value.widen()).collect();
    let packed = DataGradientWeights::<E>::pack(convolution, &values).unwrap();
    let filter_len = values.len() / convolution.out_channels;
    // A transform's products are up to 2.25 times the largest weight, and up to four of them are rounded.
    let bound = if convolution.is_winograd() {
        tolerance::<E::Compute>() + 8.0 * rounding::<E>()
    } else {
        0.0
    };
    let mut filter = vec![f64::NAN; filter_len];
    for (output, expected) in values.chunks_exact(filter_len).enumerate() {
        packed.unpack_filter(output, &mut filter).unwrap();
        for (found, expected) in filter.iter().zip(expected) {
            assert!(
                (found - expected.to_f64()).abs() <= bound,
                "{found}, {expected:?}"
            );
        }
    }
    assert_eq!(
        packed.unpack_filter(convolution.out_channels, &mut filter),
        Err(KernelError::NoSuchChannel {
            what: "output channel",
            found: convolution.out_channels,
            count: convolution.out_channels,
        })
    );
    assert_eq!(
        packed.unpack_filter(0, &mut vec![0.0; filter_len + 1]),
        Err(KernelError::Length {
            what: "filter",
            expected: filter_len,
            found: filter_len + 1,
        })
    );
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn filters_are_unpacked_as_they_were_packed(
        kernel in prop_oneof![Just([3, 3]), [1..=4_usize, 1..=4_usize]],
        group_in in prop_oneof![1..=3_usize, 30..=140_usize],
        group_out in prop_oneof![1..=3_usize, 30..=70_usize],
        groups in 1..=3_usize,
        direct in any::<bool>(),
        seed in any::<u64>(),
    ) {
        let (inputs, outputs) = (group_in * groups, group_out * groups);
        let mut convolution = Convolution::new(Window::new(kernel), inputs, outputs).groups(groups);
        if direct {
            convolution.arithmetic = Arithmetic::Direct;
        }
        check::<f32>(&convolution, seed);
        check::<f64>(&convolution, seed);
        check::<bf16>(&convolution, seed);
    }

    #[test]
    fn depthwise_filters_are_unpacked_as_they_were_packed(
        kernel in [1..=7_usize, 1..=7_usize],
        channels in 1..=90_usize,
        seed in any::<u64>(),
    ) {
        let convolution = Convolution::new(Window::new(kernel), channels, channels).groups(channels);
        check::<f32>(&convolution, seed);
        check::<f64>(&convolution, seed);
        check::<bf16>(&convolution, seed);
    }
}
