//! What is shown of tapped layers: every position once, with the activation and the cotangent of the whole computation.

use candle_core::{DType, Device, Tensor};
use candle_nn::VarMap;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use stream_grad::{
    ExternalError, InputGradient, Net, Plan, PlanRequest, Rect, StreamError, TapSink, TileRef,
    Trainable,
};

use crate::networks::{Step, build, fill, step, steps_from, tensor};
use crate::random_graphs::{Case, case, cases, flat, offload_folder, planned};

/// Whole maps `[N, H, W, C]` of one tapped layer, and how often each position was shown.
#[derive(Debug, Clone, PartialEq)]
struct Map {
    shape: [usize; 4],
    shown: Vec<u32>,
    activation: Vec<f64>,
    cotangent: Vec<f64>,
}

struct Collector(Vec<Map>);

impl Collector {
    fn new(plan: &Plan) -> Self {
        let map = |[images, channels, height, width]: [usize; 4]| Map {
            shape: [images, height, width, channels],
            shown: vec![0; images * height * width],
            activation: vec![f64::NAN; images * height * width * channels],
            cotangent: vec![f64::NAN; images * height * width * channels],
        };
        Self(plan.tap_shapes().into_iter().map(map).collect())
    }
}

impl TapSink for Collector {
    fn take(
        &mut self,
        image: usize,
        tap: usize,
        region: Rect,
        activation: TileRef<'_>,
        cotangent: TileRef<'_>,
    ) -> Result<(), ExternalError> {
        let map = &mut self.0[tap];
        let [_, height, width, channels] = map.shape;
        let (TileRef::F64(x), TileRef::F64(g)) = (activation, cotangent) else {
            return Err("tiles of another dtype".into());
        };
        assert_eq!((x.rows(), g.rows()), (region.height(), region.height()));
        for row in 0..region.height() {
            let line = image * height + usize::try_from(region.rows.lo)? + row;
            let start = line * width + usize::try_from(region.columns.lo)?;
            for shown in &mut map.shown[start..start + region.width()] {
                *shown += 1;
            }
            let values = start * channels..(start + region.width()) * channels;
            map.activation[values.clone()].copy_from_slice(x.row(row));
            map.cotangent[values].copy_from_slice(g.row(row));
        }
        Ok(())
    }
}

/// What is shown, and the features and gradients of the same sweeps.
fn run(plan: &Plan, net: &Net, image: &Tensor, seed: u64) -> (Vec<Map>, Vec<Vec<u64>>) {
    let (features, residuals) = plan.forward_all(image).unwrap();
    let cotangents: Vec<Tensor> = features
        .iter()
        .map(|features| tensor(features.dims(), DType::F64, seed + 7))
        .collect();
    let mut sink = Collector::new(plan);
    let store = plan.vjp_tapped(residuals, &cotangents, &mut sink).unwrap();
    let bits = |tensor: &Tensor| flat(tensor).iter().map(|value| value.to_bits()).collect();
    let mut tensors: Vec<Vec<u64>> = features.iter().map(bits).collect();
    let gradients = net.parameters().iter();
    tensors.extend(
        gradients
            .filter_map(|parameter| store.get(&parameter.tensor))
            .map(bits),
    );
    (sink.0, tensors)
}

fn tap_all(net: &Net, request: PlanRequest) -> PlanRequest {
    net.operation_names().fold(request, PlanRequest::tap)
}

fn assert_close(what: &str, found: &[f64], expected: &[f64]) {
    let scale = expected
        .iter()
        .fold(1e-3_f64, |most, value| most.max(value.abs()));
    assert_eq!(found.len(), expected.len(), "{what}");
    for (index, (a, b)) in found.iter().zip(expected).enumerate() {
        assert!(
            (a - b).abs() <= 1e-10 * scale,
            "{what}[{index}]: {a}, expected {b}, scale {scale}"
        );
    }
}

