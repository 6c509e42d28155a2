//! Parts of a network that keep their weights.

use std::collections::BTreeSet;

use stream_grad::Net;

use crate::error::{Result, TrainError};

/// What names of the network begin with.
pub(super) const NET: &str = "net.";

/// The network's parameters that lie in one of `parts`.
pub(super) fn frozen_parameters(net: &Net, parts: &[String]) -> Result<BTreeSet<String>> {
    let names: Vec<&str> = net
        .parameters()
        .iter()
        .map(|parameter| parameter.name.as_str())
        .collect();
    let lies_in = |name: &str, part: &str| {
        let rest = name
            .strip_prefix(NET)
            .and_then(|name| name.strip_prefix(part));
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    };
    let mut frozen = BTreeSet::new();
    for part in parts {
        // The usual name for the first convolution of a ResNet and its norm.
        let is_resnet_stem = part == "stem" && names.iter().any(|name| lies_in(name, "bn1"));
        let aliases: &[&str] = if is_resnet_stem {
            &["conv1", "bn1"]
        } else {
            &[part]
        };
        let in_part = names
            .iter()
            .filter(|name| aliases.iter().any(|alias| lies_in(name, alias)));
        let in_part: Vec<String> = in_part.map(|name| (*name).to_owned()).collect();
        if in_part.is_empty() {
            let known: BTreeSet<&str> = names
                .iter()
                .filter_map(|name| name.strip_prefix(NET)?.split('.').next())
                .collect();
            let known: Vec<&str> = known.into_iter().collect();
            return Err(TrainError::setting(
                "model.frozen",
                format!(
                    "parts of the network ({}), or parts of them",
                    known.join(", ")
                ),
                format!("`{part}`"),
            ));
        }
        frozen.extend(in_part);
    }
    Ok(frozen)
}
