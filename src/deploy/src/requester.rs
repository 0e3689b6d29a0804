//! Sends one call at a time, and waits as long as it has to: the rate limit of its account's token, and the next attempt where an answer
//! isn't final. It is the only loop of this kind beside the deploy's, which never blocks. Reports each wait to an observer and gives up
//! after a while; prints nothing, and doesn't know what the calls are for.

use std::collections::HashMap;
use std::fmt;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use flotilla_model::clock::Clock;
use flotilla_model::failure::Failure;
use flotilla_model::platform::{Call, CallError, Home, Platform, Reply};
use flotilla_model::text::grouped;

use crate::pace::{Lane, Ticket, Usage};
use crate::retry::{Attempts, Verdict};

/// The longest time that one call may take, its waits included.
///
/// Cloudflare counts in windows of five minutes, and the longest wait that it requires after a 429 is one of them. A call that gets no
/// permit during three of them waits for another user of the whole limit, or for a blocked token: waiting longer doesn't help, and a person
/// or a CI job has to be informed. A healthy wait, for a window that is used up, is over in a third of it. Where fleet.yaml sets a longer
/// window, it is three of those.
const PATIENCE: Duration = Duration::from_secs(15 * 60);
/// The number of windows that are waited for, where those are long.
const PATIENCE_WINDOWS: u32 = 3;
/// The longest time between two looks at the limit, and between two events: other processes may have used less than they could.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Observes a requester. [`ControlFlow::Break`] cancels the call.
pub type Observer = Box<dyn FnMut(&Event<'_>) -> ControlFlow<()> + Send>;

/// An account that calls are made for.
pub struct Account {
    /// Its name in fleet.yaml; empty while the token's account is unknown.
    pub name: String,
    /// The lane of its token.
    pub lane: Arc<Lane>,
}

/// An event that a requester reports while a call waits.
#[derive(Debug)]
pub enum Event<'a> {
    /// The call waits for the rate limit. Comes again every second.
    Waiting(&'a Waiting),
    /// The answer wasn't final: the call is made again.
    Retrying {
        /// The number of the attempt that comes; the first one was 1.
        attempt: u32,
        /// The wait before it.
        wait: Duration,
        /// The error of the attempt before.
        reason: &'a CallError,
    },
    /// The wait is over.
    Resumed,
}

/// A wait for the rate limit of an account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// The account's name; empty while the token's account is unknown.
    pub account: String,
    /// The reason for the wait.
    pub reason: Reason,
    /// The time since the wait began.
    pub waited: Duration,
    /// The time after which it continues, as far as is known now.
    pub left: Duration,
}

/// The reason why a call has to wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The limit is reached: this number of requests was sent in a window of this length.
    Used {
        /// The number of requests.
        requests: u64,
        /// The length of the window.
        window: Duration,
    },
    /// Cloudflare accepts no requests with this token: after a 429, or because others have used up the limit.
    Blocked,
    /// Requests with a higher [`Priority`](crate::pace::Priority) go first.
    Yields,
}

/// The reason why a call has no reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RequestError {
    /// The platform's final answer, or none after several attempts.
    Call(CallError),
    /// The rate limit let it wait for too long.
    Limit(Waiting),
    /// The observer cancelled it.
    Cancelled,
}

impl RequestError {
    /// Returns whether the platform refused the call, as it does where a token has no permission: another account's may be fine.
    pub fn is_refusal(&self) -> bool {
        matches!(self, RequestError::Call(CallError::Unauthorized(_) | CallError::Rejected { .. }))
    }
}

impl From<RequestError> for Failure {
    fn from(error: RequestError) -> Failure {
        let failure = Failure::new(format!("Cloudflare's resources can't be listed: {error}"));
        match error.hint() {
            Some(hint) => failure.hint(hint),
            None => failure,
        }
    }
}

/// Makes calls with the tokens of some accounts.
pub struct Requester {
    platform: Box<dyn Platform>,
    accounts: HashMap<String, Account>,
    observer: Observer,
    /// The clock that it waits by.
    pub clock: Arc<dyn Clock>,
    /// The requests that were sent so far, repeated ones included.
    pub requests: usize,
}

