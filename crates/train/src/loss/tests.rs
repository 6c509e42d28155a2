//! Losses and gradients are PyTorch's.

use candle_core::Var;
use serde_json::Value;

use super::*;

fn floats(value: &Value) -> Vec<f64> {
    serde_json::from_value(value.clone()).unwrap()
}

/// Value and gradient of the loss of `outputs`.
fn differentiate(objective: &Objective, outputs: &[f64], label: &Label) -> (f64, Vec<f64>) {
    let outputs = Var::from_slice(outputs, (1, outputs.len()), &Device::Cpu).unwrap();
    let loss = objective.loss(outputs.as_tensor(), label).unwrap();
    let gradients = loss.backward().unwrap();
    let gradient = gradients.get(outputs.as_tensor()).unwrap();
    (
        loss.to_scalar().unwrap(),
        gradient.flatten_all().unwrap().to_vec1().unwrap(),
    )
}

/// PyTorch 2.15 and scikit-learn: see `tests/golden/losses.py`.
#[test]
fn losses_are_those_of_pytorch() {
    let golden: Value =
        serde_json::from_str(include_str!("../../tests/golden/losses.json")).unwrap();
    let cases = golden["cases"].as_array().unwrap();
    assert!(cases.len() > 60);
    for case in cases {
        let task: Task = serde_json::from_value(case["task"].clone()).unwrap();
        let label: Label = serde_json::from_value(case["label"].clone()).unwrap();
        let weights = match &case["weights"] {
            Value::Null => ClassWeights::None,
            weights => serde_json::from_value(weights.clone()).unwrap(),
        };
        let train: Vec<Sample> = match &case["train"] {
            Value::Null => Vec::new(),
            labels => floats(labels)
                .into_iter()
                .map(|label| Sample::new("a.svs", label))
                .collect(),
        };
        let objective = Objective {
            // Targets as they are.
            scale: TargetScale::default(),
            ..Objective::fit(task, &weights, &train).unwrap()
        };
        let (value, gradient) = differentiate(&objective, &floats(&case["outputs"]), &label);
        let close = |a: f64, b: f64| (a - b).abs() <= 1e-12 * b.abs().max(1.0);
        assert!(
            close(value, case["loss"].as_f64().unwrap()),
            "{value} in {case}"
        );
        let expected = floats(&case["gradient"]);
        assert!(
            gradient.iter().zip(&expected).all(|(a, b)| close(*a, *b)),
            "{gradient:?} in {case}"
        );
    }
}

/// The loss of levels is minus the logarithm of the probability that [`Task::probabilities`] gives.
#[test]
fn levels_have_the_likelihood_of_their_probabilities() {
    let task = Task::Ordinal { levels: 4 };
    let objective = Objective::fit(task, &ClassWeights::None, &[]).unwrap();
    let outputs = [0.3, -1.2, 2.0];
    for (level, probability) in task.probabilities(&outputs).into_iter().enumerate() {
        let loss = objective
            .of_prediction(&outputs, &Label::of_class(level))
            .unwrap();
        assert!((loss + probability.ln()).abs() < 1e-12);
    }
}

#[test]
fn what_a_task_does_not_take_is_refused() {
    let outputs = |count: usize| Tensor::zeros((1, count), DType::F32, &Device::Cpu).unwrap();
    let levels = Task::Ordinal { levels: 3 };
    let several = Task::MultiLabel { labels: 2 };
    for (task, count, label, told) in [
        (
            levels,
            3,
            1.0,
            "tensor `outputs`: expected [1, 2], found [1, 3]",
        ),
        (
            levels,
            2,
            3.0,
            "tensor `label`: expected one of Ordinal { levels: 3 }, found Number(3.0)",
        ),
        (
            Task::Binary,
            2,
            1.0,
            "tensor `outputs`: expected [1, 1], found [1, 2]",
        ),
        (
            several,
            2,
            1.0,
            "tensor `label`: expected one of MultiLabel { labels: 2 }, found Number(1.0)",
        ),
    ] {
        let refused = slide_loss(task, &outputs(count), &Label::Number(label));
        assert_eq!(refused.unwrap_err().to_string(), told);
    }
    let wrong = [Sample::new("a.svs", 7.0)];
    let refused = Objective::fit(levels, &ClassWeights::None, &wrong)
        .err()
        .unwrap();
    assert_eq!(
        refused.to_string(),
        "tensor `label`: expected one of Ordinal { levels: 3 }, found 7"
    );
}

/// A network's outputs of a number are in deviations, predictions in the number's unit; the loss of both is one.
#[test]
fn numbers_are_learnt_in_deviations() {
    let train = [4000.0, 6000.0].map(|number| Sample::new("a.svs", number));
    let objective = Objective::fit(Task::Regression, &ClassWeights::None, &train).unwrap();
    let (value, gradient) = differentiate(&objective, &[0.5], &Label::Number(6000.0));
    assert!((value - 0.25).abs() < 1e-12 && (gradient[0] + 1.0).abs() < 1e-12);
    let prediction = objective.target_scale().restore(0.5);
    assert!((prediction - 5500.0).abs() < 1e-9);
    let loss = objective
        .of_prediction(&[prediction], &Label::Number(6000.0))
        .unwrap();
    assert!((loss - 0.25).abs() < 1e-12);
}
