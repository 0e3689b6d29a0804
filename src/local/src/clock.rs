//! Time as the API writes it. Knows the calendar; not what is timed.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The time since 1970-01-01 UTC. Injected so that tests need not wait five minutes.
pub type Clock = Arc<dyn Fn() -> Duration + Send + Sync>;

/// The machine's clock.
#[must_use]
pub fn machine() -> Clock {
    Arc::new(|| SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default())
}

/// RFC 3339 in UTC with microseconds, the form of Cloudflare's answers: `2026-11-21T06:30:00.000000Z`.
#[must_use]
pub fn stamp(since_epoch: Duration) -> String {
    humantime::format_rfc3339_micros(UNIX_EPOCH + since_epoch).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates() {
        for (seconds, expect) in [
            (0, "1970-01-01T00:00:00.000000Z"),
            (951_782_400, "2000-02-29T00:00:00.000000Z"),
            (1_795_242_600, "2026-11-21T06:30:00.000000Z"),
            (4_107_542_399, "2100-02-28T23:59:59.000000Z"),
            (4_107_542_400, "2100-03-01T00:00:00.000000Z"),
        ] {
            assert_eq!(stamp(Duration::from_secs(seconds)), expect);
        }
    }
}
