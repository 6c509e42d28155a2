//! Predicted beside measured time of forward and backward, over tiles, segments and what is stored: how far the planner's model
//! of time is to be trusted on this machine.
//!
//! `cargo run --release -p stream-grad-bench --example prediction -- [model] [edge] [rounds]`, by default ResNet-18, 1024
//! pixels, 3 rounds. Of each recipe the fastest round counts: other work on the machine only adds to a time.

use std::time::Instant;

use anyhow::Context;
use candle_core::{DType, Device, Tensor};
use candle_nn::VarMap;
use stream_grad::{ByteCount, CostModel, Net, Plan, PlanRequest};
use stream_grad_models::{ModelName, seeded};

fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let name: ModelName = arguments.next().as_deref().unwrap_or("resnet18").parse()?;
    let mut number = |what: &str, default: u64| match arguments.next() {
        Some(text) => text.parse().with_context(|| format!("{what}: `{text}`")),
        None => Ok(default),
    };
    let edge: u64 = number("edge in pixels", 1024)?;
    let rounds: u64 = number("number of rounds", 3)?;
    let net = name.build(seeded(&VarMap::new(), 0, DType::F32, &Device::Cpu))?;

    let start = Instant::now();
    let mut model = CostModel::default();
    model.calibrate(&net, &PlanRequest::new(edge, edge))?;
    let seconds = start.elapsed().as_secs_f64();
    println!("{name}, {edge} x {edge}, calibrated in {seconds:.1} s");

    let mut recipes = Vec::new();
    for request in requests(&net, edge) {
        recipes.push(Measured::new(net.plan(request.cost_model(model.clone()))?));
    }
    recipes.extend(choices(&net, edge, &model, &recipes)?);
    let size = usize::try_from(edge)?;
    let shape = (1, net.input_channels(), size, size);
    let image = Tensor::rand(-1.0_f32, 1.0, shape, &Device::Cpu)?;
    // Round by round over all recipes, so that they share the machine's moods.
    for _ in 0..rounds {
        for recipe in &mut recipes {
            recipe.measure(&image)?;
        }
    }
    report(&recipes);
    Ok(())
}

/// A plan and the least time that it took.
struct Measured {
    plan: Plan,
    forward: f64,
    seconds: f64,
}

impl Measured {
    const fn new(plan: Plan) -> Self {
        Self {
            plan,
            forward: f64::INFINITY,
            seconds: f64::INFINITY,
        }
    }

    fn measure(&mut self, image: &Tensor) -> anyhow::Result<()> {
        let cotangent = Tensor::ones(&self.plan.output_shapes()[0], DType::F32, &Device::Cpu)?;
        // What stays from step to step is there when the clock starts.
        let (features, residuals) = self.plan.forward(image)?;
        drop((
            features,
            self.plan.vjp(residuals, std::slice::from_ref(&cotangent))?,
        ));
        let start = Instant::now();
        let (features, residuals) = self.plan.forward(image)?;
        let forward = start.elapsed().as_secs_f64();
        let gradients = self.plan.vjp(residuals, &[cotangent])?;
        let seconds = start.elapsed().as_secs_f64();
        drop((features, gradients));
        // There is to be room for other plans.
        self.plan.release_memory();
        if seconds < self.seconds {
            (self.forward, self.seconds) = (forward, seconds);
        }
        Ok(())
    }

    fn predicted(&self) -> f64 {
        self.plan.predicted_time().as_secs_f64()
    }

    fn peak(&self) -> u64 {
        self.plan.peak_bytes().get()
    }
}

/// Tiles of several edges, bands, segments, with nothing, the later half or everything stored.
fn requests(net: &Net, edge: u64) -> Vec<PlanRequest> {
    let names: Vec<&str> = net.operation_names().skip(1).collect();
    let late = &names[names.len() / 2..];
    let image = || PlanRequest::new(edge, edge);
    let mut requests = Vec::new();
    for stored in [&[], late, &names] {
        let stored = |request: PlanRequest| request.stored(stored.iter().copied());
        for part in [1, 2, 4, 8] {
            requests.push(stored(image().tile(edge / part)));
        }
        requests.push(stored(image().tile_extent(edge / 8, edge)));
        requests.push(stored(image().tile(edge / 4).segments(2)));
        requests.push(stored(image().tile_extent(edge / 8, edge).segments(4)));
    }
    requests
}

