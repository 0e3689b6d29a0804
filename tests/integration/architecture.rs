//! Shows: holds the modules to the layers of ARCHITECTURE.md.
