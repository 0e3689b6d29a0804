//! The limits of the platform: how many requests a token may make, how many and how large resources an account may
//! hold. Knows numbers, their sources and the counting of requests; not what a request is for.

use std::collections::HashMap;
use std::time::Duration;

/// The API rate limit of one token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateLimit {
    /// Requests per window. 1,200 (Cloudflare docs, API rate limits, 2026: per user or account token).
    pub requests: u64,
    /// The window, and how long every call is refused once the quota was exceeded. 300 s (same page: "all API calls
    /// for the next five minutes will be blocked").
    pub window: Duration,
}

impl Default for RateLimit {
    fn default() -> Self {
        Self { requests: 1200, window: Duration::from_secs(300) }
    }
}

/// The verdict on one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verdict {
    /// Requests left in this window.
    pub remaining: u64,
    /// Seconds until the quota is full again, rounded up.
    pub reset: u64,
    /// The request is refused.
    pub blocked: bool,
}

/// Counts requests per key. A window begins with its first request; the request that exceeds the quota begins a block
/// of a whole window, whatever was left of the window. Where Cloudflare counts in a sliding window, this is stricter at
/// no point within one window and laxer at the seam of two.
#[derive(Debug, Default)]
pub struct Meter {
    windows: HashMap<String, Window>,
}

#[derive(Debug)]
struct Window {
    ends: Duration,
    used: u64,
    blocked: bool,
}

impl Meter {
    /// Counts one request of `key` at the time `now` (since any fixed moment).
    pub fn count(&mut self, limit: RateLimit, key: &str, now: Duration) -> Verdict {
        if !self.windows.contains_key(key) {
            // A token's window is forgotten once over, so that many one-off tokens don't fill the memory.
            self.windows.retain(|_, window| window.ends > now);
            self.windows.insert(key.to_owned(), Window { ends: now + limit.window, used: 0, blocked: false });
        }
        let Some(window) = self.windows.get_mut(key) else { unreachable!("BUG: inserted above") };
        if window.ends <= now {
            *window = Window { ends: now + limit.window, used: 0, blocked: false };
        }
        if !window.blocked && window.used >= limit.requests {
            *window = Window { ends: now + limit.window, used: window.used, blocked: true };
        }
        if !window.blocked {
            window.used += 1;
        }
        let left = window.ends.saturating_sub(now);
        Verdict {
            remaining: if window.blocked { 0 } else { limit.requests - window.used },
            reset: left.as_secs() + u64::from(left.subsec_nanos() > 0),
            blocked: window.blocked,
        }
    }
}

/// The limits of an account, a worker and a zone. The defaults are those of the paid plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlatformLimits {
    /// Workers per account outside dispatch namespaces: 500 (docs, Workers limits, 2026; 100 on the free plan).
    pub workers: u64,
    /// Bytes of all modules of one worker: 64 MiB uncompressed (docs, Workers limits, 2026; wrangler 4.164 checks the same).
    pub script_bytes: usize,
    /// Variables and secrets per worker: 128 (docs, Workers limits, 2026; 64 on the free plan).
    pub vars: usize,
    /// Bytes of one variable or secret: 5 KB (docs, Workers limits, 2026), taken as 5,120.
    pub var_bytes: usize,
    /// Routes per zone: 1,000 (docs, Workers limits, 2026).
    pub routes: u64,
    /// Custom domains per zone: 100 (docs, Workers limits, 2026).
    pub domains: u64,
    /// Cron triggers per account: 250 (docs, Workers limits, 2026; 5 on the free plan).
    pub crons: u64,
    /// Tags per worker: 8 (docs, Workers for Platforms limits, 2026; applied to account-level workers too, where no
    /// number is documented).
    pub tags: usize,
    /// Static assets per version: 100,000 (docs, Workers limits, 2026; 20,000 on the free plan).
    pub asset_files: usize,
    /// Databases per account: 50,000 (docs, D1 limits, 2026).
    pub databases: u64,
    /// Versions kept per worker: 100, the number that one can roll back to (changelog of 2025-09-11).
    pub versions: u64,
}

impl Default for PlatformLimits {
    fn default() -> Self {
        Self {
            workers: 500,
            script_bytes: 64 << 20,
            vars: 128,
            var_bytes: 5 << 10,
            routes: 1000,
            domains: 100,
            crons: 250,
            tags: 8,
            asset_files: 100_000,
            databases: 50_000,
            versions: 100,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: RateLimit = RateLimit { requests: 3, window: Duration::from_secs(300) };

    #[test]
    fn the_request_over_the_quota_blocks_for_a_whole_window() {
        let mut meter = Meter::default();
        let mut at = |seconds: u64| meter.count(LIMIT, "a", Duration::from_secs(seconds));
        assert_eq!(at(0), Verdict { remaining: 2, reset: 300, blocked: false });
        assert_eq!(at(10).remaining, 1);
        assert_eq!(at(20).remaining, 0);
        assert_eq!(at(100), Verdict { remaining: 0, reset: 300, blocked: true });
        assert_eq!(at(399), Verdict { remaining: 0, reset: 1, blocked: true }, "a refused request doesn't prolong it");
        assert_eq!(at(400), Verdict { remaining: 2, reset: 300, blocked: false });
    }

    #[test]
    fn keys_are_counted_apart_and_windows_end() {
        let mut meter = Meter::default();
        for _ in 0..3 {
            meter.count(LIMIT, "a", Duration::ZERO);
        }
        assert_eq!(meter.count(LIMIT, "b", Duration::ZERO).remaining, 2);
        assert!(!meter.count(LIMIT, "a", Duration::from_secs(300)).blocked);
    }
}
