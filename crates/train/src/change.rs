//! A setting that differs between two runs.

use std::fmt;

/// A setting that is not as it was.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    /// The key with its tables, such as `train.epochs`.
    pub key: String,
    /// The value that the folder's run has, as TOML; `None` where the key is absent.
    pub before: Option<String>,
    /// The value that was asked for.
    pub now: Option<String>,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = |value: &Option<String>| value.clone().unwrap_or_else(|| "absent".to_owned());
        let Self { key, before, now } = self;
        write!(
            f,
            "{key} is {} there and {} here",
            value(before),
            value(now)
        )
    }
}
