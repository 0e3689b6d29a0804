//! Follows the requests, console lines and exceptions of a worker as they happen: starts a tail, reads its stream, starts another one
//! where the connection is lost, and deletes it at the end. Reports events; prints nothing.

use std::sync::Arc;
use std::time::{Duration, Instant};

use flotilla_http::{Received, Timeouts, WebSocket};
use flotilla_model::platform::{Call, CallError, Home, Reply};
use parking_lot::Mutex;
use serde_json::Value;

use crate::requester::Requester;

/// The protocol of a tail's stream, as wrangler names it.
const PROTOCOL: &str = "trace-v1";
/// The largest message, in bytes. Cloudflare cuts the console lines of an invocation off at 256 KB.
const LARGEST: usize = 4 << 20;
/// The time between two pings, and the time in which the answer has to come.
const PING: Duration = Duration::from_secs(10);
/// The longest wait for a message before it is looked whether to stop.
const LOOK: Duration = Duration::from_millis(200);
/// The waits before a lost connection is made again; after the last one it is given up.
const RECONNECTS: [Duration; 5] = [
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(4),
    Duration::from_secs(8),
    Duration::from_secs(16),
];
/// The time after which a connection counts as one that holds: the waits before the next one begin again with the shortest. A server that
/// accepts connections and closes them at once is given up after a while, like one that doesn't answer.
const STEADY: Duration = Duration::from_secs(30);
const TIMEOUTS: Timeouts = Timeouts {
    connect: Duration::from_secs(10),
    silence: Duration::from_secs(10),
    total: Duration::from_secs(20),
    idle: Duration::from_secs(90),
};

/// The worker whose events are followed.
pub struct Tail<'a> {
    /// Its home.
    pub home: &'a Home,
    /// Its name.
    pub worker: &'a str,
    /// The filters that an event has to pass, in the platform's form.
    pub filters: &'a [Value],
    /// Returns the reason why the platform can't answer at the moment, where that is known: then nothing is sent to it.
    pub outage: &'a (dyn Fn() -> Option<String> + Sync),
}

/// An event of following a worker.
#[derive(Debug, PartialEq)]
pub enum Event<'a> {
    /// It is connected; whether for another time.
    Connected {
        /// Whether it was connected before.
        again: bool,
    },
    /// The connection is lost, and made again after a while.
    Lost {
        /// The reason.
        reason: &'a str,
        /// The wait.
        wait: Duration,
    },
    /// An event of the worker.
    Message(&'a Value),
}

/// The reason why a worker can't be followed, or not any more.
#[derive(Clone, Debug, PartialEq)]
pub enum TailError {
    /// There is no such worker.
    NotDeployed,
    /// The platform refused the tail.
    Refused(CallError),
    /// The connection was lost, and could not be made again.
    Lost(String),
}

/// The end of a connection.
enum End {
    Stopped,
    Lost(String),
}

/// The waits between connections.
#[derive(Default)]
struct Reconnects(usize);

impl Reconnects {
    /// Returns the wait after a connection that held for this time; none where it is to be given up.
    fn after(&mut self, held: Duration) -> Option<Duration> {
        if held >= STEADY {
            self.0 = 0;
        }
        self.0 += 1;
        RECONNECTS.get(self.0 - 1).copied()
    }
}

