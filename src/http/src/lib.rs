//! The one client for everything outside: it sends requests, reads answers within limits of size and time, and looks at the
//! certificates of hosts. Knows no API, and doesn't retry, wait or remember.

mod answer;
mod certificate;
mod client;
mod error;
mod observer;
mod ratelimit;
mod redact;
mod request;
mod websocket;

pub use answer::{Answer, Body};
pub use certificate::Hosts;
pub use client::{Client, Timeouts, builder, check_token_address};
pub use error::{Error, Kind};
pub use observer::{Sent, observe_requests};
pub use ratelimit::RateLimit;
pub use redact::redact;
pub use request::{Method, Part, Request};
pub use websocket::{Received, WebSocket};
