//! A made-up cohort of lymph-node slides for training where no real slides are at hand.
//!
//! **Made-up data.** Each slide is a section of a lymph node with lone lymphocytes, dense regions, and the folds, pen marks
//! and stains of several laboratories. Dense regions are filled with sites, and a site holds either one large vesicular
//! nucleus or a cluster of three small ones. In a positive slide the large nuclei make up *nests* (metastases); in a
//! negative one the same number of them is spread over all regions (reactive follicles).
//!
//! What makes accuracy rise with resolution, and nothing else:
//! - Large nucleus and cluster have the same area, perimeter and second moment, so a pixel of their size hardly tells one
//!   from the other.
//! - A negative slide is drawn as a positive one whose kinds of sites are then dealt out anew, so counts and colours have the
//!   same distribution in both classes at every resolution. Only the arrangement differs, and to see it one must tell
//!   the kinds apart. (A linear model on colour histograms stays at chance: a test holds that.)
//! - Centre, stain, size, folds and pen marks are drawn without regard to the label.

mod anatomy;
mod config;
mod paint;
mod write;

pub use config::{AnatomyConfig, ArtefactConfig, Centre, CohortConfig, DiseaseChances, SplitSizes};
pub use write::{CohortProgress, generate};

#[cfg(test)]
mod tests;
