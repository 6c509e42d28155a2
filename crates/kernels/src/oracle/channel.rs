use super::Plane;
use crate::{Gelu, Pointwise};

fn map(input: &Plane, value: impl Fn(f64) -> f64) -> Plane {
    Plane {
        data: input.data.iter().map(|&x| value(x)).collect(),
        ..*input
    }
}

fn tanh_argument(x: f64) -> f64 {
    (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044_715 * x.powi(3))
}

/// The function of every value.
#[must_use]
pub fn pointwise_forward(function: Pointwise, input: &Plane) -> Plane {
    map(input, |x| match function {
        Pointwise::Relu if x < 0.0 => 0.0,
        Pointwise::Relu => x,
        Pointwise::Relu6 if x.is_nan() => x,
        Pointwise::Relu6 => x.clamp(0.0, 6.0),
        Pointwise::Sigmoid => 1.0 / (1.0 + (-x).exp()),
        Pointwise::Silu => x / (1.0 + (-x).exp()),
        Pointwise::Gelu(Gelu::Exact) => 0.5 * x * libm::erfc(-x * std::f64::consts::FRAC_1_SQRT_2),
        Pointwise::Gelu(Gelu::Tanh) => 0.5 * x * (1.0 + tanh_argument(x).tanh()),
    })
}

/// The function's derivative at `x`.
#[must_use]
pub fn pointwise_derivative(function: Pointwise, x: f64) -> f64 {
    match function {
        Pointwise::Relu => f64::from(u8::from(x > 0.0)),
        Pointwise::Relu6 => f64::from(u8::from(x > 0.0 && x < 6.0)),
        // Not by the value, of which little is left where it is near 1.
        Pointwise::Sigmoid => (-x).exp() / (1.0 + (-x).exp()).powi(2),
        Pointwise::Silu => {
            let part = 1.0 / (1.0 + (-x).exp());
            part + x * (-x).exp() * part * part
        }
        Pointwise::Gelu(Gelu::Exact) => {
            let density = (-0.5 * x * x).exp() / (2.0 * std::f64::consts::PI).sqrt();
            0.5 * libm::erfc(-x * std::f64::consts::FRAC_1_SQRT_2) + x * density
        }
        Pointwise::Gelu(Gelu::Tanh) => {
            let tanh = tanh_argument(x).tanh();
            let slope = (2.0 / std::f64::consts::PI).sqrt() * (1.0 + 3.0 * 0.044_715 * x * x);
            0.5 * (1.0 + tanh) + 0.5 * x * (1.0 - tanh * tanh) * slope
        }
    }
}

/// The gradient of [`pointwise_forward`] by its input.
#[must_use]
pub fn pointwise_vjp(function: Pointwise, input: &Plane, cotangent: &Plane) -> Plane {
    let pairs = input.data.iter().zip(&cotangent.data);
    Plane {
        data: pairs
            .map(|(&x, &g)| g * pointwise_derivative(function, x))
            .collect(),
        ..*input
    }
}

/// `x * scale + shift`, channel by channel.
#[must_use]
pub fn affine_forward(input: &Plane, scale: &[f64], shift: &[f64]) -> Plane {
    Plane::from_fn(
        input.height,
        input.width,
        input.channels,
        |row, column, channel| input.get(row, column, channel) * scale[channel] + shift[channel],
    )
}

/// The gradients of [`affine_forward`] by input, scale and shift.
#[must_use]
pub fn affine_vjp(input: &Plane, scale: &[f64], cotangent: &Plane) -> (Plane, Vec<f64>, Vec<f64>) {
    let mut scale_gradient = vec![0.0; input.channels];
    let mut shift_gradient = vec![0.0; input.channels];
    let gradient = Plane::from_fn(
        input.height,
        input.width,
        input.channels,
        |row, column, channel| {
            let cotangent = cotangent.get(row, column, channel);
            scale_gradient[channel] += cotangent * input.get(row, column, channel);
            shift_gradient[channel] += cotangent;
            cotangent * scale[channel]
        },
    );
    (gradient, scale_gradient, shift_gradient)
}

#[expect(
    clippy::cast_precision_loss,
    reason = "channel counts are far below 2^53"
)]
fn mean(values: impl ExactSizeIterator<Item = f64>) -> f64 {
    let count = values.len() as f64;
    values.sum::<f64>() / count
}

/// The normalised pixel, and 1 / standard deviation.
fn normalised(pixel: &[f64], epsilon: f64) -> (Vec<f64>, f64) {
    let centre = mean(pixel.iter().copied());
    let variance = mean(pixel.iter().map(|x| (x - centre).powi(2)));
    let inverse = 1.0 / (variance + epsilon).sqrt();
    (
        pixel.iter().map(|x| (x - centre) * inverse).collect(),
        inverse,
    )
}

/// Layer norm over the channels of each pixel.
#[must_use]
pub fn layer_norm_forward(input: &Plane, gamma: &[f64], beta: &[f64], epsilon: f64) -> Plane {
    let mut output = input.clone();
    for pixel in output.data.chunks_exact_mut(input.channels) {
        let (normal, _) = normalised(pixel, epsilon);
        for (channel, value) in pixel.iter_mut().enumerate() {
            *value = normal[channel] * gamma[channel] + beta[channel];
        }
    }
    output
}

/// What [`layer_norm_vjp`] yields.
#[derive(Debug, Clone)]
pub struct LayerNormCotangents {
    /// Gradient by the input.
    pub input: Plane,
    /// Gradient by gamma.
    pub gamma: Vec<f64>,
    /// Gradient by beta.
    pub beta: Vec<f64>,
}

/// The gradients of [`layer_norm_forward`].
#[must_use]
pub fn layer_norm_vjp(
    input: &Plane,
    gamma: &[f64],
    epsilon: f64,
    cotangent: &Plane,
) -> LayerNormCotangents {
    let channels = input.channels;
    let mut gradients = LayerNormCotangents {
        input: Plane::zeros(input.height, input.width, channels),
        gamma: vec![0.0; channels],
        beta: vec![0.0; channels],
    };
    let pixels = input
        .data
        .chunks_exact(channels)
        .zip(cotangent.data.chunks_exact(channels));
    for ((pixel, cotangent), to) in pixels.zip(gradients.input.data.chunks_exact_mut(channels)) {
        let (normal, inverse) = normalised(pixel, epsilon);
        let slope: Vec<f64> = cotangent
            .iter()
            .zip(gamma)
            .map(|(g, gamma)| g * gamma)
            .collect();
        let mean_slope = mean(slope.iter().copied());
        let mean_product = mean(
            slope
                .iter()
                .zip(&normal)
                .map(|(slope, normal)| slope * normal),
        );
        for channel in 0..channels {
            gradients.gamma[channel] += cotangent[channel] * normal[channel];
            gradients.beta[channel] += cotangent[channel];
            to[channel] = inverse * (slope[channel] - mean_slope - normal[channel] * mean_product);
        }
    }
    gradients
}