impl Requester {
    /// A requester for accounts by their ids; the one under an empty id is for all others.
    pub fn new(
        platform: Box<dyn Platform>,
        accounts: HashMap<String, Account>,
        clock: Arc<dyn Clock>,
        observer: Observer,
    ) -> Requester {
        Requester { platform, accounts, observer, clock, requests: 0 }
    }

    /// Makes one call. After an error nothing is known of its subject.
    pub fn fetch(&mut self, home: &Home, call: Call) -> Result<Reply, Failure> {
        self.request(home, &call).map_err(Failure::from)
    }

    /// The same, with Cloudflare's own error where it rejects the call.
    pub fn try_ask(&mut self, home: &Home, call: &Call) -> Result<Reply, CallError> {
        self.request(home, call).map_err(|error| match error {
            RequestError::Call(error) => error,
            other => CallError::Unavailable(other.to_string()),
        })
    }

    /// The same, without another attempt where the answer isn't final: for callers that wait and try again themselves.
    pub fn ask_once(&mut self, home: &Home, call: &Call) -> Result<Reply, CallError> {
        self.request_within(home, call, 1).map_err(|error| match error {
            RequestError::Call(error) => error,
            other => CallError::Unavailable(other.to_string()),
        })
    }

    /// Returns the account's part of its workers.dev addresses; nothing if it has none.
    pub fn subdomain(&mut self, home: &Home) -> Result<Option<String>, RequestError> {
        match self.request(home, &Call::FindSubdomain)? {
            Reply::Id(subdomain) => Ok(Some(subdomain)),
            _ => Ok(None),
        }
    }

    /// Makes one call, and retries it until its answer is final.
    pub fn request(&mut self, home: &Home, call: &Call) -> Result<Reply, RequestError> {
        self.request_within(home, call, u32::MAX)
    }

    /// Makes one call, up to a number of attempts.
    fn request_within(&mut self, home: &Home, call: &Call, most: u32) -> Result<Reply, RequestError> {
        let Some(account) = self.accounts.get(&home.account_id).or_else(|| self.accounts.get("")) else {
            let message = format!("there is no token for the account {}", home.account_id);
            return Err(RequestError::Call(CallError::Unauthorized(message)));
        };
        let (name, lane) = (account.name.clone(), Arc::clone(&account.lane));
        let end = self.clock.now() + PATIENCE.max(lane.window() * PATIENCE_WINDOWS);
        let mut attempts = Attempts::default();
        for attempt in 2.. {
            let ticket = self.permit(&name, &lane, end)?;
            self.requests += 1;
            let (result, quota) = self.platform.call(home, call);
            match &result {
                Err(CallError::Throttled { retry_after }) => lane.throttled(ticket, *retry_after),
                _ => lane.answered(ticket, quota.as_ref()),
            }
            if attempt > most {
                return result.map_err(RequestError::Call);
            }
            let failed = result.as_ref().err().cloned();
            match (attempts.decide(&home.account_id, result), failed) {
                (Verdict::Final(Err(CallError::Throttled { .. })), _) => {
                    return Err(RequestError::Limit(waiting(&name, &lane.usage(), Duration::ZERO)));
                }
                (Verdict::Final(result), _) => return result.map_err(RequestError::Call),
                (Verdict::Retry { wait, .. }, Some(error)) if self.clock.now() + wait >= end => {
                    return Err(RequestError::Call(error));
                }
                (Verdict::Retry { wait, .. }, Some(error)) => {
                    self.report(&Event::Retrying { attempt, wait, reason: &error })?;
                    self.clock.sleep(wait);
                    self.report(&Event::Resumed)?;
                }
                (Verdict::Retry { .. } | Verdict::WhenAllowed, _) => {}
            }
        }
        unreachable!("BUG: attempts end")
    }

