//! Keeps the requests of one token below its limits. Knows time and counts; doesn't know what is requested.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};

use self::file::Shared;
use self::ledger::{Gone, Ledger, Nanos, Window, nanos};
use flotilla_model::cache;
use flotilla_model::clock::Clock;
use flotilla_model::digest::Framed;
use flotilla_model::failure::Failure;
use flotilla_model::limits;
use flotilla_model::platform::Quota;
use flotilla_model::spec::ApiLimit;

mod file;
mod ledger;

/// The share of a limit that is left for people, if fleet.yaml doesn't say: dashboards and scripts of the same user
/// count against the same limit.
const HEADROOM: f64 = 0.05;

/// The assumed latency of an answer, in seconds, until one was seen: that of an upload to Cloudflare.
const UNSEEN: f64 = 1.0;

/// The maximum and minimum number of concurrent requests of a lane.
const AT_ONCE: (f64, f64) = (64.0, 4.0);
/// The factor by which a lane may exceed the average rate of its limit: what a window holds is used early, and what was missed is caught up
/// with.
const BURST: f64 = 16.0;

/// The maximum number of steps of a rehearsal: a fleet's rest is counted by the rate.
const REHEARSED: usize = 20_000;

/// The rate limit of a lane.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rate {
    /// The number of requests…
    pub requests: usize,
    /// … in any window of this length.
    pub window: Duration,
    /// The number of requests that are left to others. The same share is left of each limit that the platform
    /// reports.
    pub reserve: u64,
    /// Whether the limit is a default: where the platform reports limits of its own, they count instead.
    pub assumed: Option<Assumed>,
}

/// The reported limits that replace a default.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Assumed {
    /// Limits of a window that is at least as long as the default's: Cloudflare's documented limit holds beside a shorter one.
    Documented,
    /// All limits: the local emulator has no other limit than the one that it reports.
    Reported,
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
            assumed: limit.is_none().then_some(Assumed::Documented),
        }
    }

    /// The same rate for the local emulator: where fleet.yaml says nothing, its own limit holds.
    #[must_use]
    pub fn of_emulator(self) -> Rate {
        Rate { assumed: self.assumed.map(|_| Assumed::Reported), ..self }
    }

    /// A rate without headroom.
    pub fn of(requests: usize, window: Duration) -> Rate {
        Rate { requests, window, reserve: 0, assumed: None }
    }

    /// Returns the rest of a quota without the share of others.
    fn without_reserve(&self, quota: u64) -> u64 {
        let all = u128::from(self.reserve) + self.requests as u128;
        let reserve = u128::from(quota) * u128::from(self.reserve) / all.max(1);
        (quota - reserve as u64).max(1)
    }

    /// Returns how long this number of requests waits for the limit, if nothing was sent before.
    pub fn wait(&self, requests: usize) -> Duration {
        self.window * u32::try_from(requests.saturating_sub(1) / self.requests).unwrap_or(u32::MAX)
    }
}

/// The file in which all processes of this user share the budget of a token. Its name is a digest; the token isn't in it.
pub fn file(base: &str, token: &str) -> Result<PathBuf, Failure> {
    let name =
        Framed::new("lane").field(base.trim_end_matches('/').as_bytes()).field(token.as_bytes()).finish().short();
    Ok(cache::folder()?.join("lanes").join(name))
}

/// The class of a request where several processes, or several parts of one, share the limit of a token. A class waits
/// as long as a class before it waits for a permit or got one within the last seconds, so that what becomes free is
/// left to that one. Requests that were sent are never interrupted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Priority {
    /// A person waits for it: a plan, a lookup, the change of a few customers ahead of a deploy.
    #[default]
    Interactive,
    /// A deploy of any size, and what it lists and checks.
    Bulk,
    /// The periodic refresh of a whole fleet, which may take any time. Nothing sends with it yet; its place in the order is fixed
    /// here because processes of different versions share one file.
    Sweep,
}

/// A permit for one request. Give it back with what came: [`Lane::answered`] or [`Lane::throttled`]. One that is dropped counts
/// until its request can't be on its way any more, and then for a window.
#[derive(Debug)]
#[must_use]
pub struct Ticket {
    sent: Nanos,
    gone: Gone,
}

