//! The retry policy: decides whether a request whose answer isn't final is repeated, after which wait, and when it is
//! given up. Pure, and the only place that knows; whatever sends requests uses it.

use std::time::Duration;

use flotilla_model::platform::{CONCURRENT_CHANGE, CallError, Reply};

/// The number of attempts of a request whose outcome is unknown. With the waits between, that is about eight seconds.
pub(crate) const ATTEMPTS: u32 = 5;
/// The number of times that a request may be throttled before it counts as failed: with waits of up to five minutes,
/// over an hour.
pub(crate) const THROTTLED_ATTEMPTS: u32 = 20;
/// The wait before the second attempt; it doubles each time.
const BACKOFF: Duration = Duration::from_millis(500);
/// The part of a wait, in percent, by which it is lengthened at random.
const JITTER: u32 = 50;

/// The attempts at one request so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Attempts {
    /// The number of attempts whose outcome is unknown, or that met another change of the same resource.
    failed: u32,
    /// Attempts that were over the rate limit.
    throttled: u32,
}

/// The next step for a request.
#[derive(Debug, PartialEq)]
pub enum Verdict {
    /// The answer is final.
    Final(Result<Reply, CallError>),
    /// Sends it again after this wait. `unknown`: the platform may have carried it out.
    Retry {
        /// The wait.
        wait: Duration,
        /// Whether the outcome is unknown.
        unknown: bool,
    },
    /// Sends it again as soon as the rate limit allows.
    WhenAllowed,
}

impl Attempts {
    /// Decides on an answer. `key` names the request among those in flight: two with different keys wait for different times,
    /// so that what failed together isn't repeated together; the same key always waits alike.
    pub fn decide(&mut self, key: &str, result: Result<Reply, CallError>) -> Verdict {
        match result {
            Err(CallError::Throttled { retry_after }) => {
                self.throttled += 1;
                match self.throttled < THROTTLED_ATTEMPTS {
                    true => Verdict::WhenAllowed,
                    false => Verdict::Final(Err(CallError::Throttled { retry_after })),
                }
            }
            Err(CallError::Unavailable(message)) => {
                self.failed += 1;
                match self.failed < ATTEMPTS {
                    true => Verdict::Retry { wait: backoff(key, self.failed), unknown: true },
                    false => {
                        let message = format!("{message}, {ATTEMPTS} times in a row");
                        Verdict::Final(Err(CallError::Unavailable(message)))
                    }
                }
            }
            Err(CallError::Rejected { code: CONCURRENT_CHANGE, .. }) if self.failed + 1 < ATTEMPTS => {
                self.failed += 1;
                Verdict::Retry { wait: backoff(key, self.failed), unknown: false }
            }
            other => Verdict::Final(other),
        }
    }
}

/// The wait before the next attempt: twice as long each time, and not the same for all keys.
fn backoff(key: &str, attempt: u32) -> Duration {
    let spread = key.bytes().fold(attempt, |sum, byte| sum.wrapping_mul(31).wrapping_add(u32::from(byte))) % JITTER;
    BACKOFF * 2u32.pow(attempt - 1) * (100 + spread) / 100
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unavailable() -> Result<Reply, CallError> {
        Err(CallError::Unavailable("HTTP 502".to_owned()))
    }

    #[test]
    fn waits_double_and_differ_between_requests() {
        let waits = |key: &str| {
            let mut attempts = Attempts::default();
            let wait = |_| match attempts.decide(key, unavailable()) {
                Verdict::Retry { wait, unknown: true } => wait,
                other => panic!("{other:?}"),
            };
            (1..ATTEMPTS).map(wait).collect::<Vec<_>>()
        };
        for (index, wait) in waits("acme").into_iter().enumerate() {
            let base = BACKOFF * 2u32.pow(u32::try_from(index).unwrap());
            assert!(wait >= base && wait < base * 3 / 2, "{wait:?}");
        }
        assert_eq!(waits("acme"), waits("acme"));
        assert_ne!(waits("acme"), waits("bistro"));
    }

    #[test]
    fn it_is_given_up_in_the_end() {
        let mut attempts = Attempts::default();
        let last = (0..ATTEMPTS).map(|_| attempts.decide("acme", unavailable())).last().unwrap();
        let message = "HTTP 502, 5 times in a row".to_owned();
        assert_eq!(last, Verdict::Final(Err(CallError::Unavailable(message))));
        let throttled = || Err(CallError::Throttled { retry_after: None });
        let mut attempts = Attempts::default();
        for _ in 1..THROTTLED_ATTEMPTS {
            assert_eq!(attempts.decide("acme", throttled()), Verdict::WhenAllowed);
        }
        assert_eq!(attempts.decide("acme", throttled()), Verdict::Final(throttled()));
    }

    #[test]
    fn a_concurrent_change_is_repeated_and_its_outcome_is_known() {
        let concurrent = || Err(CallError::Rejected { status: 409, code: CONCURRENT_CHANGE, message: String::new() });
        let mut attempts = Attempts::default();
        assert!(matches!(attempts.decide("acme", concurrent()), Verdict::Retry { unknown: false, .. }));
        for _ in 0..3 {
            attempts.decide("acme", concurrent());
        }
        assert_eq!(attempts.decide("acme", concurrent()), Verdict::Final(concurrent()));
        let fine = || Ok(Reply::Nothing);
        assert_eq!(attempts.decide("acme", fine()), Verdict::Final(fine()));
    }
}
