//! Memory that stays between steps changes no result, whoever used it before.

use candle_core::{DType, Device, Tensor};
use candle_nn::{VarBuilder, VarMap};
use stream_grad::{Conv2d, Net, NetBuilder, Plan, PlanRequest, Pool2d, Workspace};

use crate::networks::tensor;

fn net(dtype: DType) -> Net {
    let variables = VarMap::new();
    let vb = VarBuilder::from_varmap(&variables, dtype, &Device::Cpu);
    let mut net = NetBuilder::new(3);
    let conv = |from, to| Conv2d::new(from, to, 3).padding(1);
    let x = net.conv2d(net.input(), conv(3, 32), vb.pp("a")).unwrap();
    let x = net.relu(x).unwrap();
    let x = net.max_pool2d(x, Pool2d::new(2).stride(2)).unwrap();
    let y = net.conv2d(x, conv(32, 32), vb.pp("b")).unwrap();
    let x = net.add(x, y).unwrap();
    net.build(x).unwrap()
}

/// Every bit of the gradients of one step.
fn bits(net: &Net, plan: &Plan, image: &Tensor) -> Vec<u64> {
    let (features, residuals) = plan.forward(image).unwrap();
    let loss = features.sqr().unwrap().sum_all().unwrap();
    let store = plan.backward(residuals, &features, &loss).unwrap();
    let gradients = net.parameters().iter().flat_map(|parameter| {
        let gradient = store.get(&parameter.tensor).unwrap();
        let gradient = gradient.to_dtype(DType::F64).unwrap();
        gradient.flatten_all().unwrap().to_vec1::<f64>().unwrap()
    });
    gradients.map(f64::to_bits).collect()
}

#[test]
fn plans_that_share_memory_compute_as_if_alone() {
    let workspace = Workspace::new();
    let folder = tempfile::tempdir().unwrap();
    let cases: Vec<_> = [DType::F32, DType::F64]
        .into_iter()
        .flat_map(|dtype| {
            let net = net(dtype);
            let size = |edge: u64| PlanRequest::new(edge, edge).dtype(dtype);
            [
                size(96),
                size(160).tile(40),
                size(96).tile(32).segments(2),
                size(160).tile(40).block(80).batch(2),
                size(96).tile(40).offload(folder.path()),
            ]
            .map(|request| {
                let plan = net.plan(request.clone()).unwrap();
                let [rows, columns] = {
                    let image = plan.recipe().image;
                    [image.rows, image.columns].map(|edge| usize::try_from(edge).unwrap())
                };
                let batch = plan.output_shapes()[0][0];
                let image = tensor(&[batch, 3, rows, columns], dtype, 7);
                let expected = bits(&net, &plan, &image);
                let sharing = net.plan(request.workspace(&workspace)).unwrap();
                (net.clone(), sharing, image, expected)
            })
        })
        .collect();
    for round in 0..2 {
        for (net, plan, image, expected) in cases.iter().chain(cases.iter().rev()) {
            assert!(bits(net, plan, image) == *expected, "round {round}: {plan}");
        }
        workspace.release();
    }
}

#[test]
fn steps_may_run_inside_each_other() {
    let net = net(DType::F32);
    let plan = net.plan(PlanRequest::new(96, 96).tile(32)).unwrap();
    let images = [1, 2].map(|seed| tensor(&[1, 3, 96, 96], DType::F32, seed));
    let alone = images.each_ref().map(|image| bits(&net, &plan, image));
    let started = images.each_ref().map(|image| plan.forward(image).unwrap());
    let gradients = started.map(|(features, residuals)| {
        let loss = features.sqr().unwrap().sum_all().unwrap();
        plan.backward(residuals, &features, &loss).unwrap()
    });
    for (store, alone) in gradients.iter().zip(alone) {
        let values = net.parameters().iter().flat_map(|parameter| {
            let gradient = store.get(&parameter.tensor).unwrap();
            gradient.flatten_all().unwrap().to_vec1::<f32>().unwrap()
        });
        assert!(values.map(|value| f64::from(value).to_bits()).eq(alone));
    }
}
