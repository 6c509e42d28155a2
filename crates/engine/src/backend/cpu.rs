//! The processor that runs this: memory is slices, kernels are those of `stream-grad-kernels`.

mod memory;
mod views;

use std::marker::PhantomData;
use std::ops::Range;

use rayon::prelude::*;
use stream_grad_kernels::{
    Activation, ConvTranspose, Convolution, DataGradientWeights, Epilogue, Existing,
    ForwardWeights, KernelError, LayerNorm, Pointwise, TransposedWeights, Upsample, accumulate,
    accumulate_channels, activation_vjp_and_bias_gradient, activation_vjp_in_place, add,
    affine_forward, affine_parameter_gradient, affine_vjp, affine_vjp_in_place, avg_pool_forward,
    avg_pool_vjp, bias_gradient, conv_data_gradient, conv_forward, conv_transpose_data_gradient,
    conv_transpose_forward, conv_transpose_weight_gradient, conv_weight_gradient, copy,
    copy_channels, fill, layer_norm_forward, layer_norm_parameter_gradient, layer_norm_vjp,
    max_pool_forward, max_pool_vjp, multiply, multiply_vjp, parallel_for, pointwise_forward,
    pointwise_vjp, upsample_forward, upsample_vjp, weight_gradient_to_oihw, zeros,
};
use stream_grad_tiling::Rect;

use super::{
    Backend, Buffer, Combine, ConvolutionOperands, Kernel, Mapping, NormOperands, Pooling, Slabs,
    Transposed,
};
use crate::element::Stored;
use crate::tile::{TileMut, TileRef};
use memory::LINE;
pub use memory::Memory;
use views::{strided, strided_mut};

/// This machine's processor, storing `E` and computing in what `E` is computed in.
#[derive(Debug, Clone, Copy, Default)]
pub struct Cpu<E>(PhantomData<E>);

impl<E> Cpu<E> {
    /// The processor.
    #[must_use]
    pub const fn new() -> Self {
        Self(PhantomData)
    }
}

/// Values that one task sets.
const FILLED_AT_ONCE: usize = 1 << 18;

/// Sums that a task goes through: enough to be worth its start.
const SUMS: usize = 1 << 14;

impl<E: Stored> Backend for Cpu<E> {
    type Stored = E;
    type Compute = E::Compute;
    type Memory = Memory<E>;
    type Weights = ForwardWeights<E>;
    type TransposedWeights = DataGradientWeights<E>;
    type Vector = Vec<E::Compute>;
    type Sums = Vec<f64>;

