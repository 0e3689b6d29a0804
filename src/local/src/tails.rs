//! Tails as the API has them, and the stream to one client: `trace-v1` over a WebSocket, as wrangler reads it.

use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::sync::broadcast::error::RecvError;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};

use super::call::{Body, Call};
use super::clock::stamp;
use super::cloud::Cloud;
use super::envelope::{Answer, Outcome, Refusal};
use super::store::{self, Key};
use super::tail_list::{Filters, OF_WORKER, Opened};

/// The protocol that a client has to name.
pub const PROTOCOL: &str = "trace-v1";
/// The path of a tail's stream on this machine; its id comes behind it.
pub const PATH: &str = "tails";
/// The time after which a tail expires.
const LIFETIME: Duration = Duration::from_secs(6 * 60 * 60);
/// The maximum number of bytes that a client may send in one message: it sends options and pings.
const LARGEST: usize = 64 << 10;
/// The time that a client may take to read an event.
const PATIENCE: Duration = Duration::from_secs(30);

/// `POST …/tails`: starts a tail.
pub fn create(cloud: &Cloud, key: &Key, call: &Call) -> Outcome {
    let filters = match &call.body {
        Body::Empty => Filters::default(),
        _ => Filters::read(&call.json()?["filters"])?,
    };
    cloud.store.read(|db| store::get(db, key))?;
    let now = (cloud.clock)();
    let (id, expires) = (cloud.store.seal.id(), now + LIFETIME);
    if !cloud.tails.add(&id, key, filters, now, expires) {
        // No document names the code of this refusal.
        return Err(Refusal::new(400, 10057, format!("more than {OF_WORKER} clients tail this Worker")));
    }
    let host = call.header("host").unwrap_or_default();
    let url = format!("ws://{host}/__local/{PATH}/{id}");
    Ok(Answer::ok(&json!({"id": id, "url": url, "expires_at": stamp(expires)})))
}

/// `DELETE …/tails/{id}`: ends it.
pub fn delete(cloud: &Cloud, key: &Key, id: &str) -> Outcome {
    if !cloud.tails.remove(id, key) {
        return Err(Refusal::new(404, 10007, "This tail does not exist on this Worker."));
    }
    Ok(Answer::ok(&Value::Null))
}

/// Sends the events of a tail until it ends or its client goes.
pub async fn stream(upgraded: Upgraded, tail: Opened) {
    let limits = WebSocketConfig::default().max_message_size(Some(LARGEST)).max_frame_size(Some(LARGEST));
    // wrangler doesn't mask what it sends first.
    let limits = limits.accept_unmasked_frames(true);
    let mut socket = WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, Some(limits)).await;
    let Opened { key, filters, mut ended, mut events } = tail;
    loop {
        let message = tokio::select! {
            // An error is the end of the tail.
            _ = ended.changed() => {
                let _ = tokio::time::timeout(PATIENCE, socket.close(Some(normal("the tail was deleted")))).await;
                return;
            }
            received = socket.next() => match received {
                // Pings are answered by the library, options such as `{"debug":false}` change nothing here.
                Some(Ok(message)) if !message.is_close() => continue,
                _ => return,
            },
            event = events.recv() => match event {
                Ok(event) if event.is_of(&key) && filters.accept(&event.json) => event.json.clone(),
                Ok(_) => continue,
                Err(RecvError::Lagged(lost)) => overload(lost),
                Err(RecvError::Closed) => return,
            },
        };
        match tokio::time::timeout(PATIENCE, socket.send(Message::text(message))).await {
            Ok(Ok(())) => {}
            _ => return,
        }
    }
}

fn normal(reason: &'static str) -> CloseFrame {
    CloseFrame { code: CloseCode::Normal, reason: reason.into() }
}

/// The message in place of events that a slow client has lost, as Cloudflare sends it.
fn overload(lost: u64) -> String {
    let message = format!("Tail is currently in sampling mode due to the high volume of messages: {lost} were dropped");
    json!({
        "outcome": "ok", "scriptName": null, "exceptions": [], "logs": [], "eventTimestamp": null,
        "event": {"type": "overload", "message": message},
    })
    .to_string()
}
