//! A ReLU is fused into what comes before it, and nothing changes by it.

use candle_core::{DType, Device, Tensor};
use candle_nn::{VarBuilder, VarMap};
use stream_grad::{Conv2d, Layer, Net, NetBuilder, PlanRequest, Pool2d};

use crate::networks::tensor;
use crate::promises::list;

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
    let x = net.batch_norm(x, 1e-3, vb.pp("norm")).unwrap();
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
    let image = tensor(&[1, 3, 40, 33], dtype, 50);
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
