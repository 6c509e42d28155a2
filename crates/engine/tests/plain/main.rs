//! A second backend runs whole networks through the same sweeps: what the engine asks of a backend is all that it needs.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod backend;
mod definitions;
mod one_color;
mod packing;
mod values;

use std::ops::Range;

use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use stream_grad_engine::tiling::TilingError;
use stream_grad_engine::{
    AlignCorners, Backend, Conv2d, ConvTranspose2d, CountIncludePad, Cpu, Exchange, Gelu,
    GradientSums, InputGradient, Layer, Model, NetworkBuilder, OwnedGradients, OwnedModel,
    OwnedParameters, Padding, ParameterId, Plan, PlanRequest, Pointwise, Pool2d, Result,
    StreamError, WholeMaps,
};

use backend::Plain;

/// Every operator, in an order that a seed decides, on a few channels.
fn model(steps: &[u8], seed: u64) -> Result<OwnedModel> {
    let mut own = OwnedParameters::new(seed);
    let mut net = NetworkBuilder::new(2);
    let mut x = net.input();
    for step in steps {
        x = push(&mut net, &mut own, x, *step)?;
    }
    OwnedModel::new(net, vec![("features".into(), x)], own)
}

/// How many kinds of steps there are.
const STEPS: u8 = 23;

fn push(net: &mut NetworkBuilder, own: &mut OwnedParameters, x: Layer, step: u8) -> Result<Layer> {
    let channels = net.channels(x)?;
    let conv = Conv2d::new(channels, 4, 3).padding(1);
    let pool = Pool2d::new(3).stride(2).padding(1);
    Ok(match step % STEPS {
        0 => net.conv2d(x, conv, "", own)?,
        1 => {
            let y = net.conv2d(x, conv.stride(2), "", own)?;
            let y = net.frozen_batch_norm(y, 1e-3, "", own)?;
            net.pointwise(y, Pointwise::Relu)?
        }
        2 => {
            let conv = Conv2d::new(channels, channels, 3).padding(1).without_bias();
            let y = net.conv2d(x, conv.groups(channels), "", own)?;
            let y = net.frozen_batch_norm(y, 1e-3, "", own)?;
            let y = net.add(y, x)?;
            net.pointwise(y, Pointwise::Relu)?
        }
        3 => net.max_pool2d(x, pool)?,
        4 => net.avg_pool2d(x, pool, CountIncludePad::Yes)?,
        5 => net.avg_pool2d(x, pool.stride(1), CountIncludePad::No)?,
        6 => net.layer_norm(x, 1e-2, "", own)?,
        7 => {
            let y = net.scale(x, 0.5, "", own)?;
            net.pointwise(y, Pointwise::Relu)?
        }
        8 => net.pointwise(x, Pointwise::Gelu(Gelu::Exact))?,
        9 => net.pointwise(x, Pointwise::Gelu(Gelu::Tanh))?,
        10 => net.upsample_nearest(x, 2)?,
        11 => net.upsample_bilinear(x, 2, AlignCorners::No)?,
        12 => net.upsample_bilinear(x, 3, AlignCorners::Yes)?,
        13 => {
            let up = ConvTranspose2d::new(channels, 3, 3).stride(2).padding(1);
            net.conv_transpose2d(x, up.output_padding(1), "", own)?
        }
        14 => {
            let up = ConvTranspose2d::new(channels, 2 * channels, 2).dilation(2);
            let up = up.groups(channels).without_bias();
            net.conv_transpose2d(x, up, "", own)?
        }
        15 => {
            let y = net.conv2d(x, conv, "", own)?;
            let y = net.frozen_batch_norm(y, 1e-3, "", own)?;
            let y = net.layer_scale(y, 9.0, "", own)?;
            net.pointwise(y, Pointwise::Relu6)?
        }
        16 => net.pointwise(x, Pointwise::Silu)?,
        17 => {
            let gate = net.conv2d(x, Conv2d::new(channels, channels, 1), "", own)?;
            let gate = net.pointwise(gate, Pointwise::Sigmoid)?;
            net.multiply(x, gate)?
        }
        18 => {
            let y = net.multiply(x, x)?;
            net.layer_scale(y, 0.5, "", own)?
        }
        19 => net.max_pool2d(x, pool.ceil_mode())?,
        20 => net.avg_pool2d(x, pool.ceil_mode(), CountIncludePad::Yes)?,
        21 => net.conv2d(
            x,
            Conv2d::new(channels, 3, 4).dilation(3).padding_same(),
            "",
            own,
        )?,
        _ => {
            let y = net.pointwise(x, Pointwise::Relu)?;
            let y = net.concat(&[x, y])?;
            net.add(y, y)?
        }
    })
}

