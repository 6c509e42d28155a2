//! Blocks that are swept in several calls, or by several processes, give the bits of one call.

use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};

use candle_core::backprop::GradStore;
use candle_core::{DType, Tensor};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use stream_grad::{
    ExternalError, GradientSums, InputGradient, Net, Plan, PlanRequest, Rect, StreamError, TapSink,
    TileMut, TileRef, TileSource, WholeMaps,
};

use crate::networks::{Step, build, tensor};
use crate::random_graphs::{Case, case, cases, flat};

/// The bits of all gradients, in the order of the network's parameters.
fn bits(net: &Net, gradients: &GradStore) -> Vec<Vec<u64>> {
    let trainable = net.parameters().iter().filter(|one| one.trainable);
    trainable
        .map(|one| {
            let gradient = flat(gradients.get(&one.tensor).unwrap());
            gradient.iter().map(|value| value.to_bits()).collect()
        })
        .collect()
}

/// Sweeps over `blocks` and adds what comes of it to `sums`.
fn sweep(
    plan: &Plan,
    image: &dyn TileSource,
    cotangents: &[Tensor],
    blocks: Range<usize>,
    sums: &mut GradientSums,
) -> Result<(), StreamError> {
    let mut features = WholeMaps::<f64>::zeros(&plan.output_shapes());
    let residuals = plan.forward_blocks(image, &mut features, blocks)?;
    plan.vjp_blocks(residuals, cotangents, sums)
}

/// A range cut into parts, of `most` blocks and fewer, the last first.
fn parts(blocks: usize, most: usize) -> Vec<Range<usize>> {
    let mut parts = Vec::new();
    let mut end = blocks;
    while end > 0 {
        let start = end.saturating_sub(1 + (end * 7) % most);
        parts.push(start..end);
        end = start;
    }
    parts
}

fn check(case: &Case) -> Result<(), TestCaseError> {
    let (net, _variables) = build(&case.steps, 2, DType::F64, case.seed);
    let Ok(plan) = net.plan(case.cut(&net, case.whole())) else {
        return Err(TestCaseError::reject("the network does not fit the image"));
    };
    let image = case.image(2);
    let (features, residuals) = plan.forward(&image).unwrap();
    let cotangents = [tensor(features.dims(), DType::F64, case.seed + 7)];
    let at_once = bits(&net, &plan.vjp(residuals, &cotangents).unwrap());

    let mut in_parts = GradientSums::new();
    for part in parts(plan.blocks(), 4) {
        sweep(&plan, &image, &cotangents, part, &mut in_parts).unwrap();
    }
    prop_assert_eq!(in_parts.blocks(), 0..plan.blocks());

    // As processes would, each with a plan of its own.
    let mut merged = GradientSums::new();
    for block in (0..plan.blocks()).rev() {
        let other = net.plan(case.cut(&net, case.whole())).unwrap();
        let mut sums = GradientSums::new();
        sweep(&other, &image, &cotangents, block..block + 1, &mut sums).unwrap();
        merged.add(&sums).unwrap();
    }
    prop_assert_eq!(&merged, &in_parts);
    let in_parts = plan.gradients(in_parts).unwrap();
    prop_assert_eq!(bits(&net, &in_parts), at_once);
    Ok(())
}

#[test]
fn sums_of_blocks_merge_to_those_of_one_call() {
    let mut runner = TestRunner::new(ProptestConfig {
        cases: cases() / 4,
        max_global_rejects: 1 << 20,
        ..ProptestConfig::default()
    });
    let blocky = (case(), 3_u64..20).prop_map(|(case, edge)| case.with_block(edge));
    runner.run(&blocky, |case| check(&case)).unwrap();
}

/// A network, an image, and a request with 2 x 2 blocks.
fn small() -> (Net, Tensor, PlanRequest) {
    let steps = [Step::Residual(1, true)];
    let (net, _) = build(&steps, 2, DType::F64, 3);
    let image = tensor(&[1, 2, 24, 24], DType::F64, 5);
    let request = PlanRequest::new(24, 24).dtype(DType::F64).tile(6).block(12);
    (net, image, request)
}

fn ones(plan: &Plan) -> [Tensor; 1] {
    let [n, c, h, w] = plan.output_shapes()[0];
    [Tensor::ones((n, c, h, w), DType::F64, &candle_core::Device::Cpu).unwrap()]
}

#[test]
fn sums_can_be_stored_and_read_again() {
    let (net, image, request) = small();
    let plan = net.plan(request).unwrap();
    let mut sums = GradientSums::new();
    sweep(&plan, &image, &ones(&plan), 2..4, &mut sums).unwrap();
    let text = serde_json::to_string(&sums).unwrap();
    let mut read: GradientSums = serde_json::from_str(&text).unwrap();
    assert_eq!(read, sums);
    for sums in [&mut read, &mut sums] {
        sweep(&plan, &image, &ones(&plan), 0..2, sums).unwrap();
    }
    assert_eq!(read, sums);
    let text = serde_json::to_string(&GradientSums::new()).unwrap();
    let none: GradientSums = serde_json::from_str(&text).unwrap();
    assert_eq!(none.blocks(), 0..0);
}

