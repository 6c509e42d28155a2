//! Operators in the words of their definitions: what each output is made of.

use stream_grad_engine::{Buffer, CountIncludePad, Gelu, NormOperands, Pointwise, Rect, Slabs};
use stream_grad_kernels::{
    Activation, AlignCorners, AveragePool, ConvTranspose, Convolution, Element, Interpolation,
    Upsample, Window,
};

use crate::backend::Plain;
use crate::values::{At, get, positions, signed};

/// Taps of a window and the position that each reads.
pub(crate) fn taps(window: &Window, [row, column]: At) -> Vec<([usize; 2], At)> {
    let padding = window.padding;
    let along = |axis: usize, at: i64, pad: usize, tap: usize| {
        at * signed(window.stride[axis]) - signed(pad) + signed(tap * window.dilation[axis])
    };
    let rows = 0..window.kernel[0];
    rows.flat_map(|r| (0..window.kernel[1]).map(move |c| [r, c]))
        .map(|[r, c]| {
            (
                [r, c],
                [
                    along(0, row, padding.top, r),
                    along(1, column, padding.left, c),
                ],
            )
        })
        .collect()
}

pub(crate) fn activated(activation: Activation, value: f64) -> f64 {
    match activation {
        Activation::Identity => value,
        Activation::Relu => value.max(0.0),
        Activation::Relu6 => value.clamp(0.0, 6.0),
    }
}

pub(crate) fn function_of(function: Pointwise, x: f64) -> f64 {
    match function {
        Pointwise::Relu => x.max(0.0),
        Pointwise::Relu6 => x.clamp(0.0, 6.0),
        Pointwise::Sigmoid => 1.0 / (1.0 + (-x).exp()),
        Pointwise::Silu => x / (1.0 + (-x).exp()),
        Pointwise::Gelu(form) => gelu(form, x),
    }
}

/// The derivative of [`function_of`], given what the engine says that it reads.
pub(crate) fn slope(function: Pointwise, read: f64) -> f64 {
    match function {
        Pointwise::Relu => f64::from(u8::from(read > 0.0)),
        Pointwise::Relu6 => f64::from(u8::from(read > 0.0 && read < 6.0)),
        Pointwise::Sigmoid => read * (1.0 - read),
        Pointwise::Silu => {
            let part = 1.0 / (1.0 + (-read).exp());
            part + read * part * (1.0 - part)
        }
        Pointwise::Gelu(form) => gelu_slope(form, read),
    }
}

pub(crate) fn gelu(form: Gelu, x: f64) -> f64 {
    match form {
        Gelu::Exact => 0.5 * x * (1.0 + erf(x / std::f64::consts::SQRT_2)),
        Gelu::Tanh => {
            let c = (2.0 / std::f64::consts::PI).sqrt();
            0.5 * x * (1.0 + (c * (x + 0.044_715 * x.powi(3))).tanh())
        }
    }
}

/// The derivative of [`gelu`].
pub(crate) fn gelu_slope(form: Gelu, x: f64) -> f64 {
    match form {
        Gelu::Exact => {
            let density = (-x * x / 2.0).exp() / (2.0 * std::f64::consts::PI).sqrt();
            0.5 * (1.0 + erf(x / std::f64::consts::SQRT_2)) + x * density
        }
        Gelu::Tanh => {
            let c = (2.0 / std::f64::consts::PI).sqrt();
            let t = (c * (x + 0.044_715 * x.powi(3))).tanh();
            0.5 * (1.0 + t) + 0.5 * x * (1.0 - t * t) * c * (1.0 + 3.0 * 0.044_715 * x * x)
        }
    }
}

/// The error function: a series would lose its digits at a few units.
pub(crate) fn erf(x: f64) -> f64 {
    Element::erf(x)
}

/// Positions of the input that an upsampled one is made of, and their weights.
pub(crate) fn parents(upsample: &Upsample, at: At) -> Vec<(At, f64)> {
    let along = |axis: usize| -> Vec<(i64, f64)> {
        let (factor, size) = (upsample.factor[axis], upsample.plane[axis]);
        let last = signed(size) - 1;
        #[expect(clippy::cast_precision_loss, reason = "small numbers")]
        let (place, factor_f, size_f) = (at[axis] as f64, factor as f64, size as f64);
        let source = match upsample.interpolation {
            Interpolation::Nearest => return vec![(at[axis] / signed(factor), 1.0)],
            Interpolation::Bilinear(AlignCorners::No) => ((place + 0.5) / factor_f - 0.5).max(0.0),
            Interpolation::Bilinear(AlignCorners::Yes) => {
                let outputs = size_f * factor_f;
                if outputs > 1.0 {
                    place * (size_f - 1.0) / (outputs - 1.0)
                } else {
                    0.0
                }
            }
        };
        #[expect(clippy::cast_possible_truncation, reason = "a position of the plane")]
        let low = (source.floor() as i64).min(last);
        let part = source - source.floor();
        vec![(low, 1.0 - part), ((low + 1).min(last), part)]
    };
    let (rows, columns) = (along(0), along(1));
    let pairs = rows
        .iter()
        .flat_map(|&(r, a)| columns.iter().map(move |&(c, b)| ([r, c], a * b)));
    pairs.filter(|(_, weight)| *weight != 0.0).collect()
}

