//! What was loaded, and from where in the file.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

/// How many groups of tensors that were left out are named.
const NAMED: usize = 5;

/// Where in a file a model's tensors were found. Displays as one line:
///
/// ```text
/// `epoch3.ckpt`: 60 tensors under `state_dict.model.`; left out: `hyper_parameters.…` (1), `state_dict.…` (2)
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loaded {
    pub(super) path: PathBuf,
    pub(super) tensors: usize,
    pub(super) prefix: String,
    pub(super) wrappers: Vec<&'static str>,
    pub(super) copies: Vec<String>,
    pub(super) left_out: Vec<String>,
}

impl Loaded {
    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// How many tensors were loaded.
    pub fn tensors(&self) -> usize {
        self.tensors
    }

    /// What the file has before the model's names: the dictionary, the module, or both, with the dot at the end; empty
    /// where the names are the same.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// Names of PyTorch's wrapping modules that were passed over, such as `_orig_mod` of `torch.compile`.
    pub fn wrappers(&self) -> &[&'static str] {
        &self.wrappers
    }

    /// Further prefixes under which the file has the same tensors, bit for bit.
    pub fn copies(&self) -> &[String] {
        &self.copies
    }

    /// Names of the file's other tensors, which were not read: a classifier, an optimiser's, a metric.
    pub fn left_out(&self) -> &[String] {
        &self.left_out
    }
}

impl fmt::Display for Loaded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}`: {} tensors", self.path.display(), self.tensors)?;
        if !self.prefix.is_empty() {
            write!(f, " under `{}`", self.prefix)?;
        }
        for wrapper in &self.wrappers {
            write!(f, ", without `{wrapper}.`")?;
        }
        for copy in &self.copies {
            write!(f, ", the same under {}", place(copy))?;
        }
        if self.left_out.is_empty() {
            return Ok(());
        }
        let mut groups = BTreeMap::new();
        for name in &self.left_out {
            let group = match name.split_once('.') {
                Some((first, _)) => format!("`{first}.…`"),
                None => format!("`{name}`"),
            };
            *groups.entry(group).or_insert(0_usize) += 1;
        }
        let named: Vec<String> = groups
            .iter()
            .take(NAMED)
            .map(|(group, count)| format!("{group} ({count})"))
            .collect();
        write!(f, "; left out: {}", named.join(", "))?;
        if groups.len() > NAMED {
            write!(f, " and {} more", groups.len() - NAMED)?;
        }
        Ok(())
    }
}

/// A prefix in words.
pub(super) fn place(prefix: &str) -> String {
    if prefix.is_empty() {
        "no prefix".into()
    } else {
        format!("`{prefix}`")
    }
}
