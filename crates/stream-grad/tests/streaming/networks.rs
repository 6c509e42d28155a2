//! Random networks that look for trouble: strides above kernels, dilation, lopsided padding, branches that lag
//! differently, upsampling, concatenation.

use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use candle_nn::{VarBuilder, VarMap};
use proptest::prelude::*;
use stream_grad::tiling::{AxisRule, PerAxis, Window};
use stream_grad::{
    AlignCorners, CandleLayer, Conv2d, ConvTranspose2d, CountIncludePad, Gelu, Layer, Net,
    NetBuilder, Padding, Pool2d,
};

/// One step of a random network.
#[derive(Debug, Clone)]
pub(crate) enum Step {
    Conv {
        kernel: [usize; 2],
        stride: [usize; 2],
        dilation: [usize; 2],
        padding: [usize; 4],
        groups: bool,
        bias: bool,
        norm: bool,
        relu: bool,
    },
    /// With this kernel, even ones too, and padding that keeps the size.
    ConvSame([usize; 2], [usize; 2]),
    ConvTranspose {
        kernel: [usize; 2],
        stride: [usize; 2],
        dilation: [usize; 2],
        padding: [usize; 4],
        more: bool,
        groups: bool,
        bias: bool,
    },
    MaxPool([usize; 2], [usize; 2], [usize; 4], bool),
    AvgPool([usize; 2], [usize; 2], [usize; 4], [bool; 2]),
    Relu,
    Relu6,
    Sigmoid,
    Silu,
    LayerScale,
    /// Times a gate that a convolution of it makes.
    Gate,
    /// Times itself.
    Square,
    Gelu(bool),
    LayerNorm,
    BatchNorm,
    Scale,
    Nearest(usize),
    Bilinear(usize, bool),
    /// A residual branch of two convolutions, the first with this half kernel, with a projection or not.
    Residual(usize, bool),
    /// Add to itself.
    Double,
    /// Down by a strided convolution, up again, bilinearly (legal at even sizes) or to the size before, and concatenate.
    UNet(bool),
    Custom,
}

fn axis_pair(range: std::ops::RangeInclusive<usize>) -> impl Strategy<Value = [usize; 2]> {
    [range.clone(), range]
}

pub(crate) fn step() -> impl Strategy<Value = Step> {
    let sides = |most: usize| [0..=most, 0..=most, 0..=most, 0..=most];
    prop_oneof![
        5 => (axis_pair(1..=5), axis_pair(1..=4), axis_pair(1..=2), sides(4), any::<[bool; 4]>())
            .prop_map(|(kernel, stride, dilation, padding, [groups, bias, norm, relu])| Step::Conv {
                kernel, stride, dilation, padding, groups, bias, norm, relu,
            }),
        1 => (axis_pair(1..=4), axis_pair(1..=2)).prop_map(|(k, d)| Step::ConvSame(k, d)),
        2 => (axis_pair(1..=4), axis_pair(1..=3), axis_pair(1..=2), sides(2), any::<[bool; 3]>())
            .prop_map(|(kernel, stride, dilation, padding, [more, groups, bias])| {
                Step::ConvTranspose { kernel, stride, dilation, padding, more, groups, bias }
            }),
        2 => (axis_pair(1..=3), axis_pair(1..=3), sides(1), any::<bool>())
            .prop_map(|(k, s, p, ceil)| Step::MaxPool(k, s, p, ceil)),
        1 => (axis_pair(1..=3), axis_pair(1..=3), sides(1), any::<[bool; 2]>())
            .prop_map(|(k, s, p, d)| Step::AvgPool(k, s, p, d)),
        1 => Just(Step::Relu),
        1 => prop_oneof![
            Just(Step::Relu6), Just(Step::Sigmoid), Just(Step::Silu), Just(Step::LayerScale), Just(Step::Gate),
            Just(Step::Square),
        ],
        1 => any::<bool>().prop_map(Step::Gelu),
        1 => Just(Step::LayerNorm),
        1 => Just(Step::BatchNorm),
        1 => Just(Step::Scale),
        1 => (1_usize..=3).prop_map(Step::Nearest),
        1 => (1_usize..=3, any::<bool>()).prop_map(|(f, c)| Step::Bilinear(f, c)),
        3 => (0_usize..=2, any::<bool>()).prop_map(|(half, project)| Step::Residual(half, project)),
        1 => Just(Step::Double),
        1 => any::<bool>().prop_map(Step::UNet),
        1 => Just(Step::Custom),
    ]
}

