//! A device: memory, and kernels on rectangles that lie in it.
//!
//! The sweeps decide what is computed and where it lies; a backend does it. Every kernel is told, of each plane that it touches,
//! the [`Buffer`] that holds part of it, and which outputs to compute, in coordinates of the output's plane. Where in its
//! buffers these lie is the backend's own arithmetic.

mod buffer;
pub(crate) mod cpu;
mod operands;

use std::fmt::Debug;
use std::ops::Range;

use stream_grad_kernels::{
    Activation, ConvTranspose, Convolution, KernelError, Pointwise, Upsample,
};

use crate::element::{Compute, Stored};
use crate::tile::{TileMut, TileRef};

/// Evaluates an expression on the processor, in a dtype.
macro_rules! on_cpu {
    ($dtype:expr, $backend:ident => $value:expr) => {
        match $dtype {
            $crate::element::DType::F32 => {
                let $backend = $crate::backend::Cpu::<f32>::new();
                $value
            }
            $crate::element::DType::F64 => {
                let $backend = $crate::backend::Cpu::<f64>::new();
                $value
            }
            $crate::element::DType::BF16 => {
                let $backend = $crate::backend::Cpu::<stream_grad_kernels::bf16>::new();
                $value
            }
        }
    };
}

pub(crate) use on_cpu;

pub use buffer::{Buffer, Slab};
pub(crate) use buffer::{WorkingLayout, offset};
pub use cpu::{Cpu, Memory};
pub use operands::{Combine, ConvolutionOperands, Mapping, NormOperands, Pooling, Transposed};
pub use stream_grad_tiling::Rect;

/// The memory that kernels see: what a sweep works in, what is saved of the block at hand, sums that are shown, and what is held of
/// the tile at hand if it is computed for others.
pub struct Slabs<'s, B: Backend> {
    pub(crate) working: &'s mut B::Memory,
    pub(crate) layout: &'s WorkingLayout,
    pub(crate) saved: &'s mut B::Memory,
    pub(crate) border: &'s mut B::Memory,
    pub(crate) shown: Option<&'s mut B::Memory>,
    pub(crate) template: Option<&'s mut B::Memory>,
}

impl<B: Backend> Slabs<'_, B> {
    /// The memory that a slab is part of, and where in it the slab begins.
    fn place(&self, slab: Slab) -> (usize, usize) {
        match slab {
            Slab::Arena => (0, self.layout.arena.start),
            Slab::Transient => (0, self.layout.transient.start),
            Slab::Carries => (0, self.layout.carries.start),
            Slab::Saved => (1, 0),
            Slab::Border => (2, 0),
            Slab::Shown => (3, 0),
            Slab::Template => (4, 0),
        }
    }

    /// The memory that a slab is part of, and how many values lie before it there; none if there is no such slab now.
    #[must_use]
    pub fn memory(&self, slab: Slab) -> Option<(&B::Memory, usize)> {
        let (index, start) = self.place(slab);
        let memory = match index {
            0 => &*self.working,
            1 => &*self.saved,
            2 => &*self.border,
            3 => self.shown.as_deref()?,
            _ => self.template.as_deref()?,
        };
        Some((memory, start))
    }

    /// The same, to write.
    pub fn memory_mut(&mut self, slab: Slab) -> Option<(&mut B::Memory, usize)> {
        let (index, start) = self.place(slab);
        let memory = match index {
            0 => &mut *self.working,
            1 => &mut *self.saved,
            2 => &mut *self.border,
            3 => self.shown.as_deref_mut()?,
            _ => self.template.as_deref_mut()?,
        };
        Some((memory, start))
    }
}

/// What a kernel returns.
pub type Kernel = Result<(), KernelError>;

