//! The recipe that was chosen when a run began is the one that it goes on with.

#![allow(clippy::unwrap_used, reason = "a test: a panic is how it fails")]

use stream_grad::tiling::TilingError;
use stream_grad::{CostModel, StreamError};
use stream_grad_train::TrainError;
use stream_grad_train::model::{Model, ModelSettings, StreamedModel};

fn model(memory_bytes: u64) -> StreamedModel {
    let settings = ModelSettings {
        memory_bytes,
        ..ModelSettings::small()
    };
    StreamedModel::new(&settings, 2, 1).unwrap()
}

#[test]
fn a_resumed_run_uses_the_recipes_of_the_first() {
    let (first, resumed) = (model(16 << 20), model(512 << 20));
    let chosen = first.plan(640, 512).unwrap().recipe().clone();
    let other = resumed.plan(640, 512).unwrap().recipe().clone();
    assert_ne!(chosen, other, "budgets too alike to tell the recipes apart");
    // As a checkpoint keeps them.
    let text = serde_json::to_string(&first.recipes()).unwrap();
    resumed.load_recipes(serde_json::from_str(&text).unwrap());
    assert_eq!(resumed.plan(640, 512).unwrap().recipe(), &chosen);
    assert_eq!(resumed.recipes(), [chosen]);
    // Sizes that the first run did not meet are planned anew.
    assert!(resumed.plan(320, 320).is_ok());
}

/// Two machines, or one before and after it was measured: other recipes for the same settings, but not for a run that has one.
#[test]
fn a_resumed_run_keeps_its_recipe_under_another_cost_model() {
    let mut seed = CostModel::default();
    let first = model(24 << 20);
    let request = first.request(640, 512).threads(1);
    seed.calibrate(first.net(), &request).unwrap();
    // A machine on which each visit of each operation takes a minute: the fewest tiles that fit.
    let slow = slower_visits(&seed, 60_000_000_000_000);
    let plan = |cost_model| {
        let model = model(24 << 20).cost_model(cost_model);
        let plan = model.plan(640, 512).unwrap();
        (model.recipes(), plan.tiles())
    };
    let (chosen, tiles) = plan(slow);
    let (other, more_tiles) = plan(free_visits(&seed));
    assert_ne!(
        chosen, other,
        "cost models too alike to tell the recipes apart"
    );
    assert!(tiles <= more_tiles, "{tiles} and {more_tiles}");
    let resumed = model(24 << 20).cost_model(free_visits(&seed));
    resumed.load_recipes(chosen.clone());
    assert_eq!(resumed.plan(640, 512).unwrap().recipe(), &chosen[0]);
}

/// The model with each visit taking as many picoseconds, and each position as long as in the largest tile that was measured.
fn slower_visits(model: &CostModel, picoseconds: u64) -> CostModel {
    let mut stored = serde_json::to_value(model).unwrap();
    for cost in stored["operations"].as_object_mut().unwrap().values_mut() {
        for direction in ["forward", "vjp"] {
            let curve = &mut cost["time"][direction];
            let points: Vec<(u64, u64)> = serde_json::from_value(curve.clone()).unwrap();
            let (positions, time) = *points.last().unwrap();
            *curve = serde_json::json!([(0, picoseconds), (positions, picoseconds + time)]);
        }
    }
    serde_json::from_value(stored).unwrap()
}

/// The model with visits for nothing.
fn free_visits(model: &CostModel) -> CostModel {
    slower_visits(model, 0)
}

#[test]
fn a_folder_for_offloading_lets_smaller_budgets_do() {
    let folder = tempfile::tempdir().unwrap();
    let offloading = |offload, memory_bytes| {
        let settings = ModelSettings {
            memory_bytes,
            offload,
            ..ModelSettings::small()
        };
        let model = StreamedModel::new(&settings, 2, 1).unwrap();
        match model.plan(4096, 4096) {
            Ok(plan) => Some(plan.file_bytes().get()),
            Err(TrainError::Stream(StreamError::Geometry(TilingError::BudgetTooSmall {
                ..
            }))) => None,
            Err(error) => panic!("{error}"),
        }
    };
    let mut budget = 1 << 30;
    while offloading(None, budget).is_some() {
        budget = budget * 7 / 8;
    }
    let offloaded = offloading(Some(folder.path().to_owned()), budget).unwrap();
    assert!(offloaded > 0);
}
