//! From a project's specs to out/: resolves, checks, renders, bundles, and remembers what it did. Knows no state and no network.

pub mod build;
pub mod check;
pub mod escape;
pub mod export;
pub mod git;
pub mod index;
pub mod manifest;
pub mod origin;
pub mod out;
pub mod policy;
pub mod render;
pub mod resolve;
pub mod runtime;
pub mod since;
pub mod syntax;
pub mod tally;
