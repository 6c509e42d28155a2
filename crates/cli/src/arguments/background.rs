//! What is shown where a slide has no tissue, as the command line has it.

use clap::ValueEnum;
use stream_grad_train::source::Background;

/// What is shown where a slide has no tissue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum BackgroundKind {
    /// What was scanned
    #[value(name = "as_read")]
    AsRead,
    /// One colour
    Fill,
}

impl From<BackgroundKind> for Background {
    fn from(kind: BackgroundKind) -> Self {
        match kind {
            BackgroundKind::AsRead => Self::AsRead,
            BackgroundKind::Fill => Self::Fill,
        }
    }
}