/// What the planner chooses itself, from the least of the peaks to the largest.
fn choices(
    net: &Net,
    edge: u64,
    model: &CostModel,
    recipes: &[Measured],
) -> anyhow::Result<Vec<Measured>> {
    let peaks = || recipes.iter().map(Measured::peak);
    let least = peaks().min().context("no recipe")?;
    let most = peaks().max().context("no recipe")?;
    let budgets = (0..=4).map(|quarter| least + (most - least) / 4 * quarter);
    let plans = budgets.map(|budget| {
        let request = PlanRequest::new(edge, edge).memory(ByteCount::bytes(budget));
        Ok(Measured::new(net.plan(request.cost_model(model.clone()))?))
    });
    plans.collect()
}

fn report(recipes: &[Measured]) {
    println!("predicted   measured (forward)      ratio        peak  recipe");
    for recipe in recipes {
        let (predicted, cut) = (recipe.predicted(), recipe.plan.recipe());
        println!(
            "{predicted:>7.3} s{:>9.3} s ({:.3} s){:>11.3}{:>12}  tile {}x{}, {} segment(s), {} stored",
            recipe.seconds,
            recipe.forward,
            recipe.seconds / predicted,
            recipe.plan.peak_bytes().to_string(),
            cut.tile.rows,
            cut.tile.columns,
            cut.segments,
            cut.stored.len()
        );
    }
    let ratios = || {
        recipes
            .iter()
            .map(|recipe| recipe.seconds / recipe.predicted())
    };
    println!(
        "measured / predicted from {:.3} to {:.3}; rank correlation {:.3}",
        ratios().fold(f64::INFINITY, f64::min),
        ratios().fold(0.0, f64::max),
        rank_correlation(recipes)
    );
    let (loss, budget) = recipes
        .iter()
        .map(|recipe| (loss(recipes, recipe.peak()), recipe.plan.peak_bytes()))
        .fold((0.0, ByteCount::bytes(0)), |most, next| {
            if next.0 > most.0 { next } else { most }
        });
    println!(
        "the predicted best is slower than the measured best by {:.1}%; by {:.1}% at most with any budget, with {budget}",
        100.0 * self::loss(recipes, u64::MAX),
        100.0 * loss
    );
}

/// How much longer the recipe with the least predicted time takes than the fastest one, of those within the budget.
fn loss(recipes: &[Measured], budget: u64) -> f64 {
    let fitting = || recipes.iter().filter(|recipe| recipe.peak() <= budget);
    let chosen = fitting().min_by(|a, b| a.predicted().total_cmp(&b.predicted()));
    let best = fitting()
        .map(|recipe| recipe.seconds)
        .min_by(f64::total_cmp);
    match (chosen, best) {
        (Some(chosen), Some(best)) => chosen.seconds / best - 1.0,
        _ => 0.0,
    }
}

/// Spearman's, between predicted and measured times.
fn rank_correlation(recipes: &[Measured]) -> f64 {
    let ranks = |time: fn(&Measured) -> f64| -> Vec<f64> {
        let below = |recipe: &Measured| {
            let times = recipes.iter().map(time);
            times.filter(|&other| other < time(recipe)).count() as f64
        };
        recipes.iter().map(below).collect()
    };
    let (predicted, measured) = (ranks(Measured::predicted), ranks(|recipe| recipe.seconds));
    let mean = |ranks: &[f64]| ranks.iter().sum::<f64>() / ranks.len() as f64;
    let centred = |ranks: Vec<f64>| -> Vec<f64> {
        let mean = mean(&ranks);
        ranks.into_iter().map(|rank| rank - mean).collect()
    };
    let (predicted, measured) = (centred(predicted), centred(measured));
    let product = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    product(&predicted, &measured)
        / (product(&predicted, &predicted) * product(&measured, &measured)).sqrt()
}
