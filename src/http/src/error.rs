//! The reasons why there is no complete answer. Holds no address: one can have a password in it.

use std::error::Error as _;
use std::fmt;

/// A failed request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    /// The kind of failure.
    pub kind: Kind,
    /// The last cause, in the words of the system or the library; empty if there is none.
    pub cause: String,
}

/// The kinds of failures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The client can't be made: the certificates that this machine trusts can't be read, or a proxy's address is
    /// invalid.
    Client,
    /// The request can't be made: its address or the value of a header is invalid. Nothing was sent.
    Request,
    /// The connection failed.
    Connect,
    /// The answer, or its end, did not come in time.
    Timeout,
    /// The connection broke.
    Broken,
    /// The answer is longer than it may be.
    TooLong,
}

impl Error {
    /// Returns the error for one of reqwest's.
    pub(crate) fn of(error: &reqwest::Error) -> Error {
        let kind = match error {
            error if error.is_timeout() => Kind::Timeout,
            error if error.is_connect() => Kind::Connect,
            error if error.is_builder() => Kind::Request,
            _ => Kind::Broken,
        };
        let mut last = error.source();
        while let Some(cause) = last.and_then(std::error::Error::source) {
            last = Some(cause);
        }
        Error { kind, cause: last.map(ToString::to_string).unwrap_or_default() }
    }

    /// Returns the error for a client that can't be created; most often, a minimal container has no certificates.
    pub(crate) fn of_client(error: &reqwest::Error) -> Error {
        let cause = Error::of(error).cause;
        let help = match cause.contains("CA certificates") {
            true => "; install the system's package of them, ca-certificates, or name a file in SSL_CERT_FILE",
            false => "",
        };
        Error { kind: Kind::Client, cause: format!("{cause}{help}") }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.kind {
            Kind::Client => "no HTTP client",
            Kind::Request => "the request can't be created",
            Kind::Connect => "no connection",
            Kind::Timeout => "no response in time",
            Kind::Broken => "the connection broke",
            Kind::TooLong => "the response is too long",
        })?;
        if self.cause.is_empty() { Ok(()) } else { write!(f, ": {}", self.cause) }
    }
}

impl std::error::Error for Error {}
