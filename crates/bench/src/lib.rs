//! Benchmarks and comparisons with other implementations
