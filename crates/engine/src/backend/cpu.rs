//! The processor that runs this: memory is slices, kernels are those of `stream-grad-kernels`.

mod memory;
mod views;

use std::marker::PhantomData;
use std::ops::Range;

use rayon::prelude::*;
use stream_grad_kernels::{
    Activation, AveragePool, ConvTranspose, Convolution, DataGradientWeights, Divisor, Element,
    Epilogue, Existing, ForwardWeights, KernelError, LayerNorm, Pointwise, Position,
    TransposedWeights, Upsample, Windows, accumulate_channels, accumulate_region,
    activation_vjp_and_bias_gradient, activation_vjp_in_place, add, affine_forward,
    affine_parameter_gradient, affine_vjp, affine_vjp_in_place, avg_pool_forward, avg_pool_vjp,
    bias_gradient, conv_data_gradient, conv_forward, conv_transpose_data_gradient,
    conv_transpose_forward, conv_transpose_weight_gradient, conv_weight_gradient, copy_channels,
    copy_region, fill_region, layer_norm_forward, layer_norm_parameter_gradient, layer_norm_vjp,
    max_pool_forward, max_pool_vjp, multiply, multiply_vjp, pointwise_forward, pointwise_vjp,
    upsample_forward, upsample_vjp, weight_gradient_to_oihw, zeros,
};

use super::{
    Backend, Buffer, Combine, ConvolutionOperands, Kernel, Mapping, NormOperands, PaddedWindow,
    Pooling, Rect, Slabs, Transposed, plane_position,
};
use crate::element::{Compute, Stored};
use crate::layers::Padding;
use crate::tile::{TileMut, TileRef};
use memory::LINE;
pub use memory::Memory;
use views::{at, first_window, image, image_mut, local, strided, strided_mut, transposed_origin};

/// This machine's processor, storing and computing in `T`.
#[derive(Debug, Clone, Copy, Default)]
pub struct Cpu<T>(PhantomData<T>);

impl<T> Cpu<T> {
    /// The processor.
    #[must_use]
    pub const fn new() -> Self {
        Self(PhantomData)
    }
}

/// Values that one task sets.
const FILLED_AT_ONCE: usize = 1 << 18;

impl<T: Element + Stored + Compute> Backend for Cpu<T> {
    type Stored = T;
    type Compute = T;
    type Memory = Memory<T>;
    type Weights = ForwardWeights<T>;
    type TransposedWeights = DataGradientWeights<T>;
    type Vector = Vec<T>;
    type Sums = Vec<f64>;

