//! Threads change nothing, VJPs are adjoint, f32 stays close to f64, features and cotangents can stream, NaN is not
//! swallowed, a loss on the features trains everything.

use candle_core::{DType, Device, Tensor};
use candle_nn::{VarBuilder, VarMap};
use stream_grad::{
    Conv2d, CotangentSource, ExternalError, FeatureSink, InputGradient, Maps, Net, NetBuilder,
    Plan, PlanRequest, Rect, TileMut, TileRef,
};

use crate::networks::{Step, build, tensor};

/// Convolutions with norms, pooling, a residual and a U: everything that carries.
pub(crate) fn steps() -> Vec<Step> {
    let conv = |kernel: usize, stride: usize| Step::Conv {
        kernel: [kernel; 2],
        stride: [stride; 2],
        dilation: [1, 1],
        padding: [kernel / 2; 4],
        groups: false,
        bias: true,
        norm: true,
        relu: true,
    };
    vec![
        conv(5, 2),
        Step::MaxPool([3, 3], [2, 2], [1; 4], false),
        Step::Residual(1, true),
        Step::LayerNorm,
        conv(3, 1),
    ]
}

pub(crate) fn all(net: &Net, plan: &Plan, image: &Tensor, cotangent: &Tensor) -> Vec<Tensor> {
    let (features, residuals) = plan.forward(image).unwrap();
    let (store, input) = plan
        .vjp_with_input(residuals, std::slice::from_ref(cotangent))
        .unwrap();
    let trainable = net
        .parameters()
        .iter()
        .filter(|parameter| parameter.trainable);
    let gradients = trainable.map(|parameter| store.get(&parameter.tensor).unwrap().clone());
    [features, input].into_iter().chain(gradients).collect()
}

pub(crate) fn list(tensor: &Tensor) -> Vec<f64> {
    tensor
        .to_dtype(DType::F64)
        .unwrap()
        .flatten_all()
        .unwrap()
        .to_vec1()
        .unwrap()
}

#[test]
fn results_are_bitwise_equal_for_one_and_two_threads_and_repeated_runs() {
    for dtype in [DType::F32, DType::F64] {
        let (net, _variables) = build(&steps(), 3, dtype, 5);
        let image = tensor(&[1, 3, 203, 187], dtype, 6);
        let request = PlanRequest::new(203, 187)
            .dtype(dtype)
            .tile(64)
            .input_gradient(InputGradient::Wanted);
        let run = |threads: usize| {
            let plan = net.plan(request.clone().threads(threads)).unwrap();
            let cotangent = tensor(&plan.output_shapes()[0], dtype, 7);
            all(&net, &plan, &image, &cotangent)
        };
        let one = run(1);
        for (index, (a, b)) in one.iter().zip(run(2).iter().chain(&run(2))).enumerate() {
            assert_eq!(
                list(a),
                list(b),
                "result {index} depends on the number of threads"
            );
        }
    }
}

#[test]
fn features_are_bitwise_the_same_for_any_tile() {
    let (net, _variables) = build(&steps(), 3, DType::F32, 8);
    let image = tensor(&[1, 3, 150, 131], DType::F32, 9);
    let features = |tile: u64| {
        let plan = net.plan(PlanRequest::new(150, 131).tile(tile)).unwrap();
        list(&plan.forward(&image).unwrap().0)
    };
    let whole = features(1 << 20);
    for tile in [8, 31, 64, 100] {
        assert_eq!(features(tile), whole, "tile {tile}");
    }
}

