//! The counts of a token's requests: those in flight, and those that were answered, in each window that matters.
//! Knows neither clocks nor files.
//!
//! The platform counts a request some time between its sending and its answer, and doesn't report when. So it counts here from its sending
//! until a window after its response: then no window of the platform ever contains more requests than this one.

use std::time::Duration;

use super::Priority;

/// A moment, or a length of time, in nanoseconds.
pub(super) type Nanos = u64;

/// The buckets of a window. A request counts for up to one of them too long: a six-hundredth of the quota at most.
pub(super) const BUCKETS: u64 = 600;
/// The number of windows that are kept: the one of fleet.yaml, and those that the platform reports.
pub(super) const WINDOWS: usize = 4;
/// The longest time that a request can be in flight: its sender gives up earlier.
pub(super) const FLIGHT: Duration = Duration::from_secs(150);
/// The buckets of the requests on their way.
const FLIGHT_BUCKETS: u64 = 50;
/// The time for which a class of requests is waited for after its last claim: longer than the pauses between the
/// requests of one command.
pub(super) const YIELD: Duration = Duration::from_secs(2);
/// The longest time for which a response can stop the lane, and the longest window that one can report: an hour. Cloudflare's have five
/// minutes. A server that responds in its place can't block a token for longer, and a genuine response with a longer time is repeated.
pub(super) const LONGEST: Nanos = 3_600 * 1_000_000_000;
/// The first wait after a 429 without a `retry-after`, and the longest one. It doubles each time.
const UNTOLD: (Nanos, Nanos) = (10 * 1_000_000_000, 300 * 1_000_000_000);

/// Nanoseconds; five centuries are long enough.
pub(super) fn nanos(duration: Duration) -> Nanos {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX / 4).min(u64::MAX / 4)
}

/// The counts of the most recent buckets of time. Older ones are dropped.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Ring {
    /// The length of a bucket.
    bucket: Nanos,
    /// The number of the newest bucket, from the clock's beginning.
    pub(super) newest: u64,
    pub(super) counts: Vec<u32>,
    sum: u64,
}

impl Ring {
    /// A ring that keeps what happened for at least this time, and for at most one bucket more.
    fn new(length: Nanos, buckets: u64) -> Ring {
        Ring { bucket: length.div_ceil(buckets).max(1), newest: 0, counts: vec![0; buckets as usize + 1], sum: 0 }
    }

    /// A ring with these counts.
    fn of(length: Nanos, buckets: u64, newest: u64, counts: Vec<u32>) -> Ring {
        let sum = counts.iter().map(|count| u64::from(*count)).sum();
        Ring { newest, counts, sum, ..Ring::new(length, buckets) }
    }

    fn slots(&self) -> u64 {
        self.counts.len() as u64
    }

    /// Drops the buckets that are too old; `gone` is called with each one's time of expiry and count.
    fn advance(&mut self, now: Nanos, mut gone: impl FnMut(Nanos, u32)) {
        let (tick, slots) = (now / self.bucket, self.slots());
        if tick <= self.newest {
            return;
        }
        for newer in tick.saturating_sub(slots - 1).max(self.newest + 1)..=tick {
            let slot = (newer % slots) as usize;
            let count = std::mem::take(&mut self.counts[slot]);
            if count > 0 {
                let older = newer - (newer - self.newest).div_ceil(slots) * slots;
                self.sum -= u64::from(count);
                gone(self.leaves(older), count);
            }
        }
        self.newest = tick;
    }

    /// Returns the time at which a bucket expires.
    fn leaves(&self, tick: u64) -> Nanos {
        (tick + self.slots()).saturating_mul(self.bucket)
    }

    /// Counts what happened at a time, if that isn't too old.
    fn add(&mut self, at: Nanos, count: u32) {
        let tick = (at / self.bucket).min(self.newest);
        if self.newest - tick < self.slots() {
            let slot = (tick % self.slots()) as usize;
            self.counts[slot] += count;
            self.sum += u64::from(count);
        }
    }

