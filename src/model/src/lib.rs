//! The words that all of flotilla uses: customers, bindings, bundles, digests, limits, diagnostics, and the seams to the platform and the clock. Knows no YAML, no templates, no state and no network.

pub mod atomic_file;
pub mod binding;
pub mod bundle;
pub mod cache;
pub mod clock;
pub mod credential;
pub mod customer;
pub mod diagnostic;
pub mod digest;
pub mod explanation;
pub mod failure;
pub mod fingerprint;
pub mod limits;
pub mod listing;
pub mod lock;
pub mod names;
pub mod paging;
pub mod platform;
pub mod preview;
pub mod progress;
pub mod reason;
pub mod selection;
pub mod spec;
pub mod tags;
pub mod text;
pub mod trace;
