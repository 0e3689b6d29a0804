//! The seam to time.

use std::sync::Mutex;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// A clock, and a way to wait by it.
pub trait Clock: Send + Sync {
    /// The time since some fixed moment; never goes back.
    fn now(&self) -> Duration;
    /// Waits.
    fn sleep(&self, duration: Duration);
    /// The time of day, in seconds since 1970.
    fn unix(&self) -> i64;
}

/// The machine's clock.
pub struct SystemClock(Instant);

impl SystemClock {
    /// Starts now.
    pub fn new() -> SystemClock {
        SystemClock(Instant::now())
    }
}

impl Default for SystemClock {
    fn default() -> SystemClock {
        SystemClock::new()
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Duration {
        self.0.elapsed()
    }

    fn sleep(&self, duration: Duration) {
        std::thread::sleep(duration);
    }

    fn unix(&self) -> i64 {
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs() as i64)
    }
}

/// A clock for tests: waiting moves it.
#[derive(Default)]
pub struct FakeClock(Mutex<Duration>);

impl Clock for FakeClock {
    fn now(&self) -> Duration {
        *self.0.lock().expect("BUG: a clock is never poisoned")
    }

    fn sleep(&self, duration: Duration) {
        *self.0.lock().expect("BUG: a clock is never poisoned") += duration;
    }

    fn unix(&self) -> i64 {
        1_800_000_000 + self.now().as_secs() as i64
    }
}
