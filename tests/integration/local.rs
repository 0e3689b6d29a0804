//! Shows: the local Cloudflare as its clients see it: every operation, limits, faults, restarts, and workers that run.

mod api;
mod browser;
mod client;
mod guard;
mod handlers;
mod limits;
mod page;
mod serving;
mod tails;
mod triggers;
mod zone_settings;
