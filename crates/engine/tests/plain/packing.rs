//! Weights that are packed on use give what held ones give, bit for bit.

use std::marker::PhantomData;

use stream_grad_engine::tiling::Weights;
use stream_grad_engine::{
    Backend, Conv2d, Cpu, DType, Exchange, ExternalError, GradientSums, InputGradient, Model,
    NetworkBuilder, OwnedGradients, OwnedModel, OwnedParameters, ParameterId, Plan, PlanRequest,
    Pointwise, Rect, Stored, TapSink, TileRef, Trainable, WholeMaps, bf16,
};
use stream_grad_kernels::Element;

use super::backend::Plain;
use super::{STEPS, model};

/// What was shown of taps.
struct Shown<T>(Vec<f64>, PhantomData<T>);

impl<T: Stored> TapSink for Shown<T> {
    fn take(
        &mut self,
        _: usize,
        tap: usize,
        region: Rect,
        activation: TileRef<'_>,
        cotangent: TileRef<'_>,
    ) -> Result<(), ExternalError> {
        self.0.extend([tap as f64, region.rows.lo as f64]);
        for tile in [activation, cotangent] {
            let tile = T::from_tile(tile).unwrap();
            for row in 0..tile.rows() {
                self.0
                    .extend(tile.row(row).iter().map(|value| value.widened()));
            }
        }
        Ok(())
    }
}

/// When the values of parameters are lost.
#[derive(Clone, Copy, PartialEq)]
enum Loss {
    Never,
    BetweenTheSweeps,
}

/// The bits of features, of the input gradient, of gradients of parameters and of what is shown of taps.
fn step<B: Backend>(
    backend: &B,
    model: &mut OwnedModel,
    request: PlanRequest,
    loss: Loss,
) -> Vec<Vec<u64>> {
    let taps = request.clone();
    let taps = model
        .network()
        .operation_names()
        .fold(taps, PlanRequest::tap);
    let plan = Plan::on(backend, model.network(), taps).unwrap();
    let image = WholeMaps::<B::Stored>::noise(&[plan.input_shape()]);
    let mut features = WholeMaps::<B::Stored>::zeros(&plan.output_shapes());
    let residuals = plan
        .forward_on(backend, model.values(), &image, &mut features)
        .unwrap();
    let parameters = || (0..model.network().parameters().len()).map(ParameterId);
    let ids: Vec<ParameterId> = parameters().collect();
    if loss == Loss::BetweenTheSweeps {
        for &id in &ids {
            model.values_mut(id).fill(f64::NAN);
        }
    }
    let mut cotangents = WholeMaps::<B::Stored>::noise(&plan.output_shapes());
    let mut input_gradient = WholeMaps::<B::Stored>::zeros(&[plan.input_shape()]);
    let mut shown = Shown::<B::Stored>(Vec::new(), PhantomData);
    let exchange = Exchange {
        cotangents: &mut cotangents,
        input_gradient: Some(&mut input_gradient),
        taps: Some(&mut shown),
    };
    let mut gradients = OwnedGradients::default();
    plan.vjp_on(backend, residuals, exchange, &mut gradients)
        .unwrap();
    let maps = [features, input_gradient].map(|maps| {
        let map = maps.into_maps().swap_remove(0).data;
        map.into_iter().map(Element::to_f64).collect()
    });
    let gradients = ids.into_iter().filter_map(|id| gradients.get(id));
    let gradients = gradients.map(<[f64]>::to_vec);
    let all = maps.into_iter().chain(gradients).chain([shown.0]);
    let bits = |values: Vec<f64>| values.into_iter().map(f64::to_bits).collect();
    all.map(bits).collect()
}

/// On one backend, under recipes that store all, some or nothing, in segments and in blocks.
fn check<B: Backend>(backend: &B, build: &dyn Fn() -> OwnedModel, request: &PlanRequest) {
    let mut model = build();
    let names: Vec<String> = model.network().operation_names().map(Into::into).collect();
    let some = names.iter().skip(1).step_by(2).cloned();
    let request = request.clone().poison(f64::NAN);
    for request in [
        request.clone(),
        request.clone().tile(5),
        request.clone().tile(5).segments(2).stored(some),
        request
            .clone()
            .tile(6)
            .block(9)
            .stored(names.clone().into_iter().skip(1)),
    ] {
        let held = request.clone().weights(Weights::Held);
        let expected = step(backend, &mut model, held, Loss::Never);
        let on_use = request.weights(Weights::PackedOnUse);
        let found = step(backend, &mut model, on_use.clone(), Loss::Never);
        assert!(found == expected, "{on_use:?}");
        let mut lost = build();
        let found = step(backend, &mut lost, on_use.clone(), Loss::BetweenTheSweeps);
        assert!(found == expected, "{on_use:?}");
    }
}

