//! Tiles that see one colour are computed once: features are the same bit for bit, and so is what is announced of reads.

use std::ops::Range;
use std::sync::Mutex;

use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use stream_grad_engine::tiling::{Reuse, Weights};
use stream_grad_engine::{
    Arithmetic, Backend, CheckedSource, Conv2d, CotangentSource, Cpu, DType, Exchange,
    ExternalError, GradientSums, InputGradient, Model, NetworkBuilder, OwnedGradients, OwnedModel,
    OwnedParameters, ParameterId, Plan, PlanRequest, Pointwise, Rect, Result, Span, Stored,
    TileMut, TileRef, TileSource, WholeMaps, bf16,
};

use super::backend::Plain;
use super::{model, planned_or_rejected};

/// An image of one colour, or of two halves, with discs of noise; of the batch, each one has others.
#[derive(Debug, Default)]
struct Picture {
    batch: usize,
    size: [usize; 2],
    seed: u64,
    /// Row, column and radius of each disc.
    discs: Vec<[usize; 3]>,
    /// The first column of the second colour.
    half: Option<usize>,
    /// What was announced, and what was read.
    reads: Mutex<[Vec<(usize, Rect)>; 2]>,
}

const CHANNELS: usize = 2;

impl Picture {
    fn pixel(&self, image: usize, [row, column]: [usize; 2]) -> [f64; CHANNELS] {
        let row = row + 5 * image;
        let inside = |[r, c, radius]: &[usize; 3]| {
            row.abs_diff(*r).pow(2) + column.abs_diff(*c).pow(2) < radius.pow(2)
        };
        if self.discs.iter().any(inside) {
            let mixed = (row * 7919 + column * 104_729) as u64 ^ self.seed;
            let noise = mixed.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40;
            return [noise as f64 / 1e7, 1.0 - noise as f64 / 9e6];
        }
        match self.half {
            Some(half) if column >= half => [0.25, -0.75],
            _ => [0.1, 0.7],
        }
    }

    fn pixels(&self, image: usize, region: Rect) -> impl Iterator<Item = [f64; CHANNELS]> + '_ {
        let place = |place: i64| usize::try_from(place).unwrap();
        (region.rows.lo..region.rows.hi).flat_map(move |row| {
            let columns = region.columns.lo..region.columns.hi;
            columns.map(move |column| self.pixel(image, [place(row), place(column)]))
        })
    }

    fn write<T: Stored>(&self, image: usize, region: Rect, out: TileMut<'_>) -> Option<()> {
        let mut rows = T::from_tile_mut(out)?;
        let mut pixels = self.pixels(image, region);
        for row in 0..rows.rows() {
            for values in rows.row(row).chunks_exact_mut(CHANNELS) {
                let pixel = pixels.next()?;
                for (value, channel) in values.iter_mut().zip(pixel) {
                    *value = T::rounded(channel);
                }
            }
        }
        Some(())
    }

    /// What was announced, and what was read, since the last call.
    fn take_reads(&self) -> [Vec<(usize, Rect)>; 2] {
        std::mem::take(&mut *self.reads.lock().unwrap())
    }
}

impl TileSource for Picture {
    fn batch(&self) -> usize {
        self.batch
    }

    fn channels(&self) -> usize {
        CHANNELS
    }

    fn extent(&self) -> (u64, u64) {
        (self.size[0] as u64, self.size[1] as u64)
    }

    fn expect_reads(&self, reads: &mut dyn Iterator<Item = (usize, Rect)>) {
        self.reads.lock().unwrap()[0].extend(reads);
    }

    fn one_color(&self, image: usize, region: Rect) -> Result<Option<Vec<f64>>, ExternalError> {
        let mut pixels = self.pixels(image, region);
        let first = pixels.next().ok_or("a region without pixels")?;
        Ok(pixels.all(|pixel| pixel == first).then(|| first.to_vec()))
    }

    fn read(&self, image: usize, region: Rect, out: TileMut<'_>) -> Result<(), ExternalError> {
        self.reads.lock().unwrap()[1].push((image, region));
        let written = match out {
            TileMut::F32(_) => self.write::<f32>(image, region, out),
            TileMut::F64(_) => self.write::<f64>(image, region, out),
            TileMut::BF16(_) => self.write::<bf16>(image, region, out),
        };
        written.ok_or_else(|| "a tile of another shape".into())
    }
}

/// Cotangents that follow from the features, but in some places.
#[derive(Debug, Clone)]
struct Head {
    spots: Vec<[i64; 2]>,
    /// Regions that it was asked for.
    asked: usize,
}

impl Head {
    fn is_spot(&self, row: i64, column: i64) -> bool {
        self.spots.contains(&[row, column])
    }
}

