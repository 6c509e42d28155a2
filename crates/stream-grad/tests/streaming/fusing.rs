//! Norms, sums and ReLUs are fused into what comes before them, and nothing changes by it.

use candle_core::{DType, Device, Tensor};
use candle_nn::{VarBuilder, VarMap};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use stream_grad::{Conv2d, Layer, Net, NetBuilder, PlanRequest, Pool2d};

use crate::networks::{Step, fill, step, steps_from, tensor};
use crate::promises::list;
use crate::random_graphs::{cases, planned};

/// ReLUs after an add, an add of a layer to itself, layer norms of few and of many channels, a norm and a factor that stand
/// alone. If `apart`, what they read is an output too, so that none is fused.
fn net(dtype: DType, apart: bool) -> (Net, VarMap) {
    let variables = VarMap::new();
    let vb = VarBuilder::from_varmap(&variables, dtype, &Device::Cpu);
    let mut net = NetBuilder::new(3);
    let mut outputs: Vec<(String, Layer)> = Vec::new();
    let mut relu = |net: &mut NetBuilder, name: &str, x: Layer| {
        if apart {
            outputs.push((name.into(), x));
        }
        net.relu(x).unwrap()
    };
    let pool = Pool2d::new(3).padding(1);
    let convolution = Conv2d::new(3, 5, 3).padding(1);
    let x = net.conv2d(net.input(), convolution, vb.pp("a")).unwrap();
    let y = net.max_pool2d(x, pool.stride(1)).unwrap();
    let x = net.add(x, y).unwrap();
    let x = relu(&mut net, "add", x);
    let x = net.layer_norm(x, 1e-3, vb.pp("few")).unwrap();
    let x = relu(&mut net, "few", x);
    let x = net.add(x, x).unwrap();
    let x = relu(&mut net, "double", x);
    let x = net.conv2d(x, Conv2d::new(5, 37, 1), vb.pp("b")).unwrap();
    let x = net.layer_norm(x, 1e-3, vb.pp("many")).unwrap();
    let x = relu(&mut net, "many", x);
    let x = net.frozen_batch_norm(x, 1e-3, vb.pp("norm")).unwrap();
    let x = relu(&mut net, "norm", x);
    let x = net.max_pool2d(x, pool.stride(2)).unwrap();
    let x = net.scale(x, 0.5, vb.pp("gain")).unwrap();
    let x = relu(&mut net, "gain", x);
    outputs.insert(0, ("features".into(), x));
    let net = net.build_named(outputs).unwrap();
    for (seed, parameter) in (1..).zip(net.parameters()) {
        let values = tensor(parameter.tensor.dims(), dtype, seed);
        // A variance is positive; so is the factor, or the last ReLU would leave nothing of what a ReLU gave.
        let positive = ["var", "gain"]
            .iter()
            .any(|name| parameter.name.contains(name));
        let values = if positive {
            (values.abs().unwrap() + 0.5).unwrap()
        } else {
            values
        };
        let variables = variables.data().lock().unwrap();
        variables[&parameter.name].set(&values).unwrap();
    }
    (net, variables)
}

/// Features and the gradients of all parameters.
fn results(net: &Net, request: PlanRequest, dtype: DType) -> Vec<Vec<f64>> {
    let plan = net.plan(request).unwrap();
    let image = plan.geometry().sized().image();
    let extents = [image.rows, image.columns].map(|extent| usize::try_from(extent).unwrap());
    let image = tensor(
        &[1, net.input_channels(), extents[0], extents[1]],
        dtype,
        50,
    );
    let (features, residuals) = plan.forward_all(&image).unwrap();
    let shapes = plan.output_shapes();
    let mut cotangents: Vec<Tensor> = shapes
        .iter()
        .map(|shape| Tensor::zeros(&shape[..], dtype, &Device::Cpu).unwrap())
        .collect();
    cotangents[0] = tensor(&shapes[0], dtype, 51);
    let store = plan.vjp(residuals, &cotangents).unwrap();
    let trainable = net.parameters().iter().filter(|p| p.trainable);
    let gradients = trainable.map(|p| list(store.get(&p.tensor).unwrap()));
    [list(&features[0])].into_iter().chain(gradients).collect()
}

