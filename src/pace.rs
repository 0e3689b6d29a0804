//! Keeps the requests of one token below its limits. Knows time and counts; doesn't know what is requested.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::clock::Clock;
use crate::failure::Failure;
use crate::limits;
use crate::platform::Quota;
use crate::spec::ApiLimit;

/// The share of a limit that is left for people, if fleet.yaml doesn't say: dashboards and scripts of the same user
/// count against the same limit.
const HEADROOM: f64 = 0.05;

/// What a lane may send.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rate {
    /// So many requests…
    pub requests: usize,
    /// … in any window of this length.
    pub window: Duration,
    /// So many are left to others. The same share is left of each limit that the platform tells.
    pub reserve: u64,
    /// Nobody said so: where the platform tells its own limits, they count instead.
    pub assumed: bool,
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
            assumed: limit.is_none(),
        }
    }

    /// A rate without headroom.
    pub fn of(requests: usize, window: Duration) -> Rate {
        Rate { requests, window, reserve: 0, assumed: false }
    }

    /// How long so many requests wait for the limit, if nothing was sent before.
    pub fn wait(&self, requests: usize) -> Duration {
        self.window * u32::try_from(requests.saturating_sub(1) / self.requests).unwrap_or(u32::MAX)
    }
}

/// The file in which all processes of this user share the budget of a token. Its name is a digest; the token isn't in it.
pub fn file(base: &str, token: &str) -> Result<PathBuf, Failure> {
    todo!()
}

/// A permit for one request. Give it back with what came: [`Lane::answered`] or [`Lane::throttled`]. One that is dropped counts
/// until its request can't be on its way any more, and then for a window.
#[derive(Debug)]
#[must_use]
pub struct Ticket {
    sent: Duration,
}

/// How full a lane is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// Requests that count in the present window, those on their way included; of the window that is fullest.
    pub used: u64,
    /// So many fit into it.
    pub limit: u64,
    /// How long the window is.
    pub window: Duration,
    /// How long the platform lets nothing pass, after a 429 or because others used what there was; zero if it does.
    pub blocked: Duration,
}

/// The budget of one token.
pub struct Lane {
    rate: Rate,
    clock: Arc<dyn Clock>,
}

impl Lane {
    /// A lane that has sent nothing yet, and that no other process knows.
    pub fn new(rate: Rate, clock: Arc<dyn Clock>) -> Lane {
        Lane { rate, clock }
    }

    /// A lane whose budget is in a file ([`file`]): shared with other processes and with later runs. Where the file can't be
    /// kept, as on a disk that is only read, it is in memory alone.
    pub fn shared(rate: Rate, file: &Path, clock: Arc<dyn Clock>) -> Lane {
        todo!()
    }

    /// Its requests go before those of other processes of the same lane.
    #[must_use]
    pub fn ahead(self) -> Lane {
        todo!()
    }

    /// A permit for one request, or how long to wait before asking again.
    pub fn try_acquire(&self) -> Result<Ticket, Duration> {
        todo!()
    }

    /// The request was answered, or failed for good; with what the answer told of the limits.
    pub fn answered(&self, ticket: Ticket, quota: Option<&Quota>) {
        todo!()
    }

    /// The answer was a 429: nothing is sent before it is over.
    pub fn throttled(&self, ticket: Ticket, retry_after: Option<Duration>) {
        todo!()
    }

    /// How full it is.
    pub fn usage(&self) -> Usage {
        todo!()
    }

    /// How long so many more requests take, if without a limit so many a second could be made. What was sent already counts.
    pub fn finish(&self, requests: usize, per_second: f64) -> Duration {
        todo!()
    }

    /// How many requests at once keep the lane full: by the rate and the latency that was seen.
    pub fn in_flight_bound(&self) -> usize {
        todo!()
    }
}
