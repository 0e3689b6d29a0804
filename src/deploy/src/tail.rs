//! Follows the requests, console lines and exceptions of a worker as they happen: starts a tail, reads its stream, starts another one
//! where the connection is lost, and deletes it at the end. Reports events; prints nothing.

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

impl Tail<'_> {
    /// Follows the worker until `stops`.
    pub fn follow(
        &self,
        requester: &Mutex<Requester>,
        stops: &dyn Fn() -> bool,
        on_event: &mut dyn FnMut(Event<'_>),
    ) -> Result<(), TailError> {
        let (mut attempt, mut connected) = (0, false);
        while !stops() {
            let lost = match self.start(requester) {
                Ok((id, url)) => {
                    let end = self.read(&url, stops, &mut |event| {
                        if let Event::Connected { .. } = event {
                            on_event(Event::Connected { again: connected });
                            (attempt, connected) = (0, true);
                        } else {
                            on_event(event);
                        }
                    });
                    // Also one whose connection is lost: only so many can be there at once. It may have ended by itself.
                    let _ =
                        requester.lock().try_ask(self.home, &Call::DeleteTail { worker: self.worker.to_owned(), id });
                    match end {
                        End::Stopped => return Ok(()),
                        End::Lost(reason) => reason,
                    }
                }
                Err(TailError::Refused(CallError::Unavailable(reason))) if connected => reason,
                Err(error) => return Err(error),
            };
            let Some(wait) = RECONNECTS.get(attempt) else { return Err(TailError::Lost(lost)) };
            attempt += 1;
            on_event(Event::Lost { reason: &lost, wait: *wait });
            let end = Instant::now() + *wait;
            while Instant::now() < end && !stops() {
                std::thread::sleep(LOOK.min(end.saturating_duration_since(Instant::now())));
            }
        }
        Ok(())
    }

    /// Starts a tail; returns its id and the address of its stream.
    fn start(&self, requester: &Mutex<Requester>) -> Result<(String, String), TailError> {
        let call = Call::StartTail { worker: self.worker.to_owned(), filters: self.filters.to_vec() };
        match requester.lock().try_ask(self.home, &call) {
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
