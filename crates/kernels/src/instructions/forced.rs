//! Instructions that a test chooses in place of this processor's best.

use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use pulp::{Arch, Scalar, Simd, WithSimd};

/// A set of instructions that kernels are compiled for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InstructionSet {
    /// The best of this processor, as without a choice.
    Best,
    /// x86-64 with AVX-512, and without its instructions for `bf16`.
    Avx512,
    /// x86-64 with AVX2 and FMA: registers of 256 bits.
    Avx2,
    /// No vectors at all, on any processor.
    Scalar,
}

/// While this lives, all kernels of the process run on one set of instructions, and nobody else chooses.
///
/// Weights are packed for the registers of one set: they are to be packed and used under one choice.
///
/// ```
/// use stream_grad_kernels::{ForcedInstructions, InstructionSet, Pointwise, Rect, View, ViewMut, pointwise_forward};
///
/// let input = [-1.0_f32, 2.0];
/// let whole = Rect::whole(1, 2);
/// let mut outputs = [[0.0_f32; 2]; 2];
/// for (set, output) in [InstructionSet::Best, InstructionSet::Scalar].into_iter().zip(&mut outputs) {
///     let _forced = ForcedInstructions::new(set);
///     pointwise_forward(Pointwise::Silu, View::new(&input, whole, 1)?, ViewMut::new(output, whole, 1)?)?;
/// }
/// assert_eq!(outputs[0], outputs[1]);
/// # Ok::<(), stream_grad_kernels::KernelError>(())
/// ```
#[derive(Debug)]
pub struct ForcedInstructions(#[expect(dead_code, reason = "held")] MutexGuard<'static, ()>);

/// What `dispatch` uses: the best, or what has this number.
static CHOICE: AtomicU8 = AtomicU8::new(BEST);
const BEST: u8 = 0;
const AVX2: u8 = 1;
const SCALAR: u8 = 2;
const AVX512: u8 = 3;

/// One chooses at a time.
static CHOOSING: Mutex<()> = Mutex::new(());

impl ForcedInstructions {
    /// Waits until no other choice holds, then makes this one; `None` if this processor lacks `set`. Whoever holds one and makes
    /// another on the same thread waits for ever.
    #[must_use = "the choice ends with it"]
    pub fn new(set: InstructionSet) -> Option<Self> {
        let choice = match set {
            InstructionSet::Best => BEST,
            #[cfg(target_arch = "x86_64")]
            InstructionSet::Avx512 => pulp::x86::V4::try_new().map(|_| AVX512)?,
            #[cfg(target_arch = "x86_64")]
            InstructionSet::Avx2 => pulp::x86::V3::try_new().map(|_| AVX2)?,
            #[cfg(not(target_arch = "x86_64"))]
            InstructionSet::Avx512 | InstructionSet::Avx2 => return None,
            InstructionSet::Scalar => SCALAR,
        };
        // The lock guards no data that a panic could have left half changed.
        let guard = CHOOSING.lock().unwrap_or_else(PoisonError::into_inner);
        CHOICE.store(choice, Ordering::SeqCst);
        Some(Self(guard))
    }
}

impl Drop for ForcedInstructions {
    fn drop(&mut self) {
        CHOICE.store(BEST, Ordering::SeqCst);
    }
}

/// Whether nothing else was chosen.
#[cfg(target_arch = "x86_64")]
pub(super) fn is_best() -> bool {
    CHOICE.load(Ordering::Relaxed) == BEST
}

#[inline(always)]
pub(super) fn dispatch<Work: WithSimd>(work: Work) -> Work::Output {
    match CHOICE.load(Ordering::Relaxed) {
        #[cfg(target_arch = "x86_64")]
        AVX2 => match pulp::x86::V3::try_new() {
            Some(simd) => Simd::vectorize(simd, work),
            None => Arch::new().dispatch(work),
        },
        SCALAR => Simd::vectorize(Scalar, work),
        _ => Arch::new().dispatch(work),
    }
}