/// Features, input gradient and gradients of parameters.
fn run<B: Backend<Stored = f64>>(
    backend: &B,
    model: &OwnedModel,
    request: PlanRequest,
) -> Result<Vec<Vec<f64>>> {
    let plan = Plan::on(backend, model.network(), request)?;
    let image = WholeMaps::<f64>::noise(&[plan.input_shape()]);
    let mut features = WholeMaps::<f64>::zeros(&plan.output_shapes());
    let residuals = plan.forward_on(backend, model.values(), &image, &mut features)?;
    let mut cotangents = WholeMaps::<f64>::noise(&plan.output_shapes());
    let mut input_gradient = WholeMaps::<f64>::zeros(&[plan.input_shape()]);
    let exchange = Exchange {
        cotangents: &mut cotangents,
        input_gradient: Some(&mut input_gradient),
        taps: None,
    };
    let mut gradients = OwnedGradients::default();
    plan.vjp_on(backend, residuals, exchange, &mut gradients)?;
    let maps = [features, input_gradient].map(|maps| maps.into_maps().swap_remove(0).data);
    let parameters = 0..model.network().parameters().len();
    let parameters =
        parameters.filter_map(|id| gradients.get(ParameterId(id)).map(<[f64]>::to_vec));
    Ok(maps.into_iter().chain(parameters).collect())
}

/// A plan; an image that is too small for its network, or has fewer bands than segments, is rejected.
fn planned_or_rejected<B: Backend>(
    backend: &B,
    model: &OwnedModel,
    request: PlanRequest,
) -> Result<Plan, TestCaseError> {
    match Plan::on(backend, model.network(), request) {
        Err(StreamError::Geometry(
            error @ (TilingError::InputTooSmall { .. }
            | TilingError::Cut {
                what: "the number of segments",
                ..
            }),
        )) => Err(TestCaseError::reject(error.to_string())),
        planned => Ok(planned.unwrap()),
    }
}

fn check(steps: &[u8], size: (u64, u64), tile: u64, seed: u64) -> Result<(), TestCaseError> {
    let model = model(steps, seed).unwrap();
    let whole = || PlanRequest::new(size.0, size.1).input_gradient(InputGradient::Wanted);
    let expected = match run(&Plain::default(), &model, whole()) {
        Err(StreamError::Geometry(error @ TilingError::InputTooSmall { .. })) => {
            return Err(TestCaseError::reject(error.to_string()));
        }
        expected => expected.unwrap(),
    };
    // In one piece on one backend, in tiles on either.
    let tiled = || whole().tile(tile).poison(f64::NAN);
    let found = [
        run(&Plain::default(), &model, tiled()).unwrap(),
        run(&Cpu::<f64>::new(), &model, tiled()).unwrap(),
    ];
    for found in found {
        prop_assert_eq!(found.len(), expected.len());
        for (found, expected) in found.iter().zip(&expected) {
            let scale = expected
                .iter()
                .fold(1e-3_f64, |most, value| most.max(value.abs()));
            prop_assert_eq!(found.len(), expected.len());
            for (a, b) in found.iter().zip(expected) {
                prop_assert!(
                    (a - b).abs() <= 1e-9 * scale,
                    "{}, expected {} of {}",
                    a,
                    b,
                    scale
                );
            }
        }
    }
    Ok(())
}

