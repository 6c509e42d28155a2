//! Parameters as the sweeps read them: copied, folded and packed, so that an optimiser step between
//! forward and backward cannot mix two sets of weights.
//!
//! What is packed is held, or made of the copies for one use ([`Weights`]).

use std::ops::Deref;
use std::sync::Arc;

use stream_grad_tiling::{Graph, Weights};

use crate::backend::Backend;
use crate::error::{Result, StreamError};
use crate::network::{Network, Node};
use crate::operator::plain::{GradientWriter, Plain, values};
use crate::operator::{Copies, Needs};
use crate::operators::{AnyPrepared, AnyTransposed};
use crate::parameter::{ParameterId, ParameterShape, ParameterValues};

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

    /// What VJPs read of nodes that make it whenever they read it.
    pub(crate) fn transposed_on_use<B: Backend>(&self) -> Vec<AnyTransposed<B>> {
        let nodes = self.iter().map(|copies| match copies.transposed {
            0 => AnyTransposed::Nothing,
            _ => AnyTransposed::OnUse,
        });
        nodes.collect()
    }
}

/// What an operator reads of its parameters.
pub(crate) enum Lent<'a, T> {
    /// It is held.
    Held(&'a T),
    /// It was made for this use and goes with it.
    Made(T),
}

impl<T> Deref for Lent<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        match self {
            Self::Held(held) => held,
            Self::Made(made) => made,
        }
    }
}

/// The parameters of one forward computation.
pub(crate) struct Prepared<B: Backend> {
    pub(crate) operators: Vec<AnyPrepared<B>>,
    /// By parameter; empty where nothing reads them any more.
    values: Vec<Vec<B::Compute>>,
    parameters: Arc<[ParameterShape]>,
}

impl<B: Backend> Prepared<B> {
    /// Copies all parameters, and where weights are held packs what the forward computation reads.
    pub(crate) fn new(
        backend: &B,
        network: &Network,
        copies: &AllCopies,
        weights: Weights,
        source: &dyn ParameterValues,
    ) -> Result<Self> {
        let parameters = &*network.parameters;
        let mut prepared = Self {
            operators: Vec::with_capacity(network.nodes.len()),
            values: vec![Vec::new(); parameters.len()],
            parameters: Arc::clone(&network.parameters),
        };
        for id in copies.plain_at_first() {
            prepared.values[id.0] = values(source, parameters, id)?;
        }
        for (node, copies) in network.nodes.iter().zip(copies.iter()) {
            let next = if copies.packed && weights == Weights::PackedOnUse {
                AnyPrepared::OnUse
            } else {
                let plain = Plain {
                    source: Some(source),
                    ..prepared.plain_of(backend, node)
                };
                node.operator.prepare(&plain, node.shape())?
            };
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
            parameters: Arc::clone(&network.parameters),
        })
    }

    /// What the forward computation of a node reads.
    pub(crate) fn forward_of(
        &self,
        backend: &B,
        index: usize,
        node: &Node,
    ) -> Result<Lent<'_, AnyPrepared<B>>> {
        match &self.operators[index] {
            AnyPrepared::OnUse => {
                let plain = self.plain_of(backend, node);
                let made = node.operator.prepare(&plain, node.shape());
                made.map(Lent::Made)
            }
            held => Ok(Lent::Held(held)),
        }
    }

    /// What the VJP of a node reads besides: `transposed`, or what that stands for.
    pub(crate) fn transposed_of<'t>(
        &self,
        backend: &B,
        node: &Node,
        needs: &Needs<'_>,
        transposed: &'t AnyTransposed<B>,
    ) -> Result<Lent<'t, AnyTransposed<B>>> {
        match transposed {
            AnyTransposed::OnUse => {
                let plain = self.plain_of(backend, node);
                node.operator.transpose(&plain, needs).map(Lent::Made)
            }
            held => Ok(Lent::Held(held)),
        }
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
            let plain = self.plain_of(backend, node);
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
        (network, graph): (&Network, &Graph),
        copies: &AllCopies,
        (sums, transposed): (Vec<Vec<B::Sums>>, Vec<AnyTransposed<B>>),
        gradients: &mut GradientWriter<'_>,
    ) -> Result<()> {
        let nodes = network.nodes.iter().zip(copies.iter());
        for ((node, copies), (sums, transposed)) in nodes.zip(sums.into_iter().zip(transposed)) {
            if !node.trains(gradients.trainable) {
                continue;
            }
            let plain = self.plain_of(backend, node);
            let transposed = match transposed {
                AnyTransposed::OnUse if copies.unpacked => {
                    let needs = node.needs(gradients.trainable, graph);
                    node.operator.transpose(&plain, &needs)?
                }
                AnyTransposed::OnUse => AnyTransposed::Nothing,
                held => held,
            };
            node.operator
                .gradients(sums, transposed, &plain, gradients)?;
        }
        Ok(())
    }

    fn plain_of<'a>(&'a self, backend: &'a B, node: &'a Node) -> Plain<'a, B> {
        Plain {
            backend,
            layer: &node.name,
            values: &self.values,
            parameters: &self.parameters,
            source: None,
        }
    }
}