#[test]
fn the_vjp_is_the_adjoint_of_the_derivative() {
    // <u, J v> by central differences against <J^T u, v>, in f64.
    let (net, _variables) = build(
        &[
            Step::Gelu(true),
            Step::Residual(1, true),
            Step::LayerNorm,
            Step::UNet(true),
        ],
        2,
        DType::F64,
        3,
    );
    let (height, width) = (24, 20);
    let image = tensor(&[1, 2, height, width], DType::F64, 1);
    let direction = tensor(&[1, 2, height, width], DType::F64, 2);
    let plan = net
        .plan(
            PlanRequest::new(24, 20)
                .dtype(DType::F64)
                .tile(7)
                .input_gradient(InputGradient::Wanted),
        )
        .unwrap();
    let cotangent = tensor(&plan.output_shapes()[0], DType::F64, 4);
    let gradient = all(&net, &plan, &image, &cotangent).swap_remove(1);
    let step = 1e-6;
    let value = |sign: f64| {
        let moved = (&image + (&direction * (sign * step)).unwrap()).unwrap();
        let features = plan.forward(&moved).unwrap().0.detach();
        (features * &cotangent)
            .unwrap()
            .sum_all()
            .unwrap()
            .to_scalar::<f64>()
            .unwrap()
    };
    let derivative = (value(1.0) - value(-1.0)) / (2.0 * step);
    let product = (gradient * &direction)
        .unwrap()
        .sum_all()
        .unwrap()
        .to_scalar::<f64>()
        .unwrap();
    assert!(
        (derivative - product).abs() <= 1e-6 * (1.0 + product.abs()),
        "central differences {derivative}, VJP {product}"
    );
}

/// Relative L2 error of every parameter gradient against f64, for one plan whose tensors are f32.
pub(crate) fn errors(steps: &[Step], seed: u64, (stored, tile): (DType, u64)) -> Vec<f64> {
    let size = 160;
    let run = |stored: DType, tile: u64| {
        let dtype = match stored {
            DType::F64 => DType::F64,
            _ => DType::F32,
        };
        let (net, variables) = build(steps, 3, dtype, seed);
        // The oracle runs on the very numbers that f32 holds.
        if dtype == DType::F64 {
            for var in variables.all_vars() {
                let rounded = var
                    .to_dtype(DType::F32)
                    .unwrap()
                    .to_dtype(DType::F64)
                    .unwrap();
                var.set(&rounded).unwrap();
            }
        }
        let image = tensor(&[1, 3, size, size], DType::F32, seed + 1)
            .to_dtype(dtype)
            .unwrap();
        let request = PlanRequest::new(size as u64, size as u64)
            .dtype(stored)
            .tile(tile);
        let plan = net
            .plan(request.input_gradient(InputGradient::Wanted))
            .unwrap();
        let cotangent = tensor(&plan.output_shapes()[0], DType::F32, seed + 2)
            .to_dtype(dtype)
            .unwrap();
        all(&net, &plan, &image, &cotangent)
    };
    let oracle = run(DType::F64, 1 << 20);
    let found = run(stored, tile);
    let pairs = oracle.iter().zip(&found).skip(2);
    pairs
        .map(|(oracle, found)| {
            let (oracle, found) = (list(oracle), list(found));
            let norm = oracle.iter().map(|value| value * value).sum::<f64>().sqrt();
            let error = oracle
                .iter()
                .zip(&found)
                .map(|(a, b)| (a - b) * (a - b))
                .sum::<f64>()
                .sqrt();
            error / norm.max(1e-30)
        })
        .collect()
}

/// Errors of 400 tiles over those of one, whose activations are all stored, by parameter: medians over 10 seeds.
pub(crate) fn error_ratios(steps: &[Step], stored: DType) -> Vec<f64> {
    let runs: Vec<[Vec<f64>; 2]> = (0..10)
        .map(|seed| [8, 1 << 20].map(|tile| errors(steps, seed * 10, (stored, tile))))
        .collect();
    let of_parameter = |parameter: usize| {
        let ratios = runs.iter();
        let ratios =
            ratios.map(|[streamed, whole]| streamed[parameter] / whole[parameter].max(1e-9));
        let mut ratios: Vec<f64> = ratios.collect();
        ratios.sort_by(f64::total_cmp);
        (ratios[4] + ratios[5]) / 2.0
    };
    (0..runs[0][0].len()).map(of_parameter).collect()
}

