//! Streamed equals whole, over random networks, sizes, tiles, blocks, segments and stored nodes, with everything
//! that may not be read poisoned.

use std::path::Path;
use std::sync::OnceLock;

use candle_core::{DType, Tensor};

use proptest::prelude::*;
use stream_grad::tiling::TilingError;
use stream_grad::{InputGradient, Net, Plan, PlanRequest, StreamError};

use crate::networks::{Step, build, step, tensor};

/// One random case: a network, an image and a way to cut it.
#[derive(Debug, Clone)]
pub(crate) struct Case {
    pub(crate) steps: Vec<Step>,
    pub(crate) size: (usize, usize),
    tile: (u64, u64),
    block: Option<u64>,
    segments: u64,
    stored: u32,
    pub(crate) batch: usize,
    pub(crate) seed: u64,
}

impl Case {
    /// The same case in blocks.
    pub(crate) fn with_block(self, edge: u64) -> Self {
        Self {
            block: Some(edge),
            ..self
        }
    }

    /// A request for images of the case's size, on one tile.
    pub(crate) fn whole(&self) -> PlanRequest {
        let (height, width) = self.size;
        PlanRequest::new(height as u64, width as u64)
            .dtype(DType::F64)
            .batch(self.batch)
            .tile(1 << 20)
    }

    /// `request`, cut as the case says.
    pub(crate) fn cut(&self, net: &Net, request: PlanRequest) -> PlanRequest {
        let names = net.operation_names().enumerate();
        let stored = names
            .filter(|(index, _)| self.stored >> (index % 32) & 1 == 1)
            .map(|(_, name)| name.to_owned());
        let request = request
            .tile_extent(self.tile.0, self.tile.1)
            .segments(self.segments)
            .stored(stored);
        match self.block {
            Some(edge) => request.block(edge),
            None => request,
        }
    }

    pub(crate) fn image(&self, channels: usize) -> Tensor {
        let (height, width) = self.size;
        tensor(
            &[self.batch, channels, height, width],
            DType::F64,
            self.seed,
        )
    }
}

pub(crate) fn case() -> impl Strategy<Value = Case> {
    (
        prop::collection::vec(step(), 1..6),
        (8_usize..40, 8_usize..40),
        (1_u64..24, 1_u64..24),
        prop::option::weighted(0.3, 3_u64..20),
        prop_oneof![3 => Just(1_u64), 1 => 2_u64..4],
        prop_oneof![2 => Just(0_u32), 1 => any::<u32>()],
        1_usize..3,
        any::<u64>(),
    )
        .prop_map(
            |(steps, size, tile, block, segments, stored, batch, seed)| Case {
                steps,
                size,
                tile,
                block,
                segments,
                stored,
                batch,
                seed: seed >> 16,
            },
        )
}

/// Features, parameter gradients by name, and the input gradient.
struct Outcome {
    features: Tensor,
    gradients: Vec<(String, Tensor)>,
    input: Tensor,
}

fn run(net: &Net, plan: &Plan, image: &Tensor, seed: u64) -> Outcome {
    let (features, residuals) = plan.forward(image).unwrap();
    let cotangent = tensor(features.dims(), DType::F64, seed + 7);
    let (store, input) = plan.vjp_with_input(residuals, &[cotangent]).unwrap();
    let gradients = net
        .parameters()
        .iter()
        .filter(|parameter| parameter.trainable)
        .map(|parameter| {
            (
                parameter.name.clone(),
                store.get(&parameter.tensor).unwrap().clone(),
            )
        })
        .collect();
    Outcome {
        features,
        gradients,
        input,
    }
}