    /// Removes one that was counted at a time, if it is still counted.
    fn remove(&mut self, at: Nanos) {
        let tick = (at / self.bucket).min(self.newest);
        let slot = (tick % self.slots()) as usize;
        if self.newest - tick < self.slots() && self.counts[slot] > 0 {
            self.counts[slot] -= 1;
            self.sum -= 1;
        }
    }

    /// The buckets that aren't empty, the oldest first.
    fn buckets(&self) -> impl Iterator<Item = (u64, u32)> {
        let slots = self.slots();
        (self.newest.saturating_sub(slots - 1)..=self.newest)
            .map(move |tick| (tick, self.counts[(tick % slots) as usize]))
            .filter(|(_, count)| *count > 0)
    }

    /// Returns the time at which this number will have expired. Those that aren't counted yet can't expire before a
    /// request that is sent now.
    fn when_gone(&self, number: u64) -> Nanos {
        let mut left = 0;
        for (tick, count) in self.buckets() {
            left += u64::from(count);
            if left >= number {
                return self.leaves(tick);
            }
        }
        self.leaves(self.newest)
    }
}

/// A window, and what was answered in it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Window {
    /// Its length.
    pub(super) length: Nanos,
    /// The quota that the platform reports for windows of this length; 0 if it reports none.
    pub(super) reported: u64,
    /// The number of requests that the platform counted and nobody here sent…
    pub(super) foreign: u64,
    /// … in a window that is over then.
    pub(super) foreign_until: Nanos,
    pub(super) answered: Ring,
}

impl Window {
    /// A window in which nothing was sent.
    pub(super) fn new(length: Nanos) -> Window {
        Window { length, reported: 0, foreign: 0, foreign_until: 0, answered: Ring::new(length, BUCKETS) }
    }

    /// A window with these counts.
    pub(super) fn of(length: Nanos, newest: u64, counts: Vec<u32>) -> Window {
        Window { answered: Ring::of(length, BUCKETS, newest, counts), ..Window::new(length) }
    }

    /// Returns the longest time for which a request counts in the window.
    pub(super) fn counts_for(&self) -> Nanos {
        self.length.saturating_add(self.answered.bucket)
    }

    /// The number of counts of each window.
    pub(super) const COUNTS: usize = BUCKETS as usize + 1;
}

/// The knowledge of each window when a request is sent.
pub(super) type Gone = [(Nanos, u64); WINDOWS];

/// The counts of a token.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Ledger {
    /// Requests that were ever sent.
    pub(super) sent: u64,
    /// The time before which nothing is sent.
    pub(super) blocked_until: Nanos,
    /// The number of 429s in a row, each after the wait that the one before required.
    pub(super) strikes: u32,
    /// The times until which each class is waited for by those behind it. No class is behind the last one.
    pub(super) claims: [Nanos; 2],
    /// Requests on their way, by the time of their sending.
    pub(super) flight: Ring,
    pub(super) windows: Vec<Window>,
}

impl Ledger {
    /// The number of counts of requests on their way.
    pub(super) const FLIGHTS: usize = FLIGHT_BUCKETS as usize + 1;

    /// Returns an empty ledger.
    pub(super) fn new() -> Ledger {
        Ledger::of(0, vec![0; Ledger::FLIGHTS])
    }

    /// Returns a ledger with these requests in flight.
    pub(super) fn of(newest: u64, counts: Vec<u32>) -> Ledger {
        let flight = Ring::of(nanos(FLIGHT), FLIGHT_BUCKETS, newest, counts);
        Ledger { sent: 0, blocked_until: 0, strikes: 0, claims: [0; 2], flight, windows: Vec::new() }
    }

