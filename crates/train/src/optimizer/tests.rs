//! Against PyTorch, and states that are saved.

use candle_core::{DType, Var};
use serde_json::Value;

use super::*;
use crate::schedule::Schedule;

fn variables() -> NamedVariables {
    let first: Vec<f64> = (0..6).map(|i| -1.0 + 0.4 * f64::from(i)).collect();
    vec![
        (
            "a".to_owned(),
            Var::from_vec(first, (2, 3), &Device::Cpu).unwrap(),
        ),
        (
            "b".to_owned(),
            Var::from_vec(vec![0.5_f64; 4], 4, &Device::Cpu).unwrap(),
        ),
    ]
}

fn gradients(step: u32) -> Gradients {
    let values: Vec<f64> = (0..10)
        .map(|i| (1.3 * f64::from(i) + 0.7 * f64::from(step)).cos() * (1.0 + f64::from(i)))
        .collect();
    let mut gradients = Gradients::default();
    gradients
        .add(
            "a",
            &Tensor::from_slice(&values[..6], (2, 3), &Device::Cpu).unwrap(),
        )
        .unwrap();
    gradients
        .add(
            "b",
            &Tensor::from_slice(&values[6..], 4, &Device::Cpu).unwrap(),
        )
        .unwrap();
    gradients
}

fn values(variables: &NamedVariables) -> Vec<f64> {
    variables
        .iter()
        .flat_map(|(_, variable)| values_of(variable))
        .collect()
}

/// Steps as `tests/golden/optimizers.py` makes them; the second variable has a gradient only where it says so.
fn check_against_torch(
    make: impl Fn(NamedVariables) -> Optimizer,
    rate: impl Fn(u32) -> f64,
    second_has_gradient: impl Fn(u32) -> bool,
    golden: &Value,
) {
    let variables = variables();
    let mut optimizer = make(variables.clone());
    for (step, expected) in (0_u32..).zip(golden.as_array().unwrap()) {
        let mut gradients = gradients(step);
        if !second_has_gradient(step) {
            let mut first = Gradients::default();
            first.add("a", gradients.get("a").unwrap()).unwrap();
            gradients = first;
        }
        let norm = gradients.clip(2.0).unwrap();
        assert!((norm - expected["norm"].as_f64().unwrap()).abs() < 1e-10);
        let rate = rate(step);
        assert!(
            (rate - expected["rate"].as_f64().unwrap()).abs() < 1e-15,
            "{rate} {}",
            expected["rate"]
        );
        optimizer.step(&gradients, rate).unwrap();
        for (found, expected) in values(&variables)
            .iter()
            .zip(expected["values"].as_array().unwrap())
        {
            assert!(
                (found - expected.as_f64().unwrap()).abs() < 1e-13,
                "step {step}: {found} {expected}"
            );
        }
    }
}

/// PyTorch 2.15: see `tests/golden/optimizers.py`.
fn golden() -> Value {
    serde_json::from_str(include_str!("../../tests/golden/optimizers.json")).unwrap()
}

/// An optimiser of any variables.
fn of(kind: OptimizerKind) -> impl Fn(NamedVariables) -> Optimizer {
    move |variables| Optimizer::new(kind, variables)
}

/// The second variable takes steps ten times as long and does not decay.
#[test]
fn groups_are_stepped_as_torch_steps_them() {
    let make = |variables: NamedVariables| {
        let groups = ParameterGroup::of(&variables);
        Optimizer::new(OptimizerKind::ADAMW, variables).groups(&groups, |group| match group.kind {
            ParameterKind::Weight => ParameterOptions::default(),
            ParameterKind::NormOrBias => ParameterOptions {
                learning_rate_factor: 10.0,
                weight_decay_factor: 0.0,
            },
        })
    };
    check_against_torch(make, |_| 2e-3, |_| true, &golden()["grouped"]);
}

fn sgd(momentum: f64) -> OptimizerKind {
    OptimizerKind::Sgd {
        momentum,
        weight_decay: 1e-3,
    }
}

