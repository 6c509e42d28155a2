//! What this machine is.

use serde::{Deserialize, Serialize};

/// The machine and the program that made a result.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Machine {
    /// Version of this crate.
    pub version: String,
    /// Name of the processor.
    pub processor: String,
    /// Cores that may be used.
    pub cores: usize,
    /// Operating system and architecture.
    pub system: String,
}

impl Machine {
    /// This one.
    ///
    /// ```
    /// use stream_grad_train::machine::Machine;
    /// assert!(Machine::this().cores > 0);
    /// ```
    #[must_use]
    pub fn this() -> Self {
        Self {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            processor: processor(),
            cores: stream_grad::cores(),
            system: format!("{} {}", std::env::consts::OS, std::env::consts::ARCH),
        }
    }
}

/// The processor's name as the system gives it, or its architecture.
#[must_use]
pub fn processor() -> String {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let line = text.lines().find(|line| line.starts_with("model name"));
    let name = line.and_then(|line| line.split_once(':'));
    name.map_or(std::env::consts::ARCH, |(_, name)| name.trim())
        .to_owned()
}