fn request(size: (u64, u64)) -> PlanRequest {
    PlanRequest::new(size.0, size.1)
        .dtype(DType::F64)
        .input_gradient(InputGradient::Wanted)
}

#[test]
fn every_operator_reads_weights_that_are_packed_on_use() {
    for operator in 0..STEPS {
        let build = || model(&[0, operator, 1], u64::from(operator)).unwrap();
        for trainable in [Trainable::Variables, Trainable::Nothing] {
            let request = request((24, 26)).trainable(trainable);
            check(&Plain::default(), &build, &request);
            check(&Cpu::<f64>::new(), &build, &request);
            check(&Cpu::<f32>::new(), &build, &request);
            check(&Cpu::<bf16>::new(), &build, &request);
        }
    }
}

/// Convolutions of many weights, of which the backward sweep holds one copy where weights are held, direct and Winograd's, and of
/// few; each has a norm.
fn wide() -> OwnedModel {
    const MANY: usize = 232;
    let mut own = OwnedParameters::new(11);
    let mut net = NetworkBuilder::new(3);
    let mut x = net.input();
    for (name, convolution) in [
        ("stem", Conv2d::new(3, MANY, 3).stride(2)),
        ("winograd", Conv2d::new(MANY, 40, 3).padding(1)),
        ("wide", Conv2d::new(40, MANY, 3).padding(1).without_bias()),
        ("direct", Conv2d::new(MANY, 6, 3).padding(1).stride(2)),
        ("few", Conv2d::new(6, 10, 1)),
    ] {
        x = net.conv2d(x, convolution, name, &mut own).unwrap();
        let norm = format!("{name}.norm");
        x = net.frozen_batch_norm(x, 1e-3, &norm, &mut own).unwrap();
        x = net.pointwise(x, Pointwise::Relu).unwrap();
    }
    OwnedModel::new(net, vec![("features".into(), x)], own).unwrap()
}

#[test]
fn folded_norms_of_many_weights_have_the_same_gradients() {
    let norms: Vec<String> = wide()
        .network()
        .parameters()
        .iter()
        .map(|parameter| parameter.name.clone())
        .filter(|name| name.contains("norm"))
        .collect();
    for trainable in [
        Trainable::Variables,
        Trainable::Only(norms),
        Trainable::Nothing,
    ] {
        let request = request((22, 20)).trainable(trainable);
        check(&Cpu::<f32>::new(), &wide, &request);
        check(&Cpu::<f64>::new(), &wide, &request);
        check(&Cpu::<bf16>::new(), &wide, &request);
    }
}

fn exchange(cotangents: &mut WholeMaps<f32>) -> Exchange<'_> {
    Exchange {
        cotangents,
        input_gradient: None,
        taps: None,
    }
}

/// Gradients that are made of sums have those of the sweep itself.
#[test]
fn sums_give_the_gradients_of_the_sweep_whichever_weights_are_held() {
    let model = wide();
    let (backend, values) = (Cpu::<f32>::new(), model.values());
    for weights in Weights::ALL {
        let request = PlanRequest::new(22, 20).tile(6).block(9).weights(weights);
        let plan = Plan::on(&backend, model.network(), request).unwrap();
        let image = WholeMaps::<f32>::noise(&[plan.input_shape()]);
        let [mut first, mut second] =
            [(); 2].map(|()| WholeMaps::<f32>::noise(&plan.output_shapes()));
        let mut features = WholeMaps::<f32>::zeros(&plan.output_shapes());
        let mut residuals = || {
            plan.forward_on(&backend, values, &image, &mut features)
                .unwrap()
        };
        let [whole, blocks] = [residuals(), residuals()];
        let [mut expected, mut found] = [OwnedGradients::default(), OwnedGradients::default()];
        plan.vjp_on(&backend, whole, exchange(&mut first), &mut expected)
            .unwrap();
        let mut sums = GradientSums::new();
        plan.vjp_blocks_on(&backend, blocks, exchange(&mut second), &mut sums)
            .unwrap();
        plan.gradients_on(&backend, values, sums, &mut found)
            .unwrap();
        for id in (0..model.network().parameters().len()).map(ParameterId) {
            assert_eq!(found.get(id), expected.get(id), "{weights:?}, {id:?}");
        }
    }
}