/// Builds the network, with parameters drawn by candle from N(0, 1) scaled for each layer. Steps that the sizes
/// do not allow are refused later, when a plan is made.
pub(crate) fn build(steps: &[Step], channels: usize, dtype: DType, seed: u64) -> (Net, VarMap) {
    let variables = VarMap::new();
    let (net, layers) = steps_from(0, steps, channels, dtype, &variables);
    let net = net.build(layers[steps.len()]).unwrap();
    fill(&variables, seed);
    (net, variables)
}

/// Step `first` of a network and those after it, with parameters of `variables`; and the layer before each step, and after the
/// last.
pub(crate) fn steps_from(
    first: usize,
    steps: &[Step],
    channels: usize,
    dtype: DType,
    variables: &VarMap,
) -> (NetBuilder, Vec<Layer>) {
    let vb = VarBuilder::from_varmap(variables, dtype, &Device::Cpu);
    let mut net = NetBuilder::new(channels);
    let mut layers = vec![net.input()];
    for (index, step) in steps.iter().enumerate().skip(first) {
        let x = push(
            &mut net,
            layers[index - first],
            step,
            vb.pp(format!("s{index}")),
        );
        layers.push(x);
    }
    (net, layers)
}

/// Values from a small generator of our own, so that a case is the same on every run.
pub(crate) fn values(count: usize, seed: u64) -> Vec<f64> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ 0xD1B5_4A32_D192_ED03;
    (0..count)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            #[expect(clippy::cast_precision_loss, reason = "53 bits fit")]
            let unit = (state >> 11) as f64 / (1_u64 << 53) as f64;
            2.0 * unit - 1.0
        })
        .collect()
}

pub(crate) fn tensor(shape: &[usize], dtype: DType, seed: u64) -> Tensor {
    let count = shape.iter().product();
    Tensor::from_vec(values(count, seed), shape, &Device::Cpu)
        .unwrap()
        .to_dtype(dtype)
        .unwrap()
}

pub(crate) fn fill(variables: &VarMap, seed: u64) {
    let data = variables.data().lock().unwrap();
    let mut names: Vec<&String> = data.keys().collect();
    names.sort();
    for (index, name) in names.into_iter().enumerate() {
        let var = &data[name];
        let value = tensor(var.dims(), var.dtype(), seed + 1000 + index as u64);
        let value = if name.ends_with("running_var") {
            ((value.abs().unwrap() + 0.5).unwrap()).clone()
        } else {
            value
        };
        var.set(&value).unwrap();
    }
}

fn padding(
    [top, bottom, left, right]: [usize; 4],
    kernel: [usize; 2],
    dilation: [usize; 2],
) -> Padding {
    let limit = |side: usize, axis: usize| side.min(dilation[axis] * (kernel[axis] - 1));
    Padding {
        top: limit(top, 0),
        bottom: limit(bottom, 0),
        left: limit(left, 1),
        right: limit(right, 1),
    }
}

