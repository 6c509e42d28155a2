//! What the pixels of a file are before they are read as RGB.

/// What the pixels of a file are before they are read as RGB.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum StoredColors {
    Gray,
    Rgb,
    Cmyk,
    /// Whoever reads the file does not say.
    #[default]
    Unknown,
}

impl StoredColors {
    /// As errors call them.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Gray => "grey",
            Self::Rgb => "RGB",
            Self::Cmyk => "CMYK",
            Self::Unknown => "unknown",
        }
    }
}