/// The usage of a lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// Requests that count in the present window, those on their way included; of the window that is fullest.
    pub used: u64,
    /// The number of requests that fit into the window.
    pub limit: u64,
    /// The length of the window.
    pub window: Duration,
    /// The time for which the platform lets nothing pass, after a 429 or because others used the quota; otherwise
    /// zero.
    pub blocked: Duration,
    /// The time for which another class of requests goes first.
    pub yields: Duration,
    /// The time after which the next request may be sent, as far as is known now: the longest of the waits.
    pub free_in: Duration,
}

/// The budget of one token.
pub struct Lane {
    rate: Rate,
    clock: Arc<dyn Clock>,
    priority: Priority,
    known: Mutex<LaneState>,
}

struct LaneState {
    ledger: Ledger,
    file: Option<Shared>,
    /// The latency of an answer, in seconds: a moving mean.
    latency: Option<f64>,
    /// The number of concurrent requests that the platform took without a 429.
    at_once: f64,
}

impl LaneState {
    fn new(file: Option<Shared>) -> LaneState {
        LaneState { ledger: Ledger::new(), file, latency: None, at_once: AT_ONCE.0 }
    }
}

impl Lane {
    /// A lane that has sent nothing yet, and that no other process knows.
    pub fn new(rate: Rate, clock: Arc<dyn Clock>) -> Lane {
        Lane { rate, clock, priority: Priority::Bulk, known: Mutex::new(LaneState::new(None)) }
    }

    /// A lane whose budget is in a file ([`file()`]): shared with other processes and with later runs. Where the file can't be
    /// kept, as on a disk that is only read, it is in memory alone.
    pub fn shared(rate: Rate, file: &Path, clock: Arc<dyn Clock>) -> Lane {
        let file = Shared::open(file, clock.epoch()).ok();
        Lane { rate, clock, priority: Priority::Bulk, known: Mutex::new(LaneState::new(file)) }
    }

    /// The lane of a token: its budget is in the file that all processes of this user share, or in memory where there is no
    /// folder for it.
    pub fn of_token(rate: Rate, base: &str, token: &str, clock: Arc<dyn Clock>) -> Lane {
        match file(base, token) {
            Ok(file) => Lane::shared(rate, &file, clock),
            Err(_) => Lane::new(rate, clock),
        }
    }

    /// The same lane with requests of this priority; they are [`Priority::Bulk`] otherwise.
    #[must_use]
    pub fn with_priority(self, priority: Priority) -> Lane {
        Lane { priority, ..self }
    }

    /// A permit for one request, or how long to wait before asking again.
    pub fn try_acquire(&self) -> Result<Ticket, Duration> {
        self.change(|ledger, now| {
            let free = self.free_at(ledger).max(ledger.yields_until(self.priority));
            if free > now {
                let (wait, again) = match self.priority {
                    // It polls often, so that other processes soon stop waiting for a process that was killed.
                    Priority::Interactive => ((free - now).min(nanos(ledger::YIELD) / 2), now),
                    // A deploy polls again at the given time.
                    Priority::Bulk | Priority::Sweep => (free - now, free),
                };
                return (Err(Duration::from_nanos(wait)), ledger.claim(self.priority, again));
            }
            let gone = ledger.send(now);
            ledger.claim(self.priority, now);
            (Ok(Ticket { sent: now, gone }), true)
        })
    }

    /// Ends this lane's claim: nothing more is sent for now, and the classes behind don't have to wait until it
    /// expires.
    pub fn release(&self) {
        self.change(|ledger, now| ((), ledger.release(self.priority, now)));
    }

    /// Records that the request was answered, or failed for good, with the limits that the answer reported.
    pub fn answered(&self, ticket: Ticket, quota: Option<&Quota>) {
        let now = self.change(|ledger, now| {
            ledger.answer(ticket.sent, now);
            ledger.passed(ticket.sent);
            if let Some(quota) = quota {
                self.record_quota(ledger, quota, &ticket.gone, now);
            }
            (now, true)
        });
        let took = Duration::from_nanos(now.saturating_sub(ticket.sent)).as_secs_f64();
        let mut known = self.known();
        known.at_once = (known.at_once + 1.0 / known.at_once).min(AT_ONCE.0);
        known.latency = Some(known.latency.map_or(took, |mean| mean + (took - mean) / 16.0));
    }

