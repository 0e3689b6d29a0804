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
    let seconds = since_epoch.as_secs();
    let (year, month, day) = civil(seconds / 86_400);
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:06}Z", since_epoch.subsec_micros())
}

/// The proleptic Gregorian date of a day since 1970-01-01, counted in years that begin on March 1st so that the leap
/// day is the last.
fn civil(day: u64) -> (u64, u64, u64) {
    let day = day + 719_468;
    let (era, of_era) = (day / 146_097, day % 146_097);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let march_month = (5 * of_year + 2) / 153;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    (year + era * 400 + u64::from(month <= 2), month, of_year - (153 * march_month + 2) / 5 + 1)
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
