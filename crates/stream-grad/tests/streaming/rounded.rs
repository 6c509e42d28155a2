//! Plans in bf16: what is stored is rounded, and only that. The same promises as of f32, and layers of the user's own.

use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use proptest::prelude::*;
use stream_grad::tiling::{AxisRule, PerAxis, Window};
use stream_grad::{CandleLayer, InputGradient, Net, NetBuilder, PlanRequest, StreamError, bf16};

use crate::networks::{Step, build, tensor};
use crate::promises::{all, error_ratios, list, steps};
use crate::random_graphs::{Case, case};
use crate::winograd;

fn request(height: usize, width: usize) -> PlanRequest {
    PlanRequest::new(height as u64, width as u64)
        .dtype(DType::BF16)
        .input_gradient(InputGradient::Wanted)
}

/// Features, gradient of the image and of each parameter; of an image and cotangents in f32.
fn results(net: &Net, request: PlanRequest) -> Vec<Vec<f64>> {
    let plan = net.plan(request).unwrap();
    let image = tensor(&plan.as_ref().input_shape(), DType::F32, 1);
    let cotangent = tensor(&plan.output_shapes()[0], DType::F32, 2);
    let results = all(net, &plan, &image, &cotangent);
    results.iter().map(list).collect()
}

fn features(net: &Net, request: PlanRequest) -> Vec<f64> {
    let plan = net.plan(request).unwrap();
    let image = tensor(&plan.as_ref().input_shape(), DType::F32, 1);
    let (features, _) = plan.forward(&image).unwrap();
    assert_eq!(features.dtype(), DType::F32);
    list(&features)
}

