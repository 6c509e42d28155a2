use candle_core::{DType, Device, Tensor, Var};
use candle_nn::{VarBuilder, VarMap};

use super::*;

fn tensor(values: &[f64], shape: &[usize]) -> Tensor {
    Tensor::from_slice(values, shape, &Device::Cpu).unwrap()
}

fn head(config: &HeadConfig, channels: usize, outputs: usize) -> (Head, VarMap) {
    let variables = VarMap::new();
    let vb = crate::seeded(&variables, 3, DType::F64, &Device::Cpu);
    (
        Head::new(config, channels, outputs, vb.pp("head")).unwrap(),
        variables,
    )
}

fn running(pooling: GlobalPooling) -> HeadConfig {
    HeadConfig::new(vec![pooling]).standardised(Standardisation::RUNNING)
}

fn stored(variables: &VarMap, name: &str) -> Vec<f64> {
    let variables = variables.data().lock().unwrap();
    variables[&format!("head.{name}")].to_vec1().unwrap()
}

/// The statistics follow `max(0.05, 1 / (k + 1))`; the first variance is unbiased, later ones are about the old mean.
#[test]
fn statistics_follow_the_rule() {
    let (head, variables) = head(&running(GlobalPooling::Average), 1, 1);
    assert!(head.needs_statistics().unwrap());
    let group =
        |values: &[f64]| -> Vec<Tensor> { values.iter().map(|&v| tensor(&[v], &[1, 1])).collect() };
    assert_eq!(head.update_statistics(&group(&[1.0, 3.0, 8.0])).unwrap(), 3);
    assert!(!head.needs_statistics().unwrap());
    assert_eq!(stored(&variables, "running_mean"), [4.0]);
    assert_eq!(stored(&variables, "running_var"), [13.0]);
    assert_eq!(head.update_statistics(&group(&[6.0, 0.0])).unwrap(), 2);
    assert_eq!(stored(&variables, "running_mean"), [3.5]);
    assert_eq!(stored(&variables, "running_var"), [11.5]);
    assert_eq!(stored(&variables, "updates"), [2.0]);
    for _ in 2..100 {
        head.update_statistics(&group(&[3.5])).unwrap();
    }
    let before = stored(&variables, "running_mean")[0];
    head.update_statistics(&group(&[before + 20.0])).unwrap();
    assert!((stored(&variables, "running_mean")[0] - before - 1.0).abs() < 1e-12);
}

#[test]
fn one_row_cannot_tell_a_variance() {
    let (head, variables) = head(&running(GlobalPooling::Average), 1, 1);
    assert_eq!(
        head.update_statistics(&[tensor(&[5.0], &[1, 1])]).unwrap(),
        1
    );
    assert_eq!(stored(&variables, "running_mean"), [5.0]);
    assert_eq!(stored(&variables, "running_var"), [1.0]);
}

#[test]
fn rows_that_are_not_finite_are_left_out() {
    let (head, variables) = head(&running(GlobalPooling::Average), 2, 1);
    let rows = tensor(
        &[1.0, f64::NAN, 2.0, 3.0, 4.0, 5.0, f64::INFINITY, 0.0],
        &[4, 2],
    );
    assert_eq!(head.update_statistics(&[rows]).unwrap(), 2);
    assert_eq!(stored(&variables, "running_mean"), [3.0, 4.0]);
    let broken = tensor(&[f64::NAN, 1.0], &[1, 2]);
    assert_eq!(
        head.update_statistics(std::slice::from_ref(&broken))
            .unwrap(),
        0
    );
    assert_eq!(stored(&variables, "updates"), [1.0]);
    let logits = head.logits(&broken).unwrap().to_vec2::<f64>().unwrap();
    assert!(logits[0][0].is_nan(), "NaN is never swallowed");
}