#[test]
fn whole_networks_run_on_a_second_backend() {
    let config = ProptestConfig {
        cases: 200,
        max_global_rejects: 1 << 16,
        ..ProptestConfig::default()
    };
    let case = (
        prop::collection::vec(any::<u8>(), 1..5),
        (6_u64..18, 6_u64..18),
        2_u64..10,
        any::<u64>(),
    );
    TestRunner::new(config)
        .run(&case, |(steps, size, tile, seed)| {
            check(&steps, size, tile, seed)
        })
        .unwrap();
}

#[test]
fn every_operator_runs_on_a_second_backend() {
    for step in 0..STEPS {
        check(&[0, step, 0], (14, 11), 5, u64::from(step)).unwrap();
    }
}

#[test]
fn an_operator_that_a_backend_lacks_is_refused_by_name() {
    let model = model(&[0, 8], 1).unwrap();
    let backend = Plain {
        lacks: vec!["gelu"],
    };
    let refused = Plan::on(&backend, model.network(), PlanRequest::new(20, 20)).err();
    assert!(
        matches!(&refused, Some(StreamError::Unsupported { layer, kind: "gelu", backend: "plain" }) if layer == "gelu2"),
        "{refused:?}"
    );
    assert!(Plan::on(&Plain::default(), model.network(), PlanRequest::new(20, 20)).is_ok());
}

#[test]
fn padding_may_differ_from_side_to_side() {
    let mut own = OwnedParameters::new(3);
    let mut net = NetworkBuilder::new(2);
    let mut conv = Conv2d::new(2, 3, 4).stride(2);
    conv.padding = Padding {
        top: 3,
        bottom: 0,
        left: 1,
        right: 2,
    };
    let x = net.conv2d(net.input(), conv, "conv", &mut own).unwrap();
    let model = OwnedModel::new(net, vec![("features".into(), x)], own).unwrap();
    let request = || PlanRequest::new(13, 17).input_gradient(InputGradient::Wanted);
    let expected = run(&Plain::default(), &model, request()).unwrap();
    let found = run(&Cpu::<f64>::new(), &model, request().tile(4)).unwrap();
    for (a, b) in found.iter().flatten().zip(expected.iter().flatten()) {
        assert!(
            (a - b).abs() <= 1e-11 * b.abs().max(1.0),
            "{a}, expected {b}"
        );
    }
}

#[test]
fn blocks_merge_on_a_second_backend() {
    let model = model(&[0, 1, 15], 5).unwrap();
    let backend = Plain::default();
    let plan = Plan::on(&backend, model.network(), PlanRequest::new(20, 18).block(8)).unwrap();
    let image = WholeMaps::<f64>::noise(&[plan.input_shape()]);
    let mut cotangents = WholeMaps::<f64>::noise(&plan.output_shapes());
    let mut features = WholeMaps::<f64>::zeros(&plan.output_shapes());
    let values = model.values();
    let blocks = plan.blocks();
    assert!(blocks > 3, "{blocks}");

    let mut sweep = |range: Range<usize>, sums: &mut GradientSums| {
        let residuals = plan
            .forward_blocks_on(&backend, values, &image, &mut features, range)
            .unwrap();
        let exchange = Exchange {
            cotangents: &mut cotangents,
            input_gradient: None,
            taps: None,
        };
        plan.vjp_blocks_on(&backend, residuals, exchange, sums)
            .unwrap();
    };
    let mut at_once = GradientSums::new();
    sweep(0..blocks, &mut at_once);
    let mut in_two = GradientSums::new();
    sweep(2..blocks, &mut in_two);
    sweep(0..2, &mut in_two);
    assert_eq!(at_once, in_two);

    let mut gradients = OwnedGradients::default();
    plan.gradients_on(&backend, values, at_once, &mut gradients)
        .unwrap();
    let found = gradients.get(ParameterId(0)).unwrap();
    assert!(found.iter().any(|value| *value != 0.0), "{found:?}");
}
