//! What is saved goes to a file where memory does not hold it, and nowhere else; folders that take no file are named.

use candle_core::{DType, Device, Tensor};
use candle_nn::{VarBuilder, VarMap};
use stream_grad::{ByteCount, Conv2d, Maps, Net, NetBuilder, Plan, PlanRequest, StreamError};

use crate::networks::tensor;

/// Convolutions without pooling, so that halos outgrow all else.
fn net() -> (Net, VarMap) {
    let variables = VarMap::new();
    let vb = VarBuilder::from_varmap(&variables, DType::F32, &Device::Cpu);
    let mut net = NetBuilder::new(3);
    let mut x = net.input();
    for (index, channels) in [3, 8, 8, 8].windows(2).enumerate() {
        let conv = Conv2d::new(channels[0], channels[1], 5).padding(2);
        x = net.conv2d(x, conv, vb.pp(index)).unwrap();
        x = net.relu(x).unwrap();
    }
    (net.build(x).unwrap(), variables)
}

fn request() -> PlanRequest {
    PlanRequest::new(600, 600)
}

fn gradients(net: &Net, plan: &Plan, image: &Tensor) -> Vec<Vec<f32>> {
    let (features, residuals) = plan.forward(image).unwrap();
    let loss = features.sqr().unwrap().sum_all().unwrap();
    let store = plan.backward(residuals, &features, &loss).unwrap();
    let gradients = net.parameters().iter().map(|parameter| {
        let gradient = store.get(&parameter.tensor).unwrap();
        gradient.flatten_all().unwrap().to_vec1().unwrap()
    });
    gradients.collect()
}

#[test]
fn the_budget_decides_what_goes_to_a_file() {
    let (net, _variables) = net();
    let folder = tempfile::tempdir().unwrap();
    let offloading = request().offload(folder.path());
    let ample = ByteCount::gib(1);
    let plan = net.plan(offloading.clone().memory(ample)).unwrap();
    assert_eq!(plan.file_bytes(), ByteCount::bytes(0));

    // The smallest budget of all needs the file, and is smaller for it.
    let minimum = |request: PlanRequest| {
        let request = request.features(Maps::Streamed);
        let refusal = net.plan(request.memory(ByteCount::bytes(1))).unwrap_err();
        let StreamError::Geometry(stream_grad::tiling::TilingError::BudgetTooSmall {
            minimum, ..
        }) = refusal
        else {
            panic!("{refusal}");
        };
        ByteCount::saturating(minimum)
    };
    let (in_memory, with_file) = (minimum(request()), minimum(offloading.clone()));
    assert!(with_file < in_memory, "{with_file} and {in_memory}");
    let streamed = offloading.clone().features(Maps::Streamed);
    let plan = net.plan(streamed.memory(with_file)).unwrap();
    assert!(plan.file_bytes() > ByteCount::bytes(0));
    assert!(plan.to_string().contains("offloaded"), "{plan}");

    // A stored recipe goes to a file if the budget asks for it; its results are the same, bit for bit.
    let recipe = net.plan(request().tile(48)).unwrap().recipe().clone();
    let stored = offloading.recipe(recipe);
    let plans = [
        net.plan(stored.clone().memory(ample)).unwrap(),
        net.plan(stored.clone().memory(ByteCount::bytes(1)))
            .unwrap(),
        net.plan(stored).unwrap(),
    ];
    let offloaded = plans.each_ref().map(|plan| plan.file_bytes().get() > 0);
    assert_eq!(offloaded, [false, true, true]);
    let image = tensor(&[1, 3, 600, 600], DType::F32, 1);
    let [memory, file, again] = plans.each_ref().map(|plan| gradients(&net, plan, &image));
    assert!(memory == file && memory == again, "a file changes results");
}

#[test]
fn folders_that_take_no_file_are_named_before_anything_is_computed() {
    let (net, _variables) = net();
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("missing");
    let message = net
        .plan(request().offload(&missing))
        .unwrap_err()
        .to_string();
    assert!(message.contains(missing.to_str().unwrap()), "{message}");

    // One that is gone when the sweep begins.
    std::fs::create_dir(&missing).unwrap();
    let plan = net.plan(request().tile(64).offload(&missing)).unwrap();
    std::fs::remove_dir(&missing).unwrap();
    let image = Tensor::zeros((1, 3, 600, 600), DType::F32, &Device::Cpu).unwrap();
    let message = plan.forward(&image).unwrap_err().to_string();
    assert!(message.contains(missing.to_str().unwrap()), "{message}");
}

/// A read-only file system without room, whoever asks: permissions would not bind an administrator.
#[cfg(target_os = "linux")]
#[test]
fn folders_without_room_are_refused_before_anything_is_computed() {
    use stream_grad::tiling::TilingError;

    let (net, _variables) = net();
    let recipe = net.plan(request().tile(48)).unwrap().recipe().clone();
    for asked in [request().tile(48), request().recipe(recipe)] {
        match net.plan(asked.offload("/proc")).unwrap_err() {
            StreamError::Geometry(TilingError::FileTooSmall { limit, needed }) => {
                assert!(limit == 0 && needed > 0, "{limit} and {needed}");
            }
            other => panic!("{other}"),
        }
    }
}
