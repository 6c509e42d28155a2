//! A second backend: loops over positions in the words of each operator's definition, in double precision.

use std::ops::Range;

use stream_grad_engine::{
    Backend, Buffer, Combine, ConvolutionOperands, Divisor, Gelu, Kernel, Mapping, NormOperands,
    Pointwise, Pooling, Rect, Slabs, Strided, StridedMut, TileMut, TileRef, Transposed,
};
use stream_grad_kernels::{
    Activation, AlignCorners, AveragePool, ConvTranspose, Convolution, Element, Existing,
    Interpolation, KernelError, Upsample, Window,
};

/// Has no kernels for the kinds that it is told.
#[derive(Debug, Default)]
pub(crate) struct Plain {
    pub(crate) lacks: Vec<&'static str>,
}

type Memory = Vec<f64>;

/// A position of a plane.
type At = [i64; 2];

fn positions(rect: Rect) -> impl Iterator<Item = At> + Clone {
    (rect.rows.lo..rect.rows.hi)
        .flat_map(move |row| (rect.columns.lo..rect.columns.hi).map(move |column| [row, column]))
}

fn index(buffer: &Buffer, [row, column]: At) -> Option<usize> {
    let Rect { rows, columns } = buffer.rect;
    let inside = (rows.lo..rows.hi).contains(&row) && (columns.lo..columns.hi).contains(&column);
    let place = (row - rows.lo) * (columns.hi - columns.lo) + column - columns.lo;
    inside.then(|| buffer.offset + usize::try_from(place).unwrap() * buffer.channels)
}

/// A value; zero where the buffer does not hold it: there is padding.
fn get(slabs: &Slabs<'_, Plain>, buffer: &Buffer, at: At, channel: usize) -> Option<f64> {
    let (memory, start) = slabs.memory(buffer.slab).unwrap();
    index(buffer, at).map(|place| memory[start + place + channel])
}

fn set(slabs: &mut Slabs<'_, Plain>, buffer: &Buffer, at: At, channel: usize, value: f64) {
    let (memory, start) = slabs.memory_mut(buffer.slab).unwrap();
    memory[start + index(buffer, at).unwrap() + channel] = value;
}

/// Adds, where the buffer holds the position.
fn add(slabs: &mut Slabs<'_, Plain>, buffer: &Buffer, at: At, channel: usize, value: f64) {
    let (memory, start) = slabs.memory_mut(buffer.slab).unwrap();
    if let Some(place) = index(buffer, at) {
        memory[start + place + channel] += value;
    }
}

/// Sets a cotangent to zero that is to be replaced.
fn begin(slabs: &mut Slabs<'_, Plain>, map: &Transposed) {
    if map.existing == Existing::Replace {
        for at in positions(map.target.rect) {
            for channel in 0..map.target.channels {
                set(slabs, &map.target, at, channel, 0.0);
            }
        }
    }
}

fn signed(value: usize) -> i64 {
    i64::try_from(value).unwrap()
}

