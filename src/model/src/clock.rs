//! The seam to time.

use std::sync::Mutex;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, clock_gettime};

use crate::digest::Digest;

/// Returns a time of day, in seconds since 1970, as people and programs read it: `2026-11-29T18:24:39Z`.
pub fn timestamp(seconds: i64) -> String {
    let since = Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
    humantime::format_rfc3339_seconds(UNIX_EPOCH + since).to_string()
}

/// A clock, and a way to wait by it.
pub trait Clock: Send + Sync {
    /// Returns the time since some fixed moment; never goes back. All processes of a machine see the same.
    fn now(&self) -> Duration;
    /// Identifies the fixed moment of [`now`](Clock::now): it is another one after the machine was started again.
    fn epoch(&self) -> [u8; 16] {
        [0; 16]
    }
    /// Waits.
    fn sleep(&self, duration: Duration);
    /// Returns the time of day, in seconds since 1970.
    fn unix(&self) -> i64;
}

/// The machine's clock: the time since it was started, which can't be set. Time asleep counts.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

/// The clock that counts while the machine sleeps; macOS has it under the other's name.
#[cfg(target_os = "linux")]
const SINCE_START: ClockId = ClockId::Boottime;
#[cfg(not(target_os = "linux"))]
const SINCE_START: ClockId = ClockId::Monotonic;

impl SystemClock {
    /// Returns the machine's clock.
    pub fn new() -> SystemClock {
        SystemClock
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Duration {
        let time = clock_gettime(SINCE_START);
        Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec.unsigned_abs() as u32)
    }

    fn epoch(&self) -> [u8; 16] {
        // If the system doesn't report restarts, a time lower than before shows one, except after a long time.
        let start = std::fs::read("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        let mut epoch = [0; 16];
        epoch.copy_from_slice(&Digest::of(&start).to_bytes()[..16]);
        epoch
    }

    fn sleep(&self, duration: Duration) {
        std::thread::sleep(duration);
    }

    fn unix(&self) -> i64 {
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs() as i64)
    }
}

/// A clock for tests and rehearsals: waiting moves it, for all who share it.
#[derive(Default)]
pub struct FakeClock(Mutex<Duration>);

impl FakeClock {
    /// Moves it to a time; never back.
    pub fn reach(&self, time: Duration) {
        let mut now = self.0.lock().expect("BUG: a clock is never poisoned");
        *now = time.max(*now);
    }
}

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machines_clock_goes_on_and_is_one_for_all() {
        let (first, second) = (SystemClock::new(), SystemClock::new());
        let before = first.now();
        second.sleep(Duration::from_millis(2));
        let after = second.now();
        assert!(after >= before + Duration::from_millis(2) && after < before + Duration::from_secs(60));
        assert_eq!(first.epoch(), second.epoch());
    }
}
