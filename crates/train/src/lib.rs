//! Data sets, training loop, checkpoints, metrics and reports for gradient streaming
