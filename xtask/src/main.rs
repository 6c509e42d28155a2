//! Set-up, tests and reproduction pipelines: `cargo xtask --help`.
fn main() {}