impl CotangentSource for Head {
    fn follows_from_features(&self, _image: usize, _output: usize, region: Rect) -> bool {
        let mut spots = self.spots.iter();
        let covers = |span: Span, place: i64| span.lo <= place && place < span.hi;
        !spots.any(|&[row, column]| covers(region.rows, row) && covers(region.columns, column))
    }

    fn read(
        &mut self,
        image: usize,
        output: usize,
        region: Rect,
        features: TileRef<'_>,
        out: TileMut<'_>,
    ) -> Result<(), ExternalError> {
        self.asked += 1;
        let features = f64::from_tile(features).ok_or("features of another dtype")?;
        let mut out = f64::from_tile_mut(out).ok_or("cotangents of another dtype")?;
        let channels = features.row(0).len() / region.width().max(1);
        for (index, row) in (region.rows.lo..region.rows.hi).enumerate() {
            let places = out
                .row(index)
                .iter_mut()
                .zip(features.row(index))
                .enumerate();
            for (place, (out, feature)) in places {
                let column = region.columns.lo + i64::try_from(place / channels)?;
                // Each image has a loss of its own.
                let weight = 1.0 + image as f64 - 0.3 * output as f64 + (place % channels) as f64;
                *out = if self.is_spot(row, column) {
                    (row * 31 + column) as f64 * 0.01
                } else {
                    (feature + weight).sin()
                };
            }
        }
        Ok(())
    }
}

/// A network, an image, and how it is cut.
#[derive(Debug)]
struct Case {
    steps: Vec<u8>,
    picture: Picture,
    tile: (u64, u64),
    block: Option<u64>,
    segments: u64,
    stored: u32,
    spots: Vec<[i64; 2]>,
    seed: u64,
}

fn cases() -> impl Strategy<Value = Case> {
    let edge = || prop_oneof![4 => (1_u64..=4).prop_map(|m| 4 * m), 1 => 2_u64..=16];
    let disc = [0_usize..72, 0..72, 1..7];
    (
        prop::collection::vec(any::<u8>(), 1..4),
        (
            [20_usize..72, 20..72],
            1_usize..3,
            prop::collection::vec(disc, 0..3),
            prop::option::weighted(0.3, 0_usize..72),
        ),
        (edge(), edge()),
        prop::option::weighted(0.3, 12_u64..40),
        prop_oneof![3 => Just(1_u64), 1 => 2_u64..4],
        prop_oneof![2 => Just(0_u32), 1 => any::<u32>()],
        prop::collection::vec([0_i64..40, 0..40], 0..3),
        any::<u64>(),
    )
        .prop_map(
            |(steps, (size, batch, discs, half), tile, block, segments, stored, spots, seed)| {
                Case {
                    steps,
                    spots,
                    picture: Picture {
                        batch,
                        size,
                        seed,
                        discs,
                        half,
                        reads: Mutex::default(),
                    },
                    tile,
                    block,
                    segments,
                    stored,
                    seed,
                }
            },
        )
}

impl Case {
    fn request(&self, model: &OwnedModel) -> PlanRequest {
        let [height, width] = self.picture.size;
        let names = model.network().operation_names().enumerate();
        let stored = names
            .filter(|(index, _)| self.stored >> (index % 32) & 1 == 1)
            .map(|(_, name)| name.to_owned());
        let request = PlanRequest::new(height as u64, width as u64)
            .batch(self.picture.batch)
            .dtype(DType::F64)
            .input_gradient(InputGradient::Wanted)
            .tile_extent(self.tile.0, self.tile.1)
            .segments(self.segments)
            .stored(stored);
        match self.block {
            Some(edge) => request.block(edge),
            None => request,
        }
    }
}

/// Features, input gradient and gradients of parameters.
fn run<B: Backend<Stored = f64>>(
    backend: &B,
    model: &OwnedModel,
    plan: &Plan,
    source: &dyn TileSource,
    head: &mut Head,
) -> Result<[Vec<Vec<f64>>; 2]> {
    let mut features = WholeMaps::<f64>::zeros(&plan.output_shapes());
    let residuals = plan.forward_on(backend, model.values(), source, &mut features)?;
    let mut input_gradient = WholeMaps::<f64>::zeros(&[plan.input_shape()]);
    let exchange = Exchange {
        cotangents: head,
        input_gradient: Some(&mut input_gradient),
        taps: None,
    };
    let mut gradients = OwnedGradients::default();
    plan.vjp_on(backend, residuals, exchange, &mut gradients)?;
    let data = |maps: WholeMaps<f64>| maps.into_maps().into_iter().map(|map| map.data);
    let parameters = 0..model.network().parameters().len();
    let parameters =
        parameters.filter_map(|id| gradients.get(ParameterId(id)).map(<[f64]>::to_vec));
    Ok([
        data(features).collect(),
        data(input_gradient).chain(parameters).collect(),
    ])
}

