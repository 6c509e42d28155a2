//! What a user should know of a file that was opened all the same.

use std::fmt;

use crate::geometry::Extent;

/// A file that holds more than is read from it, or another thing than its first page. See [`Slide::warnings`].
///
/// Pages are counted from 0, samples beyond those that are colour or transparency.
///
/// [`Slide::warnings`]: crate::Slide::warnings
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SlideWarning {
    /// The slide is not the file's first page, but a larger one of the same shape.
    OtherPage {
        /// The page that was taken.
        page: usize,
        /// How many pages there are.
        pages: usize,
        /// Its size.
        extent: Extent,
    },
    /// Further pages are as large as the slide, or larger but of another shape.
    PagesPassedOver {
        /// The page that was taken.
        taken: usize,
        /// The others.
        pages: Vec<usize>,
    },
    /// Pixels hold samples that are neither colour nor transparency, such as near infrared. They are not shown.
    SamplesPassedOver {
        /// The page.
        page: usize,
        /// How many there are for each pixel.
        samples: usize,
    },
}

impl fmt::Display for SlideWarning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OtherPage {
                page,
                pages,
                extent,
            } => write!(
                f,
                "page {page} of {pages} (from 0), {extent}, is taken as the slide: the largest of its shape"
            ),
            Self::PagesPassedOver { taken, pages } => write!(
                f,
                "page {taken} (from 0) is taken as the slide; pages {pages:?} are no smaller and are passed over"
            ),
            Self::SamplesPassedOver { page, samples } => write!(
                f,
                "pixels of page {page} (from 0) have {samples} samples that are neither colour nor transparency; these are passed over"
            ),
        }
    }
}
