//! Whether what was measured of a machine still holds.

use std::time::{Duration, Instant};

use crate::calibration::{SLICE, for_small_images, least, picoseconds, smallest_edge};
use crate::cost_model::CostModel;
use crate::error::Result;
use crate::network::Model;
use crate::plan::Plan;
use crate::request::PlanRequest;

/// About how long a probe may take.
const BUDGET: Duration = Duration::from_millis(400);
/// About how long the largest image of a probe may take once, by the model.
const ROUND: Duration = Duration::from_millis(40);
/// The largest edge of the image.
const LARGEST: u64 = 1024;

/// What a short measurement found beside what a [`CostModel`] says.
///
/// ```
/// use std::time::Duration;
/// use stream_grad_engine::{Probe, ProbeOutcome};
/// let probe = |stored, now| Probe { stored: Duration::from_millis(stored), now: Duration::from_millis(now) };
/// assert_eq!(probe(100, 110).outcome(), ProbeOutcome::Agrees);
/// assert_eq!(probe(700, 101).outcome(), ProbeOutcome::MeasuredWhileBusy);
/// assert_eq!(probe(101, 700).outcome(), ProbeOutcome::BusyNow);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Probe {
    /// What the model says that the operations take, forward and backward on a small image.
    pub stored: Duration,
    /// What they took.
    pub now: Duration,
}

/// What a [`Probe`] says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProbeOutcome {
    /// Both times are alike: within a third.
    Agrees,
    /// The operations are faster than the model says: it was measured while the machine had other work.
    MeasuredWhileBusy,
    /// They are slower: the machine has other work, and what is measured meanwhile would be worth nothing.
    BusyNow,
}

impl Probe {
    /// Which of the times can be believed.
    ///
    /// Other work makes operations look slower, never faster. So of two times that differ by more than a third, which is more
    /// than a quiet machine's own moods, the shorter one is right.
    #[must_use]
    pub fn outcome(&self) -> ProbeOutcome {
        let (stored, now) = (self.stored.as_nanos(), self.now.as_nanos());
        if stored.saturating_mul(3) > now.saturating_mul(4) {
            ProbeOutcome::MeasuredWhileBusy
        } else if now.saturating_mul(3) > stored.saturating_mul(4) {
            ProbeOutcome::BusyNow
        } else {
            ProbeOutcome::Agrees
        }
    }

    /// How many thousandths the time now is of the stored one.
    #[must_use]
    pub fn per_mille(&self) -> u64 {
        let thousandths = self.now.as_nanos().saturating_mul(1000) / self.stored.as_nanos().max(1);
        u64::try_from(thousandths).unwrap_or(u64::MAX)
    }
}

impl CostModel {
    /// Measures the operations of `net`, as `request` has it computed, on one small image for less than half a second, and puts
    /// what the model says beside it.
    ///
    /// The model should [cover](Self::covers) the network: what was not measured is a guess.
    ///
    /// # Errors
    /// As for [`calibrate`](Self::calibrate).
    pub fn probe(&self, net: &impl Model, request: &PlanRequest) -> Result<Probe> {
        let plan = self.probed(net, request)?;
        let stored = plan.operation_time(self);
        let start = Instant::now();
        let mut timed = plan.time_nodes(net.values(), SLICE)?;
        while start.elapsed() < BUDGET {
            timed.merge(&plan.time_nodes(net.values(), SLICE)?);
        }
        let nodes = timed.nodes.iter();
        let now: f64 = nodes
            .map(|node| least(&node.forward) + least(&node.vjp))
            .sum();
        Ok(Probe {
            stored,
            now: Duration::from_nanos(picoseconds(now) / 1000),
        })
    }

    /// The plan of the largest image that takes a round's time: other work shows where operations last longer than what the
    /// system gives a task at a time.
    fn probed(&self, net: &impl Model, request: &PlanRequest) -> Result<Plan> {
        let (mut request, most) = for_small_images(request);
        let mut edge = smallest_edge(net.network(), &request)?;
        (request.height, request.width) = (edge, edge);
        let mut plan = Plan::new(net.network(), request.clone())?;
        while 2 * edge <= LARGEST {
            edge *= 2;
            (request.height, request.width) = (edge, edge);
            let larger = Plan::new(net.network(), request.clone())?;
            if larger.peak_bytes() > most || larger.operation_time(self) > ROUND {
                break;
            }
            plan = larger;
        }
        Ok(plan)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_third_is_no_difference() {
        let probe = |stored, now| Probe {
            stored: Duration::from_millis(stored),
            now: Duration::from_millis(now),
        };
        assert_eq!(probe(400, 300).outcome(), ProbeOutcome::Agrees);
        assert_eq!(probe(401, 300).outcome(), ProbeOutcome::MeasuredWhileBusy);
        assert_eq!(probe(300, 400).outcome(), ProbeOutcome::Agrees);
        assert_eq!(probe(300, 401).outcome(), ProbeOutcome::BusyNow);
        assert_eq!(probe(0, 0).outcome(), ProbeOutcome::Agrees);
        assert_eq!(probe(200, 300).per_mille(), 1500);
    }
}
