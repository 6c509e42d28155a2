//! Measuring this machine, and telling whether what was measured of it still holds.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use serde_json::Value;
use stream_grad_engine::{
    Conv2d, CostModel, NetworkBuilder, OwnedModel, OwnedParameters, PlanRequest, Pointwise,
    ProbeOutcome,
};

fn net() -> OwnedModel {
    let mut parameters = OwnedParameters::new(0);
    let mut net = NetworkBuilder::new(3);
    let conv = Conv2d::new(3, 16, 3).padding(1);
    let x = net
        .conv2d(net.input(), conv, "conv", &mut parameters)
        .unwrap();
    let x = net.pointwise(x, Pointwise::Relu).unwrap();
    OwnedModel::new(net, vec![("features".into(), x)], parameters).unwrap()
}

/// The same model with all times of operations `numerator / denominator` of what they are.
fn scaled(model: &CostModel, numerator: u64, denominator: u64) -> CostModel {
    let mut stored = serde_json::to_value(model).unwrap();
    let mut scaled = 0;
    for cost in stored["operations"].as_object_mut().unwrap().values_mut() {
        for sweep in ["forward", "vjp"] {
            for point in cost["time"][sweep].as_array_mut().unwrap() {
                let time = point[1].as_u64().unwrap() * numerator / denominator;
                point[1] = Value::from(time);
                scaled += 1;
            }
        }
    }
    assert!(scaled > 4, "{stored}");
    serde_json::from_value(stored).unwrap()
}

/// A hundred times is more than any machine's other work hides.
#[test]
fn a_model_of_a_busy_machine_and_one_that_is_busy_are_told_apart() {
    let (net, request) = (net(), PlanRequest::new(64, 64).threads(1));
    let mut model = CostModel::default();
    model.calibrate(&net, &request).unwrap();
    assert!(model.spread_per_mille().unwrap() >= 1000);
    let outcome = |model: &CostModel| model.probe(&net, &request).unwrap().outcome();
    assert_eq!(
        outcome(&scaled(&model, 100, 1)),
        ProbeOutcome::MeasuredWhileBusy
    );
    assert_eq!(outcome(&scaled(&model, 1, 100)), ProbeOutcome::BusyNow);
    let forgotten = model.clone().without(&net, &request);
    assert!(model.covers(&net, &request) && !forgotten.covers(&net, &request));
}
