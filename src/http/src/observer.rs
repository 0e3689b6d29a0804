//! The observer of requests, such as the one of `--verbose`. Sees neither headers nor bodies, nor the query of an address.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use reqwest::Url;

use crate::answer::Answer;
use crate::error::{Error, Kind};
use crate::request::Request;

/// A request that was sent, and the head of its answer.
#[derive(Clone, Copy, Debug)]
pub struct Sent<'a> {
    /// The method, such as `PUT`.
    pub method: &'a str,
    /// The host, without user name, password and port.
    pub host: &'a str,
    /// The path, without the query.
    pub path: &'a str,
    /// The status of the answer, or the kind of failure.
    pub answer: Result<u16, Kind>,
    /// The time until the answer's head was there.
    pub time: Duration,
}

type Observer = Box<dyn Fn(&Sent<'_>) + Send + Sync>;

static OBSERVER: OnceLock<Observer> = OnceLock::new();

/// Calls this for each request of the process from now on, on the thread that sends it. The first observer stays.
pub fn observe_requests(observer: impl Fn(&Sent<'_>) + Send + Sync + 'static) {
    let _ = OBSERVER.set(Box::new(observer));
}

/// A request that is being sent, if somebody observes.
pub(crate) struct Observed(Option<(String, Url, Instant)>);

impl Observed {
    pub(crate) fn begin(request: &Request) -> Observed {
        let observed = OBSERVER.get().and_then(|_| Url::parse(&request.url).ok());
        Observed(observed.map(|url| (request.method.to_string(), url, Instant::now())))
    }

    pub(crate) fn end(self, answer: &Result<Answer, Error>) {
        if let (Some((method, url, start)), Some(observer)) = (self.0, OBSERVER.get()) {
            let answer = answer.as_ref().map(Answer::status).map_err(|error| error.kind);
            let host = url.host_str().unwrap_or_default();
            observer(&Sent { method: &method, host, path: url.path(), answer, time: start.elapsed() });
        }
    }
}
