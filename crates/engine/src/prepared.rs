//! Parameters as the sweeps read them: copied, folded and packed, so that an optimiser step between
//! forward and backward cannot mix two sets of weights.

use stream_grad_tiling::Graph;

use crate::backend::Backend;
use crate::error::{Result, StreamError};
use crate::network::{Network, Node};
use crate::operator::Copies;
use crate::operator::plain::{GradientWriter, Plain, values};
use crate::operators::{AnyPrepared, AnyTransposed};
use crate::parameter::{ParameterId, ParameterValues};

/// The copies that every node's operator makes of its parameters: what the planner counts and the sweeps make.
pub(crate) struct AllCopies(Vec<Copies>);

impl AllCopies {
    pub(crate) fn of<B: Backend>(
        backend: &B,
        network: &Network,
        trainable: &[bool],
        graph: &Graph,
    ) -> Result<Self> {
        let copies = network.nodes.iter().map(|node| {
            let needs = node.needs(trainable, graph);
            node.operator
                .copies(backend, node.shape(), &network.parameters, &needs)
                .map_err(|source| StreamError::Kernel {
                    layer: node.name.clone(),
                    source,
                })
        });
        copies.collect::<Result<_>>().map(Self)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Copies> {
        self.0.iter()
    }

    /// Parameters that are held as they are, each once.
    fn plain(&self, select: impl Fn(&Copies) -> &[ParameterId]) -> Vec<ParameterId> {
        let mut ids: Vec<ParameterId> = self.iter().flat_map(|one| select(one).to_vec()).collect();
        ids.sort_unstable();
        ids.dedup();
        ids
    }

    /// Parameters that are held as they are during the forward sweep.
    pub(crate) fn plain_at_first(&self) -> Vec<ParameterId> {
        self.plain(|copies| &copies.plain)
    }

    /// Parameters that are held as they are to the end of the backward sweep.
    pub(crate) fn plain_to_the_end(&self) -> Vec<ParameterId> {
        self.plain(|copies| &copies.plain_to_the_end)
    }
}

/// The parameters of one forward computation.
pub(crate) struct Prepared<B: Backend> {
    pub(crate) operators: Vec<AnyPrepared<B>>,
    /// By parameter; empty where nothing reads them any more.
    values: Vec<Vec<B::Compute>>,
}

impl<B: Backend> Prepared<B> {
    /// Copies all parameters and packs what the forward computation reads.
    pub(crate) fn new(
        backend: &B,
        network: &Network,
        copies: &AllCopies,
        source: &dyn ParameterValues,
    ) -> Result<Self> {
        let parameters = &*network.parameters;
        let mut prepared = Self {
            operators: Vec::with_capacity(network.nodes.len()),
            values: vec![Vec::new(); parameters.len()],
        };
        for id in copies.plain_at_first() {
            prepared.values[id.0] = values(source, parameters, id)?;
        }
        for node in &*network.nodes {
            let plain = Plain {
                backend,
                layer: &node.name,
                values: &prepared.values,
                parameters,
                source: Some(source),
            };
            let next = node.operator.prepare(&plain, node.shape())?;
            prepared.operators.push(next);
        }
        Ok(prepared)
    }

    /// Copies all parameters and packs nothing: for making gradients of sums.
    pub(crate) fn plain(network: &Network, source: &dyn ParameterValues) -> Result<Self> {
        let parameters = &*network.parameters;
        let ids = (0..parameters.len()).map(ParameterId);
        Ok(Self {
            operators: Vec::new(),
            values: ids
                .map(|id| values(source, parameters, id))
                .collect::<Result<_>>()?,
        })
    }

    /// Frees what is packed for nodes that are not computed again.
    pub(crate) fn keep_packed(
        &mut self,
        copies: &AllCopies,
        computes_again: impl Fn(usize) -> bool,
    ) {
        let operators = self.operators.iter_mut().zip(copies.iter());
        for (node, (operator, copies)) in operators.enumerate() {
            if copies.packed && !computes_again(node) {
                *operator = AnyPrepared::Freed;
            }
        }
    }

    /// Makes what the VJPs read, and frees the copies of parameters that nothing reads after that.
    pub(crate) fn transpose(
        &mut self,
        backend: &B,
        network: &Network,
        copies: &AllCopies,
        (trainable, graph): (&[bool], &Graph),
    ) -> Result<Vec<AnyTransposed<B>>> {
        let mut readers = vec![0_usize; self.values.len()];
        for id in copies.plain_to_the_end() {
            readers[id.0] += 1;
        }
        for id in copies.iter().filter_map(|copies| copies.transposed_from) {
            readers[id.0] += 1;
        }
        for (values, _) in self
            .values
            .iter_mut()
            .zip(&readers)
            .filter(|(_, readers)| **readers == 0)
        {
            *values = Vec::new();
        }
        let mut all = Vec::with_capacity(network.nodes.len());
        for (node, copies) in network.nodes.iter().zip(copies.iter()) {
            let plain = self.plain_of(backend, network, node);
            all.push(
                node.operator
                    .transpose(&plain, &node.needs(trainable, graph))?,
            );
            if let Some(id) = copies.transposed_from {
                readers[id.0] -= 1;
                if readers[id.0] == 0 {
                    self.values[id.0] = Vec::new();
                }
            }
        }
        Ok(all)
    }

    /// Makes gradients of parameters from the sums of all nodes that train.
    pub(crate) fn gradients(
        &self,
        backend: &B,
        network: &Network,
        sums: Vec<Vec<B::Sums>>,
        transposed: Vec<AnyTransposed<B>>,
        gradients: &mut GradientWriter<'_>,
    ) -> Result<()> {
        let sums = sums.into_iter().zip(transposed);
        for (node, (sums, transposed)) in network.nodes.iter().zip(sums) {
            if node.trains(gradients.trainable) {
                let plain = self.plain_of(backend, network, node);
                node.operator
                    .gradients(sums, transposed, &plain, gradients)?;
            }
        }
        Ok(())
    }

    fn plain_of<'a>(
        &'a self,
        backend: &'a B,
        network: &'a Network,
        node: &'a Node,
    ) -> Plain<'a, B> {
        Plain {
            backend,
            layer: &node.name,
            values: &self.values,
            parameters: &network.parameters,
            source: None,
        }
    }
}
