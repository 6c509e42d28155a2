//! Steps whose times are measured (`steps`), benchmarks of them (`benches`), their alternation between two builds
//! (`examples/alternation`), and the scripts that run other implementations for `cargo xtask compare` (`peers`).

pub mod steps;