fn assert_bitwise(what: &str, found: &[Map], expected: &[Map]) {
    let bits =
        |values: &[f64]| -> Vec<u64> { values.iter().map(|value| value.to_bits()).collect() };
    for (index, (a, b)) in found.iter().zip(expected).enumerate() {
        assert_eq!(a.shown, b.shown, "{what}: positions of {index}");
        assert_eq!(
            bits(&a.activation),
            bits(&b.activation),
            "{what}: activation of {index}"
        );
        assert_eq!(
            bits(&a.cotangent),
            bits(&b.cotangent),
            "{what}: cotangent of {index}"
        );
    }
}

fn check(case: &Case) -> Result<(), TestCaseError> {
    let channels = 2;
    let (net, _variables) = build(&case.steps, channels, DType::F64, case.seed);
    let whole = planned(&net, tap_all(&net, case.whole()))?;
    let cut = case.cut(&net, case.whole());
    let plan = planned(&net, tap_all(&net, cut.clone()).poison(f64::NAN))?;
    let image = case.image(channels);
    let (expected, _) = run(&whole, &net, &image, case.seed);
    let (found, tensors) = run(&plan, &net, &image, case.seed);
    let names: Vec<&str> = net.operation_names().collect();
    let blocks = plan.geometry().blocks();
    for ((name, found), expected) in names.iter().zip(&found).zip(&expected) {
        assert!(
            expected.shown.iter().all(|&shown| shown == 1),
            "{name} whole"
        );
        let channels = found.shape[3];
        for (position, &shown) in found.shown.iter().enumerate() {
            let values = position * channels..(position + 1) * channels;
            let truth = &expected.cotangent[values.clone()];
            if shown == 0 {
                // In no block, since no output depends on it.
                assert!(blocks > 1, "{name}: {position} was not shown");
                assert!(
                    truth.iter().all(|value| *value == 0.0),
                    "{name}: {position}"
                );
                continue;
            }
            assert_eq!(shown, 1, "{name}: {position}");
            if case.steps.iter().any(|step| matches!(step, Step::Custom)) {
                // Candle's arithmetic depends on the tile.
                continue;
            }
            let bits = |values: &[f64]| -> Vec<u64> {
                values.iter().map(|value| value.to_bits()).collect()
            };
            assert_eq!(
                bits(&found.activation[values.clone()]),
                bits(&expected.activation[values]),
                "{name}: {position}"
            );
        }
        let shown = |values: &[f64]| -> Vec<f64> {
            let chunks = values.chunks(channels).zip(&found.shown);
            let shown = chunks.filter(|(_, shown)| **shown == 1);
            shown.flat_map(|(values, _)| values.to_vec()).collect()
        };
        assert_close(
            name,
            &shown(&found.activation),
            &shown(&expected.activation),
        );
        assert_close(name, &shown(&found.cotangent), &shown(&expected.cotangent));
    }
    // Memory that may not be read changes nothing, nor does a file.
    for request in [
        tap_all(&net, cut.clone()).poison(1e30),
        tap_all(&net, cut.clone()).poison(-1e30),
        tap_all(&net, cut.clone())
            .poison(f64::NAN)
            .offload(offload_folder()),
    ] {
        let (again, _) = run(&net.plan(request).unwrap(), &net, &image, case.seed);
        assert_bitwise("poison or file", &again, &found);
    }
    // Looking changes nothing of what is computed.
    let untapped = net.plan(cut.clone()).unwrap();
    assert_eq!(run(&untapped, &net, &image, case.seed).1, tensors);
    // One layer alone, and nothing trained: no cotangents before it are computed, and it is shown the same.
    let one = usize::try_from(case.seed).unwrap_or(0) % names.len();
    let request = cut
        .tap(names[one])
        .trainable(Trainable::Nothing)
        .poison(f64::NAN);
    let (alone, _) = run(&net.plan(request).unwrap(), &net, &image, case.seed);
    assert_bitwise("alone", &alone, &found[one..=one]);
    Ok(())
}

