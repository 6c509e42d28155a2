//! Refusals name the thing and both numbers, and come while planning.

use candle_core::{DType, Device, Tensor};
use candle_nn::{VarBuilder, VarMap};
use stream_grad::{
    ByteCount, Conv2d, CostModel, ExternalError, FeatureSink, InputGradient, Maps, Net, NetBuilder,
    PlanRequest, Rect, StreamError, TileRef,
};

fn net() -> Net {
    let variables = VarMap::new();
    let vb = VarBuilder::from_varmap(&variables, DType::F32, &Device::Cpu);
    let mut net = NetBuilder::new(3);
    let x = net
        .conv2d(net.input(), Conv2d::new(3, 8, 7).stride(2), vb.pp("stem"))
        .unwrap();
    let x = net.relu(x).unwrap();
    net.build(x).unwrap()
}

fn refused(request: PlanRequest) -> String {
    net().plan(request).unwrap_err().to_string()
}

#[test]
fn an_image_smaller_than_a_window_is_refused() {
    assert_eq!(
        refused(PlanRequest::new(40, 5)),
        "layer `stem`: columns of its input are 5, and its window needs at least 7 (padding included: 5)"
    );
}

#[test]
fn tiles_blocks_segments_and_batches_of_zero_are_refused() {
    let base = || PlanRequest::new(64, 64);
    for (request, told) in [
        (
            base().tile(0),
            "the tile's edge is 0 along rows, expected at least 1 and at most ",
        ),
        (
            base().block(0),
            "the block's edge is 0 along rows, expected at least 1 and at most ",
        ),
        (
            base().segments(0),
            "the number of segments is 0 along rows, expected at least 1 and at most ",
        ),
        (
            base().batch(0),
            "layer `plan`: batch is 0, expected at least 1 image",
        ),
    ] {
        let message = refused(request);
        assert!(message.starts_with(told), "{message}");
    }
}

/// A pool of so many threads would take minutes to start: nothing may begin to make it.
#[test]
fn more_than_four_threads_for_each_core_are_refused_with_both_numbers() {
    let cores = stream_grad::cores();
    for threads in [4 * cores + 1, 4000 * cores, 999_999, usize::MAX] {
        let request = PlanRequest::new(64, 64).threads(threads);
        let mut model = CostModel::default();
        for error in [
            net().plan(request.clone()).unwrap_err(),
            model.calibrate(&net(), &request).unwrap_err(),
            model.probe(&net(), &request).unwrap_err(),
        ] {
            assert_eq!(
                error.to_string(),
                format!(
                    "{threads} threads on {cores} cores: expected at most {}, four for each core",
                    4 * cores
                )
            );
        }
    }
    assert!(
        net()
            .plan(PlanRequest::new(64, 64).threads(4 * cores))
            .is_ok()
    );
}

#[test]
fn a_budget_below_the_minimum_says_the_minimum() {
    let message = refused(PlanRequest::new(512, 512).memory(ByteCount::bytes(1000)));
    assert!(
        message.contains("1000") && message.contains("needs"),
        "{message}"
    );
    let minimum = message
        .split_whitespace()
        .filter_map(|word| word.parse::<u64>().ok())
        .nth(1)
        .unwrap();
    assert!(
        net()
            .plan(PlanRequest::new(512, 512).memory(ByteCount::bytes(minimum)))
            .is_ok(),
        "{message}"
    );
}

#[test]
fn a_dtype_that_is_not_computed_in_is_refused() {
    assert_eq!(
        refused(PlanRequest::new(64, 64).dtype(DType::F16)),
        "dtype F16 is not supported here, expected F32, F64 or BF16"
    );
}

#[test]
fn a_source_of_another_shape_is_refused_with_both_shapes() {
    let plan = net().plan(PlanRequest::new(64, 64)).unwrap();
    let image = Tensor::zeros((1, 3, 64, 60), DType::F32, &Device::Cpu).unwrap();
    let message = plan.forward(&image).unwrap_err().to_string();
    assert!(
        message.contains("64 x 64") && message.contains("64 x 60"),
        "{message}"
    );
}

