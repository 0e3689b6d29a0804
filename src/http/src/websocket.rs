//! A WebSocket: the handshake goes through the same client as every request, its messages have a limit, and nothing waits forever.

use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use reqwest::{StatusCode, Upgraded, header};
use tokio::runtime::Runtime;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::client::generate_key;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{self, Message};

use crate::client::{Timeouts, check_token_address, settings};
use crate::error::{Error, Kind};

/// An open WebSocket.
pub struct WebSocket {
    runtime: Runtime,
    stream: WebSocketStream<Upgraded>,
    timeouts: Timeouts,
}

/// The result of waiting for a message.
#[derive(Debug, PartialEq, Eq)]
pub enum Received {
    /// A message.
    Message(String),
    /// A sign that the connection is alive: the response to a ping, or a ping, which is answered.
    Heartbeat,
    /// The server has closed it; whether properly, and its reason.
    Closed {
        /// Whether the server says that this is the regular end.
        normal: bool,
        /// The reason; often empty.
        reason: String,
    },
    /// Nothing in that time.
    Nothing,
}

impl WebSocket {
    /// Opens one: `wss://`, or `ws://` within this machine, since anyone who knows the address may read. `largest` is the limit of a
    /// message in bytes.
    pub fn open(url: &str, protocol: &str, timeouts: Timeouts, largest: usize) -> Result<WebSocket, Error> {
        let address = match url.split_once("://") {
            Some(("wss", rest)) => format!("https://{rest}"),
            Some(("ws", rest)) => format!("http://{rest}"),
            _ => return Err(request_error("the address is not a WebSocket's")),
        };
        check_token_address(&address).map_err(request_error)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| Error { kind: Kind::Client, cause: error.to_string() })?;
        let limits = WebSocketConfig::default().max_message_size(Some(largest)).max_frame_size(Some(largest));
        let stream = runtime.block_on(async {
            let upgraded = tokio::time::timeout(timeouts.total, upgrade(&address, protocol, timeouts));
            let upgraded = upgraded.await.map_err(|_| Error { kind: Kind::Timeout, cause: String::new() })??;
            Ok(WebSocketStream::from_raw_socket(upgraded, Role::Client, Some(limits)).await)
        })?;
        Ok(WebSocket { runtime, stream, timeouts })
    }

    /// Returns what comes next, and waits for it no longer than `within`.
    pub fn receive(&mut self, within: Duration) -> Result<Received, Error> {
        let WebSocket { runtime, stream, .. } = self;
        let next = runtime.block_on(async { tokio::time::timeout(within, stream.next()).await });
        let Ok(next) = next else { return Ok(Received::Nothing) };
        match next {
            None => Ok(Received::Closed { normal: false, reason: String::new() }),
            Some(Ok(Message::Text(text))) => Ok(Received::Message(text.as_str().to_owned())),
            Some(Ok(Message::Binary(bytes))) => Ok(Received::Message(String::from_utf8_lossy(&bytes).into_owned())),
            Some(Ok(Message::Close(frame))) => Ok(Received::Closed {
                normal: frame.as_ref().is_some_and(|frame| frame.code == CloseCode::Normal),
                reason: frame.map(|frame| frame.reason.as_str().to_owned()).unwrap_or_default(),
            }),
            Some(Ok(_)) => Ok(Received::Heartbeat),
            Some(Err(error)) => Err(error_of(&error)),
        }
    }

    /// Sends a message.
    pub fn send(&mut self, text: &str) -> Result<(), Error> {
        self.write(Message::text(text))
    }

    /// Asks for a sign of life.
    pub fn ping(&mut self) -> Result<(), Error> {
        self.write(Message::Ping(Vec::new().into()))
    }

    /// Closes it, and notifies the server if it can be reached.
    pub fn close(mut self) {
        let _ = self.write(Message::Close(None));
    }

    fn write(&mut self, message: Message) -> Result<(), Error> {
        let WebSocket { runtime, stream, timeouts } = self;
        let sent = runtime.block_on(async { tokio::time::timeout(timeouts.silence, stream.send(message)).await });
        match sent {
            Ok(sent) => sent.map_err(|error| error_of(&error)),
            Err(_) => Err(Error { kind: Kind::Timeout, cause: String::new() }),
        }
    }
}

async fn upgrade(address: &str, protocol: &str, timeouts: Timeouts) -> Result<Upgraded, Error> {
    let http = settings(address, timeouts).http1_only().build();
    let http = http.map_err(|error| Error::of_client(&error))?;
    let key = generate_key();
    let request = http
        .get(address)
        .header(header::CONNECTION, "Upgrade")
        .header(header::UPGRADE, "websocket")
        .header(header::SEC_WEBSOCKET_VERSION, "13")
        .header(header::SEC_WEBSOCKET_KEY, &key)
        .header(header::SEC_WEBSOCKET_PROTOCOL, protocol);
    let response = request.send().await.map_err(|error| Error::of(&error))?;
    let is = |name: header::HeaderName, value: &str| {
        response.headers().get(name).and_then(|sent| sent.to_str().ok()).is_some_and(|sent| sent == value)
    };
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        let cause = format!("the response to the WebSocket handshake is {}", response.status());
        return Err(Error { kind: Kind::Connect, cause });
    }
    if !is(header::SEC_WEBSOCKET_ACCEPT, &derive_accept_key(key.as_bytes()))
        || !is(header::SEC_WEBSOCKET_PROTOCOL, protocol)
    {
        return Err(Error {
            kind: Kind::Connect,
            cause: "the response to the WebSocket handshake belongs to another one".to_owned(),
        });
    }
    response.upgrade().await.map_err(|error| Error::of(&error))
}

fn request_error(cause: &str) -> Error {
    Error { kind: Kind::Request, cause: cause.to_owned() }
}

fn error_of(error: &tungstenite::Error) -> Error {
    let kind = match error {
        tungstenite::Error::Capacity(_) => Kind::TooLong,
        _ => Kind::Broken,
    };
    Error { kind, cause: error.to_string() }
}