#[test]
fn streamed_f32_gradients_are_as_accurate_as_those_of_one_tile() {
    for (parameter, median) in error_ratios(&steps(), DType::F32).into_iter().enumerate() {
        assert!(
            median <= 1.25,
            "parameter {parameter}: streamed error is {median} times that of one tile"
        );
    }
}

/// Collects features and answers with cotangents that depend on them, region by region.
struct SquaredNorm(Vec<(usize, Rect, Vec<f64>)>);

impl FeatureSink for SquaredNorm {
    fn write(
        &mut self,
        image: usize,
        _: usize,
        region: Rect,
        features: TileRef<'_>,
    ) -> Result<(), ExternalError> {
        let TileRef::F64(rows) = features else {
            return Err("wrong dtype".into());
        };
        let values = (0..rows.rows())
            .flat_map(|row| rows.row(row).to_vec())
            .collect();
        self.0.push((image, region, values));
        Ok(())
    }
}

impl CotangentSource for SquaredNorm {
    fn read(
        &mut self,
        image: usize,
        _: usize,
        region: Rect,
        features: TileRef<'_>,
        out: TileMut<'_>,
    ) -> Result<(), ExternalError> {
        let (TileRef::F64(rows), TileMut::F64(mut out)) = (features, out) else {
            return Err("wrong dtype".into());
        };
        let known = self
            .0
            .iter()
            .find(|(of, at, _)| *of == image && *at == region)
            .ok_or("a region that was never written")?;
        let again: Vec<f64> = (0..rows.rows())
            .flat_map(|row| rows.row(row).to_vec())
            .collect();
        assert_eq!(known.2, again, "recomputed features differ");
        for row in 0..rows.rows() {
            for (cotangent, feature) in out.row(row).iter_mut().zip(rows.row(row)) {
                *cotangent = 2.0 * feature;
            }
        }
        Ok(())
    }
}

/// A sink on a full disk.
struct Full;

impl FeatureSink for Full {
    fn write(&mut self, _: usize, _: usize, _: Rect, _: TileRef<'_>) -> Result<(), ExternalError> {
        Err("y.safetensors: no space left".into())
    }
}

impl CotangentSource for Full {
    fn read(
        &mut self,
        _: usize,
        _: usize,
        _: Rect,
        _: TileRef<'_>,
        _: TileMut<'_>,
    ) -> Result<(), ExternalError> {
        Err("y_bar.safetensors: cut off".into())
    }
}

#[test]
fn what_a_sink_or_a_source_says_is_told_with_its_place() {
    let (net, _variables) = build(&steps(), 3, DType::F64, 11);
    let image = tensor(&[1, 3, 90, 70], DType::F64, 12);
    let request = PlanRequest::new(90, 70).dtype(DType::F64).tile(32);
    let plan = net.plan(request.features(Maps::Streamed)).unwrap();
    let error = plan
        .forward_to(&image, &mut Full)
        .err()
        .unwrap()
        .to_string();
    assert!(
        error.starts_with("feature sink, image 0, rows [0, ")
            && error.ends_with(": y.safetensors: no space left"),
        "{error}"
    );
    let residuals = plan
        .forward_to(&image, &mut SquaredNorm(Vec::new()))
        .unwrap();
    let error = plan.vjp_from(residuals, &mut Full, None).err().unwrap();
    let error = error.to_string();
    // The last tile is the first to be swept back.
    assert!(
        error.starts_with("cotangent source, image 0, rows [")
            && error.contains(", 23), columns [")
            && error.ends_with(", 18): y_bar.safetensors: cut off"),
        "{error}"
    );
}

