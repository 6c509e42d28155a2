//! Sums of gradients over blocks, in one order.

use crate::backend::Backend;

/// Sums of each node that trains, one for each of its parameters.
pub(crate) type NodeSums<B> = Vec<Vec<<B as Backend>::Sums>>;

/// Running sums of gradients: those of the block at hand, and those of the blocks that are done.
///
/// Each block's sums begin at zero and are added to the total when the block is done, from the last block of the last image to the
/// first block of the first. So the total is the same whether the blocks are swept in one call, in several, or in several
/// processes. The sums of the block that is done first become the total, so a plan of one block holds them once.
pub(crate) struct BlockSums<B: Backend> {
    /// Of each node, the lengths of its sums.
    lengths: Vec<Vec<usize>>,
    /// Of the block at hand; empty between blocks that have nothing to be added to.
    pub(crate) block: NodeSums<B>,
    total: Option<NodeSums<B>>,
    /// Number of blocks that were added to the total since it was given.
    pub(crate) done: usize,
}

impl<B: Backend> BlockSums<B> {
    /// Sums that go on from `total`, if there is one.
    pub(crate) fn new(lengths: Vec<Vec<usize>>, total: Option<NodeSums<B>>) -> Self {
        Self {
            lengths,
            block: Vec::new(),
            total,
            done: 0,
        }
    }

    /// Sums of zero for the next block.
    pub(crate) fn begin_block(&mut self, backend: &B) {
        if self.block.is_empty() {
            let zeros = |lengths: &Vec<usize>| {
                let lengths = lengths.iter();
                lengths.map(|&length| backend.sums(length)).collect()
            };
            self.block = self.lengths.iter().map(zeros).collect();
        }
    }

    /// Adds the sums of the block at hand to the total, and leaves zeros.
    pub(crate) fn finish_block(&mut self, backend: &B) {
        self.done += 1;
        let Some(total) = &mut self.total else {
            self.total = Some(std::mem::take(&mut self.block));
            return;
        };
        let total = total.iter_mut().flatten();
        for (total, block) in total.zip(self.block.iter_mut().flatten()) {
            backend.move_sums(block, total);
        }
    }

    /// The total; zeros if no block was ever done.
    pub(crate) fn into_total(mut self, backend: &B) -> NodeSums<B> {
        if let Some(total) = self.total {
            return total;
        }
        self.begin_block(backend);
        self.block
    }
}
