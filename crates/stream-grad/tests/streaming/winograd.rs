//! Networks whose convolutions Winograd's arithmetic computes: the same promises, and close to direct arithmetic.

use candle_core::{DType, Device, Tensor};
use candle_nn::{VarBuilder, VarMap};
use stream_grad::{Arithmetic, Conv2d, InputGradient, Net, NetBuilder, PlanRequest};

use crate::networks::tensor;
use crate::promises::{all, list};

pub(crate) const HEIGHT: usize = 45;
pub(crate) const WIDTH: usize = 38;

/// Two residual convolutions of 40 and 70 channels after a stem; strides make tiles begin at odd places.
pub(crate) fn net(dtype: DType) -> (Net, VarMap) {
    let variables = VarMap::new();
    let vb = VarBuilder::from_varmap(&variables, dtype, &Device::Cpu);
    let mut net = NetBuilder::new(3);
    let conv = |from, to| Conv2d::new(from, to, 3).padding(1);
    let x = net
        .conv2d(net.input(), conv(3, 40).stride(2), vb.pp("stem"))
        .unwrap();
    let x = net.relu(x).unwrap();
    let y = net.conv2d(x, conv(40, 70), vb.pp("a")).unwrap();
    let y = net.relu(y).unwrap();
    let y = net.conv2d(y, conv(70, 40), vb.pp("b")).unwrap();
    let x = net.add(x, y).unwrap();
    let x = net.relu(x).unwrap();
    let net = net.build(x).unwrap();
    {
        let variables = variables.data().lock().unwrap();
        let mut names: Vec<&String> = variables.keys().collect();
        names.sort();
        for (seed, name) in (3..).zip(names) {
            let variable = &variables[name];
            let values = tensor(variable.dims(), dtype, seed);
            variable.set(&(values * 0.1).unwrap()).unwrap();
        }
    }
    (net, variables)
}

fn request(dtype: DType) -> PlanRequest {
    PlanRequest::new(HEIGHT as u64, WIDTH as u64)
        .dtype(dtype)
        .input_gradient(InputGradient::Wanted)
}

fn results(net: &Net, dtype: DType, request: PlanRequest) -> Vec<Vec<f64>> {
    let plan = net.plan(request).unwrap();
    let image = tensor(&[1, 3, HEIGHT, WIDTH], dtype, 1);
    let cotangent = tensor(&plan.output_shapes()[0], dtype, 2);
    let tensors: Vec<Tensor> = all(net, &plan, &image, &cotangent);
    tensors.iter().map(list).collect()
}

fn l2_error(found: &[f64], expected: &[f64]) -> f64 {
    let square = |values: &mut dyn Iterator<Item = f64>| values.map(|x| x * x).sum::<f64>();
    let difference = square(&mut found.iter().zip(expected).map(|(a, b)| a - b));
    (difference / square(&mut expected.iter().copied())).sqrt()
}

#[test]
fn features_do_not_depend_on_tiles_and_gradients_hardly() {
    for (dtype, tolerance) in [(DType::F32, 2e-6), (DType::F64, 1e-14)] {
        let (net, _variables) = net(dtype);
        let whole = results(&net, dtype, request(dtype));
        for tile in [2, 10, 14, 30] {
            let tiled = results(&net, dtype, request(dtype).tile(tile));
            assert_eq!(tiled[0], whole[0], "features, tile {tile}");
            for (found, expected) in tiled.iter().zip(&whole) {
                let error = l2_error(found, expected);
                assert!(error < tolerance, "{dtype:?}, tile {tile}: {error}");
            }
        }
    }
}

#[test]
fn threads_and_poison_change_no_bit() {
    let (net, _variables) = net(DType::F32);
    let run = |threads: usize, poison: f64| {
        let request = request(DType::F32).tile(14).threads(threads);
        results(&net, DType::F32, request.poison(poison))
    };
    let one = run(1, 0.0);
    for (threads, poison) in [(2, 0.0), (2, f64::NAN), (1, 1e30), (2, -1e30)] {
        assert_eq!(run(threads, poison), one, "{threads} threads, {poison}");
    }
}

#[test]
fn direct_arithmetic_is_a_choice_and_winograd_is_close_to_it() {
    let (net, _variables) = net(DType::F32);
    let direct = request(DType::F32).arithmetic(Arithmetic::Direct);
    assert!(net.plan(request(DType::F32)).unwrap().is_winograd());
    assert!(!net.plan(direct.clone()).unwrap().is_winograd());
    let found = results(&net, DType::F32, request(DType::F32));
    let expected = results(&net, DType::F32, direct);
    assert_ne!(found[0], expected[0]);
    for (found, expected) in found.iter().zip(&expected) {
        assert!(l2_error(found, expected) < 2e-6);
    }
}
