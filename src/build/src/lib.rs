//! From a project's specs to out/: resolves, checks, renders, bundles, and records what it did. Knows no state and no
//! network.

pub mod assets;
pub mod build;
pub mod check;
pub mod escape;
pub mod export;
pub mod git;
pub mod index;
pub mod manifest;
pub mod out;
pub mod pack_bundle;
pub mod policy;
pub mod provenance;
pub mod render;
pub mod renderer;
pub mod resolve;
pub mod since;
pub mod stamp;
pub mod syntax;
pub mod usage;
pub mod wrangler_bundle;
