mod several_outputs;

use candle_core::{Device, Tensor};
use rand::SeedableRng;

use super::*;

fn image() -> Tensor {
    let mut rng = ChaCha8Rng::seed_from_u64(3);
    let values: Vec<f32> = (0..3 * 64 * 64)
        .map(|_| rng.random::<f32>() - 0.5)
        .collect();
    Tensor::from_vec(values, (1, 3, 64, 64), &Device::Cpu).unwrap()
}

fn mean(logits: &Tensor) -> Result<Tensor> {
    Ok(logits.mean_all()?)
}

/// Of each block, whether its depthwise convolution has a gradient.
fn learns(model: &StreamedModel, stream: u64) -> Vec<bool> {
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    rng.set_stream(stream);
    model.draw(&mut rng).unwrap();
    let found = model.gradients(&image(), &mean).unwrap();
    model.settle().unwrap();
    let depthwise = |name: &String| name.ends_with(".block.0.weight");
    let variables = model.variables().into_iter().map(|(name, _)| name);
    let gradients = variables.filter(depthwise).map(|name| {
        let gradient = found.gradients.get(&name).unwrap();
        let gradient: Vec<f32> = gradient.flatten_all().unwrap().to_vec1().unwrap();
        gradient.iter().any(|value| *value != 0.0)
    });
    gradients.collect()
}

#[test]
fn branches_are_dropped_in_training_alone_and_by_the_seed() {
    let settings = ModelSettings {
        name: "convnext_tiny".to_owned(),
        memory_bytes: 2 << 30,
        ..ModelSettings::small()
    };
    let model = StreamedModel::new(&settings, 1, 5).unwrap();
    let before = model.predict(&image()).unwrap();
    // Each stream drops other blocks: of 18 in ten steps about nine.
    let steps: Vec<Vec<bool>> = (0..10).map(|stream| learns(&model, stream)).collect();
    let dropped = steps.iter().flatten().filter(|learns| !**learns).count();
    assert!((3..20).contains(&dropped), "{steps:?}");
    assert!(steps.iter().any(|step| *step != steps[0]), "{steps:?}");
    assert_eq!(learns(&model, 4), steps[4]);
    assert_eq!(model.predict(&image()).unwrap(), before);
}
