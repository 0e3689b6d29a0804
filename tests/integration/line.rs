//! Shows: the line from files to deployed workers.
