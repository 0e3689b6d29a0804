//! A response: its head as values, its body within limits. Doesn't know what it means.

use std::io::{self, Read};
use std::time::{Duration, Instant};

use reqwest::blocking::Response;
use reqwest::header::HeaderMap;

use crate::error::{Error, Kind};
use crate::ratelimit::{self, RateLimit};

/// An answer whose body is yet to be read.
pub struct Answer {
    status: u16,
    headers: HeaderMap,
    response: Response,
    end: Instant,
}

impl Answer {
    pub(crate) fn new(mut response: Response, end: Instant) -> Answer {
        let headers = std::mem::take(response.headers_mut());
        Answer { status: response.status().as_u16(), headers, response, end }
    }

    /// The status: 200.
    pub fn status(&self) -> u16 {
        self.status
    }

    /// A header's value; the first, if there are several.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// Returns the time after which to retry (`Retry-After`), if it is given in seconds.
    pub fn retry_after(&self) -> Option<Duration> {
        self.header("retry-after")?.trim().parse().ok().map(Duration::from_secs)
    }

    /// The requests that are left of each limit, and the time after which it is whole again (`Ratelimit`).
    pub fn limits_left(&self) -> Vec<RateLimit> {
        ratelimit::read(&self.headers, "ratelimit", "r", "t")
    }

    /// The limits, each with the length of its window (`Ratelimit-Policy`).
    pub fn limits(&self) -> Vec<RateLimit> {
        ratelimit::read(&self.headers, "ratelimit-policy", "q", "w")
    }

    /// The body, which is read as it arrives. Reading fails after this number of bytes.
    pub fn body(self, limit: u64) -> Body {
        Body { response: self.response, left: limit, end: self.end }
    }

    /// The whole body.
    pub fn bytes(self, limit: u64) -> Result<Vec<u8>, Error> {
        let mut bytes = Vec::new();
        match self.body(limit).read_to_end(&mut bytes) {
            Ok(_) => Ok(bytes),
            Err(error) => Err(Body::error(&error)),
        }
    }
}

/// A body that is read as it comes, up to a limit of bytes and until its request is given up.
pub struct Body {
    response: Response,
    left: u64,
    end: Instant,
}

impl Body {
    /// Returns the kind of an error while reading: [`Kind::TooLong`], [`Kind::Timeout`] or [`Kind::Broken`].
    pub fn error(error: &io::Error) -> Error {
        let plain = |kind| Error { kind, cause: String::new() };
        match error.kind() {
            io::ErrorKind::FileTooLarge => return plain(Kind::TooLong),
            io::ErrorKind::TimedOut => return plain(Kind::Timeout),
            _ => {}
        }
        match error.get_ref().and_then(|inner| inner.downcast_ref::<reqwest::Error>()) {
            Some(inner) => match Error::of(inner) {
                Error { kind: Kind::Timeout, cause } => Error { kind: Kind::Timeout, cause },
                _ => Error { kind: Kind::Broken, cause: error.to_string() },
            },
            None => Error { kind: Kind::Broken, cause: error.to_string() },
        }
    }
}

impl Read for Body {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if Instant::now() >= self.end {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "the response took too long"));
        }
        let read = self.response.read(buffer)?;
        self.left = self
            .left
            .checked_sub(read as u64)
            .ok_or_else(|| io::Error::new(io::ErrorKind::FileTooLarge, "the response is too long"))?;
        Ok(read)
    }
}