#[test]
fn tapped_layers_are_shown_once_as_in_the_whole_computation() {
    let config = ProptestConfig {
        cases: cases() / 2,
        max_global_rejects: 1 << 20,
        ..ProptestConfig::default()
    };
    TestRunner::new(config)
        .run(&case(), |case| check(&case))
        .unwrap();
}

/// The cotangent of what lies between two steps is the input gradient of the network that begins there, on an image that is the
/// activation there.
fn check_between(
    steps: &[Step],
    at: usize,
    size: (usize, usize),
    seed: u64,
) -> Result<(), TestCaseError> {
    let custom = steps.iter().filter(|step| matches!(step, Step::Custom));
    if custom.count() > 1 {
        return Err(TestCaseError::reject("layers of one name"));
    }
    let channels = 2;
    let variables = VarMap::new();
    let (builder, layers) = steps_from(0, steps, channels, DType::F64, &variables);
    let at = at % steps.len();
    let between = builder.channels(layers[at]).unwrap();
    // An output is not fused into what reads it.
    let outputs = vec![
        ("features".to_owned(), layers[steps.len()]),
        ("between".to_owned(), layers[at]),
    ];
    let net = builder.build_named(outputs).unwrap();
    let (rest, rest_layers) = steps_from(at, steps, between, DType::F64, &variables);
    let rest = rest.build(rest_layers[steps.len() - at]).unwrap();
    fill(&variables, seed);
    let whole = |height: usize, width: usize| {
        PlanRequest::new(height as u64, width as u64)
            .dtype(DType::F64)
            .tile(1 << 20)
    };
    let request = tap_all(&net, whole(size.0, size.1));
    let plan = planned(&net, request.trainable(Trainable::Nothing))?;
    let image = tensor(&[1, channels, size.0, size.1], DType::F64, seed);
    let (features, residuals) = plan.forward_all(&image).unwrap();
    let cotangent = tensor(features[0].dims(), DType::F64, seed + 7);
    let mut sink = Collector::new(&plan);
    let cotangents = [cotangent.clone(), features[1].zeros_like().unwrap()];
    plan.vjp_tapped(residuals, &cotangents, &mut sink).unwrap();

    let activation = features[1].detach();
    let (_, _, height, width) = activation.dims4().unwrap();
    let request = whole(height, width).input_gradient(InputGradient::Wanted);
    let rest_plan = rest.plan(request).unwrap();
    let (rest_features, residuals) = rest_plan.forward(&activation).unwrap();
    assert_close("features", &flat(&rest_features), &flat(&features[0]));
    let (_, expected) = rest_plan.vjp_with_input(residuals, &[cotangent]).unwrap();

    let last = |tensor: &Tensor| flat(&tensor.permute((0, 2, 3, 1)).unwrap());
    let (activation, expected) = (last(&activation), last(&expected));
    // Several layers may have this activation, so that its place tells which one is meant: behind the operations of the steps before.
    let (before, before_layers) = steps_from(0, &steps[..at], channels, DType::F64, &variables);
    let before = before.build(before_layers[at]).unwrap();
    let shown = &sink.0[before.operation_names().count() - 1];
    assert_eq!(shown.activation, activation);
    assert_close("cotangent", &shown.cotangent, &expected);
    Ok(())
}

#[test]
fn a_tapped_cotangent_is_the_input_gradient_of_the_rest_of_the_network() {
    let config = ProptestConfig {
        cases: cases() / 2,
        max_global_rejects: 1 << 20,
        ..ProptestConfig::default()
    };
    let case = (
        prop::collection::vec(step(), 1..5),
        any::<usize>(),
        (8_usize..28, 8_usize..28),
        any::<u32>(),
    );
    TestRunner::new(config)
        .run(&case, |(steps, at, size, seed)| {
            check_between(&steps, at, size, seed.into())
        })
        .unwrap();
}