/// Mean, inverse deviation and normalised values of a position.
pub(crate) fn normalised(
    slabs: &Slabs<'_, Plain>,
    norm: NormOperands<'_, Plain>,
    buffer: &Buffer,
    at: At,
) -> (f64, Vec<f64>) {
    let values: Vec<f64> = (0..buffer.channels)
        .map(|channel| get(slabs, buffer, at, channel).unwrap())
        .collect();
    #[expect(clippy::cast_precision_loss, reason = "small numbers")]
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    let variance = values.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / count;
    let inverse = 1.0 / (variance + norm.epsilon).sqrt();
    (
        inverse,
        values.iter().map(|x| (x - mean) * inverse).collect(),
    )
}

/// Calls `visit(output, out channel, input position, in channel, index of the weight)`.
pub(crate) fn products(
    convolution: &Convolution,
    outputs: Rect,
    mut visit: impl FnMut(At, usize, At, usize, usize),
) {
    let [kernel_rows, kernel_columns] = convolution.window.kernel;
    let ins = convolution.in_channels / convolution.groups;
    let outs = convolution.out_channels / convolution.groups;
    for at in positions(outputs) {
        for ([r, c], from) in taps(&convolution.window, at) {
            for out in 0..convolution.out_channels {
                for input in 0..ins {
                    let weight = ((out * ins + input) * kernel_rows + r) * kernel_columns + c;
                    visit(at, out, from, out / outs * ins + input, weight);
                }
            }
        }
    }
}

/// A tap of a transposed convolution, and the positions that it leads from and to.
pub(crate) struct Spread {
    pub(crate) to: At,
    pub(crate) from: At,
    pub(crate) tap: usize,
}

/// Input channel, output channel, and where their weight of a tap lies in `[rows, columns, in, out / groups]`.
pub(crate) fn channel_pairs(
    convolution: &ConvTranspose,
    tap: usize,
) -> impl Iterator<Item = (usize, usize, usize)> {
    let ConvTranspose {
        in_channels,
        out_channels,
        groups,
        ..
    } = *convolution;
    let outputs = out_channels / groups;
    (0..in_channels).flat_map(move |input| {
        let group = input / (in_channels / groups);
        (0..outputs).map(move |output| {
            let place = (tap * in_channels + input) * outputs + output;
            (input, group * outputs + output, place)
        })
    })
}

/// All that leads to an output, by outputs.
pub(crate) fn spread(convolution: &ConvTranspose, outputs: Rect) -> Vec<Spread> {
    let (window, padding) = (convolution.window, convolution.window.padding);
    let along = |axis: usize, to: i64, pad: usize, tap: usize| {
        let place = to + signed(pad) - signed(tap * window.dilation[axis]);
        let stride = signed(window.stride[axis]);
        (place % stride == 0).then(|| place / stride)
    };
    let mut all = Vec::new();
    for to in positions(outputs) {
        for row in 0..window.kernel[0] {
            for column in 0..window.kernel[1] {
                let from =
                    along(0, to[0], padding.top, row).zip(along(1, to[1], padding.left, column));
                if let Some((from_row, from_column)) = from {
                    let (from, tap) = ([from_row, from_column], row * window.kernel[1] + column);
                    all.push(Spread { to, from, tap });
                }
            }
        }
    }
    all
}

/// Taps that lie in the plane or its padding.
pub(crate) fn counted(pool: &AveragePool, taps: &[([usize; 2], At)]) -> usize {
    let Some(end) = pool.end else {
        return taps.len();
    };
    taps.iter()
        .filter(|(_, at)| at[0] < end.rows && at[1] < end.columns)
        .count()
}

/// What an average is divided by.
pub(crate) fn count(count_include_pad: CountIncludePad, taps: usize, inside: usize) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "small numbers")]
    match count_include_pad {
        CountIncludePad::Yes => taps as f64,
        CountIncludePad::No => inside as f64,
    }
}
