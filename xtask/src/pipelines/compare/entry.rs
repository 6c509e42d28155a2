//! What is compared: a contender on an image.

use std::fmt;

use stream_grad_cli::image_size::ImageSize;

use super::step::Precision;

/// One row of the comparison.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) model: String,
    pub(crate) image: ImageSize,
    pub(crate) threads: usize,
    pub(crate) contender: Contender,
    /// What activations are stored as.
    pub(crate) precision: Precision,
}

/// Who runs the step, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Contender {
    Peer(Peer),
    Own(Own),
}

/// Other software.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Peer {
    PlainPyTorch,
    ChannelsLast,
    Checkpointing,
    Lightstream { tile: u64 },
}

/// This project.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Own {
    /// One tile, everything stored.
    Whole,
    /// The same, convolutions computed directly.
    WholeDirect,
    /// The fastest recipe in the memory that PyTorch's step adds, divided by this.
    PartOfPyTorch(u64),
    /// The fastest recipe in the memory that lightstream's step adds.
    WithinLightstream { tile: u64 },
    /// Tiles of this edge, nothing stored.
    Tiles(u64),
    /// The same, with an image that is computed pixel by pixel and features that are summed up as they come: neither
    /// exists as a whole.
    Streamed(u64),
}

impl Entry {
    /// What the result is stored under.
    pub(crate) fn key(&self) -> String {
        format!(
            "{} {}, {} thread(s), {}",
            self.model,
            self.image,
            self.threads,
            self.name()
        )
    }

    /// Who runs the step, how, and in what, unless that is f32.
    pub(crate) fn name(&self) -> String {
        match self.precision {
            Precision::F32 => self.contender.to_string(),
            other => format!("{}, {}", self.contender, other.as_str()),
        }
    }

    /// Number of pixels of the image.
    pub(crate) fn pixels(&self) -> f64 {
        self.image.height as f64 * self.image.width as f64
    }

    /// Roughly the arithmetic of the step against that of the conventional computation.
    pub(crate) fn compute_ratio(&self) -> f64 {
        match self.contender {
            Contender::Peer(Peer::PlainPyTorch | Peer::ChannelsLast)
            | Contender::Own(Own::Whole | Own::WholeDirect) => 1.0,
            Contender::Peer(Peer::Checkpointing) | Contender::Own(_) => 4.0 / 3.0,
            Contender::Peer(Peer::Lightstream { tile }) => {
                let small = self.image.height.max(self.image.width) <= tile;
                // The published method with a tile of 1920; a bound is not worth a model.
                if small { 4.0 / 3.0 } else { 4.3 }
            }
        }
    }
}

impl fmt::Display for Contender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Peer(peer) => peer.fmt(f),
            Self::Own(own) => write!(f, "stream-grad, {own}"),
        }
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PlainPyTorch => f.write_str("PyTorch"),
            Self::ChannelsLast => f.write_str("PyTorch, channels_last"),
            Self::Checkpointing => f.write_str("PyTorch, checkpointing"),
            Self::Lightstream { tile } => write!(f, "lightstream, tile {tile}"),
        }
    }
}

impl fmt::Display for Own {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Whole => f.write_str("all memory"),
            Self::WholeDirect => f.write_str("all memory, direct arithmetic"),
            Self::PartOfPyTorch(part) => write!(f, "1/{part} of PyTorch's"),
            Self::WithinLightstream { .. } => f.write_str("within lightstream's"),
            Self::Tiles(tile) => write!(f, "tile {tile}"),
            Self::Streamed(tile) => write!(f, "tile {tile}, streamed"),
        }
    }
}
