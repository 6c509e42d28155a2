//! The memory of sweeps, between sweeps.

use std::any::Any;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use crate::backend::Backend;

/// The memory in which plans compute. It stays for the next sweep, since new pages cost about a tenth of a step.
///
/// Each plan has one, unless [`PlanRequest::workspace`](crate::PlanRequest::workspace) gives it one to share: then memory is held
/// for the plan that ran last, not for every one. It is freed with its last plan, or by [`Workspace::release`].
///
/// A sweep takes all of it and gives it back at its end; a second one at the same time finds nothing and makes its own.
#[derive(Clone, Default)]
pub struct Workspace(Arc<Mutex<Option<Box<dyn Any + Send>>>>);

/// Memory of one backend.
pub(crate) struct Held<B: Backend> {
    /// What a sweep works in.
    pub(crate) working: B::Memory,
    /// For what is saved of every block of every image.
    pub(crate) blocks: Vec<BlockStore<B>>,
}

impl<B: Backend> Default for Held<B> {
    fn default() -> Self {
        Self {
            working: B::Memory::default(),
            blocks: Vec::new(),
        }
    }
}

/// What the backward sweep of one block of one image needs besides the image. If the rest is in a file, `saved` is what of it
/// is at hand while the block is swept.
pub(crate) struct BlockStore<B: Backend> {
    pub(crate) saved: B::Memory,
    pub(crate) border: B::Memory,
}

impl<B: Backend> Default for BlockStore<B> {
    fn default() -> Self {
        Self {
            saved: B::Memory::default(),
            border: B::Memory::default(),
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
        drop(self.replace(None));
    }

    /// Takes what is held of the backend's memory; that of another is freed.
    pub(crate) fn take<B: Backend>(&self) -> Held<B> {
        let held = self.replace(None).and_then(|held| held.downcast().ok());
        held.map_or_else(Held::default, |held| *held)
    }

    /// Holds memory for the next sweep, in place of what is held.
    pub(crate) fn put<B: Backend>(&self, held: Held<B>) {
        drop(self.replace(Some(Box::new(held))));
    }

    fn replace(&self, new: Option<Box<dyn Any + Send>>) -> Option<Box<dyn Any + Send>> {
        // Whatever a panic interrupted, memory is memory.
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut held, new)
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