    /// The request was not sent after all, and doesn't count.
    pub fn unused(&self, ticket: Ticket) {
        self.change(|ledger, _| {
            ledger.take_back(ticket.sent);
            ((), true)
        });
    }

    /// The answer was a 429: nothing is sent before it is over.
    pub fn throttled(&self, ticket: Ticket, retry_after: Option<Duration>) {
        let new = self.change(|ledger, now| {
            ledger.answer(ticket.sent, now);
            (ledger.throttle(ticket.sent, retry_after.map(nanos), now), true)
        });
        if new {
            // Far below the limit, the cause was too many concurrent requests.
            let mut known = self.known();
            known.at_once = (known.at_once / 2.0).max(1.0);
        }
    }

    /// The length of the window in which this lane's own limit holds.
    pub fn window(&self) -> Duration {
        self.rate.window
    }

    /// Returns the lane's usage.
    pub fn usage(&self) -> Usage {
        self.change(|ledger, now| {
            let fullest = self
                .limits(ledger)
                .map(|(window, limit)| (ledger.used(window), limit, window.length))
                .max_by(|(used, limit, _), (other, others, _)| {
                    (u128::from(*used) * u128::from(*others)).cmp(&(u128::from(*other) * u128::from(*limit)))
                });
            let (used, limit, length) = fullest.expect("BUG: a lane has a window");
            let from_now = |time: Nanos| Duration::from_nanos(time.saturating_sub(now));
            let yields = ledger.yields_until(self.priority);
            let usage = Usage {
                used,
                limit,
                window: Duration::from_nanos(length),
                blocked: from_now(ledger.blocked_until),
                yields: from_now(yields),
                free_in: from_now(yields.max(self.free_at(ledger))),
            };
            (usage, false)
        })
    }

    /// Returns the time for this number of further requests, their last answer included, if without a limit
    /// `per_second` could be made. Requests that were sent already count.
    pub fn finish(&self, requests: usize, per_second: f64) -> Duration {
        if requests == 0 {
            return Duration::ZERO;
        }
        let latency = Duration::from_secs_f64(self.known().latency.unwrap_or(UNSEEN));
        let (ledger, start) = self.change(|ledger, now| ((ledger.clone(), now), false));
        let each = if per_second > 0.0 { (1e9 / per_second).min(1e18) } else { 0.0 };
        self.rehearse(ledger, start, requests as u64, each) + latency
    }

    /// Simulates a number of requests, each of which takes a number of nanoseconds.
    fn rehearse(&self, mut ledger: Ledger, start: Nanos, requests: u64, each: f64) -> Duration {
        let (mut now, mut left) = (start, requests);
        ledger.land(now);
        let slowest = self.limits(&ledger).map(|(window, limit)| (window.counts_for(), limit));
        let slowest = slowest.max_by(|(length, limit), (other, others)| {
            (*length as f64 * *others as f64).total_cmp(&(*other as f64 * *limit as f64))
        });
        let (cycle, quota) = slowest.expect("BUG: a lane has a window");
        let cycle = (cycle as f64).max(quota as f64 * each) as Nanos;
        let longest = ledger.windows.iter().map(|window| window.length).max().unwrap_or(0);
        let mut skipped = false;
        for _ in 0..REHEARSED {
            ledger.advance(now);
            let free = self.free_at(&ledger);
            if free > now {
                now = free;
                continue;
            }
            if !skipped && now - start > longest {
                // From here on it repeats itself.
                skipped = true;
                let cycles = (left / quota).saturating_sub(1);
                (now, left) = (now.saturating_add(cycle.saturating_mul(cycles)), left - cycles * quota);
                ledger.shift(cycle.saturating_mul(cycles));
                continue;
            }
            let room = self.limits(&ledger).map(|(window, limit)| limit.saturating_sub(ledger.used(window)));
            let bucket = (cycle / ledger::BUCKETS) as f64;
            let at_once = if each > 0.0 { (bucket / each).max(1.0) as u64 } else { u64::MAX };
            let sent = room.min().unwrap_or(0).min(left).min(at_once);
            ledger.sent_at_once(now, sent);
            left -= sent;
            now += (sent as f64 * each) as Nanos;
            if left == 0 {
                break;
            }
        }
        now += (left as f64 * (cycle as f64 / quota as f64)) as Nanos;
        Duration::from_nanos(now - start)
    }

