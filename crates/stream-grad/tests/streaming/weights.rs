//! Weights are those of the forward sweep, whatever copies of them are held: packed, folded or as they are.

use candle_core::{DType, Device, Tensor};
use candle_nn::{VarBuilder, VarMap};
use stream_grad::tiling::Weights;
use stream_grad::{Conv2d, Net, NetBuilder, PlanRequest};

use crate::networks::tensor;
use crate::promises::list;

const EDGE: usize = 22;
const MANY: usize = 232;

/// Convolutions of many and of few weights, direct and Winograd's, grouped and not, each with a norm; the last with a factor.
/// If `apart`, everything before a norm is an output too, so that no norm is folded.
fn net(dtype: DType, apart: bool) -> (Net, VarMap) {
    let variables = VarMap::new();
    let vb = VarBuilder::from_varmap(&variables, dtype, &Device::Cpu);
    let mut net = NetBuilder::new(3);
    let mut outputs = Vec::new();
    let mut x = net.input();
    let convolutions = [
        ("stem", Conv2d::new(3, MANY, 3).stride(2)),
        ("winograd", Conv2d::new(MANY, 40, 3).padding(1)),
        ("wide", Conv2d::new(40, MANY, 3).padding(1).without_bias()),
        ("direct", Conv2d::new(MANY, 6, 3).padding(1).stride(2)),
        ("few", Conv2d::new(6, 10, 1)),
    ];
    for (name, convolution) in convolutions {
        x = net.conv2d(x, convolution, vb.pp(name)).unwrap();
        if apart {
            outputs.push((name.to_owned(), x));
        }
        x = net
            .frozen_batch_norm(x, 1e-3, vb.pp(format!("{name}.norm")))
            .unwrap();
        x = net.relu(x).unwrap();
    }
    x = net.conv2d(x, Conv2d::new(10, 4, 1), vb.pp("last")).unwrap();
    if apart {
        outputs.push(("last".into(), x));
    }
    x = net.scale(x, 0.5, vb.pp("gain")).unwrap();
    outputs.insert(0, ("features".into(), x));
    let net = net.build_named(outputs).unwrap();
    for (seed, parameter) in (1..).zip(net.parameters()) {
        let values = tensor(parameter.tensor.dims(), dtype, seed);
        let values = if parameter.name.contains("var") {
            (values.abs().unwrap() + 0.5).unwrap()
        } else if parameter.name.ends_with("norm.weight") {
            // Factors of 0: what is folded with them is lost.
            let mut values = list(&values);
            values.iter_mut().step_by(3).for_each(|value| *value = 0.0);
            Tensor::new(values, &Device::Cpu)
                .unwrap()
                .to_dtype(dtype)
                .unwrap()
        } else {
            (values * 0.2).unwrap()
        };
        let variables = variables.data().lock().unwrap();
        variables[&parameter.name].set(&values).unwrap();
    }
    (net, variables)
}

/// The gradients of all parameters; with `meanwhile` done between the sweeps.
fn gradients(net: &Net, request: PlanRequest, dtype: DType, meanwhile: impl Fn()) -> Vec<Vec<f64>> {
    let plan = net.plan(request).unwrap();
    let image = tensor(&[1, 3, EDGE, EDGE], dtype, 100);
    let (_, residuals) = plan.forward_all(&image).unwrap();
    meanwhile();
    let shapes = plan.output_shapes();
    let mut cotangents: Vec<Tensor> = shapes
        .iter()
        .map(|shape| Tensor::zeros(&shape[..], dtype, &Device::Cpu).unwrap())
        .collect();
    cotangents[0] = tensor(&shapes[0], dtype, 101);
    let store = plan.vjp(residuals, &cotangents).unwrap();
    let trainable = net.parameters().iter().filter(|p| p.trainable);
    trainable
        .map(|parameter| list(store.get(&parameter.tensor).unwrap()))
        .collect()
}

fn request(dtype: DType) -> PlanRequest {
    PlanRequest::new(EDGE as u64, EDGE as u64).dtype(dtype)
}

