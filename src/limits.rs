//! Limits that flotilla counts against: Cloudflare's, each with its source, and one of its own. Doesn't know who counts.

/// Workers in one account of a paid plan; a dispatch namespace has no such limit.
/// Source: Cloudflare docs, Workers › Platform › Limits › Number of Workers (2026).
pub const WORKERS_PER_ACCOUNT: usize = 500;

/// Variables and secrets of one worker, paid plan.
/// Source: Cloudflare docs, Workers › Platform › Limits › Environment variables (2026).
pub const VARIABLES_PER_WORKER: usize = 128;

/// The size of one variable or secret, in bytes.
/// Source: Cloudflare docs, Workers › Platform › Limits › Environment variables (2026): 5 KB.
pub const VARIABLE_BYTES: usize = 5 * 1024;

/// The length of a worker's name: it is a DNS label on workers.dev.
/// Source: RFC 1035, and wrangler's own check of worker names.
pub const WORKER_NAME_LENGTH: usize = 63;

/// The length of a DNS label, in bytes. Source: RFC 1035.
pub const LABEL_LENGTH: usize = 63;

/// The length of a host name, in bytes. Source: RFC 1035.
pub const HOST_LENGTH: usize = 253;

/// Requests of one token in one window of Cloudflare's API.
/// Source: Cloudflare docs, API › Reference › Limits (2026): 1,200 requests per five minutes and user; over it,
/// all calls are blocked for the next five minutes.
pub const API_REQUESTS: u32 = 1200;

/// The window of [`API_REQUESTS`], in seconds.
pub const API_WINDOW_SECONDS: u32 = 300;

/// Workers of one customer, and workers that all customers share. Ours, not Cloudflare's: nobody has so many roles, and what
/// refers to each other is followed from one to the next.
pub const WORKERS_PER_CUSTOMER: usize = 100;