/// Memory and kernels of one device, for one type of stored numbers.
///
/// Buffers of one call do not overlap, except where a doc says so. Kernels read nothing of their inputs but what the outputs asked
/// for need, and write nothing else than said.
pub trait Backend: Debug + Send + Sync + Sized + 'static {
    /// What activations are stored as.
    type Stored: Stored;
    /// What arithmetic is done in.
    type Compute: Compute;
    /// A piece of the device's memory.
    type Memory: Default + Debug + Send + Sync;
    /// A convolution's weights, packed for its forward kernel.
    type Weights: Debug + Send + Sync;
    /// A convolution's weights, packed for its data gradient.
    type TransposedWeights: Debug + Send + Sync;
    /// One number for each channel.
    type Vector: Debug + Send + Sync;
    /// Running sums of a parameter's gradient, in double precision.
    type Sums: Debug + Send + Sync;

    /// Its name, for messages.
    fn name(&self) -> &'static str;
    /// Whether it has the kernels of the operators of this kind, such as `gelu` or `max pooling`; planning refuses others.
    fn supports(&self, kind: &str) -> bool {
        let _ = kind;
        true
    }

    /// Values of `memory`.
    fn len(&self, memory: &Self::Memory) -> usize;
    /// Makes memory of `length` values that hold anything; the first `used` will be written. Memory of that length stays.
    fn make(&self, memory: &mut Self::Memory, length: usize, used: usize);
    /// Sets a range of values.
    fn fill(&self, memory: &mut Self::Memory, range: Range<usize>, value: f64);
    /// Copies a range of values to `target`, in the same memory.
    fn move_within(&self, memory: &mut Self::Memory, range: Range<usize>, target: usize);
    /// Hands a range of values to the host.
    fn download<R>(
        &self,
        memory: &Self::Memory,
        range: Range<usize>,
        take: impl FnOnce(&[Self::Stored]) -> R,
    ) -> R;
    /// Has the host write a range of values.
    fn upload<R>(
        &self,
        memory: &mut Self::Memory,
        range: Range<usize>,
        give: impl FnOnce(&mut [Self::Stored]) -> R,
    ) -> R;
    /// Values that a slab begins at a multiple of.
    fn alignment(&self) -> usize;
    /// Copies or adds a rectangle that both buffers hold; of two buffers in one slab the rows of the rectangle do not overlap.
    fn combine(
        &self,
        slabs: &mut Slabs<'_, Self>,
        to: Buffer,
        from: Buffer,
        region: Rect,
        how: Combine,
    );
    /// Shows the host a rectangle of a buffer; `None` if the buffer does not hold it.
    fn read<R>(
        &self,
        slabs: &Slabs<'_, Self>,
        buffer: Buffer,
        region: Rect,
        take: impl FnOnce(TileRef<'_>) -> R,
    ) -> Option<R>;
    /// Has the host write a rectangle of a buffer; `None` if the buffer does not hold it.
    fn write<R>(
        &self,
        slabs: &mut Slabs<'_, Self>,
        buffer: Buffer,
        region: Rect,
        give: impl FnOnce(TileMut<'_>) -> R,
    ) -> Option<R>;
    /// Shows the host a rectangle of one buffer and has it write that of another.
    fn exchange<R>(
        &self,
        slabs: &mut Slabs<'_, Self>,
        shown: Buffer,
        written: Buffer,
        region: Rect,
        exchange: impl FnOnce(TileRef<'_>, TileMut<'_>) -> R,
    ) -> Option<R>;

    /// A vector of these numbers.
    fn vector(&self, values: Vec<Self::Compute>) -> Self::Vector;
    /// Zeros.
    fn sums(&self, length: usize) -> Self::Sums;
    /// Adds numbers of the host's, one to each sum.
    fn add_to_sums(&self, sums: &mut Self::Sums, values: &[f64]);
    /// Multiplies each sum by `factor`.
    fn scale_sums(&self, sums: &mut Self::Sums, factor: f64);
    /// Adds sums to others, one by one, and leaves zeros in their place.
    fn move_sums(&self, from: &mut Self::Sums, to: &mut Self::Sums);
    /// The sums, on the host.
    fn sums_to_host(&self, sums: Self::Sums) -> Vec<f64>;
    /// Sums that were on the host.
    fn sums_from_host(&self, sums: Vec<f64>) -> Self::Sums;

    /// Values of scratch that a convolution's kernels need, as they are stored.
    fn scratch_len(&self, convolution: &Convolution) -> usize;
    /// Values of a convolution's packed weights, as [stored](Self::Stored): forward, and for the data gradient.
    ///
    /// # Errors
    /// A convolution that cannot be.
    fn packed_len(&self, convolution: &Convolution) -> Result<(usize, usize), KernelError>;
    /// Packs `[out, in / groups, rows, columns]` for the forward kernel.
    ///
    /// # Errors
    /// Another number of weights.
    fn pack(
        &self,
        convolution: &Convolution,
        weights: &[Self::Compute],
    ) -> Result<Self::Weights, KernelError>;
    /// Packs the same for the data gradient.
    ///
    /// # Errors
    /// As for [`Self::pack`].
    fn pack_transposed(
        &self,
        convolution: &Convolution,
        weights: &[Self::Compute],
    ) -> Result<Self::TransposedWeights, KernelError>;
    /// Reads one output channel's filter back.
    ///
    /// # Errors
    /// A filter that is not there.
    fn unpack_filter(
        &self,
        weights: &Self::TransposedWeights,
        output: usize,
        filter: &mut [f64],
    ) -> Kernel;
    /// The sums of a convolution's weight gradient in the order of the parameter.
    ///
    /// # Errors
    /// Another number of sums.
    fn weight_gradient(
        &self,
        convolution: &Convolution,
        sums: Self::Sums,
    ) -> Result<Vec<f64>, KernelError>;

    /// A convolution with what is fused into it. The residual may be the input.
    ///
    /// # Errors
    /// [`KernelError`] for operands that do not fit, here and in all kernels.
    fn convolution(
        &self,
        slabs: &mut Slabs<'_, Self>,
        convolution: &Convolution,
        operands: ConvolutionOperands<'_, Self>,
        map: Mapping,
    ) -> Kernel;
    /// Adds to the sums of a convolution's weights.
    ///
    /// # Errors
    /// [`KernelError`].
    fn convolution_weight_gradient(
        &self,
        slabs: &mut Slabs<'_, Self>,
        convolution: &Convolution,
        input: Buffer,
        cotangent: Buffer,
        outputs: Rect,
        sums: &mut Self::Sums,
    ) -> Kernel;
    /// The data gradient; the cotangent's channels are multiplied by `factors` first, in place.
    ///
    /// # Errors
    /// [`KernelError`].
    fn convolution_data_gradient(
        &self,
        slabs: &mut Slabs<'_, Self>,
        convolution: &Convolution,
        weights: &Self::TransposedWeights,
        factors: Option<&Self::Vector>,
        map: Transposed,
    ) -> Kernel;
    /// Turns a cotangent into that before a fused activation, in place.
    ///
    /// # Errors
    /// [`KernelError`].
    fn mask(
        &self,
        slabs: &mut Slabs<'_, Self>,
        activation: Activation,
        output: Buffer,
        cotangent: Buffer,
        outputs: Rect,
    ) -> Kernel;
    /// Adds the cotangents of all positions to `sums`; where `masked` is given, an activation and its output, after masking as
    /// [`Self::mask`] does.
    ///
    /// # Errors
    /// [`KernelError`].
    fn bias_gradient(
        &self,
        slabs: &mut Slabs<'_, Self>,
        masked: Option<(Activation, Buffer)>,
        cotangent: Buffer,
        outputs: Rect,
        sums: &mut Self::Sums,
    ) -> Kernel;

    /// A transposed convolution, with weights in the order of [`ConvTranspose::forward_order`] and a bias.
    ///
    /// # Errors
    /// [`KernelError`].
    fn conv_transpose(
        &self,
        slabs: &mut Slabs<'_, Self>,
        convolution: &ConvTranspose,
        parameters: (&Self::Vector, Option<&Self::Vector>),
        map: Mapping,
    ) -> Kernel;
    /// Adds to the sums of a transposed convolution's weights, which are in the order of [`ConvTranspose::forward_order`], given
    /// the input, the cotangent and the outputs whose cotangents are complete.
    ///
    /// # Errors
    /// [`KernelError`].
    fn conv_transpose_weight_gradient(
        &self,
        slabs: &mut Slabs<'_, Self>,
        convolution: &ConvTranspose,
        map: (Buffer, Buffer, Rect),
        sums: &mut Self::Sums,
    ) -> Kernel;
    /// The data gradient, with weights in the order of [`ConvTranspose::transposed_order`].
    ///
    /// # Errors
    /// [`KernelError`].
    fn conv_transpose_data_gradient(
        &self,
        slabs: &mut Slabs<'_, Self>,
        convolution: &ConvTranspose,
        weights: &Self::Vector,
        map: Transposed,
    ) -> Kernel;

    /// Pooling.
    ///
    /// # Errors
    /// [`KernelError`].
    fn pool(&self, slabs: &mut Slabs<'_, Self>, pooling: &Pooling, map: Mapping) -> Kernel;
    /// The VJP of pooling; that of a maximum reads the input.
    ///
    /// # Errors
    /// [`KernelError`].
    fn pool_vjp(
        &self,
        slabs: &mut Slabs<'_, Self>,
        pooling: &Pooling,
        input: Buffer,
        map: Transposed,
    ) -> Kernel;

    /// `scale x + shift` for each channel.
    ///
    /// # Errors
    /// [`KernelError`].
    fn affine(
        &self,
        slabs: &mut Slabs<'_, Self>,
        scale: &Self::Vector,
        shift: &Self::Vector,
        activation: Activation,
        map: Mapping,
    ) -> Kernel;
    /// The VJP of [`Self::affine`].
    ///
    /// # Errors
    /// [`KernelError`].
    fn affine_vjp(
        &self,
        slabs: &mut Slabs<'_, Self>,
        scale: &Self::Vector,
        map: Transposed,
    ) -> Kernel;
    /// Adds to the sums of scale and shift.
    ///
    /// # Errors
    /// [`KernelError`].
    fn affine_gradient(
        &self,
        slabs: &mut Slabs<'_, Self>,
        input: Buffer,
        cotangent: Buffer,
        outputs: Rect,
        sums: [&mut Self::Sums; 2],
    ) -> Kernel;

    /// Layer norm over the channels of each position.
    ///
    /// # Errors
    /// [`KernelError`].
    fn layer_norm(
        &self,
        slabs: &mut Slabs<'_, Self>,
        norm: NormOperands<'_, Self>,
        activation: Activation,
        map: Mapping,
    ) -> Kernel;
    /// The VJP of [`Self::layer_norm`], which reads the input.
    ///
    /// # Errors
    /// [`KernelError`].
    fn layer_norm_vjp(
        &self,
        slabs: &mut Slabs<'_, Self>,
        norm: NormOperands<'_, Self>,
        input: Buffer,
        map: Transposed,
    ) -> Kernel;
    /// Adds to the sums of weight and bias.
    ///
    /// # Errors
    /// [`KernelError`].
    fn layer_norm_gradient(
        &self,
        slabs: &mut Slabs<'_, Self>,
        norm: NormOperands<'_, Self>,
        input: Buffer,
        cotangent: Buffer,
        outputs: Rect,
        sums: [&mut Self::Sums; 2],
    ) -> Kernel;

    /// A function of each value.
    ///
    /// # Errors
    /// [`KernelError`].
    fn pointwise(&self, slabs: &mut Slabs<'_, Self>, function: Pointwise, map: Mapping) -> Kernel;
    /// The VJP of [`Self::pointwise`], given what it reads: input or output, as the function says.
    ///
    /// # Errors
    /// [`KernelError`].
    fn pointwise_vjp(
        &self,
        slabs: &mut Slabs<'_, Self>,
        function: Pointwise,
        read: Buffer,
        map: Transposed,
    ) -> Kernel;

    /// The sum of two maps, which may be one.
    ///
    /// # Errors
    /// [`KernelError`].
    fn add(
        &self,
        slabs: &mut Slabs<'_, Self>,
        other: Buffer,
        activation: Activation,
        map: Mapping,
    ) -> Kernel;
    /// The product of two maps, which may be one.
    ///
    /// # Errors
    /// [`KernelError`].
    fn multiply(&self, slabs: &mut Slabs<'_, Self>, other: Buffer, map: Mapping) -> Kernel;
    /// Adds the cotangent of one factor, given the other.
    ///
    /// # Errors
    /// [`KernelError`].
    fn multiply_vjp(&self, slabs: &mut Slabs<'_, Self>, other: Buffer, map: Transposed) -> Kernel;
    /// Copies all channels of the input to those of the output from `first` on.
    ///
    /// # Errors
    /// [`KernelError`].
    fn copy_channels(&self, slabs: &mut Slabs<'_, Self>, first: usize, map: Mapping) -> Kernel;
    /// Adds those channels of the cotangent to the target that begin at `first`.
    ///
    /// # Errors
    /// [`KernelError`].
    fn add_channels(&self, slabs: &mut Slabs<'_, Self>, first: usize, map: Transposed) -> Kernel;
    /// Hands the cotangent on to the target, position by position.
    ///
    /// # Errors
    /// [`KernelError`].
    fn pass_on(&self, slabs: &mut Slabs<'_, Self>, map: Transposed) -> Kernel;

    /// Upsampling.
    ///
    /// # Errors
    /// [`KernelError`].
    fn upsample(&self, slabs: &mut Slabs<'_, Self>, upsample: &Upsample, map: Mapping) -> Kernel;
    /// The VJP of [`Self::upsample`].
    ///
    /// # Errors
    /// [`KernelError`].
    fn upsample_vjp(
        &self,
        slabs: &mut Slabs<'_, Self>,
        upsample: &Upsample,
        map: Transposed,
    ) -> Kernel;
}
