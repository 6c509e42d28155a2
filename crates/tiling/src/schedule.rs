//! Which rows (or columns) of every node each band owns, and what later bands still read.

use std::collections::HashMap;

use crate::error::TilingError;
use crate::graph::SizedGraph;
use crate::span::{Axis, Span};

/// The largest number of bands of an axis.
pub const MAX_BANDS: u64 = 1 << 18;

/// The bands of one axis of one block: the cuts of the image pushed through the graph.
///
/// Band `i` *owns*, of every node, the outputs that the image up to its end allows and that no
/// earlier band owns. The owned spans partition what the block needs of each node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AxisSchedule {
    /// `prefix[i][node]`: first index that bands from `i` on own.
    prefix: Vec<Vec<i64>>,
    /// `keep_lo[i][node]`: first index that bands from `i` on read.
    keep_lo: Vec<Vec<i64>>,
    /// What the block needs of each node.
    needed: Vec<Span>,
    /// For each band, the first band whose owned spans and halos are as long at every node.
    alike: Vec<usize>,
    /// Per node, over all bands.
    largest: Vec<Largest>,
}

/// The longest spans of one node over all bands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Largest {
    held: u64,
    halo: u64,
    owned: u64,
}

impl AxisSchedule {
    /// Pushes the cuts through the graph, with every node limited to the span that the block needs of it.
    ///
    /// # Errors
    /// [`TilingError::Cuts`] if `cuts` does not rise strictly from the first to the last needed image index.
    pub fn new(
        sized: &SizedGraph,
        axis: Axis,
        needed: Vec<Span>,
        cuts: &[i64],
    ) -> Result<Self, TilingError> {
        let image = needed[0];
        let valid = cuts.len() >= 2
            && cuts.first() == Some(&image.lo)
            && cuts.last() == Some(&image.hi)
            && cuts.windows(2).all(|pair| pair[0] < pair[1]);
        if !valid {
            return Err(TilingError::Cuts {
                axis,
                lo: image.lo,
                hi: image.hi,
                found: cuts.to_vec(),
            });
        }
        let last = cuts.len() - 1;
        let prefix: Vec<Vec<i64>> = cuts
            .iter()
            .enumerate()
            .map(|(index, &cut)| {
                if index == 0 {
                    return needed.iter().map(|span| span.lo).collect();
                }
                if index == last {
                    return needed.iter().map(|span| span.hi).collect();
                }
                sized
                    .prefixes(axis, cut)
                    .iter()
                    .zip(&needed)
                    .map(|(&prefix, span)| prefix.clamp(span.lo, span.hi))
                    .collect()
            })
            .collect();
        let keep_lo = prefix
            .iter()
            .map(|starts| {
                (0..needed.len())
                    .map(|node| keep_lo(sized, axis, &needed, starts, node))
                    .collect()
            })
            .collect();
        let mut schedule = Self {
            prefix,
            keep_lo,
            alike: Vec::new(),
            largest: vec![Largest::default(); needed.len()],
            needed,
        };
        schedule.summarise();
        Ok(schedule)
    }

    fn summarise(&mut self) {
        let mut first_alike: HashMap<Vec<(u64, u64)>, usize> = HashMap::new();
        for band in 0..self.bands() {
            let lengths: Vec<(u64, u64)> = (0..self.needed.len())
                .map(|node| (self.owned(band, node).len(), self.halo(band, node).len()))
                .collect();
            for (largest, &(owned, halo)) in self.largest.iter_mut().zip(&lengths) {
                largest.owned = largest.owned.max(owned);
                largest.halo = largest.halo.max(halo);
                largest.held = largest.held.max(owned + halo);
            }
            let first = *first_alike.entry(lengths).or_insert(band);
            self.alike.push(first);
        }
    }

    /// Number of bands.
    pub fn bands(&self) -> usize {
        self.prefix.len() - 1
    }

    /// What the block needs of a node.
    pub fn needed(&self, node: usize) -> Span {
        self.needed[node]
    }

    /// What band `band` owns of a node.
    pub fn owned(&self, band: usize, node: usize) -> Span {
        Span::new(self.prefix[band][node], self.prefix[band + 1][node])
    }