pub(crate) fn flat(tensor: &Tensor) -> Vec<f64> {
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

/// Relative to the largest value, the scale on which sums of another order differ.
fn assert_close(what: &str, streamed: &Tensor, whole: &Tensor) {
    let (streamed, whole) = (flat(streamed), flat(whole));
    let scale = whole
        .iter()
        .fold(1e-3_f64, |most, value| most.max(value.abs()));
    for (index, (a, b)) in streamed.iter().zip(&whole).enumerate() {
        assert!(
            (a - b).abs() <= 1e-10 * scale,
            "{what}[{index}]: streamed {a}, whole {b}, scale {scale}"
        );
    }
}

fn assert_bitwise(what: &str, a: &Tensor, b: &Tensor) {
    let bits = |tensor: &Tensor| {
        flat(tensor)
            .iter()
            .map(|value| value.to_bits())
            .collect::<Vec<_>>()
    };
    assert_eq!(
        bits(a),
        bits(b),
        "{what} depends on memory that must not be read, or on where it is saved"
    );
}

/// A plan; a case whose image is too small for its network, has fewer bands than segments, or is halved and doubled to another size
/// than it had, is rejected.
pub(crate) fn planned(net: &Net, request: PlanRequest) -> Result<Plan, TestCaseError> {
    match net.plan(request) {
        Err(StreamError::Geometry(
            error @ (TilingError::InputTooSmall { .. }
            | TilingError::MergeMismatch { .. }
            | TilingError::Cut {
                what: "the number of segments",
                ..
            }),
        )) => Err(TestCaseError::reject(error.to_string())),
        planned => Ok(planned.unwrap()),
    }
}

fn check(case: &Case) -> Result<(), TestCaseError> {
    let channels = 2;
    let (net, _variables) = build(&case.steps, channels, DType::F64, case.seed);
    let base = case.whole().input_gradient(InputGradient::Wanted);
    let whole = planned(&net, base.clone())?;
    let request = case.cut(&net, base);
    let nan = planned(&net, request.clone().poison(f64::NAN))?;
    let image = case.image(channels);
    let expected = run(&net, &whole, &image, case.seed);
    let poisoned = run(&net, &nan, &image, case.seed);
    assert_close("features", &poisoned.features, &expected.features);
    assert_close("input gradient", &poisoned.input, &expected.input);
    for ((name, a), (_, b)) in poisoned.gradients.iter().zip(&expected.gradients) {
        assert_close(name, a, b);
    }
    // Operators that swallow NaN would hide a wrong read: two finite fills must give the very same bits.
    for fill in [1e30, -1e30] {
        let plan = net.plan(request.clone().poison(fill)).unwrap();
        let filled = run(&net, &plan, &image, case.seed);
        assert_bitwise("features", &filled.features, &poisoned.features);
        assert_bitwise("input gradient", &filled.input, &poisoned.input);
        for ((name, a), (_, b)) in filled.gradients.iter().zip(&poisoned.gradients) {
            assert_bitwise(name, a, b);
        }
    }
    // Through a file, the very same bits.
    let plan = net
        .plan(request.poison(f64::NAN).offload(offload_folder()))
        .unwrap();
    let offloaded = run(&net, &plan, &image, case.seed);
    assert_bitwise("features", &offloaded.features, &poisoned.features);
    assert_bitwise("input gradient", &offloaded.input, &poisoned.input);
    for ((name, a), (_, b)) in offloaded.gradients.iter().zip(&poisoned.gradients) {
        assert_bitwise(name, a, b);
    }
    Ok(())
}

/// A folder that stays empty, for files in it have no names.
pub(crate) fn offload_folder() -> &'static Path {
    static FOLDER: OnceLock<tempfile::TempDir> = OnceLock::new();
    FOLDER.get_or_init(|| tempfile::tempdir().unwrap()).path()
}

/// `STREAM_GRAD_CASES` sets the number of cases.
pub(crate) fn cases() -> u32 {
    std::env::var("STREAM_GRAD_CASES")
        .ok()
        .and_then(|cases| cases.parse().ok())
        .unwrap_or(1000)
}

#[test]
fn streamed_equals_whole_on_random_graphs() {
    let config = ProptestConfig {
        cases: cases(),
        max_global_rejects: 1 << 20,
        ..ProptestConfig::default()
    };
    let mut runner = proptest::test_runner::TestRunner::new(config);
    runner.run(&case(), |case| check(&case)).unwrap();
    assert_eq!(std::fs::read_dir(offload_folder()).unwrap().count(), 0);
}