#[test]
fn agrees_with_torch() {
    let golden = golden();
    check_against_torch(
        of(OptimizerKind::ADAMW),
        |step| Schedule::default().rate(2e-3, u64::from(step), 11),
        |_| true,
        &golden["adamw"],
    );
    check_against_torch(of(sgd(0.9)), |_| 1e-2, |_| true, &golden["sgd"]);
    check_against_torch(of(sgd(0.0)), |_| 1e-2, |_| true, &golden["plain_sgd"]);
    check_against_torch(of(OptimizerKind::MUON), |_| 6e-3, |_| true, &golden["muon"]);
}

/// PyTorch itself rounds to bf16 while it orthogonalises: ten of its steps lie within 3% of the way that is made without.
#[test]
fn muon_goes_where_torch_goes_in_bf16() {
    let variables = variables();
    let begin = values(&variables);
    let mut optimizer = Optimizer::new(OptimizerKind::MUON, variables.clone());
    let golden = golden();
    let steps = golden["muon_bf16"].as_array().unwrap();
    for step in 0..10 {
        let mut gradients = gradients(step);
        gradients.clip(2.0).unwrap();
        optimizer.step(&gradients, 6e-3).unwrap();
    }
    let distance = |to: &[f64]| {
        let found = values(&variables);
        let squares = found.iter().zip(to).map(|(found, to)| (found - to).powi(2));
        squares.sum::<f64>().sqrt()
    };
    let torch: Vec<f64> = steps[9]["values"]
        .as_array()
        .unwrap()
        .iter()
        .map(|value| value.as_f64().unwrap())
        .collect();
    let (apart, way) = (distance(&torch), distance(&begin));
    assert!(way > 0.01 && apart > 0.0, "{apart} {way}");
    assert!(apart < 0.03 * way, "{apart} of {way}");
}

#[test]
fn muon_steps_the_networks_matrices_alone() {
    let variables: NamedVariables = [
        ("net.conv.weight", vec![4, 3, 1, 1]),
        ("net.depthwise.weight", vec![4, 1, 3, 3]),
        ("net.conv.bias", vec![4]),
        ("head.fc.weight", vec![2, 4]),
    ]
    .map(|(name, shape)| {
        let variable = Var::ones(shape, DType::F64, &Device::Cpu).unwrap();
        (name.to_owned(), variable)
    })
    .into();
    let mut gradients = Gradients::default();
    for (name, variable) in &variables {
        gradients.add(name, variable.as_tensor()).unwrap();
    }
    let mut optimizer = Optimizer::new(OptimizerKind::MUON, variables);
    optimizer.step(&gradients, 1e-3).unwrap();
    let state = optimizer.state().unwrap();
    let mut by_adamw: Vec<&str> = state
        .keys()
        .filter_map(|name| name.strip_prefix(SECOND))
        .collect();
    by_adamw.sort_unstable();
    assert_eq!(
        by_adamw,
        ["head.fc.weight", "net.conv.bias", "net.depthwise.weight"]
    );
    assert!(state.contains_key("first.net.conv.weight"));
}

/// A variable that has no gradient at first, and once later.
#[test]
fn counts_and_remembers_by_variable_as_torch() {
    let golden = &golden()["late"];
    let late = |step| step >= 3 && step != 5;
    let (adamw, muon) = (OptimizerKind::ADAMW, OptimizerKind::MUON);
    check_against_torch(of(adamw), |_| 2e-3, late, &golden["adamw"]);
    check_against_torch(of(sgd(0.9)), |_| 1e-2, late, &golden["sgd"]);
    check_against_torch(of(muon), |_| 6e-3, late, &golden["muon"]);
}