    /// Drops what has expired. Requests that were in flight for longer than any timeout count as answered now.
    pub(super) fn advance(&mut self, now: Nanos) {
        let mut lost = Vec::new();
        self.flight.advance(now, |index, count| lost.push((index, count)));
        for window in &mut self.windows {
            window.answered.advance(now, |_, _| {});
            for (index, count) in &lost {
                window.answered.add(*index, *count);
            }
            if now >= window.foreign_until {
                window.foreign = 0;
            }
        }
    }

    /// Begins to count in windows of this length, too. What was sent before is taken from the window that knows most of it.
    pub(super) fn watch(&mut self, length: Nanos, now: Nanos) {
        if self.windows.iter().any(|window| window.length == length) {
            return;
        }
        let mut window = Window::new(length);
        window.answered.advance(now, |_, _| {});
        let longer = self.windows.iter().filter(|other| other.length >= length).min_by_key(|other| other.length);
        if let Some(other) = longer.or_else(|| self.windows.iter().max_by_key(|other| other.length)) {
            for (tick, count) in other.answered.buckets() {
                // At the end of the bucket at the latest.
                window.answered.add(((tick + 1) * other.answered.bucket - 1).min(now), count);
            }
        }
        if self.windows.len() == WINDOWS {
            // One that is no longer reported; the lanes that watch it will watch it again.
            let oldest = self.windows.iter().position(|window| window.reported == 0).unwrap_or(0);
            self.windows.remove(oldest);
        }
        self.windows.push(window);
    }

    /// Returns the number of requests that count in a window: those that were answered, those in flight, those of
    /// others.
    pub(super) fn used(&self, window: &Window) -> u64 {
        window.answered.sum + self.flight.sum + window.foreign
    }

    /// Returns the time at which one more fits into a window with this limit; zero if it does now.
    pub(super) fn free_at(&self, window: &Window, limit: u64) -> Nanos {
        let (used, limit) = (self.used(window), limit.max(1));
        let too_many = |used: u64| (used + 1).saturating_sub(limit);
        if too_many(used) == 0 {
            return 0;
        }
        let ours = window.answered.when_gone(too_many(used));
        if window.foreign == 0 {
            return ours;
        }
        // Once the requests of others have expired, fewer of this fleet's have to expire.
        let then = too_many(used - window.foreign);
        ours.min(window.foreign_until.max(if then == 0 { 0 } else { window.answered.when_gone(then) }))
    }

    /// Counts a request that is sent now. Gives, for each window, how many of all requests no longer count in it.
    pub(super) fn send(&mut self, now: Nanos) -> Gone {
        self.sent += 1;
        self.flight.add(now, 1);
        let mut gone = Gone::default();
        for (slot, window) in gone.iter_mut().zip(&self.windows) {
            *slot = (window.length, self.sent.saturating_sub(window.answered.sum + self.flight.sum));
        }
        gone
    }

    /// The time until which a class waits for those before it.
    pub(super) fn yields_until(&self, priority: Priority) -> Nanos {
        self.claims.iter().take(priority as usize).copied().max().unwrap_or(0)
    }

    /// Claims the next permits for a class that will try again at `again` at the latest. Returns whether that is new.
    pub(super) fn claim(&mut self, priority: Priority, again: Nanos) -> bool {
        let Some(claim) = self.claims.get_mut(priority as usize) else { return false };
        let until = again.saturating_add(nanos(YIELD));
        let new = until > *claim;
        *claim = until.max(*claim);
        new
    }

    /// A class is done. Returns whether that is new. If several processes are of one class, the others claim it when they poll next.
    pub(super) fn release(&mut self, priority: Priority, now: Nanos) -> bool {
        let Some(claim) = self.claims.get_mut(priority as usize).filter(|claim| **claim > now) else { return false };
        *claim = now;
        true
    }

    /// Removes a request that was counted at a time and not sent after all.
    pub(super) fn take_back(&mut self, sent: Nanos) {
        self.sent = self.sent.saturating_sub(1);
        self.flight.remove(sent);
    }

