//! Shows: the sample fleet in real workerd.
