//! What tiles of one colour save: a step on an image with a disc of texture on a share of it and one colour elsewhere, all tiles computed
//! beside those of one colour computed once, within the same budget.
//!
//! `cargo run --release -p stream-grad-bench --example one_color -- [model] [edge] [memory] [rounds] [percent ...]`, by default ResNet-18,
//! 2048 pixels, 1GiB, 3 rounds, and 25, 1 and 100% of texture. In each round both take a step, one after the other, so that the ratios are
//! of one run; what tells the time is the median of the ratios.

use std::time::Instant;

use anyhow::Context;
use candle_core::{DType, Device};
use candle_nn::VarMap;
use stream_grad::tiling::{Fraction, Reuse};
use stream_grad::{
    ByteCount, CostModel, ExternalError, FeatureSink, Maps, Ones, Plan, PlanRequest, Rect, Stored,
    TileMut, TileRef, TileSource,
};
use stream_grad_models::{ModelName, seeded};

fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let name: ModelName = arguments.next().as_deref().unwrap_or("resnet18").parse()?;
    let edge: u64 = arguments.next().as_deref().unwrap_or("2048").parse()?;
    let memory: ByteCount = arguments.next().as_deref().unwrap_or("1GiB").parse()?;
    let rounds: usize = arguments.next().as_deref().unwrap_or("3").parse()?;
    let shares = arguments.map(|share| share.parse::<u32>().context(share));
    let mut shares: Vec<u32> = shares.collect::<anyhow::Result<_>>()?;
    if shares.is_empty() {
        shares = vec![25, 1, 100];
    }
    let net = name.build(seeded(&VarMap::new(), 0, DType::F32, &Device::Cpu))?;
    let mut costs = CostModel::default();
    costs.calibrate(&net, &PlanRequest::new(edge, edge))?;
    println!("{name}, {edge} x {edge}, {memory}, {rounds} rounds");
    for share in shares {
        let image = Disc::new(edge, share);
        let request = PlanRequest::new(edge, edge)
            .features(Maps::Streamed)
            .memory(memory)
            .cost_model(costs.clone());
        let all = net.plan(request.clone())?;
        let request = request.reuse(Reuse::OneColor);
        let once = net.plan(request.texture(Fraction::new(share.into(), 100)))?;
        println!("\n{share}% of texture");
        compare(&image, [all, once], rounds)?;
    }
    Ok(())
}

/// Prints the times of both plans round by round.
fn compare(image: &Disc, plans: [Plan; 2], rounds: usize) -> anyhow::Result<()> {
    for plan in &plans {
        let computed = plan.computed_tiles(image, &Ones)?;
        println!(
            "  {}; peak {}, predicted {:.2} s; computed of {} tiles: {} forward, {} backward",
            plan.recipe(),
            plan.peak_bytes(),
            plan.predicted_time().as_secs_f64(),
            plan.tiles(),
            computed.forward,
            computed.backward
        );
    }
    let mut ratios = Vec::with_capacity(rounds);
    for round in 0..rounds {
        // They take turns in going first.
        let order = if round % 2 == 0 { [0, 1] } else { [1, 0] };
        let mut seconds = [0.0; 2];
        for plan in order {
            seconds[plan] = step(&plans[plan], image)?;
        }
        let [all, once] = seconds;
        println!(
            "  all {all:.3} s, once {once:.3} s, ratio {:.3}",
            once / all
        );
        ratios.push(once / all);
    }
    ratios.sort_by(f64::total_cmp);
    if let (Some(least), Some(most)) = (ratios.first(), ratios.last()) {
        let median = ratios[ratios.len() / 2];
        println!("  median ratio {median:.3}, from {least:.3} to {most:.3}");
    }
    Ok(())
}

/// Seconds of a step. What stays for the next one goes, so that there is room for the other plan.
fn step(plan: &Plan, image: &Disc) -> anyhow::Result<f64> {
    let start = Instant::now();
    let residuals = plan.forward_to(image, &mut Nowhere)?;
    drop(plan.vjp_from(residuals, &mut Ones, None)?);
    let seconds = start.elapsed().as_secs_f64();
    plan.release_memory();
    Ok(seconds)
}

/// A square image of noise in a disc about its middle, and of one colour elsewhere.
struct Disc {
    edge: u64,
    /// Square of the radius.
    square: i64,
}

impl Disc {
    /// A disc of `percent` of the image's area; all of it from 100 on.
    fn new(edge: u64, percent: u32) -> Self {
        let area = edge * edge * u64::from(percent) / 100;
        // 355 / 113 is pi to six digits.
        let square = if percent < 100 {
            area * 113 / 355
        } else {
            edge * edge
        };
        Self {
            edge,
            square: square.cast_signed(),
        }
    }

    /// Whether a pixel, by its distance from the middle, is one of noise.
    fn holds(&self, (row, column): (i64, i64)) -> bool {
        row * row + column * column < self.square
    }

    fn middle(&self) -> i64 {
        self.edge.cast_signed() / 2
    }

    /// The value of a channel, from 0 to 1.
    fn value(&self, (row, column): (i64, i64), channel: usize) -> f32 {
        let middle = self.middle();
        if !self.holds((row - middle, column - middle)) {
            return 0.75;
        }
        let place = row * self.edge.cast_signed() + column;
        let mut bits =
            (place.cast_unsigned() * 3 + channel as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        bits ^= bits >> 29;
        bits = bits.wrapping_mul(0xbf58_476d_1ce4_e5b9);
        // Of sixteen bits no rounding.
        f32::from((bits >> 48) as u16) / 65536.0
    }

    fn write<T: Stored>(&self, (row, region): (i64, Rect), values: &mut [T]) {
        let columns = region.columns.lo..region.columns.hi;
        for (column, pixel) in columns.zip(values.chunks_exact_mut(3)) {
            for (channel, value) in pixel.iter_mut().enumerate() {
                *value = T::rounded(self.value((row, column), channel).into());
            }
        }
    }
}

impl TileSource for Disc {
    fn batch(&self) -> usize {
        1
    }

    fn channels(&self) -> usize {
        3
    }

    fn extent(&self) -> (u64, u64) {
        (self.edge, self.edge)
    }

    fn one_color(&self, _image: usize, region: Rect) -> Result<Option<Vec<f64>>, ExternalError> {
        let middle = self.middle();
        // The pixel that is nearest to the middle.
        let nearest = |lo: i64, hi: i64| middle.clamp(lo, hi - 1) - middle;
        let Rect { rows, columns } = region;
        let nearest = (nearest(rows.lo, rows.hi), nearest(columns.lo, columns.hi));
        Ok((!self.holds(nearest)).then(|| vec![0.75; 3]))
    }

    fn read(&self, _image: usize, region: Rect, out: TileMut<'_>) -> Result<(), ExternalError> {
        let rows = (region.rows.lo..region.rows.hi).enumerate();
        match out {
            TileMut::F32(mut tile) => {
                rows.for_each(|(index, row)| self.write((row, region), tile.row(index)));
            }
            TileMut::F64(mut tile) => {
                rows.for_each(|(index, row)| self.write((row, region), tile.row(index)));
            }
            TileMut::BF16(mut tile) => {
                rows.for_each(|(index, row)| self.write((row, region), tile.row(index)));
            }
        }
        Ok(())
    }
}

/// Takes features and forgets them.
struct Nowhere;

impl FeatureSink for Nowhere {
    fn write(
        &mut self,
        _image: usize,
        _output: usize,
        _region: Rect,
        _features: TileRef<'_>,
    ) -> Result<(), ExternalError> {
        Ok(())
    }
}