    /// Counts the answer to a request that was sent at a time.
    pub(super) fn answer(&mut self, sent: Nanos, now: Nanos) {
        self.flight.remove(sent);
        for window in &mut self.windows {
            window.answered.add(now, 1);
        }
    }

    /// For estimates: answers now what is in flight.
    pub(super) fn land(&mut self, now: Nanos) {
        let count = std::mem::replace(&mut self.flight, Ledger::new().flight).sum;
        self.sent_at_once(now, count);
    }

    /// For estimates: sends and answers this number of requests now.
    pub(super) fn sent_at_once(&mut self, now: Nanos, count: u64) {
        for window in &mut self.windows {
            window.answered.advance(now, |_, _| {});
            window.answered.add(now, u32::try_from(count).unwrap_or(u32::MAX));
        }
    }

    /// For estimates: moves all answers by this time.
    pub(super) fn shift(&mut self, by: Nanos) {
        for window in &mut self.windows {
            let ring = &window.answered;
            let (ticks, mut counts) = (by / ring.bucket, vec![0; ring.counts.len()]);
            for (tick, count) in ring.buckets() {
                counts[((tick + ticks) % ring.slots()) as usize] = count;
            }
            window.answered = Ring::of(window.length, BUCKETS, ring.newest + ticks, counts);
        }
    }

    /// A request came through: the platform blocks no more.
    pub(super) fn passed(&mut self, sent: Nanos) {
        if sent >= self.blocked_until {
            self.strikes = 0;
        }
    }

    /// Replaces the limits that the platform reports; limits that it no longer reports are dropped.
    pub(super) fn set_limits(&mut self, limits: &[(Nanos, u64)], now: Nanos) {
        for window in &mut self.windows {
            let quotas = limits.iter().filter(|(length, _)| *length == window.length).map(|(_, quota)| *quota);
            window.reported = quotas.min().unwrap_or(0);
        }
        for (length, quota) in limits.iter().take(WINDOWS - 1) {
            self.watch(*length, now);
            let window = self.windows.iter_mut().find(|window| window.length == *length);
            let window = window.expect("BUG: it is watched");
            window.reported = if window.reported == 0 { *quota } else { window.reported.min(*quota) };
        }
    }

    /// Records what the platform reports to be left of a window, in the answer to a request that was sent when `gone`
    /// no longer counted.
    ///
    /// Requests of this lane that it counted either counted here when that request was sent, or were sent since. The rest belongs to
    /// others.
    pub(super) fn left(&mut self, length: Nanos, left: u64, reset: Nanos, gone: &Gone, now: Nanos) {
        let Some((_, gone)) = gone.iter().find(|(other, _)| *other == length) else { return };
        let ours = self.sent.saturating_sub(*gone);
        let Some(window) = self.windows.iter_mut().find(|window| window.length == length && window.reported > 0) else {
            return;
        };
        let foreign = window.reported.saturating_sub(left).saturating_sub(ours);
        if foreign > 0 && foreign >= window.foreign {
            (window.foreign, window.foreign_until) = (foreign, now + reset.min(length).min(LONGEST));
        }
    }

    /// Blocks the lane for a time.
    pub(super) fn block(&mut self, wait: Nanos, now: Nanos) {
        self.blocked_until = self.blocked_until.max(now + wait.min(LONGEST));
    }

    /// Records a 429 for a request that was sent at a time. Returns whether it is a new block.
    pub(super) fn throttle(&mut self, sent: Nanos, retry_after: Option<Nanos>, now: Nanos) -> bool {
        // The response to a request that was sent before the block only reports the same block again.
        let again = sent < self.blocked_until;
        if !again {
            self.strikes = self.strikes.saturating_add(1);
        }
        match retry_after.filter(|wait| *wait > 0) {
            Some(wait) => self.block(wait, now),
            None if again => {}
            None => self.block((UNTOLD.0 << (self.strikes - 1).min(8)).min(UNTOLD.1), now),
        }
        !again
    }
}
