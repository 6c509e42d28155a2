//! Benchmarks of what governs the cost of a step (`benches`), and the scripts that run other implementations for
//! `cargo xtask compare` (`peers`).
