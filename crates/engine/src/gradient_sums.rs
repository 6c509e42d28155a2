//! Sums of gradients that wait for more blocks.

use std::ops::Range;

use stream_grad_tiling::Recipe;

use crate::backend::Backend;
use crate::error::{Result, StreamError};
use crate::sweep::sums::NodeSums;

/// Sums of the parameters' gradients over some of a plan's blocks, in double precision: what [`Plan::vjp_blocks`] adds to and
/// [`Plan::gradients`] makes gradients of.
///
/// Blocks are counted over all images of the batch. Each block's sums begin at zero, and blocks are added from the last to the
/// first. So the bits of the result do not depend on who sweeps which block: one call over all blocks, two over their halves, or a
/// process for each block, whose sums are [added](Self::add) in that order. With the feature `serde` they can be sent and stored.
///
/// The order in which the values of a parameter stand is the kernels' own: sums are for the plan that made them, and for plans of
/// the same network, recipe and dtype in other processes of the same build.
///
/// [`Plan::vjp_blocks`]: crate::Plan::vjp_blocks
/// [`Plan::gradients`]: crate::Plan::gradients
#[derive(Debug, Clone, PartialEq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct GradientSums {
    /// Nothing where no block was added.
    added: Option<Added>,
}

#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
struct Added {
    recipe: Recipe,
    blocks: Range<usize>,
    /// By node and parameter.
    sums: Vec<Vec<Vec<f64>>>,
}

impl GradientSums {
    /// Sums to which nothing was added.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The blocks that were added, counted over all images; empty at first.
    #[must_use]
    pub fn blocks(&self) -> Range<usize> {
        let added = self.added.as_ref();
        added.map_or(0..0, |added| added.blocks.clone())
    }

    /// Adds the sums of the block before the first one here, or anything to nothing.
    ///
    /// Of several blocks the total alone is known, and adding totals would round in another order than adding block by block: so
    /// they are refused.
    ///
    /// # Errors
    /// [`StreamError::GradientSums`] for sums of several blocks, of another block than the one before, or of another plan.
    /// Nothing is changed then.
    pub fn add(&mut self, earlier: &Self) -> Result<()> {
        let Some(from) = &earlier.added else {
            return Ok(());
        };
        let Some(to) = &mut self.added else {
            self.added = Some(from.clone());
            return Ok(());
        };
        if from.blocks.len() != 1 {
            return Err(mismatch(
                "the sums of one block",
                format_blocks(&from.blocks),
            ));
        }
        check_before(&from.blocks, &to.blocks)?;
        check_recipe(&to.recipe, &from.recipe)?;
        check_lengths(&lengths(&to.sums), &lengths(&from.sums))?;
        let from_values = from.sums.iter().flatten().flatten();
        let to_values = to.sums.iter_mut().flatten().flatten();
        to_values
            .zip(from_values)
            .for_each(|(to, from)| *to += from);
        to.blocks.start = from.blocks.start;
        Ok(())
    }

    /// Refuses to go on with these blocks.
    pub(crate) fn check_next(
        &self,
        blocks: &Range<usize>,
        recipe: &Recipe,
        expected: &[Vec<usize>],
    ) -> Result<()> {
        let Some(added) = &self.added else {
            return Ok(());
        };
        check_before(blocks, &added.blocks)?;
        self.check_plan(recipe, expected)
    }

    /// Refuses sums of another plan.
    pub(crate) fn check_plan(&self, recipe: &Recipe, expected: &[Vec<usize>]) -> Result<()> {
        let Some(added) = &self.added else {
            return Ok(());
        };
        check_recipe(recipe, &added.recipe)?;
        check_lengths(expected, &lengths(&added.sums))
    }

    /// Takes the sums out, for a backend.
    pub(crate) fn take<B: Backend>(&mut self, backend: &B) -> Option<NodeSums<B>> {
        let nodes = self.added.take()?.sums.into_iter();
        let on_backend = |sums: Vec<Vec<f64>>| {
            let sums = sums.into_iter();
            sums.map(|sums| backend.sums_from_host(sums)).collect()
        };
        Some(nodes.map(on_backend).collect())
    }

    /// Puts sums of `blocks` in their place; of no block there are none.
    pub(crate) fn put<B: Backend>(
        &mut self,
        backend: &B,
        sums: NodeSums<B>,
        blocks: Range<usize>,
        recipe: &Recipe,
    ) {
        if blocks.is_empty() {
            return;
        }
        let on_host = |sums: Vec<B::Sums>| {
            let sums = sums.into_iter();
            sums.map(|sums| backend.sums_to_host(sums)).collect()
        };
        self.added = Some(Added {
            recipe: recipe.clone(),
            blocks,
            sums: sums.into_iter().map(on_host).collect(),
        });
    }
}

fn lengths(sums: &[Vec<Vec<f64>>]) -> Vec<Vec<usize>> {
    let nodes = sums.iter();
    nodes
        .map(|sums| sums.iter().map(Vec::len).collect())
        .collect()
}

fn check_before(blocks: &Range<usize>, added: &Range<usize>) -> Result<()> {
    if blocks.end == added.start {
        return Ok(());
    }
    Err(mismatch(
        format!("blocks that end before block {}", added.start),
        format_blocks(blocks),
    ))
}

fn check_recipe(expected: &Recipe, found: &Recipe) -> Result<()> {
    if expected == found {
        return Ok(());
    }
    Err(mismatch(expected.to_string(), found.to_string()))
}

fn check_lengths(expected: &[Vec<usize>], found: &[Vec<usize>]) -> Result<()> {
    if expected == found {
        return Ok(());
    }
    let values = |lengths: &[Vec<usize>]| {
        let count: usize = lengths.iter().flatten().sum();
        format!("{count} sums of {} nodes", lengths.len())
    };
    Err(mismatch(values(expected), values(found)))
}

fn format_blocks(blocks: &Range<usize>) -> String {
    format!("blocks {} to {}", blocks.start, blocks.end)
}

fn mismatch(expected: impl Into<String>, found: impl Into<String>) -> StreamError {
    StreamError::GradientSums {
        expected: expected.into(),
        found: found.into(),
    }
}
