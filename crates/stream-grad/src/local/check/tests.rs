//! Layers with one fault each, and right ones.

use stream_grad_tiling::Window;

use super::*;
use crate::ExternalError;
use crate::local::CandleLayer;

/// `weight * x^2`, with a fault.
#[derive(Debug)]
struct Scaled(Fault);

#[derive(Debug, PartialEq)]
enum Fault {
    None,
    /// The gradient of the input lacks a factor.
    Input,
    /// The gradient of the weights lacks the cotangent.
    Weight,
    /// Of two parameters the gradients are swapped.
    Order,
    /// Values depend on the first row that is asked for.
    Region,
    /// One gradient is missing.
    Missing,
    /// The output has a row too few.
    Row,
    /// The output is of f32.
    Precision,
}

const CHANNELS: usize = 2;

impl LocalLayer for Scaled {
    fn name(&self) -> String {
        "scaled".to_owned()
    }

    fn rule(&self) -> PerAxis<AxisRule> {
        PerAxis::both(AxisRule::Pointwise)
    }

    fn output_channels(&self, input_channels: usize) -> usize {
        input_channels
    }

    fn parameters(&self) -> Vec<(String, Tensor)> {
        let tensor = |values: &[f32; CHANNELS]| {
            Tensor::from_slice(values, (1, CHANNELS, 1, 1), &Device::Cpu).unwrap()
        };
        vec![
            ("weight".to_owned(), tensor(&[0.7, -1.2])),
            ("bias".to_owned(), tensor(&[0.1, 0.4])),
        ]
    }

    fn flops_per_output(&self) -> u64 {
        3
    }

    fn scratch_bytes(&self, input_values: u64, output_values: u64) -> u64 {
        64 * (input_values + output_values)
    }

    fn forward(
        &self,
        region: &LocalRegion,
        parameters: &[Tensor],
        input: &Tensor,
    ) -> Result<Tensor, ExternalError> {
        let output = input.sqr()?.broadcast_mul(&parameters[0])?;
        let output = output.broadcast_add(&parameters[1])?;
        let rows = output.dim(2)?;
        Ok(match self.0 {
            Fault::Region => (output * (1.0 + region.outputs.rows.lo as f64))?,
            Fault::Row => output.narrow(2, 0, rows - 1)?,
            Fault::Precision => output.to_dtype(DType::F32)?,
            _ => output,
        })
    }

    fn vjp(
        &self,
        _: &LocalRegion,
        parameters: &[Tensor],
        input: &Tensor,
        cotangent: &Tensor,
    ) -> Result<(Tensor, Vec<Tensor>), ExternalError> {
        let sum = |tensor: &Tensor| tensor.sum_keepdim((0, 2, 3));
        let slope = input.broadcast_mul(&parameters[0])?;
        let of_input = (slope * cotangent)?;
        let of_input = match self.0 {
            Fault::Input => of_input,
            _ => (of_input * 2.0)?,
        };
        let squares = input.sqr()?;
        let of_weight = match self.0 {
            Fault::Weight => sum(&squares)?,
            _ => sum(&(squares * cotangent)?)?,
        };
        let of_bias = sum(cotangent)?;
        let of_parameters = match self.0 {
            Fault::Order => vec![of_bias, of_weight],
            Fault::Missing => vec![of_weight],
            _ => vec![of_weight, of_bias],
        };
        Ok((of_input, of_parameters))
    }
}

fn window(kernel: u64, stride: u64, padding: u64) -> PerAxis<AxisRule> {
    let window = Window::new(kernel, stride, 1, padding, padding).unwrap();
    PerAxis::both(AxisRule::Window(window))
}

#[test]
fn a_right_layer_passes_and_each_fault_is_named() {
    check_gradients(&Scaled(Fault::None), CHANNELS, -1.0..1.0).unwrap();
    for (fault, expected) in [
        (Fault::Input, "gradient of the input, entry [0, "),
        (
            Fault::Weight,
            "gradient of parameter `weight`, entry [0, 0, 0, 0]",
        ),
        (
            Fault::Order,
            "gradient of parameter `weight`, entry [0, 0, 0, 0]",
        ),
        (Fault::Region, "where all outputs are asked for"),
        (
            Fault::Missing,
            "gradients of the parameters: expected 2 of shapes [[1, 2, 1, 1], [1, 2, 1, 1]], found 1 of shapes [[1, 2, 1, 1]]",
        ),
        (
            Fault::Row,
            "output: expected shape [1, 2, 1, 3], found [1, 2, 0, 3]",
        ),
        (Fault::Precision, "output: expected dtype F64, found F32"),
    ] {
        let error = check_gradients(&Scaled(fault), CHANNELS, -1.0..1.0).unwrap_err();
        let message = error.to_string();
        assert!(
            message.contains("`scaled`") && message.contains(expected),
            "{message}"
        );
    }
}

#[test]
fn both_numbers_are_told() {
    // The slope is 2 w x times the cotangent, of which the fault leaves the half.
    let error = check_gradients(&Scaled(Fault::Input), CHANNELS, -1.0..1.0).unwrap_err();
    let StreamError::Gradient {
        expected, found, ..
    } = error
    else {
        panic!("{error}");
    };
    assert!(expected.abs() > 0.01 && (expected / found - 2.0).abs() < 1e-6);
}

