//! Layers of a network by name, and the network up to one of them.

use super::Network;
use crate::error::{Result, StreamError};

impl Network {
    /// The node that gives the output of `layer`, as an index into [`Network::operation_names`]: the one of that name, or the last
    /// one of the module of that name; none if there is neither.
    ///
    /// A norm, a ReLU or an addition that was fused into a convolution has no output of its own: the convolution's is that after
    /// them. So `layer4` is what `torchvision`'s module of that name gives, while `layer4.1.conv2` is the same and not what stands
    /// before its norm.
    #[must_use]
    pub fn operation_of(&self, layer: &str) -> Option<usize> {
        let names: Vec<&str> = self.operation_names().collect();
        let in_module = |name: &&str| {
            let rest = name.strip_prefix(layer);
            rest.is_some_and(|rest| rest.starts_with('.'))
        };
        let own = names.iter().position(|name| *name == layer);
        own.or_else(|| names.iter().rposition(in_module))
    }

    /// Whether the features are the output of `layer`, and nothing else: there is no further output.
    #[must_use]
    pub fn is_only_output(&self, layer: &str) -> bool {
        matches!(*self.outputs, [(_, node)] if self.operation_of(layer) == Some(node))
    }

    /// The network whose features are the output of [`layer`](Self::operation_of), with the same parameters.
    ///
    /// # Errors
    /// [`StreamError::Setting`] if there is no such layer.
    pub fn up_to(&self, layer: &str) -> Result<Self> {
        let node = self
            .operation_of(layer)
            .ok_or_else(|| unknown_layer(layer))?;
        Ok(Self {
            nodes: self.nodes.iter().take(node + 1).cloned().collect(),
            parameters: self.parameters.clone(),
            outputs: [(layer.to_owned(), node)].into(),
        })
    }
}

/// The refusal of a layer that a network does not have.
pub(crate) fn unknown_layer(layer: &str) -> StreamError {
    StreamError::Setting {
        layer: "net".into(),
        setting: "layer",
        found: layer.to_owned(),
        expected: "one of Net::operation_names, or a module that some of them are part of",
    }
}