#[test]
fn of_layers_with_one_activation_each_has_its_own_cotangent() {
    let pool = Step::MaxPool([1, 1], [1, 1], [0; 4], false);
    let steps = [Step::Relu, pool, Step::Relu, Step::Gelu(false)];
    for at in 0..steps.len() {
        check_between(&steps, at, (8, 8), 0).unwrap();
    }
}

#[test]
fn a_layer_that_is_an_output_twice_is_refused() {
    let variables = VarMap::new();
    let steps = [Step::Residual(1, false)];
    let (builder, layers) = steps_from(0, &steps, 2, DType::F64, &variables);
    let outputs = ["fine", "coarse"].map(|name| (name.to_owned(), layers[1]));
    let refused = builder.build_named(outputs.to_vec()).err();
    assert!(
        matches!(&refused, Some(StreamError::Setting { layer, .. }) if layer == "coarse"),
        "{refused:?}"
    );
}

#[test]
fn modules_are_tapped_by_their_last_operation() {
    let (net, _variables) = build(&[Step::Residual(1, true), Step::Relu], 2, DType::F64, 1);
    let names: Vec<&str> = net.operation_names().collect();
    let last = names
        .iter()
        .rposition(|name| name.starts_with("s0."))
        .unwrap();
    let request = PlanRequest::new(9, 9).dtype(DType::F64);
    let image = Tensor::ones((1, 2, 9, 9), DType::F64, &Device::Cpu).unwrap();
    let shown = |layer: &str| {
        let plan = net.plan(request.clone().tap(layer)).unwrap();
        run(&plan, &net, &image, 3).0
    };
    assert_eq!(shown("s0"), shown(names[last]));
    let refused = net.plan(request.clone().tap("s")).err();
    assert!(
        matches!(&refused, Some(StreamError::Setting { found, .. }) if found == "s"),
        "{refused:?}"
    );
}

#[test]
fn a_tapped_image_has_no_room_for_its_gradient_as_a_tensor() {
    let (net, _variables) = build(&[Step::Residual(1, false)], 2, DType::F64, 1);
    let plan = net
        .plan(PlanRequest::new(64, 64).dtype(DType::F64).tap("image"))
        .unwrap();
    assert_eq!(plan.peak_classes().input_gradient.backward, 0);
    let image = Tensor::ones((1, 2, 64, 64), DType::F64, &Device::Cpu).unwrap();
    let (features, residuals) = plan.forward(&image).unwrap();
    let refused = plan.vjp_with_input(residuals, &[features]).err();
    assert!(
        matches!(
            &refused,
            Some(StreamError::PlanMismatch {
                what: "input gradient",
                ..
            })
        ),
        "{refused:?}"
    );
}

/// Fails when it is shown anything.
struct Refuses;

impl TapSink for Refuses {
    fn take(
        &mut self,
        _: usize,
        _: usize,
        _: Rect,
        _: TileRef<'_>,
        _: TileRef<'_>,
    ) -> Result<(), ExternalError> {
        Err("the disk is full".into())
    }
}

#[test]
fn a_sink_that_fails_ends_the_sweep_and_is_named() {
    let (net, _variables) = build(&[Step::Residual(1, false)], 2, DType::F64, 1);
    let plan = net
        .plan(PlanRequest::new(9, 9).dtype(DType::F64).tap("s0"))
        .unwrap();
    let image = Tensor::ones((1, 2, 9, 9), DType::F64, &Device::Cpu).unwrap();
    let (features, residuals) = plan.forward(&image).unwrap();
    let failed = plan.vjp_tapped(residuals, &[features], &mut Refuses).err();
    assert!(
        matches!(&failed, Some(StreamError::Exchange { what: "tap", source, .. })
            if source.to_string() == "the disk is full"),
        "{failed:?}"
    );
}
