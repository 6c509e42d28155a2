//! Measuring how long a network's operations take on this machine.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use stream_grad_tiling::{ByteCount, Maps, NodeTime, TileTime, TimeModel};

use crate::cost_model::{CostModel, MachineCost, OperationCost, folder_key, keys, work};
use crate::error::Result;
use crate::network::{Model, Network};
use crate::offload;
use crate::parameter::ParameterShape;
use crate::plan::Plan;
use crate::plan::timing::TimedNodes;
use crate::request::PlanRequest;
use crate::sweep::timing::NodeSeconds;
use crate::threads::check_threads;

/// About how long a calibration may take.
const BUDGET: Duration = Duration::from_secs(3);
/// About how long one image is measured before the next one is: a small one several times.
pub(crate) const SLICE: Duration = Duration::from_millis(30);
/// Edges of the images, in pixels.
const EDGES: std::ops::RangeInclusive<u64> = 64..=2048;
/// The edge up to which time is no reason to stop: visits and positions are told apart by images of several sizes.
const ENOUGH: u64 = 256;
/// The most heap bytes of a round over an image that is not the first, if the request has no smaller budget.
const LARGEST_PEAK: ByteCount = ByteCount::gib(1);

/// What was measured of one image.
struct Sample {
    plan: Plan,
    timed: TimedNodes,
    /// How long measuring it took.
    took: Duration,
}

impl CostModel {
    /// Measures what the model lacks to predict the time of `net` as `request` has it computed: its operations one by one,
    /// forward and backward, on small images of several sizes, copies, and if the request names a folder, a file there. Its
    /// image, tile and recipe are not looked at. Returns whether anything was missing.
    ///
    /// This takes about three seconds, on the threads of the request. Images of 64 pixels and more are used, as large as time
    /// and budget allow; without a budget a gibibyte does. They take turns until the time is over, and of each operation the
    /// least time counts: other work on the machine makes it look slower only if it lasts. How far the others lie from it is
    /// [kept, too](Self::spread_per_mille); [`CostModel::probe`] finds out later whether the machine was busy all that time.
    ///
    /// # Errors
    /// As for [`Plan::new`] and [`Plan::vjp`].
    ///
    /// ```
    /// use stream_grad_engine::{
    ///     ByteCount, Conv2d, CostModel, Model, NetworkBuilder, OwnedModel, OwnedParameters, Plan, PlanRequest,
    /// };
    ///
    /// let mut parameters = OwnedParameters::new(0);
    /// let mut net = NetworkBuilder::new(3);
    /// let x = net.conv2d(net.input(), Conv2d::new(3, 8, 3).stride(8), "a", &mut parameters)?;
    /// let net = OwnedModel::new(net, vec![("features".into(), x)], parameters)?;
    /// let request = PlanRequest::new(1000, 1000).memory(ByteCount::mib(16)).threads(1);
    /// let mut model = CostModel::default();
    /// assert!(model.calibrate(&net, &request)? && model.covers(&net, &request));
    /// let plan = Plan::new(net.network(), request.cost_model(model))?;
    /// println!("{plan}"); // with the predicted time
    /// assert!(!plan.predicted_time().is_zero());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn calibrate(&mut self, net: &impl Model, request: &PlanRequest) -> Result<bool> {
        check_threads(request.threads.unwrap_or(0))?;
        if self.covers(net, request) {
            return Ok(false);
        }
        if let Some(folder) = &request.offload {
            let seconds = offload::time_bytes(folder)?;
            self.folders
                .insert(folder_key(folder), picoseconds(seconds));
        }
        let (small, most) = for_small_images(request);
        self.measure(net, small, most)?;
        Ok(true)
    }

    /// Measures on the smallest image, and on larger ones whose peak is at most `most`.
    fn measure(
        &mut self,
        net: &impl Model,
        mut request: PlanRequest,
        most: ByteCount,
    ) -> Result<()> {
        let start = Instant::now();
        let mut samples: Vec<Sample> = Vec::new();
        let mut edge = smallest_edge(net.network(), &request)?;
        loop {
            (request.height, request.width) = (edge, edge);
            let plan = Plan::new(net.network(), request.clone())?;
            if !samples.is_empty() && plan.peak_bytes() > most {
                break;
            }
            let sample = Sample::of(plan, net)?;
            // Twice the edge takes four times as long; every image should have its turn twice.
            let next = start.elapsed() + 4 * sample.took;
            samples.push(sample);
            let enough = edge >= ENOUGH && samples.len() > 1;
            if 2 * edge > *EDGES.end() || enough && 2 * next > BUDGET {
                break;
            }
            edge *= 2;
        }
        let fits = |sample: &Sample| start.elapsed() + sample.took <= BUDGET;
        while samples.iter().any(fits) {
            for sample in samples.iter_mut().filter(|sample| fits(sample)) {
                sample.again(net)?;
            }
        }
        self.take(net.network(), &request, &samples);
        Ok(())
    }

    fn take(&mut self, net: &Network, request: &PlanRequest, samples: &[Sample]) {
        let mut measured: BTreeMap<String, Measured<'_>> = BTreeMap::new();
        for sample in samples {
            let sized = sample.plan.geometry().sized();
            let keys = keys(sample.plan.network(), request);
            let nodes = keys.into_iter().zip(&sample.timed.nodes);
            for (node, (key, seconds)) in nodes.enumerate() {
                let entry = measured.entry(key.to_string()).or_default();
                entry.work = work(&sized.graph().nodes()[node]);
                let positions = sized.plane(node).area();
                let positions = u64::try_from(positions).unwrap_or(u64::MAX);
                entry.times.entry(positions).or_default().push(seconds);
            }
        }
        for (key, Measured { work, times }) in measured {
            let curve = |select: fn(&NodeSeconds) -> &[f64]| {
                curve(times.iter().map(|(&positions, seconds)| {
                    let sum: f64 = seconds.iter().map(|one| least(select(one))).sum();
                    (positions, sum / seconds.len() as f64)
                }))
            };
            let cost = OperationCost {
                time: NodeTime {
                    forward: curve(|seconds| &seconds.forward),
                    vjp: curve(|seconds| &seconds.vjp),
                },
                forward_work: work.0,
                vjp_work: work.1,
                spread_per_mille: spread(times.values().flatten().copied()),
            };
            self.operations.insert(key, cost);
        }
        let parameters = net.parameters.iter();
        let values: usize = parameters.map(ParameterShape::len).sum();
        let of_machine = |select: fn(&TimedNodes) -> f64| {
            let times = samples.iter().map(|sample| select(&sample.timed));
            times.fold(f64::INFINITY, f64::min)
        };
        let packed_byte = samples.iter().filter_map(|sample| sample.timed.packed_byte);
        self.machine = Some(MachineCost {
            packed_byte: packed_byte
                .reduce(f64::min)
                .map_or(TimeModel::PACKED_BYTE, picoseconds),
            copied_byte: picoseconds(of_machine(|timed| timed.copied_byte)),
            fresh_byte: picoseconds(of_machine(|timed| timed.fresh_byte)),
            parameter: picoseconds(of_machine(|timed| timed.fixed) / values.max(1) as f64),
        });
    }
}