fn bits(values: &[Vec<f64>]) -> Vec<u64> {
    let values = values.iter().flatten();
    values.map(|value| value.to_bits()).collect()
}

/// Up to the order of sums, on the scale of the largest value of a parameter's gradient; of one whose terms cancel, on a hundredth of
/// that of all.
fn assert_close(found: &[Vec<f64>], expected: &[Vec<f64>]) -> Result<(), TestCaseError> {
    prop_assert_eq!(found.len(), expected.len());
    let largest = |values: &[f64], least: f64| {
        let values = values.iter();
        values.fold(least, |most, value| most.max(value.abs()))
    };
    let all = expected
        .iter()
        .fold(1e-3, |most, values| largest(values, most));
    for (found, expected) in found.iter().zip(expected) {
        let scale = largest(expected, all / 100.0);
        prop_assert_eq!(found.len(), expected.len());
        for (a, b) in found.iter().zip(expected) {
            prop_assert!(
                (a - b).abs() <= 1e-12 * scale,
                "{a}, expected {b} of {scale}"
            );
        }
    }
    Ok(())
}

/// Regions that were read, and asked for of the head, without reuse and with it.
fn check<B: Backend<Stored = f64>>(
    backend: &B,
    case: Case,
) -> Result<[[usize; 2]; 2], TestCaseError> {
    let model = model(&case.steps, case.seed).unwrap();
    let request = case.request(&model);
    let planned = |request: PlanRequest| planned_or_rejected(backend, &model, request);
    let plain = planned(request.clone())?;
    let reusing = request.reuse(Reuse::OneColor);
    let source = CheckedSource::new(case.picture, DType::F64);
    let head = Head {
        spots: case.spots,
        asked: 0,
    };
    let mut asked = head.clone();
    let expected = run(backend, &model, &plain, &source, &mut asked).unwrap();
    let [announced, read] = source.source().take_reads();
    prop_assert_eq!(&announced, &read);
    let mut seen = [[read.len(), asked.asked], [0; 2]];

    let folder = tempfile::tempdir().unwrap();
    let reusing = reusing.poison(f64::NAN);
    let mut gradients = None;
    for request in [
        reusing.clone(),
        reusing.clone().weights(Weights::PackedOnUse),
        reusing.offload(folder.path()),
    ] {
        let plan = planned(request)?;
        prop_assert_eq!(plan.recipe().reuse, Reuse::OneColor);
        // What was checked was read, too.
        source.source().take_reads();
        let mut asked = head.clone();
        let found = run(backend, &model, &plan, source.source(), &mut asked).unwrap();
        prop_assert_eq!(bits(&found[0]), bits(&expected[0]));
        let [announced, read] = source.source().take_reads();
        prop_assert_eq!(&announced, &read);
        seen[1] = [read.len(), asked.asked];
        assert_close(&found[1], &expected[1])?;
        let first = gradients.get_or_insert_with(|| bits(&found[1]));
        prop_assert_eq!(bits(&found[1]), &**first);
        run(backend, &model, &plan, &source, &mut head.clone()).unwrap();
    }
    Ok(seen)
}

fn over_cases<B: Backend<Stored = f64>>(backend: &B, cases_of: u32) {
    let config = ProptestConfig {
        cases: cases_of,
        max_global_rejects: 1 << 16,
        ..ProptestConfig::default()
    };
    let all = Mutex::new([[0; 2]; 2]);
    TestRunner::new(config)
        .run(&cases(), |case| {
            let seen = check(backend, case)?;
            let mut all = all.lock().unwrap();
            for (all, seen) in all.iter_mut().flatten().zip(seen.iter().flatten()) {
                *all += seen;
            }
            Ok(())
        })
        .unwrap();
    let [plain, reusing] = *all.lock().unwrap();
    for (reusing, plain) in reusing.iter().zip(plain) {
        assert!(10 * reusing < 9 * plain, "{reusing} of {plain}");
    }
}

#[test]
fn reused_tiles_are_those_that_would_be_computed() {
    over_cases(&Cpu::<f64>::new(), 400);
}

#[test]
fn reused_tiles_are_those_that_a_second_backend_would_compute() {
    over_cases(&Plain::default(), 40);
}

