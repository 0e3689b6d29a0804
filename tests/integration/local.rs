//! Shows: the local Cloudflare as its clients see it: every operation, limits, faults, restarts, and workers that run.

mod api;
mod client;
mod guard;
mod limits;
mod serving;
mod triggers;