/// Taps of a window and the position that each reads.
fn taps(window: &Window, [row, column]: At) -> Vec<([usize; 2], At)> {
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

fn activated(activation: Activation, value: f64) -> f64 {
    match activation {
        Activation::Identity => value,
        Activation::Relu => value.max(0.0),
        Activation::Relu6 => value.clamp(0.0, 6.0),
    }
}

fn function_of(function: Pointwise, x: f64) -> f64 {
    match function {
        Pointwise::Relu => x.max(0.0),
        Pointwise::Relu6 => x.clamp(0.0, 6.0),
        Pointwise::Sigmoid => 1.0 / (1.0 + (-x).exp()),
        Pointwise::Silu => x / (1.0 + (-x).exp()),
        Pointwise::Gelu(form) => gelu(form, x),
    }
}

/// The derivative of [`function_of`], given what the engine says that it reads.
fn slope(function: Pointwise, read: f64) -> f64 {
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

fn gelu(form: Gelu, x: f64) -> f64 {
    match form {
        Gelu::Exact => 0.5 * x * (1.0 + erf(x / std::f64::consts::SQRT_2)),
        Gelu::Tanh => {
            let c = (2.0 / std::f64::consts::PI).sqrt();
            0.5 * x * (1.0 + (c * (x + 0.044_715 * x.powi(3))).tanh())
        }
    }
}

/// The derivative of [`gelu`].
fn gelu_slope(form: Gelu, x: f64) -> f64 {
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
fn erf(x: f64) -> f64 {
    Element::erf(x)
}

/// Positions of the input that an upsampled one is made of, and their weights.
fn parents(upsample: &Upsample, at: At) -> Vec<(At, f64)> {
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
fn normalised(
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

impl Plain {
    /// Calls `visit(output, out channel, input position, in channel, index of the weight)`.
    fn products(
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
}

/// A tap of a transposed convolution, and the positions that it leads from and to.
struct Spread {
    to: At,
    from: At,
    tap: usize,
}

/// Input channel, output channel, and where their weight of a tap lies in `[rows, columns, in, out / groups]`.
fn channel_pairs(
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

impl Plain {
    /// All that leads to an output, by outputs.
    fn spread(convolution: &ConvTranspose, outputs: Rect) -> Vec<Spread> {
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
                    let from = along(0, to[0], padding.top, row).zip(along(
                        1,
                        to[1],
                        padding.left,
                        column,
                    ));
                    if let Some((from_row, from_column)) = from {
                        let (from, tap) =
                            ([from_row, from_column], row * window.kernel[1] + column);
                        all.push(Spread { to, from, tap });
                    }
                }
            }
        }
        all
    }
}

impl Backend for Plain {
    type Stored = f64;
    type Compute = f64;
    type Memory = Memory;
    type Weights = Vec<f64>;
    type TransposedWeights = Vec<f64>;
    type Vector = Vec<f64>;
    type Sums = Vec<f64>;

    fn name(&self) -> &'static str {
        "plain"
    }

    fn supports(&self, kind: &str) -> bool {
        !self.lacks.contains(&kind)
    }

    fn len(&self, memory: &Memory) -> usize {
        memory.len()
    }

    fn make(&self, memory: &mut Memory, length: usize, _used: usize) {
        memory.resize(length, 0.0);
    }

    fn fill(&self, memory: &mut Memory, range: Range<usize>, value: f64) {
        memory[range].fill(value);
    }

    fn move_within(&self, memory: &mut Memory, range: Range<usize>, target: usize) {
        memory.copy_within(range, target);
    }

    fn download<R>(
        &self,
        memory: &Memory,
        range: Range<usize>,
        take: impl FnOnce(&[f64]) -> R,
    ) -> R {
        take(&memory[range])
    }

    fn upload<R>(
        &self,
        memory: &mut Memory,
        range: Range<usize>,
        give: impl FnOnce(&mut [f64]) -> R,
    ) -> R {
        give(&mut memory[range])
    }

    fn alignment(&self) -> usize {
        1
    }

    fn combine(
        &self,
        slabs: &mut Slabs<'_, Self>,
        to: Buffer,
        from: Buffer,
        region: Rect,
        how: Combine,
    ) {
        for at in positions(region) {
            for channel in 0..to.channels {
                let value = get(slabs, &from, at, channel).unwrap();
                match how {
                    Combine::Copy => set(slabs, &to, at, channel, value),
                    Combine::Add => add(slabs, &to, at, channel, value),
                }
            }
        }
    }

    fn read<R>(
        &self,
        slabs: &Slabs<'_, Self>,
        buffer: Buffer,
        region: Rect,
        take: impl FnOnce(TileRef<'_>) -> R,
    ) -> Option<R> {
        let values: Vec<f64> = positions(region)
            .flat_map(|at| (0..buffer.channels).map(move |channel| (at, channel)))
            .map(|(at, channel)| get(slabs, &buffer, at, channel))
            .collect::<Option<_>>()?;
        let (rows, row) = extent(region, buffer.channels);
        Some(take(TileRef::F64(Strided::new(&values, rows, row, row)?)))
    }

    fn write<R>(
        &self,
        slabs: &mut Slabs<'_, Self>,
        buffer: Buffer,
        region: Rect,
        give: impl FnOnce(TileMut<'_>) -> R,
    ) -> Option<R> {
        let (rows, row) = extent(region, buffer.channels);
        let mut values = vec![0.0; rows * row];
        let places = positions(region).flat_map(|at| (0..buffer.channels).map(move |c| (at, c)));
        for ((at, channel), value) in places.clone().zip(&mut values) {
            *value = get(slabs, &buffer, at, channel)?;
        }
        let result = give(TileMut::F64(StridedMut::new(&mut values, rows, row, row)?));
        for ((at, channel), value) in places.zip(values) {
            set(slabs, &buffer, at, channel, value);
        }
        Some(result)
    }

    fn exchange<R>(
        &self,
        slabs: &mut Slabs<'_, Self>,
        shown: Buffer,
        written: Buffer,
        region: Rect,
        exchange: impl FnOnce(TileRef<'_>, TileMut<'_>) -> R,
    ) -> Option<R> {
        let values = self.read(slabs, shown, region, |tile| match tile {
            TileRef::F64(rows) => (0..rows.rows())
                .flat_map(|row| rows.row(row).to_vec())
                .collect::<Vec<f64>>(),
            TileRef::F32(_) => Vec::new(),
        })?;
        let (rows, row) = extent(region, shown.channels);
        let shown = Strided::new(&values, rows, row, row)?;
        self.write(slabs, written, region, |tile| {
            exchange(TileRef::F64(shown), tile)
        })
    }

    fn vector(&self, values: Vec<f64>) -> Vec<f64> {
        values
    }

    fn sums(&self, length: usize) -> Vec<f64> {
        vec![0.0; length]
    }

    fn add_to_sums(&self, sums: &mut Vec<f64>, values: &[f64]) {
        sums.iter_mut()
            .zip(values)
            .for_each(|(sum, value)| *sum += value);
    }

    fn move_sums(&self, from: &mut Vec<f64>, to: &mut Vec<f64>) {
        for (from, to) in from.iter_mut().zip(to) {
            *to += *from;
            *from = 0.0;
        }
    }

    fn sums_to_host(&self, sums: Vec<f64>) -> Vec<f64> {
        sums
    }

    fn sums_from_host(&self, sums: Vec<f64>) -> Vec<f64> {
        sums
    }

    fn scratch_len(&self, _convolution: &Convolution) -> usize {
        0
    }

    fn packed_len(&self, convolution: &Convolution) -> Result<(usize, usize), KernelError> {
        let weights = convolution.weight_count()?;
        Ok((weights, weights))
    }

    fn pack(&self, _: &Convolution, weights: &[f64]) -> Result<Vec<f64>, KernelError> {
        Ok(weights.to_vec())
    }

    fn pack_transposed(&self, _: &Convolution, weights: &[f64]) -> Result<Vec<f64>, KernelError> {
        Ok(weights.to_vec())
    }

    fn unpack_filter(&self, weights: &Vec<f64>, output: usize, filter: &mut [f64]) -> Kernel {
        let start = output * filter.len();
        filter.copy_from_slice(&weights[start..start + filter.len()]);
        Ok(())
    }

    fn weight_gradient(&self, _: &Convolution, sums: Vec<f64>) -> Result<Vec<f64>, KernelError> {
        Ok(sums)
    }

    fn convolution(
        &self,
        slabs: &mut Slabs<'_, Self>,
        convolution: &Convolution,
        operands: ConvolutionOperands<'_, Self>,
        map: Mapping,
    ) -> Kernel {
        for at in positions(map.outputs) {
            for channel in 0..map.output.channels {
                let bias = operands.bias.map_or(0.0, |bias| bias[channel]);
                set(slabs, &map.output, at, channel, bias);
            }
        }
        Self::products(convolution, map.outputs, |at, out, from, input, weight| {
            if let Some(value) = get(slabs, &map.input, from, input) {
                add(
                    slabs,
                    &map.output,
                    at,
                    out,
                    value * operands.weights[weight],
                );
            }
        });
        for at in positions(map.outputs) {
            for channel in 0..map.output.channels {
                let residual = operands
                    .residual
                    .map(|one| get(slabs, &one, at, channel).unwrap());
                let value = get(slabs, &map.output, at, channel).unwrap() + residual.unwrap_or(0.0);
                set(
                    slabs,
                    &map.output,
                    at,
                    channel,
                    activated(operands.activation, value),
                );
            }
        }
        Ok(())
    }

    fn convolution_weight_gradient(
        &self,
        slabs: &mut Slabs<'_, Self>,
        convolution: &Convolution,
        input: Buffer,
        cotangent: Buffer,
        outputs: Rect,
        sums: &mut Vec<f64>,
    ) -> Kernel {
        Self::products(convolution, outputs, |at, out, from, channel, weight| {
            if let Some(value) = get(slabs, &input, from, channel) {
                sums[weight] += value * get(slabs, &cotangent, at, out).unwrap();
            }
        });
        Ok(())
    }

    fn convolution_data_gradient(
        &self,
        slabs: &mut Slabs<'_, Self>,
        convolution: &Convolution,
        weights: &Vec<f64>,
        factors: Option<&Vec<f64>>,
        map: Transposed,
    ) -> Kernel {
        begin(slabs, &map);
        Self::products(convolution, map.outputs, |at, out, from, input, weight| {
            let factor = factors.map_or(1.0, |factors| factors[out]);
            let value = factor * get(slabs, &map.cotangent, at, out).unwrap() * weights[weight];
            add(slabs, &map.target, from, input, value);
        });
        Ok(())
    }

    fn mask(
        &self,
        slabs: &mut Slabs<'_, Self>,
        activation: Activation,
        output: Buffer,
        cotangent: Buffer,
        outputs: Rect,
    ) -> Kernel {
        for at in positions(outputs) {
            for channel in 0..output.channels {
                let y = get(slabs, &output, at, channel).unwrap();
                if y <= 0.0 || activation == Activation::Relu6 && y >= 6.0 {
                    set(slabs, &cotangent, at, channel, 0.0);
                }
            }
        }
        Ok(())
    }

    fn bias_gradient(
        &self,
        slabs: &mut Slabs<'_, Self>,
        masked: Option<(Activation, Buffer)>,
        cotangent: Buffer,
        outputs: Rect,
        sums: &mut Vec<f64>,
    ) -> Kernel {
        if let Some((activation, output)) = masked {
            self.mask(slabs, activation, output, cotangent, outputs)?;
        }
        for at in positions(outputs) {
            for (channel, sum) in sums.iter_mut().enumerate() {
                *sum += get(slabs, &cotangent, at, channel).unwrap();
            }
        }
        Ok(())
    }

    fn conv_transpose(
        &self,
        slabs: &mut Slabs<'_, Self>,
        convolution: &ConvTranspose,
        (weights, bias): (&Vec<f64>, Option<&Vec<f64>>),
        map: Mapping,
    ) -> Kernel {
        for at in positions(map.outputs) {
            for channel in 0..map.output.channels {
                let bias = bias.map_or(0.0, |bias| bias[channel]);
                set(slabs, &map.output, at, channel, bias);
            }
        }
        let products = Self::spread(convolution, map.outputs);
        for Spread { to, from, tap } in products {
            for (input, output, place) in channel_pairs(convolution, tap) {
                if let Some(value) = get(slabs, &map.input, from, input) {
                    add(slabs, &map.output, to, output, value * weights[place]);
                }
            }
        }
        Ok(())
    }

    fn conv_transpose_weight_gradient(
        &self,
        slabs: &mut Slabs<'_, Self>,
        convolution: &ConvTranspose,
        (input, cotangent, outputs): (Buffer, Buffer, Rect),
        sums: &mut Vec<f64>,
    ) -> Kernel {
        for Spread { to, from, tap } in Self::spread(convolution, outputs) {
            for (from_channel, to_channel, place) in channel_pairs(convolution, tap) {
                if let Some(value) = get(slabs, &input, from, from_channel) {
                    sums[place] += value * get(slabs, &cotangent, to, to_channel).unwrap();
                }
            }
        }
        Ok(())
    }

    fn conv_transpose_data_gradient(
        &self,
        slabs: &mut Slabs<'_, Self>,
        convolution: &ConvTranspose,
        weights: &Vec<f64>,
        map: Transposed,
    ) -> Kernel {
        begin(slabs, &map);
        let inputs = convolution.in_channels / convolution.groups;
        for Spread { to, from, tap } in Self::spread(convolution, map.outputs) {
            for (input, output, _) in channel_pairs(convolution, tap) {
                let place = (tap * convolution.out_channels + output) * inputs + input % inputs;
                let value = weights[place] * get(slabs, &map.cotangent, to, output).unwrap();
                add(slabs, &map.target, from, input, value);
            }
        }
        Ok(())
    }

    fn multiply(&self, slabs: &mut Slabs<'_, Self>, other: Buffer, map: Mapping) -> Kernel {
        for at in positions(map.outputs) {
            for channel in 0..map.output.channels {
                let [a, b] = [map.input, other].map(|one| get(slabs, &one, at, channel).unwrap());
                set(slabs, &map.output, at, channel, a * b);
            }
        }
        Ok(())
    }

    fn multiply_vjp(&self, slabs: &mut Slabs<'_, Self>, other: Buffer, map: Transposed) -> Kernel {
        for at in positions(map.outputs) {
            for channel in 0..map.target.channels {
                let other = get(slabs, &other, at, channel).unwrap();
                let gradient = get(slabs, &map.cotangent, at, channel).unwrap();
                add(slabs, &map.target, at, channel, other * gradient);
            }
        }
        Ok(())
    }

    fn pool(&self, slabs: &mut Slabs<'_, Self>, pooling: &Pooling, map: Mapping) -> Kernel {
        for at in positions(map.outputs) {
            let taps = taps(pooling.window(), at);
            for channel in 0..map.output.channels {
                let values = taps
                    .iter()
                    .filter_map(|(_, from)| get(slabs, &map.input, *from, channel));
                let values: Vec<f64> = values.collect();
                let value = match pooling {
                    Pooling::Maximum(_) => values.iter().fold(f64::NEG_INFINITY, |a, &b| a.max(b)),
                    Pooling::Average(pool) => {
                        values.iter().sum::<f64>()
                            / count(pool.divisor, counted(pool, &taps), values.len())
                    }
                };
                set(slabs, &map.output, at, channel, value);
            }
        }
        Ok(())
    }

    fn pool_vjp(
        &self,
        slabs: &mut Slabs<'_, Self>,
        pooling: &Pooling,
        input: Buffer,
        map: Transposed,
    ) -> Kernel {
        begin(slabs, &map);
        for at in positions(map.outputs) {
            let taps = taps(pooling.window(), at);
            for channel in 0..map.cotangent.channels {
                let gradient = get(slabs, &map.cotangent, at, channel).unwrap();
                match pooling {
                    Pooling::Maximum(_) => {
                        let mut first = None;
                        for (_, from) in &taps {
                            let value = get(slabs, &input, *from, channel);
                            if let Some(value) = value
                                && first.is_none_or(|(most, _)| value > most)
                            {
                                first = Some((value, *from));
                            }
                        }
                        add(slabs, &map.target, first.unwrap().1, channel, gradient);
                    }
                    Pooling::Average(pool) => {
                        let inside = taps
                            .iter()
                            .filter(|(_, from)| index(&map.target, *from).is_some());
                        let share =
                            gradient / count(pool.divisor, counted(pool, &taps), inside.count());
                        for (_, from) in &taps {
                            add(slabs, &map.target, *from, channel, share);
                        }
                    }
                }
            }
        }
        Ok(())
    }

    fn affine(
        &self,
        slabs: &mut Slabs<'_, Self>,
        scale: &Vec<f64>,
        shift: &Vec<f64>,
        activation: Activation,
        map: Mapping,
    ) -> Kernel {
        for at in positions(map.outputs) {
            for channel in 0..map.output.channels {
                let x = get(slabs, &map.input, at, channel).unwrap();
                let value = activated(activation, scale[channel] * x + shift[channel]);
                set(slabs, &map.output, at, channel, value);
            }
        }
        Ok(())
    }

    fn affine_vjp(&self, slabs: &mut Slabs<'_, Self>, scale: &Vec<f64>, map: Transposed) -> Kernel {
        for at in positions(map.outputs) {
            for (channel, scale) in scale.iter().enumerate() {
                let gradient = get(slabs, &map.cotangent, at, channel).unwrap();
                add(slabs, &map.target, at, channel, scale * gradient);
            }
        }
        Ok(())
    }

    fn affine_gradient(
        &self,
        slabs: &mut Slabs<'_, Self>,
        input: Buffer,
        cotangent: Buffer,
        outputs: Rect,
        [scale, shift]: [&mut Vec<f64>; 2],
    ) -> Kernel {
        for at in positions(outputs) {
            for channel in 0..input.channels {
                let gradient = get(slabs, &cotangent, at, channel).unwrap();
                scale[channel] += get(slabs, &input, at, channel).unwrap() * gradient;
                shift[channel] += gradient;
            }
        }
        Ok(())
    }

    fn layer_norm(
        &self,
        slabs: &mut Slabs<'_, Self>,
        norm: NormOperands<'_, Self>,
        activation: Activation,
        map: Mapping,
    ) -> Kernel {
        for at in positions(map.outputs) {
            let (_, values) = normalised(slabs, norm, &map.input, at);
            for (channel, x) in values.into_iter().enumerate() {
                let value = activated(activation, norm.weight[channel] * x + norm.bias[channel]);
                set(slabs, &map.output, at, channel, value);
            }
        }
        Ok(())
    }

    fn layer_norm_vjp(
        &self,
        slabs: &mut Slabs<'_, Self>,
        norm: NormOperands<'_, Self>,
        input: Buffer,
        map: Transposed,
    ) -> Kernel {
        for at in positions(map.outputs) {
            let (inverse, values) = normalised(slabs, norm, &input, at);
            let gradients: Vec<f64> = norm
                .weight
                .iter()
                .enumerate()
                .map(|(channel, weight)| weight * get(slabs, &map.cotangent, at, channel).unwrap())
                .collect();
            #[expect(clippy::cast_precision_loss, reason = "small numbers")]
            let channels = values.len() as f64;
            let mean = gradients.iter().sum::<f64>() / channels;
            let along = values
                .iter()
                .zip(&gradients)
                .map(|(x, g)| x * g)
                .sum::<f64>()
                / channels;
            for (channel, (x, g)) in values.iter().zip(&gradients).enumerate() {
                add(
                    slabs,
                    &map.target,
                    at,
                    channel,
                    inverse * (g - mean - x * along),
                );
            }
        }
        Ok(())
    }

    fn layer_norm_gradient(
        &self,
        slabs: &mut Slabs<'_, Self>,
        norm: NormOperands<'_, Self>,
        input: Buffer,
        cotangent: Buffer,
        outputs: Rect,
        [weight, bias]: [&mut Vec<f64>; 2],
    ) -> Kernel {
        for at in positions(outputs) {
            let (_, values) = normalised(slabs, norm, &input, at);
            for (channel, x) in values.into_iter().enumerate() {
                let gradient = get(slabs, &cotangent, at, channel).unwrap();
                weight[channel] += x * gradient;
                bias[channel] += gradient;
            }
        }
        Ok(())
    }

    fn pointwise(&self, slabs: &mut Slabs<'_, Self>, function: Pointwise, map: Mapping) -> Kernel {
        for at in positions(map.outputs) {
            for channel in 0..map.output.channels {
                let x = get(slabs, &map.input, at, channel).unwrap();
                set(slabs, &map.output, at, channel, function_of(function, x));
            }
        }
        Ok(())
    }

    fn pointwise_vjp(
        &self,
        slabs: &mut Slabs<'_, Self>,
        function: Pointwise,
        read: Buffer,
        map: Transposed,
    ) -> Kernel {
        for at in positions(map.outputs) {
            for channel in 0..map.cotangent.channels {
                let value = get(slabs, &read, at, channel).unwrap();
                let gradient = get(slabs, &map.cotangent, at, channel).unwrap();
                let value = slope(function, value) * gradient;
                add(slabs, &map.target, at, channel, value);
            }
        }
        Ok(())
    }

    fn add(
        &self,
        slabs: &mut Slabs<'_, Self>,
        other: Buffer,
        activation: Activation,
        map: Mapping,
    ) -> Kernel {
        for at in positions(map.outputs) {
            for channel in 0..map.output.channels {
                let [a, b] = [map.input, other].map(|one| get(slabs, &one, at, channel).unwrap());
                set(
                    slabs,
                    &map.output,
                    at,
                    channel,
                    activated(activation, a + b),
                );
            }
        }
        Ok(())
    }

    fn copy_channels(&self, slabs: &mut Slabs<'_, Self>, first: usize, map: Mapping) -> Kernel {
        for at in positions(map.outputs) {
            for channel in 0..map.input.channels {
                let value = get(slabs, &map.input, at, channel).unwrap();
                set(slabs, &map.output, at, first + channel, value);
            }
        }
        Ok(())
    }

    fn add_channels(&self, slabs: &mut Slabs<'_, Self>, first: usize, map: Transposed) -> Kernel {
        for at in positions(map.outputs) {
            for channel in 0..map.target.channels {
                let value = get(slabs, &map.cotangent, at, first + channel).unwrap();
                add(slabs, &map.target, at, channel, value);
            }
        }
        Ok(())
    }

    fn pass_on(&self, slabs: &mut Slabs<'_, Self>, map: Transposed) -> Kernel {
        begin(slabs, &map);
        self.add_channels(slabs, 0, map)
    }

    fn upsample(&self, slabs: &mut Slabs<'_, Self>, upsample: &Upsample, map: Mapping) -> Kernel {
        for at in positions(map.outputs) {
            for channel in 0..map.output.channels {
                let parents = parents(upsample, at).into_iter();
                let values = parents
                    .map(|(from, weight)| weight * get(slabs, &map.input, from, channel).unwrap());
                let value = values.sum();
                set(slabs, &map.output, at, channel, value);
            }
        }
        Ok(())
    }

    fn upsample_vjp(
        &self,
        slabs: &mut Slabs<'_, Self>,
        upsample: &Upsample,
        map: Transposed,
    ) -> Kernel {
        for at in positions(map.outputs) {
            for channel in 0..map.cotangent.channels {
                let gradient = get(slabs, &map.cotangent, at, channel).unwrap();
                for (from, weight) in parents(upsample, at) {
                    add(slabs, &map.target, from, channel, weight * gradient);
                }
            }
        }
        Ok(())
    }
}

/// Rows, and values of a row.
fn extent(region: Rect, channels: usize) -> (usize, usize) {
    let length = |span: stream_grad_tiling::Span| usize::try_from(span.len()).unwrap();
    (length(region.rows), length(region.columns) * channels)
}

/// Taps that lie in the plane or its padding.
fn counted(pool: &AveragePool, taps: &[([usize; 2], At)]) -> usize {
    let Some(end) = pool.end else {
        return taps.len();
    };
    taps.iter()
        .filter(|(_, at)| at[0] < end.rows && at[1] < end.columns)
        .count()
}

/// What an average is divided by.
fn count(divisor: Divisor, taps: usize, inside: usize) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "small numbers")]
    match divisor {
        Divisor::WindowArea => taps as f64,
        Divisor::ValidCount => inside as f64,
    }
}