    /// What bands from `band` on read of a node although earlier bands own it. After the last band that is nothing.
    pub fn halo(&self, band: usize, node: usize) -> Span {
        Span::new(self.keep_lo[band][node], self.prefix[band][node])
    }

    /// The halo of band `band` together with what it owns: all that it may read.
    pub fn held(&self, band: usize, node: usize) -> Span {
        Span::new(self.keep_lo[band][node], self.prefix[band + 1][node])
    }

    /// The largest held span of a node over all bands.
    pub fn largest_held(&self, node: usize) -> u64 {
        self.largest[node].held
    }

    /// The largest halo of a node over all bands.
    pub fn largest_halo(&self, node: usize) -> u64 {
        self.largest[node].halo
    }

    /// The largest owned span of a node over all bands.
    pub fn largest_owned(&self, node: usize) -> u64 {
        self.largest[node].owned
    }

    /// The first band whose owned spans and halos are, at every node, as long as those of `band`.
    ///
    /// Sizes that depend on a band need to be worked out for these few only.
    pub fn alike(&self, band: usize) -> usize {
        self.alike[band]
    }
}

fn keep_lo(sized: &SizedGraph, axis: Axis, needed: &[Span], starts: &[i64], node: usize) -> i64 {
    sized
        .graph()
        .consumers(node)
        .iter()
        .filter_map(|&(consumer, edge)| {
            let next = Span::new(starts[consumer.0], needed[consumer.0].hi);
            let first = Span::new(next.lo, next.lo + 1);
            (!next.is_empty()).then(|| sized.needed(consumer.0, edge, axis, first).lo)
        })
        .fold(starts[node], i64::min)
        // An output that reads nothing but padding would ask for index 0, which the block may not have.
        .max(needed[node].lo)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::{Edge, Graph, Node, NodeId, VjpReads};
    use crate::rule::AxisRule;
    use crate::span::PerAxis;
    use crate::window::Window;

    fn chain(windows: &[(u64, u64, u64)]) -> Graph {
        let mut graph = Graph::new(1, false);
        for &(kernel, stride, pad) in windows {
            let rule = AxisRule::Window(Window::new(kernel, stride, 1, pad, pad).unwrap());
            let source = NodeId(graph.nodes().len() - 1);
            graph
                .push(Node {
                    name: format!("conv{kernel}s{stride}p{pad}"),
                    channels: 1,
                    inputs: vec![Edge {
                        source,
                        rule: PerAxis::both(rule),
                    }],
                    forward_flops: 1,
                    vjp_flops: 2,
                    vjp_reads: VjpReads::default(),
                    has_cotangent: true,
                })
                .unwrap();
        }
        let last = NodeId(graph.nodes().len() - 1);
        graph.set_outputs(vec![last]).unwrap();
        graph
    }

    #[test]
    fn a_three_by_three_keeps_two_rows_and_lags_by_one() {
        let sized = SizedGraph::new(chain(&[(3, 1, 1)]), PerAxis::both(10)).unwrap();
        let needed = vec![Span::new(0, 10); 2];
        let schedule = AxisSchedule::new(&sized, Axis::Rows, needed, &[0, 4, 8, 10]).unwrap();
        assert_eq!(schedule.owned(0, 1), Span::new(0, 3));
        assert_eq!(schedule.owned(1, 1), Span::new(3, 7));
        assert_eq!(schedule.owned(2, 1), Span::new(7, 10));
        assert_eq!(schedule.halo(1, 0), Span::new(2, 4));
        assert_eq!(schedule.halo(0, 0), Span::new(0, 0));
    }

    #[test]
    fn cuts_that_do_not_cover_the_image_are_refused_with_both_numbers() {
        let sized = SizedGraph::new(chain(&[(3, 1, 1)]), PerAxis::both(10)).unwrap();
        let refused = AxisSchedule::new(&sized, Axis::Columns, vec![Span::new(0, 10); 2], &[0, 4]);
        assert_eq!(
            refused.unwrap_err().to_string(),
            "cuts along columns must rise strictly from 0 to 10, found [0, 4]"
        );
    }
}
