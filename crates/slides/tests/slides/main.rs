//! The crate as its users see it: on real and broken files, against other programs' values, and its examples.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    reason = "a test: small numbers, and a panic is how it fails"
)]

mod broken_files;
mod color_profiles;
#[path = "../common/mod.rs"]
mod common;
mod corpus;
mod examples;
mod golden;
mod heatmaps;
mod layouts;
mod limits;
mod pyramids;
mod real_slide;
mod tiff_compressions;
mod tiff_kinds;
mod tiff_pages;
mod views;