    /// Returns the number of requests a second that the lane makes while the limit doesn't slow it.
    pub fn per_second(&self) -> f64 {
        self.in_flight_bound() as f64 / self.known().latency.unwrap_or(UNSEEN)
    }

    /// Returns the number of requests at once that keeps the lane full: by its rate and the latency that was seen.
    /// After a 429 it is smaller for a while: the platform rejects too many concurrent requests also far below the
    /// limit.
    pub fn in_flight_bound(&self) -> usize {
        // By what was seen last: it is asked often, and another process changes little about it.
        let known = self.known();
        let rates = self.limits(&known.ledger).map(|(window, limit)| limit as f64 / (window.length as f64 / 1e9));
        let own = self.rate.requests as f64 / self.rate.window.as_secs_f64();
        let rate = rates.reduce(f64::min).unwrap_or(own);
        let wanted = rate * known.latency.unwrap_or(UNSEEN) * BURST;
        wanted.clamp(AT_ONCE.1, AT_ONCE.0).min(known.at_once).ceil() as usize
    }

    /// The limits that count for this lane, each with its window.
    fn limits<'a>(&self, ledger: &'a Ledger) -> impl Iterator<Item = (&'a Window, u64)> {
        let rate = self.rate;
        let own = nanos(rate.window);
        let replaces = move |window: &Window| match rate.assumed {
            None => false,
            Some(Assumed::Documented) => window.length >= own,
            Some(Assumed::Reported) => true,
        };
        let replaced = ledger.windows.iter().any(|window| window.reported > 0 && replaces(window));
        ledger.windows.iter().filter_map(move |window| {
            let reported = (window.reported > 0).then(|| rate.without_reserve(window.reported));
            let own = (window.length == own && !replaced).then_some(rate.requests as u64);
            Some((window, reported.into_iter().chain(own).min()?))
        })
    }

    /// Returns the time at which the next request may be sent.
    fn free_at(&self, ledger: &Ledger) -> Nanos {
        let windows = self.limits(ledger).map(|(window, limit)| ledger.free_at(window, limit));
        windows.max().unwrap_or(0).max(ledger.blocked_until)
    }

    /// Records the limits that an answer reported.
    fn record_quota(&self, ledger: &mut Ledger, quota: &Quota, gone: &Gone, now: Nanos) {
        let policies: Vec<_> =
            quota.policies.iter().filter(|policy| policy.requests > 0 && is_window(policy.window)).collect();
        if !policies.is_empty() {
            let limits: Vec<_> = policies.iter().map(|policy| (nanos(policy.window), policy.requests)).collect();
            ledger.set_limits(&limits, now);
        }
        for left in &quota.left {
            let reset = nanos(left.reset);
            match policies.iter().find(|policy| policy.name == left.name) {
                Some(policy) => ledger.left(nanos(policy.window), left.requests, reset, gone, now),
                // Of a limit that isn't known, only the others' share is left: it is unknown who used the rest. The wait is no longer than
                // the known window: a longer one can't be the platform's.
                None if left.requests <= self.rate.reserve => ledger.block(reset.min(nanos(self.rate.window)), now),
                None => {}
            }
        }
    }

    fn known(&self) -> MutexGuard<'_, LaneState> {
        self.known.lock()
    }

    /// Reads the ledger, lets it be changed, and writes it if `change` asks for it.
    fn change<T>(&self, change: impl FnOnce(&mut Ledger, Nanos) -> (T, bool)) -> T {
        let mut known = self.known();
        let LaneState { ledger, file, .. } = &mut *known;
        let now = || nanos(self.clock.now());
        let change = |ledger: &mut Ledger, now| {
            ledger.advance(now);
            ledger.watch(nanos(self.rate.window), now);
            change(ledger, now)
        };
        let Some(shared) = file else { return change(ledger, now()).0 };
        let (given, written) = shared.change(ledger, now, change);
        if written.is_err() {
            // The disk is full, or only read: from here on in memory.
            *file = None;
        }
        given
    }
}

/// Returns whether a reported window is one that a rate limit can have.
fn is_window(window: Duration) -> bool {
    !window.is_zero() && nanos(window) <= ledger::LONGEST
}

#[cfg(test)]
mod tests;
