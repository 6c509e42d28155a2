//! The memory of sweeps, between sweeps.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use crate::engine::{BlockStore, Memory};
use crate::scalar::Scalar;

/// The memory in which plans compute. It stays for the next sweep, since new pages cost about a tenth of a step.
///
/// Each plan has one, unless [`PlanRequest::workspace`](crate::PlanRequest::workspace) gives it one to share: then memory is held
/// for the plan that ran last, not for every one. It is freed with its last plan, or by [`Workspace::release`].
///
/// A sweep takes all of it and gives it back at its end; a second one at the same time finds nothing and makes its own.
#[derive(Clone, Default)]
pub struct Workspace(Arc<Mutex<Slabs>>);

/// What is held, of either type.
#[derive(Default)]
pub(crate) struct Slabs {
    pub(crate) f32: Held<f32>,
    pub(crate) f64: Held<f64>,
}

/// Memory of one type.
pub(crate) struct Held<T> {
    /// What a sweep works in.
    pub(crate) working: Memory<T>,
    /// For what is saved of every block of every image.
    pub(crate) blocks: Vec<BlockStore<T>>,
}

impl<T> Default for Held<T> {
    fn default() -> Self {
        Self {
            working: Memory::default(),
            blocks: Vec::new(),
        }
    }
}

impl Workspace {
    /// A workspace that holds nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Frees what is held.
    pub fn release(&self) {
        drop(self.replace(Slabs::default()));
    }

    /// Takes what is held of the type; the rest is freed.
    pub(crate) fn take<T: Scalar>(&self) -> Held<T> {
        std::mem::take(T::held(&mut self.replace(Slabs::default())))
    }

    /// Holds memory for the next sweep, in place of what is held.
    pub(crate) fn put<T: Scalar>(&self, held: Held<T>) {
        let mut slabs = Slabs::default();
        *T::held(&mut slabs) = held;
        drop(self.replace(slabs));
    }

    fn replace(&self, slabs: Slabs) -> Slabs {
        // Whatever a panic interrupted, memory is memory.
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut held, slabs)
    }
}

/// The same memory.
impl PartialEq for Workspace {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl fmt::Debug for Workspace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Workspace").finish_non_exhaustive()
    }
}