    fn name(&self) -> &'static str {
        "CPU"
    }

    fn len(&self, memory: &Memory<E>) -> usize {
        memory.len()
    }

    fn make(&self, memory: &mut Memory<E>, length: usize, used: usize) {
        memory.make(length, used);
    }

    fn fill(&self, memory: &mut Memory<E>, range: Range<usize>, value: f64) {
        let value = E::rounded(value);
        let parts = memory[range].par_chunks_mut(FILLED_AT_ONCE);
        parallel_for(parts, |values| values.fill(value));
    }

    fn move_within(&self, memory: &mut Memory<E>, range: Range<usize>, target: usize) {
        memory.copy_within(range, target);
    }

    fn download<R>(
        &self,
        memory: &Memory<E>,
        range: Range<usize>,
        take: impl FnOnce(&[E]) -> R,
    ) -> R {
        take(&memory[range])
    }

    fn upload<R>(
        &self,
        memory: &mut Memory<E>,
        range: Range<usize>,
        give: impl FnOnce(&mut [E]) -> R,
    ) -> R {
        give(&mut memory[range])
    }

    fn alignment(&self) -> usize {
        LINE / size_of::<E>()
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
        Some(take(E::tile(rows)))
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
        Some(give(E::tile_mut(rows)))
    }

    fn exchange<R>(
        &self,
        slabs: &mut Slabs<'_, Self>,
        shown: Buffer,
        written: Buffer,
        region: Rect,
        exchange: impl FnOnce(TileRef<'_>, TileMut<'_>) -> R,
    ) -> Option<R> {
        let (_, [from, to]) = slabs.slices([shown, written]).ok()?;
        let from = strided(from, 0, &shown, region)?;
        let to = strided_mut(to, 0, &written, region)?;
        Some(exchange(E::tile(from), E::tile_mut(to)))
    }

    fn vector(&self, values: Vec<E::Compute>) -> Vec<E::Compute> {
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

    fn scale_sums(&self, sums: &mut Vec<f64>, factor: f64) {
        parallel_for(sums.par_chunks_mut(SUMS), |sums| {
            for sum in sums {
                *sum *= factor;
            }
        });
    }

    fn move_sums(&self, from: &mut Vec<f64>, to: &mut Vec<f64>) {
        let tasks = from.par_chunks_mut(SUMS).zip(to.par_chunks_mut(SUMS));
        parallel_for(tasks, |(from, to)| {
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
        convolution.scratch_len::<E>().unwrap_or(0)
    }

    fn packed_len(&self, convolution: &Convolution) -> Result<(usize, usize), KernelError> {
        Ok((
            ForwardWeights::<E>::packed_len(convolution)?,
            DataGradientWeights::<E>::packed_len(convolution)?,
        ))
    }

    fn pack(
        &self,
        convolution: &Convolution,
        weights: &[E::Compute],
    ) -> Result<ForwardWeights<E>, KernelError> {
        ForwardWeights::pack(convolution, weights)
    }

    fn pack_transposed(
        &self,
        convolution: &Convolution,
        weights: &[E::Compute],
    ) -> Result<DataGradientWeights<E>, KernelError> {
        DataGradientWeights::pack(convolution, weights)
    }

    fn unpack_filter(
        &self,
        weights: &DataGradientWeights<E>,
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
        operands: ConvolutionOperands<'_, Self>,
        map: Mapping,
    ) -> Kernel {
        let ConvolutionOperands {
            weights,
            bias,
            residual,
            activation,
        } = operands;
        let input = map.input;
        let other = residual
            .filter(|residual| residual.range() != input.range() || residual.slab != input.slab);
        let (scratch, [x, more, y]) = slabs.views([input, other.unwrap_or(NOWHERE), map.output])?;
        let x = x.into_view();
        let epilogue = Epilogue {
            bias: bias.map(Vec::as_slice),
            residual: match (residual, other) {
                (None, _) => None,
                (Some(_), Some(_)) => Some(more.into_view()),
                (Some(_), None) => Some(x),
            },
            activation,
        };
        conv_forward(
            convolution,
            weights,
            x,
            y.part(map.outputs)?,
            epilogue,
            scratch,
        )
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
        let (scratch, [x, g]) = slabs.views([input, cotangent])?;
        let (x, g) = (x.into_view(), g.into_view().part(outputs)?);
        conv_weight_gradient(convolution, x, g, sums, scratch)
    }

    fn convolution_data_gradient(
        &self,
        slabs: &mut Slabs<'_, Self>,
        convolution: &Convolution,
        weights: &DataGradientWeights<E>,
        factors: Option<&Vec<E::Compute>>,
        map: Transposed,
    ) -> Kernel {
        let (scratch, [g, to]) = slabs.views([map.cotangent, map.target])?;
        let mut g = g.part(map.outputs)?;
        if let Some(factors) = factors {
            // Nothing reads the cotangent after this.
            affine_vjp_in_place(factors, g.reborrow())?;
        }
        conv_data_gradient(
            convolution,
            weights,
            g.into_view(),
            to,
            map.existing,
            scratch,
        )
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
        activation_vjp_in_place(activation, y.into_view(), g.part(outputs)?)
    }

    fn bias_gradient(
        &self,
        slabs: &mut Slabs<'_, Self>,
        masked: Option<(Activation, Buffer)>,
        cotangent: Buffer,
        outputs: Rect,
        sums: &mut Vec<f64>,
    ) -> Kernel {
        let Some((activation, output)) = masked else {
            let (_, [g]) = slabs.views([cotangent])?;
            return bias_gradient(g.into_view().part(outputs)?, sums);
        };
        let (_, [y, g]) = slabs.views([output, cotangent])?;
        activation_vjp_and_bias_gradient(activation, y.into_view(), g.part(outputs)?, sums)
    }

    fn conv_transpose(
        &self,
        slabs: &mut Slabs<'_, Self>,
        convolution: &ConvTranspose,
        (weights, bias): (&Vec<E::Compute>, Option<&Vec<E::Compute>>),
        map: Mapping,
    ) -> Kernel {
        let parameters = TransposedWeights {
            weights,
            bias: bias.map(Vec::as_slice),
        };
        let (x, y) = slabs.forward(&map)?;
        conv_transpose_forward(convolution, parameters, x, y)
    }

    fn conv_transpose_weight_gradient(
        &self,
        slabs: &mut Slabs<'_, Self>,
        convolution: &ConvTranspose,
        (input, cotangent, outputs): (Buffer, Buffer, Rect),
        sums: &mut Vec<f64>,
    ) -> Kernel {
        let (x, g) = slabs.parameter_gradient(input, cotangent, outputs)?;
        conv_transpose_weight_gradient(convolution, x, g, sums)
    }

    fn conv_transpose_data_gradient(
        &self,
        slabs: &mut Slabs<'_, Self>,
        convolution: &ConvTranspose,
        weights: &Vec<E::Compute>,
        map: Transposed,
    ) -> Kernel {
        let (g, to) = slabs.transposed(&map)?;
        conv_transpose_data_gradient(convolution, weights, g, to, map.existing)
    }

    fn pool(&self, slabs: &mut Slabs<'_, Self>, pooling: &Pooling, map: Mapping) -> Kernel {
        let (x, y) = slabs.forward(&map)?;
        match pooling {
            Pooling::Maximum(window) => max_pool_forward(window, x, y),
            Pooling::Average(pool) => avg_pool_forward(pool, x, y),
        }
    }

    fn pool_vjp(
        &self,
        slabs: &mut Slabs<'_, Self>,
        pooling: &Pooling,
        input: Buffer,
        map: Transposed,
    ) -> Kernel {
        match pooling {
            Pooling::Maximum(window) => {
                let (_, [x, g, to]) = slabs.views([input, map.cotangent, map.target])?;
                let (x, g) = (x.into_view(), g.into_view().part(map.outputs)?);
                max_pool_vjp(window, x, g, to, map.existing)
            }
            Pooling::Average(pool) => {
                let (g, to) = slabs.transposed(&map)?;
                avg_pool_vjp(pool, g, to, map.existing)
            }
        }
    }

    fn affine(
        &self,
        slabs: &mut Slabs<'_, Self>,
        scale: &Vec<E::Compute>,
        shift: &Vec<E::Compute>,
        activation: Activation,
        map: Mapping,
    ) -> Kernel {
        let (x, y) = slabs.forward(&map)?;
        affine_forward(x, scale, shift, activation, y)
    }

    fn affine_vjp(
        &self,
        slabs: &mut Slabs<'_, Self>,
        scale: &Vec<E::Compute>,
        map: Transposed,
    ) -> Kernel {
        let (g, to) = slabs.vjp(&map)?;
        affine_vjp(g, scale, to)
    }

    fn affine_gradient(
        &self,
        slabs: &mut Slabs<'_, Self>,
        input: Buffer,
        cotangent: Buffer,
        outputs: Rect,
        [scale, shift]: [&mut Vec<f64>; 2],
    ) -> Kernel {
        let (x, g) = slabs.parameter_gradient(input, cotangent, outputs)?;
        affine_parameter_gradient(x, g, scale, shift)
    }

    fn layer_norm(
        &self,
        slabs: &mut Slabs<'_, Self>,
        norm: NormOperands<'_, Self>,
        activation: Activation,
        map: Mapping,
    ) -> Kernel {
        let (x, y) = slabs.forward(&map)?;
        layer_norm_forward(layer_norm_of(norm), x, activation, y)
    }

    fn layer_norm_vjp(
        &self,
        slabs: &mut Slabs<'_, Self>,
        norm: NormOperands<'_, Self>,
        input: Buffer,
        map: Transposed,
    ) -> Kernel {
        let (x, g, to) = slabs.vjp_reading(input, &map)?;
        layer_norm_vjp(layer_norm_of(norm), x, g, to)
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
        let (x, g) = slabs.parameter_gradient(input, cotangent, outputs)?;
        layer_norm_parameter_gradient(layer_norm_of(norm), x, g, weight, bias)
    }

    fn pointwise(&self, slabs: &mut Slabs<'_, Self>, function: Pointwise, map: Mapping) -> Kernel {
        let (x, y) = slabs.forward(&map)?;
        pointwise_forward(function, x, y)
    }

    fn pointwise_vjp(
        &self,
        slabs: &mut Slabs<'_, Self>,
        function: Pointwise,
        read: Buffer,
        map: Transposed,
    ) -> Kernel {
        let (read, g, to) = slabs.vjp_reading(read, &map)?;
        pointwise_vjp(function, read, g, to)
    }

    fn add(
        &self,
        slabs: &mut Slabs<'_, Self>,
        other: Buffer,
        activation: Activation,
        map: Mapping,
    ) -> Kernel {
        let (a, b, y) = slabs.forward_of_two(other, &map)?;
        add(a, b, activation, y)
    }

    fn multiply(&self, slabs: &mut Slabs<'_, Self>, other: Buffer, map: Mapping) -> Kernel {
        let (a, b, y) = slabs.forward_of_two(other, &map)?;
        multiply(a, b, y)
    }

    fn multiply_vjp(&self, slabs: &mut Slabs<'_, Self>, other: Buffer, map: Transposed) -> Kernel {
        let (other, g, to) = slabs.vjp_reading(other, &map)?;
        multiply_vjp(other, g, to)
    }

    fn copy_channels(&self, slabs: &mut Slabs<'_, Self>, first: usize, map: Mapping) -> Kernel {
        let (x, y) = slabs.forward(&map)?;
        copy_channels(x, 0..map.input.channels, y, first)
    }

    fn add_channels(&self, slabs: &mut Slabs<'_, Self>, first: usize, map: Transposed) -> Kernel {
        let (g, to) = slabs.vjp(&map)?;
        accumulate_channels(g, first..first + map.target.channels, to, 0)
    }

    fn pass_on(&self, slabs: &mut Slabs<'_, Self>, map: Transposed) -> Kernel {
        let (g, mut to) = slabs.transposed(&map)?;
        match map.existing {
            Existing::Add => accumulate(g, to.part(map.outputs)?),
            Existing::Replace => {
                if map.outputs != map.target.rect {
                    fill(E::ZERO, to.reborrow());
                }
                copy(g, to.part(map.outputs)?)
            }
        }
    }

    fn upsample(&self, slabs: &mut Slabs<'_, Self>, upsample: &Upsample, map: Mapping) -> Kernel {
        let (x, y) = slabs.forward(&map)?;
        upsample_forward(upsample, x, y)
    }

    fn upsample_vjp(
        &self,
        slabs: &mut Slabs<'_, Self>,
        upsample: &Upsample,
        map: Transposed,
    ) -> Kernel {
        let (g, to) = slabs.transposed(&map)?;
        upsample_vjp(upsample, g, to)
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

fn layer_norm_of<E: Stored>(norm: NormOperands<'_, Cpu<E>>) -> LayerNorm<'_, E::Compute> {
    LayerNorm {
        gamma: norm.weight,
        beta: norm.bias,
        epsilon: norm.epsilon,
    }
}