/// Training by one batch: statistics first, then the logits; the statistics get no gradient, the features do.
#[test]
fn statistics_are_constants_to_the_gradient() {
    let (head, variables) = head(&running(GlobalPooling::Average), 1, 1);
    let features = Var::from_tensor(&tensor(&[1.0, 3.0, 8.0], &[3, 1, 1, 1])).unwrap();
    let weights = tensor(&[2.0, -3.0, 5.0], &[3, 1]);
    let logits = head.forward(&features, Mode::Train).unwrap();
    let gradients = (&logits * &weights)
        .unwrap()
        .sum_all()
        .unwrap()
        .backward()
        .unwrap();
    let slope = {
        let variables = variables.data().lock().unwrap();
        for name in ["running_mean", "running_var", "updates"] {
            assert!(
                gradients.get(&variables[&format!("head.{name}")]).is_none(),
                "{name}"
            );
        }
        variables["head.fc.weight"].to_vec2::<f64>().unwrap()[0][0] / (13.0 + 1e-5_f64).sqrt()
    };
    let gradient = gradients
        .get(&features)
        .unwrap()
        .flatten_all()
        .unwrap()
        .to_vec1::<f64>()
        .unwrap();
    for (found, weight) in gradient.iter().zip([2.0, -3.0, 5.0]) {
        assert!((found - weight * slope).abs() < 1e-14, "{found}");
    }
    let evaluated = head.forward(&features, Mode::Eval).unwrap();
    assert_eq!(
        evaluated.to_vec2::<f64>().unwrap(),
        logits.to_vec2::<f64>().unwrap()
    );
    assert_eq!(stored(&variables, "updates"), [1.0]);
}

/// One image after another gives the logits and gradients of the batch, once there are statistics.
#[test]
fn accumulation_equals_the_batch() {
    let config = HeadConfig::new(vec![
        GlobalPooling::Average,
        GlobalPooling::Maximum,
        GlobalPooling::GEM_4,
    ])
    .standardised(Standardisation::RUNNING);
    let (head, _) = head(&config, 2, 3);
    let batch = crate::generator::uniform_tensor("batch", &[4, 2, 3, 5]).unwrap();
    head.update_statistics(&[head.pooled(&batch).unwrap()])
        .unwrap();
    let whole = head
        .forward(&batch, Mode::Eval)
        .unwrap()
        .to_vec2::<f64>()
        .unwrap();
    for (image, expected) in whole.iter().enumerate() {
        let pooled = head.pooled(&batch.narrow(0, image, 1).unwrap()).unwrap();
        assert_eq!(pooled.dims(), [1, head.inputs()]);
        let logits = head.logits(&pooled).unwrap().to_vec2::<f64>().unwrap();
        for (found, expected) in logits[0].iter().zip(expected) {
            assert!(
                (found - expected).abs() <= 1e-14 * expected.abs().max(1.0),
                "{found} {expected}"
            );
        }
    }
}

#[test]
fn statistics_survive_saving() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("head.safetensors");
    let (first, variables) = head(&running(GlobalPooling::Maximum), 2, 1);
    first
        .update_statistics(&[tensor(&[1.0, 2.0, 5.0, 7.0], &[2, 2])])
        .unwrap();
    crate::save_map(&path, &variables).unwrap();
    let (second, restored) = head(&running(GlobalPooling::Maximum), 2, 1);
    crate::load_map(&path, &restored).unwrap();
    for name in ["running_mean", "running_var", "updates", "fc.bias"] {
        assert_eq!(stored(&variables, name), stored(&restored, name));
    }
    assert!(!second.needs_statistics().unwrap());
}