#[test]
fn folded_norms_have_the_gradients_of_norms_that_are_not() {
    for (dtype, tolerance) in [(DType::F32, 2e-5), (DType::F64, 1e-12)] {
        let (folded, _variables) = net(dtype, false);
        let (apart, _variables) = net(dtype, true);
        assert!(folded.operation_names().count() < apart.operation_names().count());
        let expected = gradients(&apart, request(dtype), dtype, || ());
        for request in [request(dtype), request(dtype).tile(8)] {
            let found = gradients(&folded, request, dtype, || ());
            let names = folded.parameters().iter().filter(|p| p.trainable);
            for ((found, expected), parameter) in found.iter().zip(&expected).zip(names) {
                let norm = |values: &mut dyn Iterator<Item = f64>| {
                    values.map(|x| x * x).sum::<f64>().sqrt()
                };
                let difference = norm(&mut found.iter().zip(expected).map(|(a, b)| a - b));
                let whole = norm(&mut expected.iter().copied());
                assert!(whole > 0.0, "{}: no gradient at all", parameter.name);
                assert!(
                    difference < tolerance * whole,
                    "{dtype:?}, {}: {difference} of {whole}",
                    parameter.name
                );
            }
        }
    }
}

#[test]
fn a_step_between_the_sweeps_changes_no_gradient() {
    let (net, variables) = net(DType::F32, false);
    let stored: Vec<String> = net.operation_names().map(str::to_owned).skip(1).collect();
    let stored: Vec<&str> = stored.iter().map(String::as_str).collect();
    let base = request(DType::F32).tile(8);
    for request in [
        base.clone(),
        base.clone().segments(2),
        base.clone().stored(stored),
        base.clone().weights(Weights::PackedOnUse),
        base.weights(Weights::PackedOnUse).segments(2),
    ] {
        let (before, expected) = (
            variables
                .all_vars()
                .iter()
                .map(|v| v.copy().unwrap())
                .collect::<Vec<_>>(),
            gradients(&net, request.clone(), DType::F32, || ()),
        );
        let found = gradients(&net, request, DType::F32, || {
            for variable in variables.all_vars() {
                variable
                    .set(
                        &variable
                            .zeros_like()
                            .unwrap()
                            .affine(1.0, f64::NAN)
                            .unwrap(),
                    )
                    .unwrap();
            }
        });
        assert_eq!(found, expected);
        for (variable, before) in variables.all_vars().iter().zip(&before) {
            variable.set(before).unwrap();
        }
    }
}

#[test]
fn weights_that_are_packed_on_use_give_the_same_gradients() {
    for dtype in [DType::F32, DType::F64] {
        let (net, _variables) = net(dtype, false);
        let base = request(dtype).tile(8);
        for request in [
            request(dtype),
            base.clone(),
            base.clone().segments(2),
            base.block(12),
        ] {
            let all = Weights::ALL
                .map(|weights| gradients(&net, request.clone().weights(weights), dtype, || ()));
            assert_eq!(all[0], all[1]);
        }
    }
}

#[test]
fn weights_of_what_is_not_computed_again_are_freed() {
    let (net, _variables) = net(DType::F32, false);
    let names: Vec<String> = net.operation_names().map(str::to_owned).skip(1).collect();
    let bytes = |request: PlanRequest| net.plan(request).unwrap().peak_classes().weights;
    let base = request(DType::F32).tile(8);
    let stored = base.clone().stored(names.iter().map(String::as_str));
    let (all, none) = (bytes(base), bytes(stored.clone()));
    assert_eq!(all.forward, none.forward);
    // Winograd's weights are 16 for each 9.
    let winograd = 2 * 4 * 16 * 40 * MANY as u128;
    assert!(all.backward - none.backward > winograd);
    // A segment that is swept again reads them again.
    assert_eq!(bytes(stored.clone().segments(2)).backward, all.backward);
    // Of those that are packed on use there is one operation's.
    let on_use = bytes(stored.weights(Weights::PackedOnUse));
    let values: usize = net.parameters().iter().map(|p| p.tensor.elem_count()).sum();
    let plain = 4 * values as u128;
    assert!(on_use.backward > plain + winograd / 2 && on_use.backward < plain + winograd);
    assert!(on_use.forward > plain + winograd / 2 && on_use.forward < plain + winograd);
}
