//! From bundles to deployed workers: plan, state, pacing, Cloudflare's API and the deploy loop. Sees no spec and
//! renders nothing.

pub mod cloudflare;
pub mod deploy;
pub mod pace;
pub mod plan;
pub mod refresh;
pub mod requester;
pub mod retry;
pub mod rotation;
pub mod safety;
pub mod state;
pub mod tail;
pub mod undo;
pub mod verify;