    /// A permit of a lane, as soon as there is one.
    fn permit(&mut self, account: &str, lane: &Lane, end: Duration) -> Result<Ticket, RequestError> {
        let start = self.clock.now();
        loop {
            let wait = match lane.try_acquire() {
                Ok(ticket) if self.clock.now() == start => return Ok(ticket),
                Ok(ticket) => {
                    return match self.report(&Event::Resumed) {
                        Ok(()) => Ok(ticket),
                        Err(cancelled) => {
                            lane.unused(ticket);
                            Err(cancelled)
                        }
                    };
                }
                Err(wait) => wait,
            };
            let now = self.clock.now();
            let waiting = waiting(account, &lane.usage(), now - start);
            if now + waiting.left >= end {
                return Err(RequestError::Limit(waiting));
            }
            self.report(&Event::Waiting(&waiting))?;
            self.clock.sleep(wait.min(LOOK_EVERY));
        }
    }

    fn report(&mut self, event: &Event<'_>) -> Result<(), RequestError> {
        match (self.observer)(event) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(RequestError::Cancelled),
        }
    }
}

impl Drop for Requester {
    /// Requests with a lower priority don't have to wait until it is clear that no more follow.
    fn drop(&mut self) {
        self.accounts.values().for_each(|account| account.lane.release());
    }
}

fn waiting(account: &str, usage: &Usage, waited: Duration) -> Waiting {
    // It waits for the longest of them.
    let reason = match usage.free_in {
        left if left == usage.blocked => Reason::Blocked,
        left if left == usage.yields => Reason::Yields,
        _ => Reason::Used { requests: usage.used.min(usage.limit), window: usage.window },
    };
    Waiting { account: account.to_owned(), reason, waited, left: usage.free_in }
}

impl Waiting {
    /// Names the limit, and why it doesn't allow the call: `the API rate limit of account main (1,140 requests per 5 min used)`.
    fn limit(&self) -> String {
        let whose = if self.account.is_empty() { "this token".to_owned() } else { format!("account {}", self.account) };
        let why = match self.reason {
            Reason::Used { requests, window } => {
                let plural = if requests == 1 { "" } else { "s" };
                format!("{} request{plural} per {} used", grouped(requests), duration(window))
            }
            Reason::Blocked => "Cloudflare accepts no requests with its token for now".to_owned(),
            Reason::Yields => "commands with a higher priority go first".to_owned(),
        };
        format!("the API rate limit of {whose} ({why})")
    }
}

impl fmt::Display for Waiting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "waiting for {} · continues in {}", self.limit(), duration(self.left))
    }
}

impl RequestError {
    /// Returns a hint on how to fix it.
    fn hint(&self) -> Option<&'static str> {
        matches!(self, RequestError::Limit(_)).then_some(
            "run the command again later, or stop what else uses this token: other commands, CI jobs, scripts; an account can have a \
             token of its own in fleet.yaml",
        )
    }
}

impl fmt::Display for RequestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RequestError::Call(error) => error.fmt(f),
            RequestError::Limit(waiting) => {
                let (limit, waited, left) = (waiting.limit(), duration(waiting.waited), duration(waiting.left));
                write!(f, "{limit} would allow the next request in {left}, and flotilla has already waited {waited}")
            }
            RequestError::Cancelled => f.write_str("the call was cancelled"),
        }
    }
}

