//! Receptive-field and tile mathematics for exact gradient streaming, in integers
