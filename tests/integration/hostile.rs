//! Shows: hostile values, canaries, determinism.