#[test]
fn cotangents_of_another_shape_and_residuals_of_another_plan_are_refused() {
    let (net, image) = (
        net(),
        Tensor::zeros((1, 3, 64, 64), DType::F32, &Device::Cpu).unwrap(),
    );
    let plan = net.plan(PlanRequest::new(64, 64)).unwrap();
    let other = net.plan(PlanRequest::new(64, 64).tile(32)).unwrap();
    let (features, residuals) = plan.forward(&image).unwrap();
    let wrong = Tensor::zeros((1, 8, 3, 3), DType::F32, &Device::Cpu).unwrap();
    let message = plan.vjp(residuals, &[wrong]).unwrap_err().to_string();
    assert_eq!(
        message,
        "cotangents: the plan is for shapes [[1, 8, 29, 29]], found shapes [[1, 8, 3, 3]]"
    );
    let (_, residuals) = plan.forward(&image).unwrap();
    let refused = other.vjp(residuals, &[features.detach()]).unwrap_err();
    assert_eq!(
        refused.to_string(),
        format!(
            "residuals: the plan is for {}, found {}",
            other.recipe(),
            plan.recipe()
        )
    );
}

#[test]
fn whole_maps_are_refused_where_streamed_ones_were_promised() {
    let (net, image) = (
        net(),
        Tensor::zeros((1, 3, 64, 64), DType::F32, &Device::Cpu).unwrap(),
    );
    let request = PlanRequest::new(64, 64);
    let whole = net
        .plan(request.clone().input_gradient(InputGradient::Wanted))
        .unwrap();
    let (features, _) = whole.forward(&image).unwrap();
    let loss = features.sum_all().unwrap();
    let cotangents = [features.detach()];

    let streamed = net.plan(request.clone().features(Maps::Streamed)).unwrap();
    let residuals = || streamed.forward_to(&image, &mut Discard).unwrap();
    let refusals = [
        streamed.forward(&image).map(drop),
        streamed.forward_all(&image).map(drop),
        streamed.vjp(residuals(), &cotangents).map(drop),
        streamed.vjp_with_input(residuals(), &cotangents).map(drop),
        streamed.backward(residuals(), &features, &loss).map(drop),
    ];
    for (index, refusal) in refusals.into_iter().enumerate() {
        let message = refusal.unwrap_err().to_string();
        assert!(
            message.contains("streamed") && message.contains("whole"),
            "entry point {index}: {message}"
        );
    }

    let request = request.input_gradient(InputGradient::Streamed);
    let streamed_input = net.plan(request).unwrap();
    let (_, residuals) = streamed_input.forward(&image).unwrap();
    let refusal = streamed_input.vjp_with_input(residuals, &cotangents);
    let message = refusal.unwrap_err().to_string();
    assert!(message.contains("input gradient"), "{message}");
}

/// Takes features and forgets them.
struct Discard;

impl FeatureSink for Discard {
    fn write(&mut self, _: usize, _: usize, _: Rect, _: TileRef<'_>) -> Result<(), ExternalError> {
        Ok(())
    }
}

#[test]
fn a_loss_without_the_features_is_refused() {
    let (net, image) = (
        net(),
        Tensor::zeros((1, 3, 64, 64), DType::F32, &Device::Cpu).unwrap(),
    );
    let plan = net.plan(PlanRequest::new(64, 64)).unwrap();
    let (features, residuals) = plan.forward(&image).unwrap();
    let unrelated = candle_core::Var::zeros((), DType::F32, &Device::Cpu).unwrap();
    let loss = unrelated.as_tensor().sqr().unwrap();
    assert!(matches!(
        plan.backward(residuals, &features, &loss),
        Err(StreamError::NoCotangent)
    ));
}

#[test]
fn layers_that_do_not_fit_are_refused_by_name() {
    let variables = VarMap::new();
    let vb = VarBuilder::from_varmap(&variables, DType::F32, &Device::Cpu);
    let mut net = NetBuilder::new(3);
    let message = net
        .conv2d(net.input(), Conv2d::new(4, 8, 3), vb.pp("first"))
        .unwrap_err()
        .to_string();
    assert_eq!(message, "layer `first`: expected 4 input channels, found 3");
    let message = net
        .conv2d(net.input(), Conv2d::new(3, 8, 3).groups(2), vb.pp("second"))
        .unwrap_err()
        .to_string();
    assert_eq!(
        message,
        "layer `second`: 2 groups do not divide 3 input and 8 output channels"
    );
    assert_eq!(
        net.concat(&[]).unwrap_err().to_string(),
        "layer `concat1`: number of inputs is 0, expected at least 1"
    );
}