fn push(net: &mut NetBuilder, x: Layer, step: &Step, vb: VarBuilder<'_>) -> Layer {
    let channels = net.channels(x).unwrap();
    match step {
        Step::Conv {
            kernel,
            stride,
            dilation,
            padding: sides,
            groups,
            bias,
            norm,
            relu,
        } => {
            let out = if *groups { channels } else { 3 };
            let config = Conv2d {
                in_channels: channels,
                out_channels: out,
                kernel: *kernel,
                stride: *stride,
                dilation: *dilation,
                padding: padding(*sides, *kernel, *dilation),
                groups: if *groups { channels } else { 1 },
                bias: *bias,
            };
            let mut y = net.conv2d(x, config, vb.pp("conv")).unwrap();
            if *norm {
                y = net.frozen_batch_norm(y, 1e-5, vb.pp("norm")).unwrap();
            }
            if *relu { net.relu(y).unwrap() } else { y }
        }
        Step::ConvSame(kernel, dilation) => {
            let mut config = Conv2d::new(channels, 3, 1);
            config.kernel = *kernel;
            config.dilation = *dilation;
            net.conv2d(x, config.padding_same(), vb.pp("conv")).unwrap()
        }
        Step::ConvTranspose {
            kernel,
            stride,
            dilation,
            padding: [top, bottom, left, right],
            more,
            groups,
            bias,
        } => {
            let config = ConvTranspose2d {
                in_channels: channels,
                out_channels: if *groups { channels } else { 3 },
                kernel: *kernel,
                stride: *stride,
                dilation: *dilation,
                padding: Padding {
                    top: *top,
                    bottom: *bottom,
                    left: *left,
                    right: *right,
                },
                output_padding: [0, 1]
                    .map(|axis| usize::from(*more && stride[axis].max(dilation[axis]) > 1)),
                groups: if *groups { channels } else { 1 },
                bias: *bias,
            };
            net.conv_transpose2d(x, config, vb.pp("up")).unwrap()
        }
        Step::MaxPool(kernel, stride, sides, ceil_mode) => {
            let padding = padding(*sides, *kernel, [1, 1]);
            net.max_pool2d(
                x,
                Pool2d {
                    kernel: *kernel,
                    stride: *stride,
                    dilation: [1, 1],
                    padding,
                    ceil_mode: *ceil_mode,
                },
            )
            .unwrap()
        }
        Step::AvgPool(kernel, stride, sides, [whole, ceil_mode]) => {
            let padding = padding(*sides, *kernel, [1, 1]);
            let divisor = if *whole {
                CountIncludePad::Yes
            } else {
                CountIncludePad::No
            };
            net.avg_pool2d(
                x,
                Pool2d {
                    kernel: *kernel,
                    stride: *stride,
                    dilation: [1, 1],
                    padding,
                    ceil_mode: *ceil_mode,
                },
                divisor,
            )
            .unwrap()
        }
        Step::Relu => net.relu(x).unwrap(),
        Step::Relu6 => net.relu6(x).unwrap(),
        Step::Sigmoid => net.sigmoid(x).unwrap(),
        Step::Silu => net.silu(x).unwrap(),
        Step::LayerScale => net.layer_scale(x, 0.5, vb).unwrap(),
        Step::Gate => {
            let gate = Conv2d::new(channels, channels, 1);
            let gate = net.conv2d(x, gate, vb.pp("gate")).unwrap();
            let gate = net.sigmoid(gate).unwrap();
            net.multiply(x, gate).unwrap()
        }
        Step::Square => net.multiply(x, x).unwrap(),
        Step::Gelu(exact) => net
            .gelu(x, if *exact { Gelu::Exact } else { Gelu::Tanh })
            .unwrap(),
        Step::LayerNorm => net.layer_norm(x, 1e-3, vb.pp("norm")).unwrap(),
        Step::BatchNorm => net.frozen_batch_norm(x, 1e-3, vb.pp("norm")).unwrap(),
        Step::Scale => net.scale(x, 0.5, vb.pp("scale")).unwrap(),
        Step::Nearest(factor) => net.upsample_nearest(x, *factor).unwrap(),
        Step::Bilinear(factor, aligned) => {
            let corners = if *aligned {
                AlignCorners::Yes
            } else {
                AlignCorners::No
            };
            net.upsample_bilinear(x, *factor, corners).unwrap()
        }
        Step::Residual(half, project) => {
            let first = Conv2d::new(channels, channels, 2 * half + 1).padding(*half);
            let y = net.conv2d(x, first, vb.pp("a")).unwrap();
            let y = net.relu(y).unwrap();
            let second = Conv2d::new(channels, channels, 3).padding(1).without_bias();
            let y = net.conv2d(y, second, vb.pp("b")).unwrap();
            let y = net.scale(y, 0.5, vb.pp("gain")).unwrap();
            let shortcut = if *project {
                net.conv2d(x, Conv2d::new(channels, channels, 1), vb.pp("p"))
                    .unwrap()
            } else {
                x
            };
            let y = net.add(shortcut, y).unwrap();
            net.relu(y).unwrap()
        }
        Step::Double => net.add(x, x).unwrap(),
        Step::UNet(bilinear) => {
            let down = if *bilinear {
                Conv2d::new(channels, channels, 2).stride(2)
            } else {
                Conv2d::new(channels, channels, 3).stride(2).padding(1)
            };
            let y = net.conv2d(x, down, vb.pp("down")).unwrap();
            let y = net
                .conv2d(
                    y,
                    Conv2d::new(channels, channels, 3).padding(1),
                    vb.pp("mid"),
                )
                .unwrap();
            let y = if *bilinear {
                net.upsample_bilinear(y, 2, AlignCorners::No).unwrap()
            } else {
                net.upsample_nearest_like(y, 2, x).unwrap()
            };
            let y = net.concat(&[x, y]).unwrap();
            net.conv2d(y, Conv2d::new(2 * channels, channels, 1), vb.pp("mix"))
                .unwrap()
        }
        Step::Custom => {
            let rule = AxisRule::Window(Window::new(3, 1, 1, 1, 1).unwrap());
            let weight = vb.get((channels, channels, 3, 3), "custom").unwrap();
            let layer = CandleLayer::new("custom", PerAxis::both(rule), |x, parameters| {
                x.conv2d(&parameters[0], 0, 1, 1, 1)?.tanh()
            })
            .parameter("custom", weight);
            net.local(x, Arc::new(layer)).unwrap()
        }
    }
}
