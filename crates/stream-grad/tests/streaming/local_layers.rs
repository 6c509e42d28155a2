//! A user's own layers in a network: what they give wrongly is refused, with both shapes.

use std::sync::Arc;

use candle_core::{DType, Device, Tensor, Var};
use stream_grad::tiling::{AxisRule, PerAxis};
use stream_grad::{
    CandleLayer, ExternalError, LocalLayer, LocalRegion, NetBuilder, PlanRequest, StreamError,
};

/// Adds `bias` `[1, C, 1, 1]` and returns what it is told to.
#[derive(Debug, Clone, Copy)]
enum Gives {
    Right,
    NoGradients,
    ThreeGradients,
    ShortGradient,
    SmallInputGradient,
    WideOutput,
    HalfOutput,
    /// Right, in f64 and in an order of its own.
    Strided,
}

#[derive(Debug)]
struct Biased {
    bias: Var,
    gives: Gives,
}

impl LocalLayer for Biased {
    fn name(&self) -> String {
        "biased".to_owned()
    }

    fn rule(&self) -> PerAxis<AxisRule> {
        PerAxis::both(AxisRule::Pointwise)
    }

    fn output_channels(&self, input_channels: usize) -> usize {
        input_channels
    }

    fn parameters(&self) -> Vec<(String, Tensor)> {
        vec![("bias".to_owned(), self.bias.as_tensor().clone())]
    }

    fn flops_per_output(&self) -> u64 {
        1
    }

    fn scratch_bytes(&self, input_values: u64, output_values: u64) -> u64 {
        64 * (input_values + output_values)
    }

    fn forward(
        &self,
        _: &LocalRegion,
        parameters: &[Tensor],
        input: &Tensor,
    ) -> Result<Tensor, ExternalError> {
        let output = input.broadcast_add(&parameters[0])?;
        Ok(match self.gives {
            Gives::WideOutput => Tensor::cat(&[&output, &output], 3)?,
            Gives::HalfOutput => output.to_dtype(DType::F16)?,
            Gives::Strided => strided(&output)?,
            _ => output,
        })
    }

    fn vjp(
        &self,
        _: &LocalRegion,
        _: &[Tensor],
        _: &Tensor,
        cotangent: &Tensor,
    ) -> Result<(Tensor, Vec<Tensor>), ExternalError> {
        let of_bias = cotangent.sum_keepdim((0, 2, 3))?;
        Ok(match self.gives {
            Gives::NoGradients => (cotangent.clone(), Vec::new()),
            Gives::ThreeGradients => (cotangent.clone(), vec![of_bias; 3]),
            Gives::ShortGradient => (cotangent.clone(), vec![of_bias.narrow(1, 0, 1)?]),
            Gives::SmallInputGradient => (cotangent.narrow(2, 0, 1)?, vec![of_bias]),
            Gives::Strided => (strided(cotangent)?, vec![strided(&of_bias)?]),
            _ => (cotangent.clone(), vec![of_bias]),
        })
    }
}

/// The same values, columns before rows in memory.
fn strided(tensor: &Tensor) -> candle_core::Result<Tensor> {
    let turned = tensor.to_dtype(DType::F64)?.transpose(2, 3)?.contiguous()?;
    turned.transpose(2, 3)
}

/// Gradient of the image and of the bias, for a cotangent of the output itself.
fn gradients(gives: Gives) -> Result<Vec<Vec<f32>>, StreamError> {
    let bias = Tensor::new(&[0.5_f32, -2.0], &Device::Cpu)?.reshape((1, 2, 1, 1))?;
    let bias = Var::from_tensor(&bias)?;
    let mut net = NetBuilder::new(2);
    let layer = Biased {
        bias: bias.clone(),
        gives,
    };
    let x = net.local(net.input(), Arc::new(layer))?;
    let net = net.build(x)?;
    let image = Tensor::arange(0_f32, 40.0, &Device::Cpu)?.reshape((1, 2, 4, 5))?;
    let request = PlanRequest::new(4, 5).tile(3);
    let plan = net.plan(request.input_gradient(stream_grad::InputGradient::Wanted))?;
    let (features, residuals) = plan.forward(&image)?;
    let (store, of_image) = plan.vjp_with_input(residuals, &[features.detach()])?;
    let of_bias = store.get(bias.as_tensor()).cloned().unwrap();
    let values = |tensor: &Tensor| tensor.flatten_all()?.to_vec1::<f32>();
    Ok(vec![values(&of_image)?, values(&of_bias)?])
}

#[test]
fn results_of_another_shape_number_or_precision_are_refused() {
    for (gives, expected) in [
        (
            Gives::NoGradients,
            "gradients of the parameters: expected 1 of shapes [[1, 2, 1, 1]], found 0 of shapes []",
        ),
        (
            Gives::ThreeGradients,
            "expected 1 of shapes [[1, 2, 1, 1]], found 3 of shapes [[1, 2, 1, 1], [1, 2, 1, 1], [1, 2, 1, 1]]",
        ),
        (
            Gives::ShortGradient,
            "gradient of parameter `bias`: expected shape [1, 2, 1, 1], found [1, 1, 1, 1]",
        ),
        (
            Gives::SmallInputGradient,
            "gradient of the input: expected shape [1, 2, 3,",
        ),
        (
            Gives::WideOutput,
            "output: expected shape [1, 2, 3, 3], found [1, 2, 3, 6]",
        ),
        (Gives::HalfOutput, "output: expected dtype F32, found F16"),
    ] {
        let message = gradients(gives).unwrap_err().to_string();
        assert!(
            message.contains("`biased`") && message.contains(expected),
            "{message}"
        );
    }
}

#[test]
fn orders_in_memory_and_more_precision_are_taken() {
    let right = gradients(Gives::Right).unwrap();
    assert_eq!(right[1].len(), 2);
    assert_eq!(gradients(Gives::Strided).unwrap(), right);
}

#[test]
fn a_candle_function_without_a_gradient_is_refused() {
    let mut net = NetBuilder::new(4);
    let softmax = CandleLayer::new("softmax", PerAxis::both(AxisRule::Pointwise), |x, _| {
        let last = x.permute((0, 2, 3, 1))?.contiguous()?;
        candle_nn::ops::softmax_last_dim(&last)?.permute((0, 3, 1, 2))
    });
    let x = net.local(net.input(), Arc::new(softmax)).unwrap();
    let net = net.build(x).unwrap();
    let request = PlanRequest::new(6, 6).input_gradient(stream_grad::InputGradient::Wanted);
    let plan = net.plan(request).unwrap();
    let image = Tensor::ones((1, 4, 6, 6), DType::F32, &Device::Cpu).unwrap();
    let (features, residuals) = plan.forward(&image).unwrap();
    let error = plan.vjp_with_input(residuals, &[features]).unwrap_err();
    let message = error.to_string();
    assert!(
        message.contains("`softmax`") && message.contains("no gradient goes through"),
        "{message}"
    );
}