#[test]
fn bad_input_is_an_error_with_both_sides() {
    let (good, variables) = head(&running(GlobalPooling::Average), 2, 1);
    for shape in [&[1, 3, 4, 4][..], &[2, 4, 4], &[1, 2, 0, 4]] {
        let features = Tensor::zeros(shape, DType::F64, &Device::Cpu).unwrap();
        let message = good.pooled(&features).unwrap_err().to_string();
        assert!(
            message.contains(&format!("{shape:?}")) && message.contains("[N >= 1, 2,"),
            "{message}"
        );
    }
    let half = Tensor::zeros(&[1, 2, 4, 4], DType::F16, &Device::Cpu).unwrap();
    assert!(matches!(
        good.pooled(&half),
        Err(ModelError::InputType { found: DType::F16 })
    ));
    let rows = Tensor::zeros((1, 3), DType::F64, &Device::Cpu).unwrap();
    for refused in [
        good.logits(&rows).map(drop),
        good.update_statistics(&[rows]).map(drop),
    ] {
        assert_eq!(
            refused.unwrap_err().to_string(),
            "pooled features: expected shape [N >= 1, 2], found [1, 3]"
        );
    }

    let gem = |exponent, epsilon| GlobalPooling::GeneralisedMean { exponent, epsilon };
    let statistics = |momentum, epsilon| {
        running(GlobalPooling::Average).standardised(Standardisation::Running { momentum, epsilon })
    };
    let bad = [
        (
            HeadConfig::new(vec![]),
            "head's poolings: expected 1 to 1024, found 0",
        ),
        (
            HeadConfig::new(vec![gem(0.5, 1e-6)]),
            "generalised mean's exponent: expected a finite number of at least 1, found 0.5",
        ),
        (
            HeadConfig::new(vec![gem(f64::NAN, 1e-6)]),
            "generalised mean's exponent: expected a finite number of at least 1, found NaN",
        ),
        (
            HeadConfig::new(vec![gem(3.0, 0.0)]),
            "generalised mean's epsilon: expected a finite number above 0, found 0",
        ),
        (
            statistics(0.0, 1e-5),
            "least weight of running statistics: expected a number above 0 and not above 1, found 0",
        ),
        (
            statistics(0.1, -1.0),
            "epsilon of running statistics: expected a finite number above 0, found -1",
        ),
    ];
    for (config, expected) in bad {
        let vb = VarBuilder::zeros(DType::F64, &Device::Cpu);
        let error = Head::new(&config, 2, 1, vb).unwrap_err();
        assert_eq!(error.to_string(), expected);
    }

    let constants = variables
        .data()
        .lock()
        .unwrap()
        .iter()
        .map(|(name, variable)| (name.clone(), variable.as_tensor().detach()))
        .collect();
    let vb = VarBuilder::from_tensors(constants, DType::F64, &Device::Cpu);
    let frozen = Head::new(&running(GlobalPooling::Average), 2, 1, vb.pp("head")).unwrap();
    let error = frozen
        .update_statistics(&[tensor(&[1.0, 2.0], &[1, 2])])
        .unwrap_err();
    assert!(
        matches!(&error, ModelError::NotVariable { name } if name == "head.running_mean"),
        "{error}"
    );
}

#[test]
fn outputs_of_a_pyramid_are_pooled_one_after_another() {
    let vb = VarBuilder::zeros(DType::F32, &Device::Cpu);
    let config = HeadConfig::new(vec![GlobalPooling::Average, GlobalPooling::Maximum]);
    let head = Head::new(&config, 3, 1, vb).unwrap();
    let fine = Tensor::new(&[[[[1_f32, 3.0]], [[5.0, 5.0]]]], &Device::Cpu).unwrap();
    let coarse = Tensor::new(&[[[[7_f32]]]], &Device::Cpu).unwrap();
    let pooled = head.pooled_all(&[fine.clone(), coarse]).unwrap();
    let expected = [[2_f32, 5.0, 7.0, 3.0, 5.0, 7.0]];
    assert_eq!(pooled.to_vec2::<f32>().unwrap(), expected);
    for (outputs, told) in [
        (
            vec![fine.clone()],
            "features: expected shape [N >= 1, 3, H >= 1, W >= 1], found [1, 2, 1, 2]",
        ),
        (
            vec![fine.clone(), fine],
            "outputs: expected 3 channels together, found [2, 2]",
        ),
        (vec![], "outputs: expected 3 channels together, found []"),
    ] {
        let refused = head.pooled_all(&outputs).unwrap_err();
        assert_eq!(refused.to_string(), told);
    }
}