    fn name(&self) -> &'static str {
        "CPU"
    }

    fn len(&self, memory: &Memory<T>) -> usize {
        memory.len()
    }

    fn make(&self, memory: &mut Memory<T>, length: usize, used: usize) {
        memory.make(length, used);
    }

    fn fill(&self, memory: &mut Memory<T>, range: Range<usize>, value: f64) {
        let value = T::rounded(value);
        memory[range]
            .par_chunks_mut(FILLED_AT_ONCE)
            .for_each(|values| values.fill(value));
    }

    fn move_within(&self, memory: &mut Memory<T>, range: Range<usize>, target: usize) {
        memory.copy_within(range, target);
    }

    fn download<R>(
        &self,
        memory: &Memory<T>,
        range: Range<usize>,
        take: impl FnOnce(&[T]) -> R,
    ) -> R {
        take(&memory[range])
    }

    fn upload<R>(
        &self,
        memory: &mut Memory<T>,
        range: Range<usize>,
        give: impl FnOnce(&mut [T]) -> R,
    ) -> R {
        give(&mut memory[range])
    }

    fn alignment(&self) -> usize {
        LINE / size_of::<T>()
    }

    fn combine(
        &self,
        slabs: &mut Slabs<'_, Self>,
        to: Buffer,
        from: Buffer,
        region: Rect,
        how: Combine,
    ) {
        slabs.combine_rows(to, from, region, how);
    }

    fn read<R>(
        &self,
        slabs: &Slabs<'_, Self>,
        buffer: Buffer,
        region: Rect,
        take: impl FnOnce(TileRef<'_>) -> R,
    ) -> Option<R> {
        let (memory, start) = slabs.memory(buffer.slab)?;
        let rows = strided(memory, start + buffer.offset, &buffer, region)?;
        Some(take(T::tile(rows)))
    }

    fn write<R>(
        &self,
        slabs: &mut Slabs<'_, Self>,
        buffer: Buffer,
        region: Rect,
        give: impl FnOnce(TileMut<'_>) -> R,
    ) -> Option<R> {
        let (memory, start) = slabs.memory_mut(buffer.slab)?;
        let rows = strided_mut(memory, start + buffer.offset, &buffer, region)?;
        Some(give(T::tile_mut(rows)))
    }

    fn exchange<R>(
        &self,
        slabs: &mut Slabs<'_, Self>,
        shown: Buffer,
        written: Buffer,
        region: Rect,
        exchange: impl FnOnce(TileRef<'_>, TileMut<'_>) -> R,
    ) -> Option<R> {
        let (_, [from, to]) = slabs.views([shown, written]).ok()?;
        let from = strided(from, 0, &shown, region)?;
        let to = strided_mut(to, 0, &written, region)?;
        Some(exchange(T::tile(from), T::tile_mut(to)))
    }

    fn vector(&self, values: Vec<T>) -> Vec<T> {
        values
    }

    fn sums(&self, length: usize) -> Vec<f64> {
        zeros(length)
    }

    fn add_to_sums(&self, sums: &mut Vec<f64>, values: &[f64]) {
        for (sum, value) in sums.iter_mut().zip(values) {
            *sum += value;
        }
    }

    fn move_sums(&self, from: &mut Vec<f64>, to: &mut Vec<f64>) {
        // Enough for a task to be worth its start.
        const VALUES: usize = 1 << 14;
        let tasks = from.par_chunks_mut(VALUES).zip(to.par_chunks_mut(VALUES));
        tasks.for_each(|(from, to)| {
            for (from, to) in from.iter_mut().zip(to) {
                *to += std::mem::take(from);
            }
        });
    }

    fn sums_to_host(&self, sums: Vec<f64>) -> Vec<f64> {
        sums
    }

    fn sums_from_host(&self, sums: Vec<f64>) -> Vec<f64> {
        sums
    }

    fn scratch_len(&self, convolution: &Convolution) -> usize {
        convolution.scratch_len::<T>().unwrap_or(0)
    }

    fn packed_len(&self, convolution: &Convolution) -> Result<(usize, usize), KernelError> {
        Ok((
            ForwardWeights::<T>::packed_len(convolution)?,
            DataGradientWeights::<T>::packed_len(convolution)?,
        ))
    }

    fn pack(
        &self,
        convolution: &Convolution,
        weights: &[T],
    ) -> Result<ForwardWeights<T>, KernelError> {
        ForwardWeights::pack(convolution, weights)
    }

    fn pack_transposed(
        &self,
        convolution: &Convolution,
        weights: &[T],
    ) -> Result<DataGradientWeights<T>, KernelError> {
        DataGradientWeights::pack(convolution, weights)
    }

    fn unpack_filter(
        &self,
        weights: &DataGradientWeights<T>,
        output: usize,
        filter: &mut [f64],
    ) -> Kernel {
        weights.unpack_filter(output, filter)
    }

    fn weight_gradient(
        &self,
        convolution: &Convolution,
        sums: Vec<f64>,
    ) -> Result<Vec<f64>, KernelError> {
        let mut weights = vec![0.0; sums.len()];
        weight_gradient_to_oihw(convolution, &sums, &mut weights)?;
        Ok(weights)
    }

    fn convolution(
        &self,
        slabs: &mut Slabs<'_, Self>,
        convolution: &Convolution,
        padding: Padding,
        operands: ConvolutionOperands<'_, Self>,
        map: Mapping,
    ) -> Kernel {
        let Mapping {
            input,
            output,
            outputs,
        } = map;
        let window = PaddedWindow::new(convolution.window, padding);
        let [row, column] = plane_position(outputs);
        let windows = Windows::new(
            local(&output, outputs),
            first_window(&input, &window, outputs),
        )
        .in_plane(row, column);
        let ConvolutionOperands {
            weights,
            bias,
            residual,
            activation,
        } = operands;
        let other = residual
            .filter(|residual| residual.range() != input.range() || residual.slab != input.slab);
        let (scratch, [from, other_values, to]) =
            slabs.views([input, other.unwrap_or(NOWHERE), output])?;
        let residual = match (residual, other) {
            (None, _) => None,
            (Some(_), Some(other)) => Some(at(&other, other_values, outputs)?),
            (Some(_), None) => Some(at(&input, from, outputs)?),
        };
        let epilogue = Epilogue {
            bias: bias.map(Vec::as_slice),
            residual,
            activation,
        };
        let (from, to) = (image(&input, from)?, image_mut(&output, to)?);
        conv_forward(convolution, weights, from, windows, to, epilogue, scratch)
    }

    fn convolution_weight_gradient(
        &self,
        slabs: &mut Slabs<'_, Self>,
        convolution: &Convolution,
        padding: Padding,
        input: Buffer,
        cotangent: Buffer,
        outputs: Rect,
        sums: &mut Vec<f64>,
    ) -> Kernel {
        let window = PaddedWindow::new(convolution.window, padding);
        let first = first_window(&input, &window, outputs);
        let windows = Windows::new(local(&cotangent, outputs), first);
        let (scratch, [x, g]) = slabs.views([input, cotangent])?;
        let (x, g) = (image(&input, x)?, image(&cotangent, g)?);
        conv_weight_gradient(convolution, x, windows, g, sums, scratch)
    }

    fn convolution_data_gradient(
        &self,
        slabs: &mut Slabs<'_, Self>,
        convolution: &Convolution,
        padding: Padding,
        weights: &DataGradientWeights<T>,
        factors: Option<&Vec<T>>,
        map: Transposed,
    ) -> Kernel {
        let Transposed {
            cotangent,
            target,
            outputs,
            existing,
        } = map;
        let window = PaddedWindow::new(convolution.window, padding);
        let region = local(&cotangent, outputs);
        let windows = Windows::new(region, first_window(&target, &window, outputs));
        let (scratch, [g, to]) = slabs.views([cotangent, target])?;
        if let Some(factors) = factors {
            // Nothing reads the cotangent after this.
            affine_vjp_in_place(factors, image_mut(&cotangent, g)?, region)?;
        }
        let (g, to) = (image(&cotangent, g)?, image_mut(&target, to)?);
        conv_data_gradient(convolution, weights, g, windows, to, existing, scratch)
    }

    fn mask(
        &self,
        slabs: &mut Slabs<'_, Self>,
        activation: Activation,
        output: Buffer,
        cotangent: Buffer,
        outputs: Rect,
    ) -> Kernel {
        let (_, [y, g]) = slabs.views([output, cotangent])?;
        let (y, region) = (at(&output, y, outputs)?, local(&cotangent, outputs));
        activation_vjp_in_place(activation, y, image_mut(&cotangent, g)?, region)
    }

    fn bias_gradient(
        &self,
        slabs: &mut Slabs<'_, Self>,
        masked: Option<(Activation, Buffer)>,
        cotangent: Buffer,
        outputs: Rect,
        sums: &mut Vec<f64>,
    ) -> Kernel {
        let region = local(&cotangent, outputs);
        let Some((activation, output)) = masked else {
            let (_, [g]) = slabs.views([cotangent])?;
            return bias_gradient(image(&cotangent, g)?, region, sums);
        };
        let (_, [y, g]) = slabs.views([output, cotangent])?;
        let y = at(&output, y, outputs)?;
        activation_vjp_and_bias_gradient(activation, y, image_mut(&cotangent, g)?, region, sums)
    }

    fn conv_transpose(
        &self,
        slabs: &mut Slabs<'_, Self>,
        convolution: &ConvTranspose,
        padding: Padding,
        (weights, bias): (&Vec<T>, Option<&Vec<T>>),
        map: Mapping,
    ) -> Kernel {
        let parameters = TransposedWeights {
            weights,
            bias: bias.map(Vec::as_slice),
        };
        let origin = transposed_origin(&map.input, convolution, padding, map.outputs);
        let region = local(&map.output, map.outputs);
        let (_, [x, y]) = slabs.views([map.input, map.output])?;
        let (x, y) = (image(&map.input, x)?, image_mut(&map.output, y)?);
        conv_transpose_forward(convolution, parameters, x, origin, y, region)
    }

    fn conv_transpose_weight_gradient(
        &self,
        slabs: &mut Slabs<'_, Self>,
        convolution: &ConvTranspose,
        padding: Padding,
        (input, cotangent, outputs): (Buffer, Buffer, Rect),
        sums: &mut Vec<f64>,
    ) -> Kernel {
        let origin = transposed_origin(&input, convolution, padding, outputs);
        let at = (local(&cotangent, outputs), origin);
        let (_, [x, g]) = slabs.views([input, cotangent])?;
        let (x, g) = (image(&input, x)?, image(&cotangent, g)?);
        conv_transpose_weight_gradient(convolution, x, g, at, sums)
    }

    fn conv_transpose_data_gradient(
        &self,
        slabs: &mut Slabs<'_, Self>,
        convolution: &ConvTranspose,
        padding: Padding,
        weights: &Vec<T>,
        map: Transposed,
    ) -> Kernel {
        let origin = transposed_origin(&map.target, convolution, padding, map.outputs);
        let at = (local(&map.cotangent, map.outputs), origin);
        let (_, [g, to]) = slabs.views([map.cotangent, map.target])?;
        let (g, to) = (image(&map.cotangent, g)?, image_mut(&map.target, to)?);
        conv_transpose_data_gradient(convolution, weights, g, at, to, map.existing)
    }

    fn pool(
        &self,
        slabs: &mut Slabs<'_, Self>,
        window: &PaddedWindow,
        pooling: Pooling,
        map: Mapping,
    ) -> Kernel {
        let Mapping {
            input,
            output,
            outputs,
        } = map;
        let first = first_window(&input, window, outputs);
        let region = local(&output, outputs);
        let (_, [x, y]) = slabs.views([input, output])?;
        let (x, y) = (image(&input, x)?, image_mut(&output, y)?);
        match pooling {
            Pooling::Maximum => max_pool_forward(&window.window, x, first, y, region),
            Pooling::Average(divisor) => {
                let pool = average_pool(window, divisor, &map.input);
                avg_pool_forward(&pool, x, first, y, region)
            }
        }
    }

    fn pool_vjp(
        &self,
        slabs: &mut Slabs<'_, Self>,
        window: &PaddedWindow,
        pooling: Pooling,
        input: Buffer,
        map: Transposed,
    ) -> Kernel {
        let Transposed {
            cotangent,
            target,
            outputs,
            existing,
        } = map;
        let region = local(&cotangent, outputs);
        let to_first = first_window(&target, window, outputs);
        match pooling {
            Pooling::Maximum => {
                let first = first_window(&input, window, outputs);
                let (_, [x, g, to]) = slabs.views([input, cotangent, target])?;
                let (x, g) = (image(&input, x)?, image(&cotangent, g)?);
                let to = image_mut(&target, to)?;
                max_pool_vjp(&window.window, x, first, g, region, to, to_first, existing)
            }
            Pooling::Average(divisor) => {
                let (_, [g, to]) = slabs.views([cotangent, target])?;
                let (g, to) = (image(&cotangent, g)?, image_mut(&target, to)?);
                let pool = average_pool(window, divisor, &target);
                avg_pool_vjp(&pool, g, region, to_first, to, existing)
            }
        }
    }

    fn affine(
        &self,
        slabs: &mut Slabs<'_, Self>,
        scale: &Vec<T>,
        shift: &Vec<T>,
        activation: Activation,
        map: Mapping,
    ) -> Kernel {
        let (x, y, region) = slabs.forward(&map)?;
        affine_forward(x, scale, shift, activation, y, region)
    }

    fn affine_vjp(&self, slabs: &mut Slabs<'_, Self>, scale: &Vec<T>, map: Transposed) -> Kernel {
        let (g, to, region) = slabs.vjp(&map)?;
        affine_vjp(g, scale, to, region)
    }

    fn affine_gradient(
        &self,
        slabs: &mut Slabs<'_, Self>,
        input: Buffer,
        cotangent: Buffer,
        outputs: Rect,
        [scale, shift]: [&mut Vec<f64>; 2],
    ) -> Kernel {
        let (x, g, region) = slabs.parameter_gradient(input, cotangent, outputs)?;
        affine_parameter_gradient(x, g, region, scale, shift)
    }

    fn layer_norm(
        &self,
        slabs: &mut Slabs<'_, Self>,
        norm: NormOperands<'_, Self>,
        activation: Activation,
        map: Mapping,
    ) -> Kernel {
        let (x, y, region) = slabs.forward(&map)?;
        layer_norm_forward(layer_norm_of(norm), x, activation, y, region)
    }

    fn layer_norm_vjp(
        &self,
        slabs: &mut Slabs<'_, Self>,
        norm: NormOperands<'_, Self>,
        input: Buffer,
        map: Transposed,
    ) -> Kernel {
        let (x, g, to, region) = slabs.vjp_reading(input, &map)?;
        layer_norm_vjp(layer_norm_of(norm), x, g, to, region)
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
        let (x, g, region) = slabs.parameter_gradient(input, cotangent, outputs)?;
        layer_norm_parameter_gradient(layer_norm_of(norm), x, g, region, weight, bias)
    }

    fn pointwise(&self, slabs: &mut Slabs<'_, Self>, function: Pointwise, map: Mapping) -> Kernel {
        let (x, y, region) = slabs.forward(&map)?;
        pointwise_forward(function, x, y, region)
    }

    fn pointwise_vjp(
        &self,
        slabs: &mut Slabs<'_, Self>,
        function: Pointwise,
        read: Buffer,
        map: Transposed,
    ) -> Kernel {
        let (read, g, to, region) = slabs.vjp_reading(read, &map)?;
        pointwise_vjp(function, read, g, to, region)
    }

    fn add(
        &self,
        slabs: &mut Slabs<'_, Self>,
        other: Buffer,
        activation: Activation,
        map: Mapping,
    ) -> Kernel {
        let (a, b, y, region) = slabs.forward_of_two(other, &map)?;
        add(a, b, activation, y, region)
    }

    fn multiply(&self, slabs: &mut Slabs<'_, Self>, other: Buffer, map: Mapping) -> Kernel {
        let (a, b, y, region) = slabs.forward_of_two(other, &map)?;
        multiply(a, b, y, region)
    }

    fn multiply_vjp(&self, slabs: &mut Slabs<'_, Self>, other: Buffer, map: Transposed) -> Kernel {
        let (other, g, to, region) = slabs.vjp_reading(other, &map)?;
        multiply_vjp(other, g, to, region)
    }

    fn copy_channels(&self, slabs: &mut Slabs<'_, Self>, first: usize, map: Mapping) -> Kernel {
        let (x, y, region) = slabs.forward(&map)?;
        copy_channels(x, 0..map.input.channels, y, region, first)
    }

    fn add_channels(&self, slabs: &mut Slabs<'_, Self>, first: usize, map: Transposed) -> Kernel {
        let (g, to, region) = slabs.vjp(&map)?;
        accumulate_channels(g, first..first + map.target.channels, to, region, 0)
    }

    fn pass_on(&self, slabs: &mut Slabs<'_, Self>, map: Transposed) -> Kernel {
        let (g, mut to, region) = slabs.vjp(&map)?;
        match map.existing {
            Existing::Add => accumulate_region(g, to, region),
            Existing::Replace => {
                let whole = to.region();
                if region != whole {
                    fill_region(T::ZERO, to.reborrow(), whole)?;
                }
                copy_region(g, to, region)
            }
        }
    }

    fn upsample(&self, slabs: &mut Slabs<'_, Self>, upsample: &Upsample, map: Mapping) -> Kernel {
        let (_, [x, y]) = slabs.views([map.input, map.output])?;
        let (x, y) = (image(&map.input, x)?, image_mut(&map.output, y)?);
        let region = local(&map.output, map.outputs);
        let [from, to] = [map.input.rect, map.outputs].map(plane_position);
        upsample_forward(upsample, x, from, y, region, to)
    }

    fn upsample_vjp(
        &self,
        slabs: &mut Slabs<'_, Self>,
        upsample: &Upsample,
        map: Transposed,
    ) -> Kernel {
        let (_, [g, to]) = slabs.views([map.cotangent, map.target])?;
        let (g, to) = (image(&map.cotangent, g)?, image_mut(&map.target, to)?);
        let region = local(&map.cotangent, map.outputs);
        let [from, target] = [map.outputs, map.target.rect].map(plane_position);
        upsample_vjp(upsample, g, region, from, to, target)
    }
}

/// Average pooling of what a buffer of the input holds.
fn average_pool(window: &PaddedWindow, divisor: Divisor, input: &Buffer) -> AveragePool {
    let Rect { rows, columns } = input.rect;
    let end = window.end.map(|[row, column]| {
        let place = |end: i64, origin: i64| isize::try_from(end - origin).unwrap_or(isize::MAX);
        Position::new(place(row, rows.lo), place(column, columns.lo))
    });
    AveragePool {
        end,
        ..AveragePool::new(window.window, divisor)
    }
}

/// A buffer that holds nothing.
const NOWHERE: Buffer = Buffer {
    slab: super::Slab::Arena,
    offset: 0,
    rect: Rect {
        rows: stream_grad_tiling::Span { lo: 0, hi: 0 },
        columns: stream_grad_tiling::Span { lo: 0, hi: 0 },
    },
    channels: 0,
};

fn layer_norm_of<T: Element + Stored + Compute>(
    norm: NormOperands<'_, Cpu<T>>,
) -> LayerNorm<'_, T> {
    LayerNorm {
        gamma: norm.weight,
        beta: norm.bias,
        epsilon: norm.epsilon,
    }
}
