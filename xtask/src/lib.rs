//! What both binaries of `cargo xtask` share: the command line, set-up, and entering heavier programs.
//!
//! `xtask` compiles in seconds and needs no system library; the heavy commands live in `xtask-pipelines`, which
//! it builds in release mode and becomes.

pub mod arguments;
pub mod features_command;
pub mod reenter;
pub mod setup;
pub mod test_command;

#[cfg(all(doctest, feature = "pipelines"))]
#[doc = include_str!("../../README.md")]
struct ReadmeExample;