impl Tail<'_> {
    /// Follows the worker until `stops`.
    pub fn follow(
        &self,
        requester: &Mutex<Requester>,
        stops: &dyn Fn() -> bool,
        on_event: &mut dyn FnMut(Event<'_>),
    ) -> Result<(), TailError> {
        let clock = Arc::clone(&requester.lock().clock);
        let (mut reconnects, mut connected) = (Reconnects::default(), false);
        while !stops() {
            let mut since = None;
            let lost = match self.start(requester, connected) {
                Ok((id, url)) => {
                    let end = self.read(&url, stops, &mut |event| {
                        if let Event::Connected { .. } = event {
                            on_event(Event::Connected { again: connected });
                            (since, connected) = (Some(clock.now()), true);
                        } else {
                            on_event(event);
                        }
                    });
                    // Also one whose connection is lost: the number of tails at a time is limited. It may have ended already, so this is
                    // tried once.
                    if (self.outage)().is_none() {
                        let call = Call::DeleteTail { worker: self.worker.to_owned(), id };
                        let _ = requester.lock().ask_once(self.home, &call);
                    }
                    match end {
                        End::Stopped => return Ok(()),
                        End::Lost(reason) => reason,
                    }
                }
                Err(TailError::Refused(error @ (CallError::Unavailable(_) | CallError::Throttled { .. })))
                    if connected =>
                {
                    error.to_string()
                }
                Err(error) => return Err(error),
            };
            let lost = (self.outage)().unwrap_or(lost);
            let held = since.map_or(Duration::ZERO, |since| clock.now().saturating_sub(since));
            let Some(wait) = reconnects.after(held) else { return Err(TailError::Lost(lost)) };
            on_event(Event::Lost { reason: &lost, wait });
            let end = clock.now() + wait;
            while clock.now() < end && !stops() {
                clock.sleep(LOOK.min(end.saturating_sub(clock.now())));
            }
        }
        Ok(())
    }

    /// Starts a tail; returns its id and the address of its stream. For another time it is tried once: the caller waits and tries again.
    fn start(&self, requester: &Mutex<Requester>, again: bool) -> Result<(String, String), TailError> {
        if let Some(reason) = (self.outage)() {
            return Err(TailError::Refused(CallError::Unavailable(reason)));
        }
        let call = Call::StartTail { worker: self.worker.to_owned(), filters: self.filters.to_vec() };
        let mut requester = requester.lock();
        let reply = match again {
            true => requester.ask_once(self.home, &call),
            false => requester.try_ask(self.home, &call),
        };
        match reply {
            Ok(Reply::Tail { id, url, .. }) => Ok((id, url)),
            Ok(_) => Err(TailError::NotDeployed),
            Err(error) => Err(TailError::Refused(error)),
        }
    }

    /// Reads a stream to its end.
    fn read(&self, url: &str, stops: &dyn Fn() -> bool, on_event: &mut dyn FnMut(Event<'_>)) -> End {
        let opened = WebSocket::open(url, PROTOCOL, TIMEOUTS, LARGEST).and_then(|mut socket| {
            // What wrangler sends first: events that the filters keep out are not wanted.
            socket.send("{\"debug\":false}").map(|()| socket)
        });
        let mut socket = match opened {
            Ok(socket) => socket,
            Err(error) => return End::Lost(error.to_string()),
        };
        on_event(Event::Connected { again: false });
        let (mut heard, mut pinged) = (Instant::now(), None::<Instant>);
        let reason = loop {
            if stops() {
                socket.close();
                return End::Stopped;
            }
            match socket.receive(LOOK) {
                Ok(Received::Nothing) => match pinged {
                    Some(at) if at.elapsed() >= PING => break "no answer to a ping".to_owned(),
                    None if heard.elapsed() >= PING => {
                        if let Err(error) = socket.ping() {
                            break error.to_string();
                        }
                        pinged = Some(Instant::now());
                    }
                    _ => {}
                },
                Ok(received) => {
                    (heard, pinged) = (Instant::now(), None);
                    match received {
                        Received::Message(text) => match serde_json::from_str(&text) {
                            Ok(event) => on_event(Event::Message(&event)),
                            Err(_) => break "a message is not JSON".to_owned(),
                        },
                        Received::Closed { reason, .. } if reason.is_empty() => {
                            break "the server closed it".to_owned();
                        }
                        Received::Closed { reason, .. } => break format!("the server closed it: {reason}"),
                        Received::Heartbeat | Received::Nothing => {}
                    }
                }
                Err(error) => break error.to_string(),
            }
        };
        End::Lost(reason)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::net::TcpListener;
    use std::ops::ControlFlow;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use flotilla_model::clock::{Clock, FakeClock};
    use flotilla_model::platform::{Health, HealthCheck, Platform, Quota};
    use tokio_tungstenite::tungstenite::accept_hdr;
    use tokio_tungstenite::tungstenite::handshake::server::{Request, Response};
    use tokio_tungstenite::tungstenite::http::HeaderValue;

    use crate::pace::{Lane, Rate};
    use crate::requester::Account;

    use super::*;

    /// A platform whose tails are at this address.
    struct Tails {
        url: String,
        calls: Arc<AtomicUsize>,
    }

    impl Platform for Tails {
        fn call(&self, _: &Home, call: &Call) -> (Result<Reply, CallError>, Option<Quota>) {
            self.calls.fetch_add(1, Ordering::Relaxed);
            let reply = match call {
                Call::StartTail { .. } => {
                    Reply::Tail { id: "t".to_owned(), url: self.url.clone(), expires_at: String::new() }
                }
                _ => Reply::Done,
            };
            (Ok(reply), None)
        }

        fn health(&self, _: &HealthCheck) -> Health {
            unreachable!("nobody asks for it")
        }
    }

    /// A server that accepts every connection and closes it at once; its address.
    #[expect(clippy::result_large_err, reason = "the type of the callback's error is the library's")]
    fn closes_at_once() -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let protocol = |_: &Request, mut response: Response| {
                    response.headers_mut().insert("sec-websocket-protocol", HeaderValue::from_static(PROTOCOL));
                    Ok(response)
                };
                let mut socket = accept_hdr(stream.unwrap(), protocol).unwrap();
                let _ = socket.close(None).and_then(|()| socket.flush());
            }
        });
        format!("ws://{address}/")
    }

    /// Follows a worker until that ends; returns what was reported, the end, the time that it took and the number of calls.
    fn followed(
        url: String,
        outage: &(dyn Fn() -> Option<String> + Sync),
    ) -> (Vec<String>, TailError, Duration, usize) {
        let (clock, calls) = (Arc::new(FakeClock::default()), Arc::new(AtomicUsize::new(0)));
        let lane = Arc::new(Lane::new(Rate::of(1000, Duration::from_secs(1)), clock.clone() as Arc<dyn Clock>));
        let accounts = HashMap::from([("a".to_owned(), Account { name: "main".to_owned(), lane })]);
        let platform = Tails { url, calls: Arc::clone(&calls) };
        let observer = Box::new(|_: &crate::requester::Event<'_>| ControlFlow::Continue(()));
        let requester = Requester::new(Box::new(platform), accounts, clock.clone(), observer);
        let home = Home { account_id: "a".to_owned(), namespace: None };
        let tail = Tail { home: &home, worker: "acme", filters: &[], outage };
        let mut events = Vec::new();
        let end = tail.follow(&Mutex::new(requester), &|| false, &mut |event| {
            events.push(match event {
                Event::Connected { again } => format!("connected, again: {again}"),
                Event::Lost { reason, wait } => format!("{reason}, {} s", wait.as_secs()),
                Event::Message(message) => message.to_string(),
            });
        });
        (events, end.unwrap_err(), clock.now(), calls.load(Ordering::Relaxed))
    }

    #[test]
    fn a_server_that_closes_at_once_is_given_up_with_longer_waits_before() {
        let (events, end, time, calls) = followed(closes_at_once(), &|| None);
        let lost = |seconds: u64| format!("the server closed it, {seconds} s");
        let again = "connected, again: true".to_owned();
        let wanted: Vec<String> = ["connected, again: false".to_owned(), lost(1)]
            .into_iter()
            .chain([2, 4, 8, 16].into_iter().flat_map(|seconds| [again.clone(), lost(seconds)]))
            .chain([again.clone()])
            .collect();
        assert_eq!(events, wanted);
        assert_eq!(end, TailError::Lost("the server closed it".to_owned()));
        assert!(time >= Duration::from_secs(31), "{time:?}");
        // Each tail is started once and deleted once.
        assert_eq!(calls, 12);
    }

    #[test]
    fn nothing_is_sent_to_a_platform_that_has_stopped() {
        let looks = AtomicUsize::new(0);
        let outage = || (looks.fetch_add(1, Ordering::Relaxed) > 0).then(|| "the emulator has stopped".to_owned());
        let (events, end, _, calls) = followed(closes_at_once(), &outage);
        assert_eq!(events[..2], ["connected, again: false", "the emulator has stopped, 1 s"]);
        assert_eq!((events.len(), events.last().unwrap().as_str()), (6, "the emulator has stopped, 16 s"));
        assert_eq!(end, TailError::Lost("the emulator has stopped".to_owned()));
        assert_eq!(calls, 1, "the tail was started, and nothing else was sent");
    }

    #[test]
    fn after_a_connection_that_held_the_waits_begin_again() {
        let mut reconnects = Reconnects::default();
        let waits = |reconnects: &mut Reconnects| [0, 29, 29].map(|held| reconnects.after(Duration::from_secs(held)));
        assert_eq!(waits(&mut reconnects), [1, 2, 4].map(|wait| Some(Duration::from_secs(wait))));
        assert_eq!(reconnects.after(STEADY), Some(RECONNECTS[0]));
        assert_eq!(reconnects.after(Duration::ZERO), Some(RECONNECTS[1]));
    }
}
