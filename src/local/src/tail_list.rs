//! The tails of workers: who wants to see which events. Knows the list and the filters; not how a client gets them.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::Value;
use tokio::sync::{broadcast, watch};

use super::activity::{Activity, Trace};
use super::envelope::Refusal;
use super::store::Key;

/// The most tails of a worker (Cloudflare docs, Workers › Real-time logs: ten clients).
pub const OF_WORKER: usize = 10;

/// The tails, by id.
#[derive(Default)]
pub struct Tails(Mutex<HashMap<String, Tail>>);

struct Tail {
    key: Key,
    filters: Arc<Filters>,
    expires: Duration,
    /// Dropped with the tail, which ends its streams.
    end: watch::Sender<()>,
}

/// A tail as its stream needs it.
pub struct Opened {
    /// The worker.
    pub key: Key,
    /// The filters.
    pub filters: Arc<Filters>,
    /// Fails when the tail is deleted.
    pub ended: watch::Receiver<()>,
    /// The events of all workers since the tail was opened.
    pub events: broadcast::Receiver<Arc<Trace>>,
}

impl Tails {
    /// Adds a tail that ends at a time. False: the worker has too many.
    pub fn add(&self, id: &str, key: &Key, filters: Filters, now: Duration, expires: Duration) -> bool {
        let mut tails = self.0.lock();
        tails.retain(|_, tail| tail.expires > now);
        if tails.values().filter(|tail| tail.key == *key).count() >= OF_WORKER {
            return false;
        }
        let tail = Tail { key: key.clone(), filters: Arc::new(filters), expires, end: watch::Sender::new(()) };
        tails.insert(id.to_owned(), tail);
        true
    }

    /// Removes a worker's tail and ends its streams. False: the worker has none of that id.
    pub fn remove(&self, id: &str, key: &Key) -> bool {
        let mut tails = self.0.lock();
        tails.get(id).is_some_and(|tail| tail.key == *key) && tails.remove(id).is_some()
    }

    /// Returns the tail of an id, if it is there, with the events from now on.
    pub fn open(&self, id: &str, now: Duration, activity: &Activity) -> Option<Opened> {
        let mut tails = self.0.lock();
        tails.retain(|_, tail| tail.expires > now);
        let Tail { key, filters, end, .. } = tails.get(id)?;
        let (key, filters, ended) = (key.clone(), filters.clone(), end.subscribe());
        Some(Opened { key, filters, ended, events: activity.subscribe() })
    }
}

/// The filters of a tail; an event passes all of them.
#[derive(Debug, Default, PartialEq)]
pub struct Filters(Vec<Filter>);

#[derive(Debug, PartialEq)]
enum Filter {
    Outcome(Vec<String>),
    Method(Vec<String>),
    Query(String),
    Header { key: String, query: Option<String> },
    ClientIp(Vec<String>),
    Version(String),
    SamplingRate(f64),
}

impl Filters {
    /// Reads the filters of a request: `[{"outcome": ["ok"]}, {"method": ["GET"]}, {"query": "text"}, …]`.
    ///
    /// # Errors
    /// 400 (10026) when they are none.
    pub fn read(value: &Value) -> Result<Filters, Refusal> {
        let items = match value {
            Value::Null => &[],
            Value::Array(items) => items.as_slice(),
            _ => return Err(Refusal::unparseable("filters must be an array")),
        };
        items.iter().map(Filter::read).collect::<Option<_>>().map(Filters).ok_or_else(|| {
            Refusal::unparseable(
                "a filter is none of outcome, method, query, header, client_ip, scriptVersion and sampling_rate",
            )
        })
    }

    /// Returns whether an event passes.
    pub fn accept(&self, json: &str) -> bool {
        if self.0.is_empty() {
            return true;
        }
        let event: Value = serde_json::from_str(json).unwrap_or_default();
        self.0.iter().all(|filter| filter.accepts(&event))
    }
}