/// The request for small images that are measured, and the most heap bytes of a round over a larger one.
pub(crate) fn for_small_images(request: &PlanRequest) -> (PlanRequest, ByteCount) {
    let mut small = request.clone();
    let memory = small.memory.take();
    let most = memory.unwrap_or(LARGEST_PEAK).min(LARGEST_PEAK);
    small.tile = None;
    small.block = None;
    small.segments = None;
    small.stored = None;
    small.weights = None;
    small.recipe = None;
    small.offload = None;
    small.batch = 1;
    small.features = Maps::Whole;
    (small, most)
}

/// What was measured of the operations with one key.
#[derive(Default)]
struct Measured<'a> {
    /// Forward and VJP, for each position.
    work: (u64, u64),
    /// By number of positions.
    times: BTreeMap<u64, Vec<&'a NodeSeconds>>,
}

impl Sample {
    fn of(plan: Plan, net: &impl Model) -> Result<Self> {
        let start = Instant::now();
        Ok(Self {
            timed: plan.time_nodes(net.values(), SLICE)?,
            plan,
            took: start.elapsed(),
        })
    }

    /// Measures once more.
    fn again(&mut self, net: &impl Model) -> Result<()> {
        self.timed
            .merge(&self.plan.time_nodes(net.values(), SLICE)?);
        Ok(())
    }
}

/// The smallest of the edges that the network takes; where it takes none, what it refuses.
pub(crate) fn smallest_edge(net: &Network, request: &PlanRequest) -> Result<u64> {
    let mut edge = *EDGES.start();
    loop {
        let taken = net.sized_graph(edge, edge);
        match taken {
            Ok(_) => return Ok(edge),
            Err(error) if 2 * edge > *EDGES.end() => {
                // An image of its own size may still be taken: a network with a very large window.
                let larger = request.height.min(request.width);
                let taken = larger > edge && net.sized_graph(larger, larger).is_ok();
                return if taken { Ok(larger) } else { Err(error) };
            }
            Err(_) => edge *= 2,
        }
    }
}

