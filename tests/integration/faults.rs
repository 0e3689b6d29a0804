//! Shows what a deploy does when the platform fails.
