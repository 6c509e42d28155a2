//! On what a comparison was measured.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

use super::python::Python;
use super::store::Origin;

/// The machine, and the peers' programs. As text, a line for each.
#[derive(Debug, Serialize)]
pub(crate) struct Conditions {
    origin: Origin,
    /// Versions of Python and the peers, or why they were not run.
    peers: Result<BTreeMap<String, String>, String>,
}

impl Conditions {
    pub(crate) fn new(origin: &Origin, python: &Result<Python, String>) -> Self {
        let python = python.as_ref();
        Self {
            origin: origin.clone(),
            peers: python
                .map(|python| python.versions.clone())
                .map_err(String::clone),
        }
    }
}

impl fmt::Display for Conditions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Origin {
            processor, cores, ..
        } = &self.origin;
        writeln!(f, "{processor}, {cores} cores")?;
        match &self.peers {
            Ok(versions) => {
                let versions = versions.iter();
                let versions = versions.map(|(name, version)| format!("{name} {version}"));
                writeln!(f, "{}", versions.collect::<Vec<_>>().join(", "))
            }
            Err(reason) => writeln!(f, "the peers were not run: {reason}"),
        }
    }
}