impl Filter {
    fn read(value: &Value) -> Option<Filter> {
        let (name, value) = value.as_object().filter(|fields| fields.len() == 1)?.iter().next()?;
        let text = || value.as_str().map(ToOwned::to_owned);
        let texts =
            || value.as_array()?.iter().map(|item| item.as_str().map(ToOwned::to_owned)).collect::<Option<Vec<_>>>();
        Some(match name.as_str() {
            "outcome" => Filter::Outcome(texts()?),
            "method" => Filter::Method(texts()?),
            "client_ip" => Filter::ClientIp(texts()?),
            "query" => Filter::Query(text()?),
            "scriptVersion" => Filter::Version(text()?),
            "sampling_rate" => Filter::SamplingRate(value.as_f64()?),
            "header" => Filter::Header {
                key: value["key"].as_str()?.to_ascii_lowercase(),
                query: value["query"].as_str().map(ToOwned::to_owned),
            },
            _ => return None,
        })
    }

    fn accepts(&self, event: &Value) -> bool {
        let request = &event["event"]["request"];
        let header = |name: &str| request["headers"][name].as_str();
        match self {
            Filter::Outcome(wanted) => wanted.iter().any(|outcome| event["outcome"] == outcome.as_str()),
            Filter::Method(wanted) => request["method"]
                .as_str()
                .is_some_and(|method| wanted.iter().any(|one| one.eq_ignore_ascii_case(method))),
            // The messages of console lines and exceptions.
            Filter::Query(text) => {
                let has = |value: &Value| {
                    value.as_str().map_or_else(|| value.to_string().contains(text), |own| own.contains(text))
                };
                let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
                list(&event["logs"]).iter().flat_map(|log| list(&log["message"])).any(|message| has(&message))
                    || list(&event["exceptions"]).iter().any(|exception| has(&exception["message"]))
            }
            Filter::Header { key, query } => {
                header(key).is_some_and(|value| query.as_ref().is_none_or(|query| value.contains(query.as_str())))
            }
            Filter::ClientIp(wanted) => {
                // All callers are on this machine.
                let address = header("cf-connecting-ip").unwrap_or_default();
                wanted.iter().any(|one| one == "self" || one == address)
            }
            Filter::Version(id) => event["scriptVersion"]["id"] == id.as_str(),
            Filter::SamplingRate(rate) => is_sampled(event, *rate),
        }
    }
}

/// Returns whether an event is among the share that a client wants: decided by its content, so that no state is needed.
fn is_sampled(event: &Value, rate: f64) -> bool {
    let digest = super::seal::digest(event.to_string().as_bytes());
    let part = u32::from_str_radix(&digest[..8], 16).unwrap_or_default();
    f64::from(part) < rate * f64::from(u32::MAX)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn events_pass_all_filters() {
        let event = json!({
            "outcome": "exception", "scriptVersion": {"id": "v1"},
            "logs": [{"message": ["one", {"two": 2}]}], "exceptions": [{"message": "boom"}],
            "event": {"request": {"method": "POST", "headers": {"x-a": "value", "cf-connecting-ip": "127.0.0.1"}}},
        })
        .to_string();
        for (filters, expect) in [
            (json!([]), true),
            (Value::Null, true),
            (json!([{"outcome": ["ok"]}]), false),
            (json!([{"outcome": ["exception", "unknown"]}, {"method": ["get", "post"]}]), true),
            (json!([{"outcome": ["exception"]}, {"method": ["GET"]}]), false),
            (json!([{"query": "ne"}]), true),
            (json!([{"query": "\"two\""}]), true),
            (json!([{"query": "boo"}]), true),
            (json!([{"query": "nothing"}]), false),
            (json!([{"header": {"key": "X-A"}}]), true),
            (json!([{"header": {"key": "x-a", "query": "alu"}}]), true),
            (json!([{"header": {"key": "x-a", "query": "other"}}]), false),
            (json!([{"header": {"key": "x-b"}}]), false),
            (json!([{"client_ip": ["self"]}]), true),
            (json!([{"client_ip": ["10.0.0.1"]}]), false),
            (json!([{"scriptVersion": "v1"}]), true),
            (json!([{"scriptVersion": "v2"}]), false),
            (json!([{"sampling_rate": 1.0}]), true),
            (json!([{"sampling_rate": 0.0}]), false),
        ] {
            assert_eq!(Filters::read(&filters).unwrap().accept(&event), expect, "{filters}");
        }
        for wrong in [json!({}), json!([{"other": 1}]), json!([{"outcome": "ok"}]), json!([{}]), json!(["ok"])] {
            assert!(Filters::read(&wrong).is_err(), "{wrong}");
        }
    }
}