#[test]
fn convolutions_of_all_kinds_pass() {
    let weight = Tensor::from_vec(
        Draw(1).distinct(2 * 2 * 3 * 3, &(-1.0..1.0)),
        (2, 2, 3, 3),
        &Device::Cpu,
    )
    .unwrap();
    for (stride, padding) in [(1, 0), (1, 1), (2, 1), (3, 2)] {
        let convolution = CandleLayer::new("convolution", window(3, stride, padding), {
            let stride = usize::try_from(stride).unwrap();
            move |x, parameters| x.conv2d(&parameters[0], 0, stride, 1, 1)?.relu()
        });
        let convolution = convolution.parameter("weight", weight.clone());
        check_gradients(&convolution, 2, -1.0..1.0).unwrap();
    }
}

#[test]
fn a_layer_that_pads_by_itself_is_found() {
    let weight = Tensor::ones((1, 1, 3, 3), DType::F32, &Device::Cpu).unwrap();
    let pads = CandleLayer::new("pads", PerAxis::both(AxisRule::Pointwise), |x, weights| {
        x.conv2d(&weights[0], 1, 1, 1, 1)
    });
    let error = check_gradients(&pads.parameter("weight", weight), 1, -1.0..1.0).unwrap_err();
    assert!(
        matches!(&error, StreamError::RegionDependence { layer, expected, found, .. }
            if layer == "pads" && expected != found),
        "{error}"
    );
}

#[test]
fn kinks_are_no_fault() {
    let pointwise = || PerAxis::both(AxisRule::Pointwise);
    for layer in [
        CandleLayer::new("relu", pointwise(), |x, _| x.relu()),
        CandleLayer::new("abs", pointwise(), |x, _| x.abs()),
        CandleLayer::new("clamp", pointwise(), |x, _| x.clamp(-0.4, 0.4)),
        CandleLayer::new("maximum", pointwise(), |x, _| x.maximum(&(x * 0.5)?)),
    ] {
        check_gradients(&layer, 2, -1.0..1.0).unwrap();
    }
}

#[test]
fn ranges_keep_layers_where_they_are_defined() {
    let log = CandleLayer::new("log", PerAxis::both(AxisRule::Pointwise), |x, _| x.log());
    check_gradients(&log, 1, 0.1..2.0).unwrap();
    let error = check_gradients(&log, 1, -1.0..1.0).unwrap_err().to_string();
    assert!(error.contains("not finite"), "{error}");
    for range in [1.0..1.0, 0.0..f64::INFINITY, f64::NAN..1.0] {
        let error = check_gradients(&log, 1, range.clone()).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!(
                "layer `log`: range of inputs is {range:?}, expected two finite numbers, the smaller one first"
            )
        );
    }
}

#[test]
fn variables_beside_the_parameters_are_refused() {
    let hidden = candle_core::Var::ones((1, 1, 1, 1), DType::F64, &Device::Cpu).unwrap();
    let scaled = CandleLayer::new("scaled", PerAxis::both(AxisRule::Pointwise), {
        let hidden = hidden.clone();
        move |x, _| x.broadcast_mul(hidden.as_tensor())
    });
    let error = check_gradients(&scaled, 1, -1.0..1.0)
        .unwrap_err()
        .to_string();
    assert!(error.contains("none of its parameters"), "{error}");
    let fixed = CandleLayer::new("fixed", PerAxis::both(AxisRule::Pointwise), move |x, _| {
        x.broadcast_mul(&hidden.as_tensor().detach())
    });
    check_gradients(&fixed, 1, -1.0..1.0).unwrap();
}

#[test]
fn sizes_have_every_remainder_of_the_stride() {
    let rule = |kernel, stride, padding| window(kernel, stride, padding).rows;
    assert_eq!(sizes(&AxisRule::Pointwise), [1, 3]);
    assert_eq!(sizes(&rule(3, 1, 1)), [1, 3]);
    assert_eq!(sizes(&rule(3, 2, 0)), [3, 7, 8]);
    assert_eq!(sizes(&rule(2, 9, 0)), [2, 20, 21, 22, 23]);
    assert_eq!(sizes(&AxisRule::UpsampleNearest(2)), [1, 2]);
    let large = Window::new(9000, 1, 1, 0, 0).unwrap();
    assert_eq!(sizes(&AxisRule::Window(large)), [0_i64; 0]);
}

#[test]
fn drawn_values_lie_apart_and_levels_tie() {
    let mut draw = Draw(0);
    for count in [1, 2, 7, 100] {
        let mut values = draw.distinct(count, &(-1.0..1.0));
        values.sort_by(f64::total_cmp);
        let gap = 1.0 / count as f64;
        assert!(values.windows(2).all(|pair| pair[1] - pair[0] > gap));
        assert!(values.iter().all(|value| value.abs() > gap / 4.0));
    }
    let levels = draw.levels(50, &(-1.0..1.0));
    assert!(levels.contains(&0.0));
    assert_eq!(place(23, &[2, 3, 4]), [1, 2, 3]);
}