/// A duration in whole units, rounded up: `42 s`, `5 min`, `2 h 10 min`.
fn duration(duration: Duration) -> String {
    let seconds = duration.as_secs() + u64::from(duration.subsec_nanos() > 0);
    let minutes = seconds.div_ceil(60);
    match seconds {
        0..100 => format!("{seconds} s"),
        100..6000 => format!("{minutes} min"),
        _ => format!("{} h {} min", minutes / 60, minutes % 60),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use flotilla_model::clock::FakeClock;
    use flotilla_model::paging::Page;
    use flotilla_model::platform::{Health, HealthCheck, Quota};

    use crate::pace::{Priority, Rate};

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    type Answers = Box<dyn Fn(usize) -> Result<Reply, CallError> + Send + Sync>;

    /// A platform that answers each call by its number, in a second.
    struct Scripted {
        clock: Arc<FakeClock>,
        calls: Mutex<usize>,
        answers: Answers,
    }

    impl Platform for Scripted {
        fn call(&self, _: &Home, _: &Call) -> (Result<Reply, CallError>, Option<Quota>) {
            let mut calls = self.calls.lock().unwrap();
            *calls += 1;
            self.clock.sleep(SECOND);
            ((self.answers)(*calls), None)
        }

        fn health(&self, _: &HealthCheck) -> Health {
            unreachable!("nobody asks for it")
        }
    }

    struct Bench {
        clock: Arc<FakeClock>,
        lane: Arc<Lane>,
        events: Arc<Mutex<Vec<String>>>,
        requester: Requester,
    }

    /// A requester for the account `main`, which is cancelled at an event with this text.
    fn bench(rate: Rate, cancel_at: &'static str, answers: Answers) -> Bench {
        let (clock, events): (Arc<FakeClock>, Arc<Mutex<Vec<String>>>) = Default::default();
        let lane = Lane::new(rate, clock.clone() as Arc<dyn Clock>).with_priority(Priority::Interactive);
        let lane = Arc::new(lane);
        let seen = Arc::clone(&events);
        let observer = move |event: &Event<'_>| {
            let text = match event {
                Event::Waiting(waiting) => waiting.to_string(),
                Event::Retrying { attempt, reason, .. } => format!("attempt {attempt}: {reason}"),
                Event::Resumed => "resumed".to_owned(),
            };
            let cancel = !cancel_at.is_empty() && text.contains(cancel_at);
            seen.lock().unwrap().push(text);
            if cancel { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        let account = Account { name: "main".to_owned(), lane: Arc::clone(&lane) };
        let platform = Scripted { clock: clock.clone(), calls: Mutex::default(), answers };
        let accounts = HashMap::from([("a".to_owned(), account)]);
        let requester = Requester::new(Box::new(platform), accounts, clock.clone(), Box::new(observer));
        Bench { clock, lane, events, requester }
    }

    fn home() -> Home {
        Home { account_id: "a".to_owned(), namespace: None }
    }

    fn list() -> Call {
        Call::ListWorkers { tags: None, page: Page::First }
    }

    fn fine(_: usize) -> Result<Reply, CallError> {
        Ok(Reply::Done)
    }

    #[test]
    fn a_wait_for_the_limit_is_reported_with_its_reason_until_it_is_over() {
        let mut bench = bench(Rate::of(1140, 300 * SECOND), "", Box::new(fine));
        for _ in 0..1140 {
            bench.lane.answered(bench.lane.try_acquire().unwrap(), None);
        }
        assert_eq!(bench.requester.fetch(&home(), list()).unwrap(), Reply::Done);
        let events = bench.events.lock().unwrap();
        let first =
            "waiting for the API rate limit of account main (1,140 requests per 5 min used) · continues in 6 min";
        assert_eq!(events[0], first);
        assert!(events[events.len() - 2].ends_with("continues in 1 s"), "{events:?}");
        assert_eq!(events[events.len() - 1], "resumed");
        // Each second, so that a progress line can count down.
        assert!((300..=304).contains(&(events.len() - 1)), "{}", events.len());
        assert_eq!(bench.requester.requests, 1);
    }

    #[test]
    fn what_is_throttled_again_and_again_ends_with_the_reason_and_what_to_do() {
        let throttled = |_| Err(CallError::Throttled { retry_after: None });
        let mut bench = bench(Rate::of(1140, 300 * SECOND), "", Box::new(throttled));
        let failure = bench.requester.fetch(&home(), list()).unwrap_err();
        let text = failure.to_string();
        assert!(text.contains("the API rate limit of account main (Cloudflare accepts no requests"), "{text}");
        assert!(text.contains("would allow the next request in 5 min, and flotilla has already waited"), "{text}");
        assert!(failure.hints[0].contains("run the command again later"), "{:?}", failure.hints);
        assert!(bench.clock.now() < PATIENCE, "{:?}", bench.clock.now());
        assert!(bench.clock.now() > PATIENCE / 2, "{:?}", bench.clock.now());
    }

    #[test]
    fn what_would_take_too_long_ends_at_once() {
        let mut bench = bench(Rate::of(1140, 300 * SECOND), "", Box::new(fine));
        let ticket = bench.lane.try_acquire().unwrap();
        bench.lane.throttled(ticket, Some(7200 * SECOND));
        let error = bench.requester.request(&home(), &list()).unwrap_err();
        assert!(matches!(&error, RequestError::Limit(waiting) if waiting.left == 3600 * SECOND), "{error}");
        assert_eq!((bench.clock.now(), bench.requester.requests), (Duration::ZERO, 0));
        // A window that is longer than the patience is waited for.
        let mut bench = self::bench(Rate::of(1, 3600 * SECOND), "", Box::new(fine));
        assert!(bench.requester.request(&home(), &list()).is_ok());
        assert!(bench.requester.request(&home(), &list()).is_ok());
        assert!(bench.clock.now() >= 3600 * SECOND);
    }

    #[test]
    fn an_answer_that_does_not_come_is_repeated_and_reported() {
        let answers = |call| match call {
            1 | 2 => Err(CallError::Unavailable("HTTP 502".to_owned())),
            _ => Ok(Reply::Done),
        };
        let mut bench = bench(Rate::of(100, 10 * SECOND), "", Box::new(answers));
        assert_eq!(bench.requester.try_ask(&home(), &list()), Ok(Reply::Done));
        let events = bench.events.lock().unwrap();
        assert_eq!(*events, ["attempt 2: HTTP 502", "resumed", "attempt 3: HTTP 502", "resumed"]);
        assert_eq!(bench.requester.requests, 3);
    }

    #[test]
    fn what_is_tried_once_is_not_repeated() {
        for error in [CallError::Unavailable("HTTP 502".to_owned()), CallError::Throttled { retry_after: None }] {
            let answer = error.clone();
            let mut bench = bench(Rate::of(100, 10 * SECOND), "", Box::new(move |_| Err(answer.clone())));
            assert_eq!(bench.requester.ask_once(&home(), &list()), Err(error));
            assert_eq!(bench.requester.requests, 1);
        }
    }

    #[test]
    fn what_is_final_is_not_repeated() {
        let rejected = || CallError::Rejected { status: 400, code: 7, message: "no".to_owned() };
        let mut bench = bench(Rate::of(100, 10 * SECOND), "", Box::new(move |_| Err(rejected())));
        assert_eq!(bench.requester.try_ask(&home(), &list()), Err(rejected()));
        assert_eq!(bench.requester.requests, 1);
        let other = Home { account_id: "b".to_owned(), namespace: None };
        let error = bench.requester.try_ask(&other, &list()).unwrap_err();
        assert_eq!(error, CallError::Unauthorized("there is no token for the account b".to_owned()));
    }

    #[test]
    fn the_observer_can_cancel_a_wait() {
        let mut bench = bench(Rate::of(1, 300 * SECOND), "waiting", Box::new(fine));
        assert!(bench.requester.request(&home(), &list()).is_ok());
        let before = bench.clock.now();
        let cancelled = bench.requester.request(&home(), &list());
        assert_eq!((cancelled, bench.clock.now()), (Err(RequestError::Cancelled), before));
    }

    #[test]
    fn numbers_and_times_for_people() {
        assert_eq!([7, 999, 1140, 1_000_000].map(grouped), ["7", "999", "1,140", "1,000,000"]);
        let texts = [0, 42, 99, 100, 300, 5999, 7800].map(|seconds| duration(Duration::from_secs(seconds)));
        assert_eq!(texts, ["0 s", "42 s", "99 s", "2 min", "5 min", "100 min", "2 h 10 min"]);
    }
}