#[test]
fn features_and_cotangents_can_stream() {
    let (net, _variables) = build(&steps(), 3, DType::F64, 11);
    let image = tensor(&[2, 3, 90, 70], DType::F64, 12);
    let request = PlanRequest::new(90, 70).dtype(DType::F64).batch(2).tile(32);
    let plan = net.plan(request.clone().features(Maps::Streamed)).unwrap();
    let mut exchange = SquaredNorm(Vec::new());
    let residuals = plan.forward_to(&image, &mut exchange).unwrap();
    let streamed = plan.vjp_from(residuals, &mut exchange, None).unwrap();

    let plan = net.plan(request).unwrap();

    let (features, residuals) = plan.forward(&image).unwrap();
    let loss = features.sqr().unwrap().sum_all().unwrap();
    let whole = plan.backward(residuals, &features, &loss).unwrap();
    for parameter in net
        .parameters()
        .iter()
        .filter(|parameter| parameter.trainable)
    {
        let (a, b) = (
            streamed.get(&parameter.tensor).unwrap(),
            whole.get(&parameter.tensor).unwrap(),
        );
        for (a, b) in list(a).iter().zip(&list(b)) {
            assert!(
                (a - b).abs() <= 1e-12 * (1.0 + b.abs()),
                "{}: {a}, {b}",
                parameter.name
            );
        }
    }
}

#[test]
fn nan_in_the_image_reaches_the_features_it_touches_and_no_others() {
    let (net, _variables) = build(
        &[
            Step::Residual(1, false),
            Step::MaxPool([2, 2], [2, 2], [0; 4], false),
        ],
        1,
        DType::F32,
        1,
    );
    let mut pixels = vec![0.5_f32; 32 * 32];
    pixels[16 * 32 + 16] = f32::NAN;
    let image = Tensor::from_vec(pixels, (1, 1, 32, 32), &Device::Cpu).unwrap();
    for tile in [1 << 20, 8] {
        let plan = net.plan(PlanRequest::new(32, 32).tile(tile)).unwrap();
        let features = list(&plan.forward(&image).unwrap().0);
        // Two 3 x 3 convolutions reach two pixels; pooling by two makes that output rows and columns 7 to 9.
        for (index, value) in features.iter().enumerate() {
            let reached = (7..=9).contains(&(index / 16)) && (7..=9).contains(&(index % 16));
            assert_eq!(
                value.is_nan(),
                reached,
                "tile {tile}: position {index} is {value}"
            );
        }
    }
}

#[test]
fn several_outputs_stream_together() {
    let variables = VarMap::new();
    let vb = VarBuilder::from_varmap(&variables, DType::F64, &Device::Cpu);
    let mut net = NetBuilder::new(1);
    let fine = net
        .conv2d(net.input(), Conv2d::new(1, 2, 3).padding(1), vb.pp("a"))
        .unwrap();
    let coarse = net
        .conv2d(fine, Conv2d::new(2, 3, 3).stride(2), vb.pp("b"))
        .unwrap();
    let net = net
        .build_named(vec![("fine".into(), fine), ("coarse".into(), coarse)])
        .unwrap();
    let image = tensor(&[1, 1, 31, 29], DType::F64, 1);
    let run = |tile: u64| {
        let plan = net
            .plan(PlanRequest::new(31, 29).dtype(DType::F64).tile(tile))
            .unwrap();
        let (features, residuals) = plan.forward_all(&image).unwrap();
        let loss = (features[0].sqr().unwrap().sum_all().unwrap()
            + features[1].sqr().unwrap().sum_all().unwrap())
        .unwrap();
        let store = plan.backward_all(residuals, &features, &loss).unwrap();
        let gradients: Vec<Tensor> = net
            .parameters()
            .iter()
            .map(|p| store.get(&p.tensor).unwrap().clone())
            .collect();
        [features, gradients].concat()
    };
    for (whole, streamed) in run(1 << 20).iter().zip(&run(6)) {
        for (a, b) in list(whole).iter().zip(&list(streamed)) {
            assert!((a - b).abs() <= 1e-11 * (1.0 + a.abs()), "{a}, {b}");
        }
    }
}
