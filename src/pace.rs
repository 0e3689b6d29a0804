//! Keeps the requests of one token below its limit. Knows time and counts; doesn't know what is requested.
//!
//! A log of the last window's requests: at most so many in any window of that length, whatever the platform's own
//! window begins with. That uses the whole quota, and starts at once when little was sent before.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::time::Duration;

use crate::clock::Clock;
use crate::limits;
use crate::platform::Quota;
use crate::spec::ApiLimit;

/// The share of a limit that is left for people, if fleet.yaml doesn't say: dashboards and scripts of the same user
/// count against the same limit.
const HEADROOM: f64 = 0.05;

/// How long to wait after a 429 that doesn't say.
const UNTOLD_WAIT: Duration = Duration::from_secs(10);

/// What a lane may send.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rate {
    /// So many requests…
    pub requests: usize,
    /// … in any window of this length.
    pub window: Duration,
    /// So many are left to others.
    pub reserve: u64,
}

impl Rate {
    /// The rate of an account: its limit, less the headroom.
    pub fn new(limit: Option<ApiLimit>) -> Rate {
        let (requests, seconds) =
            limit.map_or((limits::API_REQUESTS, limits::API_WINDOW_SECONDS), |limit| (limit.requests, limit.seconds));
        let headroom = limit.and_then(|limit| limit.headroom).unwrap_or(HEADROOM);
        let reserve = (f64::from(requests) * headroom).floor();
        Rate {
            requests: (f64::from(requests) - reserve).max(1.0) as usize,
            window: Duration::from_secs(u64::from(seconds)),
            reserve: reserve as u64,
        }
    }

    /// How long so many requests wait for the limit, if nothing was sent before.
    pub fn wait(&self, requests: usize) -> Duration {
        self.window * u32::try_from(requests.saturating_sub(1) / self.requests).unwrap_or(u32::MAX)
    }
}

/// The queue of one token's requests.
pub struct Lane {
    rate: Rate,
    sent: Mutex<Sent>,
}

#[derive(Default)]
struct Sent {
    times: VecDeque<Duration>,
    blocked_until: Duration,
}

impl Lane {
    /// A lane that has sent nothing yet.
    pub fn new(rate: Rate) -> Lane {
        Lane { rate, sent: Mutex::default() }
    }

    /// Waits until a request may be sent, and counts it; false if `stop` said so meanwhile.
    pub fn acquire(&self, clock: &dyn Clock, stop: &dyn Fn() -> bool) -> bool {
        loop {
            if stop() {
                return false;
            }
            let Some(wait) = self.reserve(clock.now()) else { return true };
            // In short naps, so that a stop is heard.
            clock.sleep(wait.min(Duration::from_millis(200)));
        }
    }

    fn reserve(&self, now: Duration) -> Option<Duration> {
        let mut sent = self.lock();
        if now < sent.blocked_until {
            return Some(sent.blocked_until - now);
        }
        while sent.times.front().is_some_and(|time| now.saturating_sub(*time) >= self.rate.window) {
            sent.times.pop_front();
        }
        if sent.times.len() >= self.rate.requests {
            return Some(sent.times[0] + self.rate.window - now);
        }
        sent.times.push_back(now);
        None
    }

    /// What the platform says is left. Others use the same quota: when only their share is left, the lane waits.
    pub fn observe(&self, quota: Quota, clock: &dyn Clock) {
        if quota.remaining <= self.rate.reserve.min(self.rate.requests as u64) {
            self.block(clock.now() + quota.reset);
        }
    }

    /// A 429: nothing goes out before it is over.
    pub fn throttled(&self, retry_after: Option<Duration>, clock: &dyn Clock) {
        self.block(clock.now() + retry_after.unwrap_or(UNTOLD_WAIT));
    }

    fn block(&self, until: Duration) {
        let mut sent = self.lock();
        sent.blocked_until = sent.blocked_until.max(until);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Sent> {
        self.sent.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::FakeClock;
    use proptest::prelude::*;

    fn lane(requests: usize, seconds: u64) -> Lane {
        Lane::new(Rate { requests, window: Duration::from_secs(seconds), reserve: 2 })
    }

    #[test]
    fn the_default_rate_leaves_room_for_people() {
        let rate = Rate::new(None);
        assert_eq!((rate.requests, rate.window.as_secs(), rate.reserve), (1140, 300, 60));
        assert_eq!(rate.wait(1140).as_secs(), 0);
        assert_eq!(rate.wait(100_000).as_secs(), 87 * 300);
    }

    proptest! {
        #[test]
        fn no_window_ever_holds_more_than_the_limit(pauses in proptest::collection::vec(0u64..3000, 1..300)) {
            let (clock, lane) = (FakeClock::default(), lane(20, 10));
            let mut times = Vec::new();
            for pause in pauses {
                clock.sleep(Duration::from_millis(pause));
                assert!(lane.acquire(&clock, &|| false));
                times.push(clock.now());
            }
            for window in times.windows(21) {
                prop_assert!(window[20] - window[0] >= Duration::from_secs(10));
            }
        }
    }

    #[test]
    fn a_429_stops_the_lane_until_it_is_over() {
        let (clock, lane) = (FakeClock::default(), lane(20, 10));
        lane.throttled(Some(Duration::from_secs(7)), &clock);
        assert!(lane.acquire(&clock, &|| false));
        assert!(clock.now() >= Duration::from_secs(7));
    }

    #[test]
    fn a_quota_that_others_used_up_is_waited_for() {
        let (clock, lane) = (FakeClock::default(), lane(20, 10));
        lane.observe(Quota { remaining: 3, reset: Duration::from_secs(5) }, &clock);
        assert!(lane.acquire(&clock, &|| false) && clock.now() == Duration::ZERO);
        lane.observe(Quota { remaining: 2, reset: Duration::from_secs(5) }, &clock);
        assert!(lane.acquire(&clock, &|| false) && clock.now() >= Duration::from_secs(5));
    }

    #[test]
    fn a_stop_ends_the_waiting() {
        let (clock, lane) = (FakeClock::default(), lane(1, 1000));
        assert!(lane.acquire(&clock, &|| false));
        assert!(!lane.acquire(&clock, &|| clock.now() > Duration::from_secs(1)));
    }
}
