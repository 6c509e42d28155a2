//! A made-up cohort of lymph-node slides for training where no real slides are at hand.
//!
//! **Made-up data.** Each slide is a section of a lymph node with lone lymphocytes, dense regions, and the folds, pen marks
//! and stains of several laboratories. Dense regions are filled with sites, and a site holds either one large vesicular
//! nucleus or a cluster of three small ones. In follicles nearly all sites hold clusters, and some large reactive nuclei
//! stand among them; in a positive slide one region or more, or half of one, is a nest of large nuclei: a metastasis.
//!
//! What makes accuracy rise with resolution, and nothing else:
//! - Large nucleus and cluster have the same area, perimeter and second moment, so mean colour and amount of edge agree, and a
//!   pixel of their size hardly tells one from the other.
//! - Size, density and crowding of nuclei, stain and focus vary from slide to slide and from region to region by more than
//!   the kinds differ in contrast. (A linear model on colour histograms stays near chance at every resolution: a test holds
//!   that.)
//! - Centre, stain, size, folds and pen marks are drawn without regard to the label.

mod anatomy;
mod config;
mod paint;
mod write;

pub use config::{
    AnatomyConfig, ArtefactConfig, Centre, CohortConfig, DiseaseChances, LooksConfig, SplitSizes,
};
pub use write::{CohortProgress, generate};

#[cfg(test)]
mod tests;
