//! A second backend: loops over positions in the words of each operator's definition, in double precision.

use std::ops::Range;

use stream_grad_engine::{
    Backend, Buffer, Combine, ConvolutionOperands, Kernel, Mapping, NormOperands, Pointwise,
    Pooling, Rect, Slabs, Strided, StridedMut, TileMut, TileRef, Transposed,
};
use stream_grad_kernels::{Activation, ConvTranspose, Convolution, KernelError, Upsample};

use crate::definitions::{
    Spread, activated, channel_pairs, count, counted, function_of, normalised, parents, products,
    slope, spread, taps,
};
use crate::values::{add, add_each, begin, extent, get, index, positions, set, set_each};

/// Has no kernels for the kinds that it is told.
#[derive(Debug, Default)]
pub(crate) struct Plain {
    pub(crate) lacks: Vec<&'static str>,
}

type Memory = Vec<f64>;

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
            TileRef::F32(_) | TileRef::BF16(_) => Vec::new(),
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

    fn scale_sums(&self, sums: &mut Vec<f64>, factor: f64) {
        sums.iter_mut().for_each(|sum| *sum *= factor);
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
        set_each(slabs, &map.output, map.outputs, |_, _, channel| {
            operands.bias.map_or(0.0, |bias| bias[channel])
        });
        products(convolution, map.outputs, |at, out, from, input, weight| {
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
        set_each(slabs, &map.output, map.outputs, |slabs, at, channel| {
            let residual = operands
                .residual
                .map(|one| get(slabs, &one, at, channel).unwrap());
            let value = get(slabs, &map.output, at, channel).unwrap() + residual.unwrap_or(0.0);
            activated(operands.activation, value)
        });
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
        products(convolution, outputs, |at, out, from, channel, weight| {
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
        products(convolution, map.outputs, |at, out, from, input, weight| {
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
        set_each(slabs, &map.output, map.outputs, |_, _, channel| {
            bias.map_or(0.0, |bias| bias[channel])
        });
        let products = spread(convolution, map.outputs);
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
        for Spread { to, from, tap } in spread(convolution, outputs) {
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
        for Spread { to, from, tap } in spread(convolution, map.outputs) {
            for (input, output, _) in channel_pairs(convolution, tap) {
                let place = (tap * convolution.out_channels + output) * inputs + input % inputs;
                let value = weights[place] * get(slabs, &map.cotangent, to, output).unwrap();
                add(slabs, &map.target, from, input, value);
            }
        }
        Ok(())
    }

    fn multiply(&self, slabs: &mut Slabs<'_, Self>, other: Buffer, map: Mapping) -> Kernel {
        set_each(slabs, &map.output, map.outputs, |slabs, at, channel| {
            let [a, b] = [map.input, other].map(|one| get(slabs, &one, at, channel).unwrap());
            a * b
        });
        Ok(())
    }

    fn multiply_vjp(&self, slabs: &mut Slabs<'_, Self>, other: Buffer, map: Transposed) -> Kernel {
        add_each(slabs, &map.target, map.outputs, |slabs, at, channel| {
            let other = get(slabs, &other, at, channel).unwrap();
            other * get(slabs, &map.cotangent, at, channel).unwrap()
        });
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
                            / count(pool.count_include_pad, counted(pool, &taps), values.len())
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
                        let share = gradient
                            / count(pool.count_include_pad, counted(pool, &taps), inside.count());
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
        set_each(slabs, &map.output, map.outputs, |slabs, at, channel| {
            let x = get(slabs, &map.input, at, channel).unwrap();
            activated(activation, scale[channel] * x + shift[channel])
        });
        Ok(())
    }

    fn affine_vjp(&self, slabs: &mut Slabs<'_, Self>, scale: &Vec<f64>, map: Transposed) -> Kernel {
        add_each(slabs, &map.target, map.outputs, |slabs, at, channel| {
            scale[channel] * get(slabs, &map.cotangent, at, channel).unwrap()
        });
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
        set_each(slabs, &map.output, map.outputs, |slabs, at, channel| {
            function_of(function, get(slabs, &map.input, at, channel).unwrap())
        });
        Ok(())
    }

    fn pointwise_vjp(
        &self,
        slabs: &mut Slabs<'_, Self>,
        function: Pointwise,
        read: Buffer,
        map: Transposed,
    ) -> Kernel {
        add_each(slabs, &map.target, map.outputs, |slabs, at, channel| {
            let slope = slope(function, get(slabs, &read, at, channel).unwrap());
            slope * get(slabs, &map.cotangent, at, channel).unwrap()
        });
        Ok(())
    }

    fn add(
        &self,
        slabs: &mut Slabs<'_, Self>,
        other: Buffer,
        activation: Activation,
        map: Mapping,
    ) -> Kernel {
        set_each(slabs, &map.output, map.outputs, |slabs, at, channel| {
            let [a, b] = [map.input, other].map(|one| get(slabs, &one, at, channel).unwrap());
            activated(activation, a + b)
        });
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
        add_each(slabs, &map.target, map.outputs, |slabs, at, channel| {
            get(slabs, &map.cotangent, at, first + channel).unwrap()
        });
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