#[test]
fn blocks_that_are_swept_apart_give_the_same_sums() {
    let model = model(&[0, 0], 7).unwrap();
    let picture = Picture {
        batch: 2,
        size: [70, 66],
        discs: vec![[20, 30, 5]],
        ..Picture::default()
    };
    let request = PlanRequest::new(70, 66)
        .batch(2)
        .dtype(DType::F64)
        .tile(6)
        .block(36);
    let backend = Cpu::<f64>::new();
    let plan = Plan::on(&backend, model.network(), request.reuse(Reuse::OneColor)).unwrap();
    let blocks = plan.blocks();
    assert_eq!(blocks, 8);
    let sweep = |range: Range<usize>, sums: &mut GradientSums| {
        let mut features = WholeMaps::<f64>::zeros(&plan.output_shapes());
        let residuals = plan
            .forward_blocks_on(&backend, model.values(), &picture, &mut features, range)
            .unwrap();
        let mut head = Head {
            spots: Vec::new(),
            asked: 0,
        };
        let exchange = Exchange {
            cotangents: &mut head,
            input_gradient: None,
            taps: None,
        };
        plan.vjp_blocks_on(&backend, residuals, exchange, sums)
            .unwrap();
        head.asked
    };
    let mut at_once = GradientSums::new();
    let asked = sweep(0..blocks, &mut at_once);
    let mut in_parts = GradientSums::new();
    let in_turn = [5..blocks, 1..5, 0..1].map(|range| sweep(range, &mut in_parts));
    assert_eq!(at_once, in_parts);
    assert_eq!(in_turn.iter().sum::<usize>(), asked);
    // Of two images.
    assert!(asked < plan.tiles(), "{asked} of twice {}", plan.tiles());
}

/// Enough channels for Winograd's arithmetic.
fn winograd() -> OwnedModel {
    let mut own = OwnedParameters::new(4);
    let mut net = NetworkBuilder::new(CHANNELS);
    let mut x = net.input();
    for channels in [CHANNELS, 32, 32] {
        let conv = Conv2d::new(channels, 32, 3).padding(1);
        x = net.conv2d(x, conv, "", &mut own).unwrap();
        x = net.pointwise(x, Pointwise::Relu).unwrap();
    }
    OwnedModel::new(net, vec![("features".into(), x)], own).unwrap()
}

#[test]
fn the_grid_of_an_arithmetic_counts() {
    let model = winograd();
    for (tile, arithmetic) in [
        (7, Arithmetic::Auto),
        (7, Arithmetic::Direct),
        (8, Arithmetic::Auto),
    ] {
        let picture = Picture {
            batch: 1,
            size: [90, 97],
            discs: vec![[30, 40, 9]],
            ..Picture::default()
        };
        let features = |reuse: Reuse| {
            let request = PlanRequest::new(90, 97).tile(tile).arithmetic(arithmetic);
            let plan = Plan::new(model.network(), request.reuse(reuse)).unwrap();
            let mut features = WholeMaps::<f32>::zeros(&plan.output_shapes());
            plan.forward_to(model.values(), &picture, &mut features)
                .unwrap();
            let data = features.into_maps().swap_remove(0).data;
            let [_, read] = picture.take_reads();
            (data.into_iter().map(f32::to_bits).collect::<Vec<_>>(), read)
        };
        let (expected, all) = features(Reuse::Nothing);
        let (found, read) = features(Reuse::OneColor);
        assert_eq!(found, expected, "tile {tile}, {arithmetic:?}");
        assert!(
            2 * read.len() < all.len(),
            "{} of {}",
            read.len(),
            all.len()
        );
    }
}

/// Says that all is of one colour, and is not.
struct Lying(Picture);

impl TileSource for Lying {
    fn batch(&self) -> usize {
        self.0.batch()
    }

    fn channels(&self) -> usize {
        self.0.channels()
    }

    fn extent(&self) -> (u64, u64) {
        self.0.extent()
    }

    fn one_color(&self, _image: usize, _region: Rect) -> Result<Option<Vec<f64>>, ExternalError> {
        Ok(Some(vec![0.1, 0.7]))
    }

    fn read(&self, image: usize, region: Rect, out: TileMut<'_>) -> Result<(), ExternalError> {
        self.0.read(image, region, out)
    }
}

#[test]
fn a_source_that_lies_is_found() {
    let model = model(&[0], 1).unwrap();
    let request = PlanRequest::new(40, 40).dtype(DType::F64).tile(8);
    let plan = Plan::new(model.network(), request.reuse(Reuse::OneColor)).unwrap();
    let forward = |discs: Vec<[usize; 3]>| {
        let picture = Picture {
            batch: 1,
            size: [40, 40],
            discs,
            ..Picture::default()
        };
        let source = CheckedSource::new(Lying(picture), DType::F64);
        let mut features = WholeMaps::<f64>::zeros(&plan.output_shapes());
        let residuals = plan.forward_to(model.values(), &source, &mut features);
        residuals.map(drop)
    };
    forward(Vec::new()).unwrap();
    let error = forward(vec![[21, 30, 1]]).unwrap_err();
    let text = format!("{error}: {}", std::error::Error::source(&error).unwrap());
    assert!(
        text.contains("one colour") && text.contains("row 21, column 30"),
        "{text}"
    );
}
