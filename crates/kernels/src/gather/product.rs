//! The inner loop of a gather.

use pulp::Simd;

use crate::Storage;
use crate::element::sealed::{Register, lanes};
use crate::prefetch::Ahead;

/// Steps between which lines are fetched.
pub(crate) const STEPS_BETWEEN_FETCHES: usize = 16;

/// Terms to add to every sum.
pub(crate) struct Terms<E> {
    /// The weights of the first step.
    pub(crate) weights: *const E,
    /// Steps of a tap whose terms are all there.
    pub(crate) steps: usize,
    /// Whether each tap ends with a step of which only the first term is there.
    pub(crate) is_odd: bool,
    /// Taps, one after another in memory.
    pub(crate) taps: usize,
}

impl<E: Storage> Terms<E> {
    /// `count` terms of one tap.
    #[inline(always)]
    pub(crate) fn of_tap(weights: *const E, count: usize) -> Self {
        Self {
            weights,
            steps: count / E::TERMS,
            is_odd: !count.is_multiple_of(E::TERMS),
            taps: 1,
        }
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.taps * (self.steps * E::TERMS + usize::from(self.is_odd))
    }
}

/// Adds terms to every sum, the first of them with the source values at `places`: source values times a panel of weights.
///
/// # Safety
/// The source values and the weights of all terms must exist.
#[inline(always)]
#[expect(unsafe_code, reason = "the micro-kernel addresses memory by pointer")]
pub(crate) unsafe fn accumulate<S: Simd, E: Storage, const VECTORS: usize, const PIXELS: usize>(
    simd: S,
    sums: &mut [[Register<E, S>; VECTORS]; PIXELS],
    places: &[*const E; PIXELS],
    terms: &Terms<E>,
) {
    // A local copy is what the compiler keeps in registers.
    let mut local = *sums;
    let mut at = Place {
        source: 0,
        weights: terms.weights,
    };
    // Of numbers that are summed one by one, all terms are steps of one tap.
    let taps = if E::TERMS == 1 { 1 } else { terms.taps };
    for _ in 0..taps {
        // SAFETY: the caller vouches for every term.
        unsafe {
            at.add_steps(simd, &mut local, places, terms.steps);
            if E::TERMS > 1 && terms.is_odd {
                at.add_odd(simd, &mut local, places);
            }
        }
    }
    *sums = local;
}

/// [`accumulate`] of one tap, fetching `lines` lines every [`STEPS_BETWEEN_FETCHES`] steps.
///
/// # Safety
/// As for [`accumulate`].
#[inline(always)]
#[expect(unsafe_code, reason = "the micro-kernel addresses memory by pointer")]
pub(crate) unsafe fn accumulate_and_fetch<
    S: Simd,
    E: Storage,
    const VECTORS: usize,
    const PIXELS: usize,
>(
    simd: S,
    sums: &mut [[Register<E, S>; VECTORS]; PIXELS],
    places: &[*const E; PIXELS],
    terms: &Terms<E>,
    ahead: &mut Ahead<E>,
    lines: usize,
) {
    let mut local = *sums;
    let mut at = Place {
        source: 0,
        weights: terms.weights,
    };
    // SAFETY: the caller vouches for every term.
    unsafe {
        for first in (0..terms.steps).step_by(STEPS_BETWEEN_FETCHES) {
            ahead.fetch(lines);
            let steps = STEPS_BETWEEN_FETCHES.min(terms.steps - first);
            at.add_steps(simd, &mut local, places, steps);
        }
        if E::TERMS > 1 && terms.is_odd {
            at.add_odd(simd, &mut local, places);
        }
    }
    *sums = local;
}

/// Where the next term is.
struct Place<E> {
    /// From the source values of the first term on.
    source: usize,
    weights: *const E,
}

#[expect(unsafe_code, reason = "the micro-kernel addresses memory by pointer")]
impl<E: Storage> Place<E> {
    /// # Safety
    /// As for [`accumulate`], of these steps.
    #[inline(always)]
    unsafe fn add_steps<S: Simd, const VECTORS: usize, const PIXELS: usize>(
        &mut self,
        simd: S,
        sums: &mut [[Register<E, S>; VECTORS]; PIXELS],
        places: &[*const E; PIXELS],
        steps: usize,
    ) {
        let panel = VECTORS * lanes::<S, E>() * E::TERMS;
        let Self { source, weights } = *self;
        for step in 0..steps {
            let first = source + step * E::TERMS;
            // SAFETY: as the caller vouches.
            unsafe {
                E::add_step::<S, VECTORS, PIXELS, true>(
                    simd,
                    sums,
                    #[inline(always)]
                    |pixel| places[pixel].add(first),
                    weights.add(step * panel),
                );
            }
        }
        self.source += steps * E::TERMS;
        self.weights = weights.wrapping_add(steps * panel);
    }

    /// # Safety
    /// As for [`accumulate`], of a step with one term.
    #[inline(always)]
    unsafe fn add_odd<S: Simd, const VECTORS: usize, const PIXELS: usize>(
        &mut self,
        simd: S,
        sums: &mut [[Register<E, S>; VECTORS]; PIXELS],
        places: &[*const E; PIXELS],
    ) {
        let source = self.source;
        // SAFETY: as the caller vouches.
        unsafe {
            E::add_step::<S, VECTORS, PIXELS, false>(
                simd,
                sums,
                #[inline(always)]
                |pixel| places[pixel].add(source),
                self.weights,
            );
        }
        self.source += 1;
        let panel = VECTORS * lanes::<S, E>() * E::TERMS;
        self.weights = self.weights.wrapping_add(panel);
    }
}