#[test]
fn features_are_bitwise_the_same_for_any_tile_and_hold_what_is_stored() {
    let (plain, _plain) = build(&steps(), 3, DType::F32, 8);
    let (wide, _wide) = winograd::net(DType::F32);
    for (net, height, width) in [(plain, 150, 131), (wide, winograd::HEIGHT, winograd::WIDTH)] {
        let whole = features(&net, request(height, width));
        assert!(whole.iter().any(|value| *value != 0.0));
        for value in &whole {
            assert_eq!(f64::from(bf16::from_f64(*value)), *value);
        }
        for tile in [2, 8, 10, 31, 64, 100] {
            let tiled = features(&net, request(height, width).tile(tile));
            assert_eq!(tiled, whole, "tile {tile}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    /// However a random network is cut, and whatever is stored; memory that may not be read is poisoned.
    #[test]
    fn features_of_random_networks_do_not_depend_on_cuts(case in case()) {
        // Candle sums the layer of the user's own in an order that depends on the tile.
        prop_assume!(!case.steps.iter().any(|step| matches!(step, Step::Custom)));
        let (net, _variables) = build(&case.steps, 3, DType::F32, case.seed);
        let cut = |request: PlanRequest| -> Result<Vec<f64>, StreamError> {
            let plan = net.plan(request.dtype(DType::BF16))?;
            let image = case.image(3);
            let (features, _) = plan.forward(&image)?;
            Ok(list(&features))
        };
        let Ok(whole) = cut(case.whole()) else {
            return Ok(());
        };
        let Case { size: (height, width), batch, .. } = case;
        let request = PlanRequest::new(height as u64, width as u64).batch(batch);
        let request = case.cut(&net, request).poison(f64::NAN);
        if let Ok(tiled) = cut(request) {
            let bits = |values: &[f64]| values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
            prop_assert_eq!(bits(&tiled), bits(&whole));
        }
    }
}

#[test]
fn threads_poison_and_a_file_change_no_bit() {
    let folder = tempfile::tempdir().unwrap();
    let (plain, _plain) = build(&steps(), 3, DType::F32, 5);
    let (wide, _wide) = winograd::net(DType::F32);
    for (net, height, width, tile) in [
        (plain, 203, 187, 64),
        (wide, winograd::HEIGHT, winograd::WIDTH, 14),
    ] {
        let request = || request(height, width).tile(tile).segments(2);
        let one = results(&net, request().threads(1));
        let others = [
            request().threads(2),
            request().threads(2).poison(f64::NAN),
            request().threads(1).poison(1e30),
            request().threads(2).offload(folder.path()),
        ];
        for (index, other) in others.into_iter().enumerate() {
            assert_eq!(results(&net, other), one, "request {index}");
        }
    }
}

#[test]
fn streamed_gradients_are_as_accurate_as_those_of_one_tile() {
    for (parameter, median) in error_ratios(&steps(), DType::BF16).into_iter().enumerate() {
        println!("parameter {parameter}: {median}");
        assert!(
            median <= 1.1,
            "parameter {parameter}: streamed error is {median} times that of one tile"
        );
    }
}

#[test]
fn images_may_be_rounded_before() {
    let (net, _variables) = build(&steps(), 3, DType::F32, 3);
    let plan = net.plan(request(70, 60).tile(32)).unwrap();
    let image = tensor(&plan.as_ref().input_shape(), DType::F32, 4);
    let levels = ((image.clone() + 1.0).unwrap() * 127.0).unwrap();
    let rounded = image.to_dtype(DType::BF16).unwrap();
    let bytes = levels.to_dtype(DType::U8).unwrap();
    let widened = |tensor: &Tensor| tensor.to_dtype(DType::F32).unwrap();
    for [one, other] in [[&image, &rounded], [&widened(&bytes), &bytes]] {
        let [one, other] = [one, other].map(|image| list(&plan.forward(image).unwrap().0));
        assert_eq!(one, other);
    }
}

/// A convolution that candle computes, after one of the usual ones.
fn with_local_layer(takes_bf16: bool) -> Net {
    let variables = candle_nn::VarMap::new();
    let vb = candle_nn::VarBuilder::from_varmap(&variables, DType::F32, &Device::Cpu);
    let mut net = NetBuilder::new(3);
    let conv = stream_grad::Conv2d::new(3, 4, 3).padding(1);
    let x = net.conv2d(net.input(), conv, vb.pp("first")).unwrap();
    let window = AxisRule::Window(Window::new(3, 1, 1, 1, 1).unwrap());
    let weight = tensor(&[5, 4, 3, 3], DType::F32, 7);
    let layer = CandleLayer::new("own", PerAxis::both(window), |x, parameters| {
        assert_eq!(x.dtype(), DType::F32);
        x.conv2d(&parameters[0], 0, 1, 1, 1)
    });
    let layer = layer.output_channels(5);
    let weight = candle_core::Var::from_tensor(&weight).unwrap();
    let layer = layer.parameter("own.weight", weight.into_inner());
    let layer = if takes_bf16 {
        layer.takes_bf16()
    } else {
        layer
    };
    let x = net.local(x, Arc::new(layer)).unwrap();
    net.build(x).unwrap()
}

#[test]
fn a_layer_of_the_users_own_is_refused_by_name_unless_it_takes_bf16() {
    let net = with_local_layer(false);
    let refusals = [
        net.plan(request(32, 32)).map(drop).unwrap_err(),
        net.front(&request(32, 32)).map(drop).unwrap_err(),
    ];
    for refusal in refusals {
        assert_eq!(
            refusal.to_string(),
            "layer `own`: dtype is bf16, expected f32 or f64, since it does not say that it takes bf16 (`takes_bf16`)"
        );
    }
    assert!(net.plan(PlanRequest::new(32, 32)).is_ok());
}

/// Its inputs are widened and what it gives is rounded: as far from f32 as that is, and no farther.
#[test]
fn a_layer_of_the_users_own_that_takes_bf16_is_converted() {
    let net = with_local_layer(true);
    let found = results(&net, request(40, 36).tile(16));
    let expected = results(&net, request(40, 36).dtype(DType::F32));
    for (index, (found, expected)) in found.iter().zip(&expected).enumerate() {
        let square = |values: &mut dyn Iterator<Item = f64>| values.map(|x| x * x).sum::<f64>();
        let difference = square(&mut found.iter().zip(expected).map(|(a, b)| a - b));
        let error = (difference / square(&mut expected.iter().copied())).sqrt();
        assert!(error > 0.0 && error < 1e-2, "result {index}: {error}");
    }
}
