//! The recipe that was chosen when a run began is the one that it goes on with.

#![allow(clippy::unwrap_used, reason = "a test: a panic is how it fails")]

use stream_grad_train::model::{Model, ModelSettings, StreamedModel};

fn model(memory_bytes: u64) -> StreamedModel {
    let settings = ModelSettings {
        memory_bytes,
        ..ModelSettings::default()
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
