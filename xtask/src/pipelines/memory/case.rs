//! What is planned and measured: networks, images, and ways to train on them.

use std::fmt;
use std::path::Path;

use anyhow::Context;
use serde::{Deserialize, Serialize};
use stream_grad::tiling::TilingError;
use stream_grad::{ByteCount, CostModel, Maps, Net, Plan, PlanRequest, StreamError};

use crate::compare::step::PlannedStep;
use stream_grad_cli::model;

/// One step on one image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Case {
    pub(crate) model: &'static str,
    /// Of the square image, in pixels.
    pub(crate) edge: u64,
    pub(crate) way: Way,
    /// Whether it is measured, if it fits in the machine.
    pub(crate) measured: bool,
}

/// In how much memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// One tile, everything stored.
    Conventional,
    /// The fastest recipe within so many bytes; where none is, the one of the smallest peak.
    Within(ByteCount),
    /// The recipe of the smallest peak.
    Least,
    /// The recipe of the smallest peak, if what the backward sweep needs is in a file.
    LeastOffloaded,
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Conventional => f.write_str("conventional"),
            Self::Within(bytes) => write!(f, "within {bytes}"),
            Self::Least => f.write_str("least memory"),
            Self::LeastOffloaded => f.write_str("least memory, offloaded"),
        }
    }
}

/// Networks, each with the largest edges of images that are measured in three ways: conventionally or within a budget; with the least
/// memory, whose small tiles take long; and with a file.
const MODELS: [(&str, [u64; 3]); 3] = [
    ("resnet18", [8192, 4096, 2048]),
    ("resnet34", [4096, 2048, 1024]),
    ("resnet50", [4096, 2048, 1024]),
];
const SMALLEST: u64 = 1024;
/// Doublings of the smallest edge: the largest is 65536.
const DOUBLINGS: u32 = 6;

/// All of the experiment, network by network.
pub(crate) fn cases(memory: ByteCount) -> Vec<Case> {
    let mut cases = Vec::new();
    for (model, limits) in MODELS {
        for doubling in 0..=DOUBLINGS {
            let edge = SMALLEST << doubling;
            cases.extend(ways(memory, limits).map(|(way, limit)| Case {
                model,
                edge,
                way,
                measured: edge <= limit,
            }));
        }
    }
    cases
}

/// A rehearsal: two images that are measured, one that is planned.
pub(crate) fn rehearsal(memory: ByteCount) -> Vec<Case> {
    let case = |edge| {
        ways(memory, [512; 3]).map(move |(way, limit)| Case {
            model: "resnet18",
            edge,
            way,
            measured: edge <= limit,
        })
    };
    [256, 512, 8192].into_iter().flat_map(case).collect()
}

/// The ways with the largest edges that are measured.
fn ways(memory: ByteCount, [budget, least, offloaded]: [u64; 3]) -> [(Way, u64); 4] {
    [
        (Way::Conventional, budget),
        (Way::Within(memory), budget),
        (Way::Least, least),
        (Way::LeastOffloaded, offloaded),
    ]
}

impl Case {
    /// What results are stored under.
    pub(crate) fn key(&self, threads: usize) -> String {
        format!(
            "{} {edge}x{edge}, {threads} thread(s), {}",
            self.model,
            self.way,
            edge = self.edge
        )
    }

    /// Plans the step. Files of offloaded steps would be in `folder`.
    ///
    /// # Errors
    /// What planning refuses, but for budgets.
    pub(crate) fn plan(
        &self,
        net: &Net,
        costs: &CostModel,
        threads: usize,
        folder: &Path,
    ) -> anyhow::Result<Planned> {
        let request = PlanRequest::new(self.edge, self.edge)
            .features(Maps::Streamed)
            .threads(threads)
            .cost_model(costs.clone());
        let offload = match self.way {
            Way::LeastOffloaded => Some(folder.to_owned()),
            _ => None,
        };
        let (plan, memory) = match self.way {
            Way::Conventional => (net.plan(request)?, None),
            Way::Within(bytes) => within(net, &request, bytes)?,
            Way::Least => within(net, &request, ByteCount::bytes(1))?,
            Way::LeastOffloaded => within(net, &request.offload(folder), ByteCount::bytes(1))?,
        };
        Ok(Planned {
            step: PlannedStep {
                recipe: plan.recipe().clone(),
                memory: memory.map(ByteCount::get),
                offload,
            },
            recipe: plan.recipe().to_string(),
            peak_bytes: plan.peak_bytes().get(),
            file_bytes: plan.file_bytes().get(),
            seconds: plan.predicted_time().as_secs_f64(),
            compute_ratio: model::compute_ratio(&plan),
        })
    }
}

