//! `stream-grad calibrate`: measures the cost model of this machine anew.

use std::time::Duration;

use crate::arguments::CalibrateArguments;
use stream_grad::tiling::{NodeTime, TileTime};
use stream_grad::{CostModel, Net, PlanRequest};
use stream_grad_train::calibration::{CostModelCache, cache_folder};

use crate::model;

/// Output positions of the tile whose times are shown.
const POSITIONS: u128 = 10_000;
/// Edge of the image whose time is shown.
const IMAGE: u64 = 1024;

/// Measures, stores, and prints what was measured beside what was stored.
///
/// # Errors
/// If the network is not known or cannot be measured, or what was measured cannot be stored.
pub fn run(arguments: &CalibrateArguments) -> anyhow::Result<()> {
    let dtype = model::dtype(arguments.dtype);
    let (name, net) = model::build(&arguments.model, model::computed(arguments.dtype))?;
    let threads = model::threads(arguments.threads);
    let request = PlanRequest::new(IMAGE, IMAGE).dtype(dtype).threads(threads);
    let cache = CostModelCache::new(cache_folder().as_deref(), threads);
    let stored = cache.read().unwrap_or_default();
    let mut measured = CostModel::default();
    measured.calibrate(&net, &request)?;

    println!(
        "{name}, {} threads: milliseconds for a tile of {POSITIONS} positions, in brackets what was stored",
        threads
    );
    println!("           forward               VJP  operation");
    for (operation, time) in measured.operations() {
        let before = stored.operations().find(|(other, _)| *other == operation);
        let before = before.map(|(_, time)| time);
        let column = |select: fn(&NodeTime) -> &TileTime| {
            let milliseconds = |time| select(time).of(POSITIONS).0 as f64 / 1e9;
            beside(milliseconds(time), before.map(milliseconds))
        };
        let (forward, vjp) = (column(|time| &time.forward), column(|time| &time.vjp));
        println!("{forward:>18}{vjp:>18}  {operation}");
    }
    let whole = |model: &CostModel| whole(&net, &request, model);
    let before = stored.covers(&net, &request).then(|| whole(&stored));
    let seconds = beside(
        whole(&measured)?.as_secs_f64(),
        before.transpose()?.map(|time| time.as_secs_f64()),
    );
    println!("{IMAGE} x {IMAGE} pixels at once, forward and backward, predicted: {seconds} s");
    match measured.spread_per_mille() {
        Some(spread) => println!(
            "half of the measured times are over {}.{:02} of the least ones: about 1 on a quiet machine",
            spread / 1000,
            spread % 1000 / 10
        ),
        None => println!(
            "each operation was measured once or twice only: the machine is busy, or very slow"
        ),
    }
    cache.write(&measured)?;
    match cache.path() {
        Some(path) => println!(
            "stored in {}; what was there is forgotten: other networks are measured when they are next needed",
            path.display()
        ),
        None => println!("not stored: there is no cache folder"),
    }
    Ok(())
}

/// A number with the one before it, if there was one.
fn beside(now: f64, before: Option<f64>) -> String {
    let before = before.map_or("-".to_owned(), |before| format!("{before:.3}"));
    format!("{now:.3} ({before})")
}

/// How long the whole image is predicted to take.
fn whole(net: &Net, request: &PlanRequest, model: &CostModel) -> anyhow::Result<Duration> {
    let plan = net.plan(request.clone().cost_model(model.clone()))?;
    Ok(plan.predicted_time())
}