#[test]
fn blocks_in_another_order_are_refused_with_both() {
    let (net, image, request) = small();
    let plan = net.plan(request.clone()).unwrap();
    let cotangents = ones(&plan);
    let mut sums = GradientSums::new();
    sweep(&plan, &image, &cotangents, 1..3, &mut sums).unwrap();
    let before = sums.clone();
    for blocks in [0..4, 1..3, 2..4, 3..4] {
        let refused = sweep(&plan, &image, &cotangents, blocks.clone(), &mut sums).unwrap_err();
        assert_eq!(
            refused.to_string(),
            format!(
                "sums of gradients: expected blocks that end before block 1, found blocks {} to {}",
                blocks.start, blocks.end
            )
        );
        assert_eq!(sums, before);
    }
    let mut last = GradientSums::new();
    sweep(&plan, &image, &cotangents, 3..4, &mut last).unwrap();
    let refused = last.add(&sums).unwrap_err().to_string();
    assert_eq!(
        refused,
        "sums of gradients: expected the sums of one block, found blocks 1 to 3"
    );
    // Anything can be added to nothing, and nothing to anything.
    let mut copy = GradientSums::new();
    copy.add(&last).unwrap();
    copy.add(&GradientSums::new()).unwrap();
    assert_eq!(copy, last);
}

#[test]
fn sums_of_another_plan_are_refused_with_both() {
    let (net, image, request) = small();
    let plan = net.plan(request.clone()).unwrap();
    let other = net.plan(request.clone().tile(5)).unwrap();
    let mut sums = GradientSums::new();
    sweep(&plan, &image, &ones(&plan), 3..4, &mut sums).unwrap();
    let refusals = [
        sweep(&other, &image, &ones(&plan), 2..3, &mut sums).unwrap_err(),
        other.gradients(sums.clone()).unwrap_err(),
    ];
    for refused in refusals {
        let StreamError::GradientSums { expected, found } = &refused else {
            panic!("{refused}");
        };
        assert_eq!(*expected, other.recipe().to_string());
        assert_eq!(*found, plan.recipe().to_string());
    }
    let (wider, _) = build(&[Step::Residual(2, true)], 2, DType::F64, 3);
    let wider = wider.plan(request.clone()).unwrap();
    if wider.recipe() == plan.recipe() {
        let refused = wider.gradients(sums.clone()).unwrap_err().to_string();
        assert!(refused.contains("sums of"), "{refused}");
    }
    let refused = plan.forward_blocks(
        &image,
        &mut WholeMaps::<f64>::zeros(&plan.output_shapes()),
        3..5,
    );
    assert_eq!(
        refused.unwrap_err().to_string(),
        "blocks: the plan is for blocks 0 to 4, found 3 to 5"
    );
}

/// An image that can be read so many times.
struct Failing {
    image: Tensor,
    reads: AtomicUsize,
}

impl TileSource for Failing {
    fn batch(&self) -> usize {
        self.image.batch()
    }

    fn channels(&self) -> usize {
        TileSource::channels(&self.image)
    }

    fn extent(&self) -> (u64, u64) {
        self.image.extent()
    }

    fn read(&self, image: usize, region: Rect, out: TileMut<'_>) -> Result<(), ExternalError> {
        let left = self
            .reads
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |reads| {
                reads.checked_sub(1)
            });
        left.map_err(|_| "the disk is gone")?;
        self.image.read(image, region, out)
    }
}

#[test]
fn after_an_error_the_sums_hold_whole_blocks_and_can_go_on() {
    let (net, image, request) = small();
    // Nothing is stored, so the backward sweep reads the image again: 4 blocks of 2 x 2 tiles and more.
    let plan = net
        .plan(request.stored(std::iter::empty::<String>()))
        .unwrap();
    let cotangents = ones(&plan);
    let mut expected = GradientSums::new();
    sweep(&plan, &image, &cotangents, 0..4, &mut expected).unwrap();

    let counted = Failing {
        image: image.clone(),
        reads: AtomicUsize::new(usize::MAX),
    };
    sweep(&plan, &counted, &cotangents, 0..4, &mut GradientSums::new()).unwrap();
    let all = usize::MAX - counted.reads.into_inner();
    let mut seen = Vec::new();
    for reads in 1..all {
        let failing = Failing {
            image: image.clone(),
            reads: AtomicUsize::new(reads),
        };
        let mut sums = GradientSums::new();
        let error = sweep(&plan, &failing, &cotangents, 0..4, &mut sums).unwrap_err();
        assert!(matches!(error, StreamError::Source { .. }), "{error}");
        let start = if sums.blocks().is_empty() {
            4
        } else {
            sums.blocks().start
        };
        seen.push(start);
        sweep(&plan, &image, &cotangents, 0..start, &mut sums).unwrap();
        assert_eq!(sums, expected, "after {reads} reads");
    }
    seen.dedup();
    assert_eq!(seen, [4, 3, 2, 1]);
}

/// Takes what is shown and forgets it.
struct Forget;

impl TapSink for Forget {
    fn take(
        &mut self,
        _: usize,
        _: usize,
        _: Rect,
        _: TileRef<'_>,
        _: TileRef<'_>,
    ) -> Result<(), ExternalError> {
        Ok(())
    }
}

#[test]
fn taps_want_all_blocks_of_an_image() {
    let (net, image, request) = small();
    let layer = net.operation_names().last().unwrap().to_owned();
    let request = request.input_gradient(InputGradient::Skipped).tap(layer);
    let plan = net.plan(request).unwrap();
    let mut features = WholeMaps::<f64>::zeros(&plan.output_shapes());
    let residuals = plan.forward_blocks(&image, &mut features, 0..4).unwrap();
    plan.vjp_tapped(residuals, &ones(&plan), &mut Forget)
        .unwrap();
    let residuals = plan.forward_blocks(&image, &mut features, 1..4).unwrap();
    let refused = plan.vjp_tapped(residuals, &ones(&plan), &mut Forget);
    assert_eq!(
        refused.unwrap_err().to_string(),
        "taps: the plan is for all 4 blocks of an image, over which what is shown is summed, found blocks 1 to 4"
    );
}