/// The fastest plan within a budget, or the smallest that there is, with the budget that it was made for.
fn within(
    net: &Net,
    request: &PlanRequest,
    bytes: ByteCount,
) -> anyhow::Result<(Plan, Option<ByteCount>)> {
    let minimum = match net.plan(request.clone().memory(bytes)) {
        Ok(plan) => return Ok((plan, Some(bytes))),
        Err(StreamError::Geometry(TilingError::BudgetTooSmall { minimum, .. })) => {
            ByteCount::saturating(minimum)
        }
        Err(error) => return Err(error.into()),
    };
    let plan = net
        .plan(request.clone().memory(minimum))
        .with_context(|| format!("planning within {minimum}, the smallest peak that was found"))?;
    Ok((plan, Some(minimum)))
}

/// A step that is planned.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Planned {
    pub(crate) step: PlannedStep,
    /// The recipe in words.
    pub(crate) recipe: String,
    pub(crate) peak_bytes: u64,
    /// The most that waits in a file.
    pub(crate) file_bytes: u64,
    /// Forward and backward, as predicted from what this machine's operations take.
    pub(crate) seconds: f64,
    /// Arithmetic over that of the conventional computation.
    pub(crate) compute_ratio: f64,
}

#[cfg(test)]
mod tests {
    use candle_core::DType;
    use stream_grad::tiling::Recipe;

    use super::*;

    #[test]
    fn every_network_has_every_doubling_of_the_edge() {
        let cases = cases(ByteCount::gib(1));
        assert_eq!(cases.len(), 3 * 7 * 4);
        for (model, measured_to) in [("resnet18", 8192), ("resnet34", 4096), ("resnet50", 4096)] {
            let of_model = || cases.iter().filter(|case| case.model == model);
            assert_eq!(of_model().map(|case| case.edge).max(), Some(65_536));
            let measured = of_model().filter(|case| case.measured);
            assert_eq!(measured.map(|case| case.edge).max(), Some(measured_to));
        }
    }

    #[test]
    fn ways_differ_as_their_names_say() {
        let (_, net) = model::build("resnet18", DType::F32).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let budget = ByteCount::mib(400);
        let plan = |way| {
            let case = Case {
                model: "resnet18",
                edge: 1024,
                way,
                measured: false,
            };
            let costs = CostModel::FIXED;
            case.plan(&net, &costs, 1, folder.path()).unwrap()
        };
        let whole = plan(Way::Conventional);
        let one_tile = Recipe::whole(&net.sized_graph(1024, 1024).unwrap());
        assert_eq!(whole.step.recipe.tile, one_tile.tile);
        assert!((whole.compute_ratio - 1.0).abs() < 1e-9);
        let within = plan(Way::Within(budget));
        assert!(within.peak_bytes <= budget.get() && budget.get() < whole.peak_bytes);
        let least = plan(Way::Least);
        assert!(least.peak_bytes < within.peak_bytes && least.seconds > within.seconds);
        let offloaded = plan(Way::LeastOffloaded);
        assert!(offloaded.peak_bytes < least.peak_bytes && offloaded.file_bytes > 0);
        // Where the budget holds nothing, it is the least.
        let short = plan(Way::Within(ByteCount::mib(1)));
        assert_eq!(short, least);

        // A step that goes by the stored plan is that plan.
        for planned in [whole, within, least, offloaded] {
            let request = PlanRequest::new(1024, 1024)
                .features(Maps::Streamed)
                .threads(1);
            let again = net.plan(planned.step.request(request)).unwrap();
            assert_eq!(again.peak_bytes().get(), planned.peak_bytes);
            assert_eq!(again.file_bytes().get(), planned.file_bytes);
        }
    }
}
