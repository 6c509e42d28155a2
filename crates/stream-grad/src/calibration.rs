//! Measuring how long a network's operations take on this machine.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use stream_grad_tiling::{ByteCount, Graph, NodeTime, VisitTime};

use crate::cost_model::{CostModel, MachineCost, OperationCost, folder_key, keys, work};
use crate::engine::timing::NodeSeconds;
use crate::error::Result;
use crate::net::Net;
use crate::request::PlanRequest;
use crate::spill;

/// About how long a calibration may take.
const BUDGET: Duration = Duration::from_secs(3);
/// Rounds over each image: the first one warms up.
const ROUNDS: u32 = 4;
/// Edges of the images, in pixels.
const EDGES: std::ops::RangeInclusive<u64> = 64..=2048;
/// The edge up to which time is no reason to stop: visits and positions are told apart by images of several sizes.
const ENOUGH: u64 = 256;
/// The most heap bytes of a round over an image that is not the first, if the request has no smaller budget.
const LARGEST_PEAK: ByteCount = ByteCount::gib(1);

/// Where and how long each operation was measured: output positions, and seconds.
type Samples = BTreeMap<String, Vec<(f64, NodeSeconds)>>;

impl CostModel {
    /// Measures what the model lacks to predict the time of `net` as `request` has it computed: its operations one by one,
    /// forward and backward, on small images of several sizes, copies, and if the request names a folder, a file there. Its
    /// image, tile and recipe are not looked at. Returns whether anything was missing.
    ///
    /// This takes about three seconds, on the threads of the request; other work on the machine meanwhile makes everything look
    /// slower. Images of 64 pixels and more are used, as large as time and budget allow; without a budget a gibibyte does.
    ///
    /// # Errors
    /// As for [`Net::plan`] and [`Plan::vjp`](crate::Plan::vjp).
    ///
    /// ```
    /// use candle_core::{DType, Device};
    /// use candle_nn::{VarBuilder, VarMap};
    /// use stream_grad::{ByteCount, Conv2d, CostModel, NetBuilder, PlanRequest};
    ///
    /// let variables = VarMap::new();
    /// let vb = VarBuilder::from_varmap(&variables, DType::F32, &Device::Cpu);
    /// let mut net = NetBuilder::new(3);
    /// let x = net.conv2d(net.input(), Conv2d::new(3, 8, 3).stride(8), vb.pp("a"))?;
    /// let net = net.build(x)?;
    /// let request = PlanRequest::new(1000, 1000).memory(ByteCount::mib(16)).threads(1);
    /// let mut model = CostModel::default();
    /// assert!(model.calibrate(&net, &request)? && model.covers(&net, &request));
    /// let plan = net.plan(request.cost_model(model))?;
    /// println!("{plan}"); // with the predicted time
    /// assert!(!plan.predicted_time().is_zero());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn calibrate(&mut self, net: &Net, request: &PlanRequest) -> Result<bool> {
        if self.covers(net, request) {
            return Ok(false);
        }
        if let Some(folder) = &request.spill {
            let seconds = spill::time_bytes(folder)?;
            self.folders
                .insert(folder_key(folder), picoseconds(seconds));
        }
        let mut small = request.clone();
        let most = small
            .memory
            .take()
            .unwrap_or(LARGEST_PEAK)
            .min(LARGEST_PEAK);
        small.tile = None;
        small.block = None;
        small.segments = None;
        small.kept = None;
        small.recipe = None;
        small.spill = None;
        small.batch = 1;
        small.features = stream_grad_tiling::Maps::Whole;
        self.measure(net, small, most)?;
        Ok(true)
    }

    /// Measures on the smallest image, and on larger ones whose peak is at most `most`.
    fn measure(&mut self, net: &Net, mut request: PlanRequest, most: ByteCount) -> Result<()> {
        let start = Instant::now();
        let mut edge = smallest_edge(net, &request)?;
        let mut samples = Samples::new();
        let (mut fixed, mut copied_byte) = (f64::INFINITY, f64::INFINITY);
        loop {
            (request.height, request.width) = (edge, edge);
            let plan = net.plan(request.clone())?;
            if !samples.is_empty() && plan.peak_bytes() > most {
                break;
            }
            let began = Instant::now();
            let timed = plan.time_nodes(ROUNDS)?;
            fixed = fixed.min(timed.fixed);
            copied_byte = copied_byte.min(timed.copied_byte);
            let sized = plan.geometry().sized();
            let named = keys(plan.net(), &request).into_iter().zip(timed.nodes);
            for (node, (key, seconds)) in named.enumerate() {
                let positions = sized.plane(node).area() as f64;
                samples.entry(key).or_default().push((positions, seconds));
            }
            self.take(&keys(plan.net(), &request), &samples, sized.graph());
            // Twice the edge takes four times as long.
            let next = start.elapsed() + 4 * began.elapsed();
            let enough = edge >= ENOUGH && samples.values().all(|sizes| sizes.len() > 1);
            if 2 * edge > *EDGES.end() || enough && next > BUDGET {
                break;
            }
            edge *= 2;
        }
        let values: usize = net
            .parameters
            .iter()
            .map(|one| one.tensor.elem_count())
            .sum();
        self.machine = Some(MachineCost {
            copied_byte: picoseconds(copied_byte),
            parameter: picoseconds(fixed / values.max(1) as f64),
        });
        Ok(())
    }

    fn take(&mut self, keys: &[String], samples: &Samples, graph: &Graph) {
        for (key, node) in keys.iter().zip(graph.nodes()) {
            let measured = samples.get(key).map_or(&[][..], Vec::as_slice);
            let fit_of = |select: fn(&NodeSeconds) -> f64| {
                fit(measured
                    .iter()
                    .map(|(positions, seconds)| (*positions, select(seconds))))
            };
            let (forward_work, vjp_work) = work(node);
            let cost = OperationCost {
                time: NodeTime {
                    forward: fit_of(|seconds| seconds.forward),
                    vjp: fit_of(|seconds| seconds.vjp),
                },
                forward_work,
                vjp_work,
            };
            self.operations.insert(key.clone(), cost);
        }
    }
}