/// The time of a tile, from times of tiles of several sizes, smallest first: straight between them, and on to a tile of no
/// positions.
fn curve(samples: impl Iterator<Item = (u64, f64)>) -> TileTime {
    let mut points: Vec<(u64, u64)> = samples
        .map(|(positions, seconds)| (positions, picoseconds(seconds)))
        .collect();
    // What disturbs a measurement makes it longer, and no tile takes longer than a larger one.
    let mut least = u64::MAX;
    for point in points.iter_mut().rev() {
        least = least.min(point.1);
        point.1 = least;
    }
    let visit = match *points.as_slice() {
        [first, second, ..] => {
            let (rise, run) = (second.1 - first.1, second.0 - first.0);
            let positions = u128::from(rise) * u128::from(first.0) / u128::from(run);
            let positions = u64::try_from(positions).unwrap_or(u64::MAX);
            first.1.saturating_sub(positions)
        }
        _ => 0,
    };
    if points.first().is_some_and(|first| first.0 > 0) {
        points.insert(0, (0, visit));
    }
    TileTime::through(points)
}

/// The least of some times.
pub(crate) fn least(seconds: &[f64]) -> f64 {
    seconds.iter().copied().fold(f64::INFINITY, f64::min)
}

/// Times of which a median says something.
const REPEATS: usize = 3;

/// How many thousandths the medians of measured times are of the least ones, all nodes and sizes together that were measured at
/// least three times; 0 if none was.
fn spread<'a>(nodes: impl Iterator<Item = &'a NodeSeconds>) -> u64 {
    let (mut medians, mut leasts) = (0.0, 0.0);
    for seconds in nodes {
        for times in [&seconds.forward, &seconds.vjp] {
            if times.len() < REPEATS {
                continue;
            }
            let mut times = times.clone();
            times.sort_by(f64::total_cmp);
            medians += times.get(times.len() / 2).copied().unwrap_or(0.0);
            leasts += times.first().copied().unwrap_or(0.0);
        }
    }
    // Both in picoseconds: in integers, as everything that is stored.
    let (medians, leasts) = (picoseconds(medians), picoseconds(leasts));
    let thousandths = u128::from(medians) * 1000 / u128::from(leasts.max(1));
    u64::try_from(thousandths).unwrap_or(u64::MAX)
}

/// Seconds in whole picoseconds; what is no time counts as none.
pub(crate) fn picoseconds(seconds: f64) -> u64 {
    // A thousand times as long in nanoseconds.
    Duration::try_from_secs_f64(seconds * 1e3).map_or(0, |longer| {
        u64::try_from(longer.as_nanos()).unwrap_or(u64::MAX)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn curves_go_through_what_was_measured() {
        let found = curve([(16, 100e-12), (64, 196e-12), (256, 1000e-12)].into_iter());
        let expected = [(0, 68), (16, 100), (64, 196), (256, 1000)];
        assert_eq!(found, TileTime::through(expected));
        // Rising faster than in proportion: no time for a visit.
        let steep = curve([(10, 1e-12), (20, 50e-12)].into_iter());
        assert_eq!(steep, TileTime::through([(0, 0), (10, 1), (20, 50)]));
    }

    #[test]
    fn curves_never_fall() {
        let found = curve([(10, 70e-12), (20, 60e-12), (30, 90e-12)].into_iter());
        assert_eq!(
            found,
            TileTime::through([(0, 60), (10, 60), (20, 60), (30, 90)])
        );
        let one = curve([(10, 50e-12)].into_iter());
        assert_eq!(one, TileTime::through([(0, 0), (10, 50)]));
        assert_eq!(curve(std::iter::empty()), TileTime::default());
    }

    #[test]
    fn spreads_are_of_medians_over_least_times() {
        let seconds = |forward: &[f64], vjp: &[f64]| NodeSeconds {
            forward: forward.to_vec(),
            vjp: vjp.to_vec(),
        };
        let even = seconds(&[2e-9, 2e-9, 2e-9], &[1e-9, 1e-9, 1e-9]);
        assert_eq!(spread([&even].into_iter()), 1000);
        // Medians 30 and 50 over 10 and 40.
        let busy = seconds(&[90e-9, 10e-9, 30e-9], &[50e-9, 40e-9, 60e-9]);
        assert_eq!(spread([&busy].into_iter()), 1600);
        assert_eq!(spread([&busy, &even].into_iter()), 1566);
        // Two times have no middle.
        let few = seconds(&[5e-9, 50e-9], &[1e-9]);
        assert_eq!(spread([&few, &even].into_iter()), 1000);
        assert_eq!(spread([&few].into_iter()), 0);
    }

    #[test]
    fn picoseconds_take_any_number() {
        assert_eq!(picoseconds(1.5e-9), 1500);
        for nothing in [f64::NAN, -1.0, f64::INFINITY, 0.0] {
            assert_eq!(picoseconds(nothing), 0);
        }
    }
}
