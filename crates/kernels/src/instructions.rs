//! The choice of instructions, made when a kernel runs.

#[cfg(not(feature = "oracle"))]
use pulp::Arch;
use pulp::{Simd, WithSimd};

#[cfg(feature = "oracle")]
pub(crate) mod forced;

/// Runs `work` compiled for the best instructions of this processor.
#[inline(always)]
pub(crate) fn dispatch<Work: WithSimd>(work: Work) -> Work::Output {
    #[cfg(feature = "oracle")]
    return forced::dispatch(ScalarApart(work));
    #[cfg(not(feature = "oracle"))]
    return Arch::new().dispatch(ScalarApart(work));
}

/// Whether the best instructions are to be used that there are.
#[cfg(target_arch = "x86_64")]
pub(crate) fn may_be_best() -> bool {
    #[cfg(feature = "oracle")]
    return forced::is_best();
    #[cfg(not(feature = "oracle"))]
    return true;
}

/// Work whose version without vectors is a function of its own. Inlined into the one that chooses, it would take all of the
/// work's stack there, too, on top of which the version that is chosen takes it once more.
struct ScalarApart<Work>(Work);

impl<Work: WithSimd> WithSimd for ScalarApart<Work> {
    type Output = Work::Output;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> Work::Output {
        #[inline(never)]
        fn apart<S: Simd, Work: WithSimd>(simd: S, work: Work) -> Work::Output {
            work.with_simd(simd)
        }

        if S::IS_SCALAR {
            apart(simd, self.0)
        } else {
            self.0.with_simd(simd)
        }
    }
}

/// A part of a kernel's work: what becomes of the `values` that have number `part`.
///
/// A closure will do where plain loops in it are vectorised. It is to be marked `#[inline(always)]`, and so is every closure in
/// it: what stays a function of its own is compiled for the least instructions.
pub(crate) trait Work<T>: Sync {
    fn run<S: Simd>(&self, simd: S, part: usize, values: &mut [T]);
}

impl<T, Closure: Fn(usize, &mut [T]) + Sync> Work<T> for Closure {
    #[inline(always)]
    fn run<S: Simd>(&self, _: S, part: usize, values: &mut [T]) {
        self(part, values);
    }
}

/// Runs a part of a kernel's work, compiled for the best instructions of this processor.
#[inline(always)]
pub(crate) fn run_part<T>(work: &impl Work<T>, part: usize, values: &mut [T]) {
    struct Part<'a, T, W> {
        work: &'a W,
        part: usize,
        values: &'a mut [T],
    }

    impl<T, W: Work<T>> WithSimd for Part<'_, T, W> {
        type Output = ();

        #[inline(always)]
        fn with_simd<S: Simd>(self, simd: S) {
            self.work.run(simd, self.part, self.values);
        }
    }

    dispatch(Part { work, part, values });
}