/// The smallest of the edges that the network takes; where it takes none, what it refuses.
fn smallest_edge(net: &Net, request: &PlanRequest) -> Result<u64> {
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

/// The time of a visit and of a position that fit the samples, positions and seconds, with least squared relative error; neither
/// is below zero.
fn fit(samples: impl Iterator<Item = (f64, f64)>) -> VisitTime {
    // Sums of weight, weight n, weight n n, weight t, weight n t.
    let mut sums = [0.0_f64; 5];
    for (positions, seconds) in samples {
        let weight = 1.0 / (seconds * seconds).max(f64::MIN_POSITIVE);
        let terms = [
            1.0,
            positions,
            positions * positions,
            seconds,
            positions * seconds,
        ];
        for (sum, term) in sums.iter_mut().zip(terms) {
            *sum += weight * term;
        }
    }
    let [w, n, nn, t, nt] = sums;
    let determinant = w * nn - n * n;
    let (mut visit, mut position) = (0.0, 0.0);
    if determinant > 1e-9 * w * nn {
        visit = (nn * t - n * nt) / determinant;
        position = (w * nt - n * t) / determinant;
    }
    if position <= 0.0 && visit > 0.0 {
        // No longer for more: all of it is the visit.
        (visit, position) = (t / w, 0.0);
    } else if visit <= 0.0 || position <= 0.0 {
        (visit, position) = (0.0, nt / nn);
    }
    VisitTime {
        visit: picoseconds(visit),
        position: picoseconds(position),
    }
}

/// Seconds in whole picoseconds; what is no time counts as none.
fn picoseconds(seconds: f64) -> u64 {
    // A thousand times as long in nanoseconds.
    Duration::try_from_secs_f64(seconds * 1e3).map_or(0, |longer| {
        u64::try_from(longer.as_nanos()).unwrap_or(u64::MAX)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn time(visit: u64, position: u64) -> VisitTime {
        VisitTime { visit, position }
    }

    #[test]
    fn fits_find_visit_and_position() {
        let line = |n: f64| (n, 2e-6 + 3e-9 * n);
        let found = fit([16.0, 64.0, 256.0, 4096.0].map(line).into_iter());
        assert!(found.visit.abs_diff(2_000_000) < 10 && found.position.abs_diff(3000) < 2);
    }

    #[test]
    fn fits_are_never_negative() {
        assert_eq!(fit([(10.0, 1e-6)].into_iter()), time(0, 100_000));
        // Falling: no time for a position.
        let falling = fit([(10.0, 2e-6), (1000.0, 1e-6)].into_iter());
        assert!(falling.position == 0 && (1_000_000..2_000_000).contains(&falling.visit));
        // Rising faster than in proportion: no time for a visit.
        let steep = fit([(10.0, 1e-6), (1000.0, 1e-3)].into_iter());
        assert!(steep.visit == 0 && (100_000..=1_000_000).contains(&steep.position));
        assert_eq!(fit(std::iter::empty()), time(0, 0));
        assert_eq!(fit([(10.0, 0.0), (40.0, 0.0)].into_iter()), time(0, 0));
    }

    #[test]
    fn picoseconds_take_any_number() {
        assert_eq!(picoseconds(1.5e-9), 1500);
        for nothing in [f64::NAN, -1.0, f64::INFINITY, 0.0] {
            assert_eq!(picoseconds(nothing), 0);
        }
    }
}
