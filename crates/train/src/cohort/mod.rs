//! Made-up cohorts of slides for training where no real slides are at hand.
//!
//! **Made-up data.** Each slide of lymph nodes is a section of a lymph node with lone lymphocytes, dense regions, and the folds, pen marks
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
//!
//! [`Subject`] says what slides show: lymph nodes with two classes or with four and five slides of each patient, or tumours whose
//! score is the density of mitotic figures. In a tumour a resting nucleus is the large one and a mitotic figure the cluster, so
//! that colour and cellularity are the same for every score, for the same reason. [`leak_check`] measures that: what a linear
//! model makes of colour and cellularity.
//!
//! [`textures`] makes pictures of ten classes that differ in texture, in the layout of Imagenette.

mod anatomy;
mod config;
mod leak;
mod manifest;
mod paint;
pub mod textures;
mod write;

pub use config::{
    AnatomyConfig, ArtefactConfig, Centre, CohortConfig, DiseaseChances, LooksConfig, SplitSizes,
    Subject,
};
pub use leak::{LeakCheck, leak_check};
pub use write::{CohortProgress, generate, samples};

#[cfg(test)]
mod tests;