#[test]
fn a_weight_that_is_unfrozen_late_begins_anew() {
    let kind = OptimizerKind::AdamW {
        beta1: 0.9,
        beta2: 0.999,
        epsilon: 1e-8,
        weight_decay: 0.0,
    };
    let variables: NamedVariables = ["a", "b"]
        .map(|name| (name.to_owned(), Var::new(&[1_f64], &Device::Cpu).unwrap()))
        .into();
    let mut optimizer = Optimizer::new(kind, variables.clone());
    let one = Tensor::new(&[1_f64], &Device::Cpu).unwrap();
    for (step, expected) in golden()["unfrozen"].as_array().unwrap().iter().enumerate() {
        let mut gradients = Gradients::default();
        gradients.add("a", &one).unwrap();
        if step >= 3 {
            gradients.add("b", &one).unwrap();
        }
        optimizer.step(&gradients, 0.1).unwrap();
        let found = values(&variables)[1];
        assert!(
            (found - expected.as_f64().unwrap()).abs() < 1e-15,
            "step {step}: {found} {expected}"
        );
    }
}

#[test]
fn a_gradient_of_another_form_changes_nothing() {
    let variables = variables();
    let mut optimizer = Optimizer::new(OptimizerKind::default(), variables.clone());
    let before = values(&variables);
    let zeros = |shape: &[usize], dtype| Tensor::zeros(shape, dtype, &Device::Cpu).unwrap();
    for (wrong, part) in [
        (zeros(&[3], DType::F64), "F64 of [3]"),
        (zeros(&[4], DType::F32), "F32 of [4]"),
    ] {
        let mut mixed = Gradients::default();
        mixed.add("a", gradients(0).get("a").unwrap()).unwrap();
        mixed.add("b", &wrong).unwrap();
        let error = optimizer.step(&mixed, 0.1).unwrap_err().to_string();
        assert!(
            error.contains("`b`") && error.contains(part) && error.contains("F64 of [4]"),
            "{error}"
        );
    }
    assert_eq!(values(&variables), before);
    assert_eq!(
        (optimizer.steps(), optimizer.state().unwrap().len()),
        (0, 0)
    );
}

#[test]
fn settings_that_torch_refuses_are_refused() {
    let adamw = |beta1, beta2, epsilon, weight_decay| OptimizerKind::AdamW {
        beta1,
        beta2,
        epsilon,
        weight_decay,
    };
    let muon = |momentum, weight_decay| OptimizerKind::Muon {
        momentum,
        beta1: 0.9,
        beta2: 0.999,
        epsilon: 1e-8,
        weight_decay,
    };
    for kind in [
        OptimizerKind::MUON,
        OptimizerKind::ADAMW,
        adamw(0.0, 0.0, 0.0, 0.0),
        sgd(2.0),
    ] {
        kind.check().unwrap();
    }
    for (kind, part) in [
        (adamw(1.0, 0.9, 0.0, 0.0), "beta1"),
        (adamw(0.9, f64::NAN, 0.0, 0.0), "beta2"),
        (adamw(0.9, 0.9, -1.0, 0.0), "epsilon"),
        (adamw(0.9, 0.9, 0.0, f64::INFINITY), "weight_decay"),
        (sgd(-0.1), "momentum"),
        (muon(1.0, 0.1), "momentum"),
        (muon(0.95, f64::NAN), "weight_decay"),
    ] {
        let error = kind.check().unwrap_err().to_string();
        assert!(
            error.contains(&format!("train.optimizer.{part}")),
            "{error}"
        );
    }
}

#[test]
fn goes_on_from_a_saved_state() {
    for kind in [
        OptimizerKind::MUON,
        OptimizerKind::ADAMW,
        OptimizerKind::Sgd {
            momentum: 0.9,
            weight_decay: 0.0,
        },
    ] {
        let whole = variables();
        let mut optimizer = Optimizer::new(kind, whole.clone());
        let halved = variables();
        let mut first_half = Optimizer::new(kind, halved.clone());
        for step in 0..3 {
            optimizer.step(&gradients(step), 1e-2).unwrap();
            first_half.step(&gradients(step), 1e-2).unwrap();
        }
        let mut second_half = Optimizer::new(kind, halved.clone());
        second_half
            .load_state(first_half.steps(), first_half.state().unwrap())
            .unwrap();
        for step in 3..6 {
            optimizer.step(&gradients(step), 1e-2).unwrap();
            second_half.step(&gradients(step), 1e-2).unwrap();
        }
        assert_eq!(values(&whole), values(&halved));
    }
}

