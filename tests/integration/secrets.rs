//! Shows that secrets stay secret.