#[test]
fn relus_are_fused_and_change_no_value() {
    for dtype in [DType::F32, DType::F64] {
        let (fused, _variables) = net(dtype, false);
        let (apart, _variables) = net(dtype, true);
        let relus = |net: &Net| net.operation_names().filter(|n| n.contains("relu")).count();
        assert_eq!((relus(&fused), relus(&apart)), (0, 6));
        for tile in [8, 14, 64] {
            for poison in [0.0, f64::NAN, 1e30] {
                let request = PlanRequest::new(40, 33)
                    .dtype(dtype)
                    .tile(tile)
                    .poison(poison);
                let found = results(&fused, request.clone(), dtype);
                let expected = results(&apart, request, dtype);
                assert!(found[0].iter().any(|&value| value > 0.0));
                assert_eq!(found, expected, "{dtype:?}, tile {tile}");
            }
        }
    }
}

/// A convolution to which its input is added, and a norm or a factor of the sum. If `apart`, the sum is an output too, so that
/// nothing is fused into it.
fn normed_sum(is_norm: bool, apart: bool) -> (Net, VarMap) {
    let variables = VarMap::new();
    let vb = VarBuilder::from_varmap(&variables, DType::F64, &Device::Cpu);
    let mut net = NetBuilder::new(3);
    let convolution = Conv2d::new(3, 3, 3).padding(1);
    let x = net.conv2d(net.input(), convolution, vb.pp("a")).unwrap();
    let sum = net.add(x, net.input()).unwrap();
    let x = if is_norm {
        net.frozen_batch_norm(sum, 1e-3, vb.pp("norm")).unwrap()
    } else {
        net.scale(sum, 0.5, vb.pp("gain")).unwrap()
    };
    let mut outputs = vec![("features".to_owned(), x)];
    if apart {
        outputs.push(("sum".to_owned(), sum));
    }
    let net = net.build_named(outputs).unwrap();
    for (seed, parameter) in (1..).zip(net.parameters()) {
        let values = tensor(parameter.tensor.dims(), DType::F64, seed);
        let values = (values.abs().unwrap() + 0.5).unwrap();
        let variables = variables.data().lock().unwrap();
        variables[&parameter.name].set(&values).unwrap();
    }
    (net, variables)
}

#[test]
fn what_follows_a_sum_applies_to_both_summands() {
    for is_norm in [true, false] {
        let run = |apart| {
            let (net, _variables) = normed_sum(is_norm, apart);
            results(&net, PlanRequest::new(40, 33).dtype(DType::F64), DType::F64)
        };
        let (found, expected) = (run(false), run(true));
        assert_eq!(found.len(), expected.len());
        for (found, expected) in found.iter().zip(&expected) {
            for (a, b) in found.iter().zip(expected) {
                assert!(
                    (a - b).abs() <= 1e-11 * b.abs().max(1.0),
                    "{a}, expected {b}"
                );
            }
        }
    }
}

/// A network and the same one of which every step's output is an output of the network, so that nothing is fused into it.
fn check_apart(steps: &[Step], size: (u64, u64), seed: u64) -> Result<(), TestCaseError> {
    let channels = 2;
    let variables = VarMap::new();
    let build = |apart: bool| {
        let (net, layers) = steps_from(0, steps, channels, DType::F64, &variables);
        let (last, before) = layers.split_last().unwrap();
        let mut outputs = vec![("features".to_owned(), *last)];
        if apart {
            let before = before.iter().enumerate();
            outputs.extend(before.map(|(index, layer)| (format!("before{index}"), *layer)));
        }
        net.build_named(outputs)
    };
    let custom = steps.iter().filter(|step| matches!(step, Step::Custom));
    if custom.count() > 1 {
        return Err(TestCaseError::reject("layers of one name"));
    }
    let (fused, apart) = (build(false).unwrap(), build(true).unwrap());
    fill(&variables, seed);
    let request = || PlanRequest::new(size.0, size.1).dtype(DType::F64);
    planned(&fused, request())?;
    let found = results(&fused, request(), DType::F64);
    let expected = results(&apart, request(), DType::F64);
    for (found, expected) in found.iter().zip(&expected) {
        let scale = expected
            .iter()
            .fold(1e-3_f64, |most, value| most.max(value.abs()));
        prop_assert_eq!(found.len(), expected.len());
        for (a, b) in found.iter().zip(expected) {
            prop_assert!(
                (a - b).abs() <= 1e-10 * scale,
                "{}, expected {} of {}",
                a,
                b,
                scale
            );
        }
    }
    Ok(())
}

#[test]
fn random_networks_compute_the_same_without_fusing() {
    let config = ProptestConfig {
        cases: cases() / 2,
        max_global_rejects: 1 << 20,
        ..ProptestConfig::default()
    };
    let case = (
        prop::collection::vec(step(), 1..6),
        (8_u64..28, 8_u64..28),
        any::<u32>(),
    );
    TestRunner::new(config)
        .run(&case, |(steps, size, seed)| {
            check_apart(&steps, size, seed.into())
        })
        .unwrap();
}