#[test]
fn a_foreign_or_torn_state_is_refused() {
    let variables = variables();
    let mut optimizer = Optimizer::new(OptimizerKind::ADAMW, variables.clone());
    let tensor = Tensor::zeros(4, DType::F64, &Device::Cpu).unwrap();
    let one = count_tensor(1, &Device::Cpu).unwrap();
    let none = count_tensor(0, &Device::Cpu).unwrap();
    type Stored<'a> = &'a [(&'a str, &'a Tensor)];
    let cases: [(Stored<'_>, &[&str]); 6] = [
        (&[("first.a", &tensor)], &["first.a", "[2, 3]", "[4]"]),
        (&[("first.c", &tensor)], &["first.c", "none"]),
        (&[("first.b", &tensor), ("second.b", &tensor)], &["step.b"]),
        (&[("first.b", &tensor), ("step.b", &one)], &["second.b"]),
        (&[("second.b", &tensor), ("step.b", &one)], &["first.b"]),
        (
            &[
                ("first.b", &tensor),
                ("second.b", &tensor),
                ("step.b", &none),
            ],
            &["step.b", "above 0"],
        ),
    ];
    for (state, parts) in cases {
        let state = state
            .iter()
            .map(|(name, tensor)| ((*name).to_owned(), (*tensor).clone()));
        let error = optimizer.load_state(1, state.collect()).unwrap_err();
        for part in parts {
            assert!(error.to_string().contains(part), "{error} lacks {part}");
        }
        assert_eq!(
            (optimizer.steps(), optimizer.state().unwrap().len()),
            (0, 0)
        );
    }
    // A state of AdamW is none of momentum.
    let mut adamw = Optimizer::new(OptimizerKind::ADAMW, variables.clone());
    adamw.step(&gradients(0), 0.1).unwrap();
    let mut other = Optimizer::new(sgd(0.9), variables);
    let refused = other.load_state(1, adamw.state().unwrap()).unwrap_err();
    assert!(
        matches!(&refused, TrainError::State { name, found, .. }
            if name.starts_with("second.") && found == "a tensor that belongs to none"),
        "{refused}"
    );
}

/// A convolution's weights are the matrix of their rows.
#[test]
fn muon_takes_convolutions_as_matrices() {
    let stepped = |shape: &[usize]| {
        let values: Vec<f64> = (0..48).map(|i| (0.7 * f64::from(i)).sin()).collect();
        let tensor = Tensor::from_vec(values, shape, &Device::Cpu).unwrap();
        let variable = Var::from_tensor(&tensor).unwrap();
        let mut optimizer = Optimizer::new(
            OptimizerKind::MUON,
            vec![("a".to_owned(), variable.clone())],
        );
        for step in 0..3 {
            let mut gradients = Gradients::default();
            let gradient = (&tensor * f64::from(1 + step)).unwrap().cos().unwrap();
            gradients.add("a", &gradient).unwrap();
            optimizer.step(&gradients, 6e-3).unwrap();
        }
        values_of(&variable)
    };
    assert_eq!(stepped(&[4, 3, 2, 2]), stepped(&[4, 12]));
}

fn values_of(variable: &Var) -> Vec<f64> {
    variable.flatten_all().unwrap().to_vec1().unwrap()
}

/// And the other way round.
#[test]
fn a_state_of_adamw_is_none_of_muon() {
    for (from, to) in [
        (OptimizerKind::ADAMW, OptimizerKind::MUON),
        (OptimizerKind::MUON, OptimizerKind::ADAMW),
    ] {
        let variables = variables();
        let mut first = Optimizer::new(from, variables.clone());
        first.step(&gradients(0), 0.1).unwrap();
        let mut other = Optimizer::new(to, variables);
        let refused = other.load_state(1, first.state().unwrap()).unwrap_err();
        assert!(matches!(refused, TrainError::State { .. }), "{refused}");
    }
}
