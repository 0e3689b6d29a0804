//! The latest events of workers: each invocation with its request, console lines, exceptions and outcome, in the form in which Cloudflare's
//! tails send it (`trace-v1`). In memory only, and bounded; the values of a worker's secrets are masked.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use parking_lot::Mutex;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};
use tokio::sync::{broadcast, watch};

use super::clock::Clock;
use super::store::Key;

/// The most events that are kept of all workers together, and their bytes.
const KEPT: usize = 1000;
const KEPT_BYTES: usize = 8 << 20;
/// The most events that are kept of one worker beyond those, and their bytes.
const KEPT_OF_WORKER: usize = 50;
const KEPT_OF_WORKER_BYTES: usize = 128 << 10;
/// The number of workers whose own events are kept: those that ran last.
const WORKERS: usize = 256;
/// The maximum size, in bytes, of one event; of a larger one, only the request and the outcome are kept.
pub const LARGEST: usize = 512 << 10;
/// The number of events that a slow reader may be behind before it loses some.
const BEHIND: usize = 512;
/// The most forms of a worker's secrets that are remembered, those of its earlier versions included: their events may still be on their way.
const SECRETS: usize = 1024;
/// The least length of a line that is masked alone.
const LINE: usize = 8;
/// Shorter values are no secrets, and masking them would hide half of a text.
const SHORTEST: usize = 4;
const MASK: &str = "***";

/// Called with each event.
pub type Observer = Arc<dyn Fn(&Trace) + Send + Sync>;

/// An event of a worker.
#[derive(Debug)]
pub struct Trace {
    /// Its number: each event has a greater one than those before it.
    pub number: u64,
    /// The id of the account.
    pub account: String,
    /// The dispatch namespace, or `""`.
    pub namespace: String,
    /// The worker's name.
    pub worker: String,
    /// The event as a tail sends it, as JSON.
    pub json: String,
}

impl Trace {
    /// Returns whether it is an event of this worker.
    #[must_use]
    pub(crate) fn is_of(&self, key: &Key) -> bool {
        self.worker == key.name && self.namespace == key.namespace && self.account == key.account
    }
}

/// The state of a worker as its latest events show it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Summary {
    /// The number of invocations since the emulator was started.
    pub requests: u64,
    /// The number of those that failed.
    pub errors: u64,
    /// The latest invocation.
    pub last: Option<Seen>,
    /// The latest answer on the path of health checks.
    pub health: Option<Seen>,
}

/// The end of an invocation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// Milliseconds since 1970.
    pub at: u64,
    /// The outcome: `ok`, `exception`, …
    pub outcome: String,
    /// The status of the answer, if there was one.
    pub status: Option<u64>,
}

impl Seen {
    /// Returns whether the worker failed: it threw, was stopped, or answered with an error of its own.
    #[must_use]
    pub fn failed(&self) -> bool {
        self.outcome != "ok" && self.outcome != "canceled" || self.status.is_some_and(|status| status >= 500)
    }
}

/// The events of all workers.
pub struct Activity {
    kept: Mutex<Kept>,
    sender: broadcast::Sender<Arc<Trace>>,
    newest: watch::Sender<u64>,
    observer: Option<Observer>,
    health_path: String,
    clock: Clock,
}

#[derive(Default)]
struct Kept {
    number: u64,
    all: Ring,
    workers: HashMap<Key, OfWorker>,
}

/// A bounded list, the oldest first.
#[derive(Default)]
struct Ring {
    events: VecDeque<Arc<Trace>>,
    bytes: usize,
}

impl Ring {
    fn add(&mut self, event: Arc<Trace>, most: usize, most_bytes: usize) {
        self.bytes += event.json.len();
        self.events.push_back(event);
        while self.events.len() > most || (self.bytes > most_bytes && self.events.len() > 1) {
            self.bytes -= self.events.pop_front().map_or(0, |dropped| dropped.json.len());
        }
    }
}

#[derive(Default)]
struct OfWorker {
    tags: Vec<String>,
    secrets: Vec<String>,
    summary: Summary,
    newest: u64,
    ring: Ring,
}

impl Activity {
    /// Returns an activity without events; answers on `health_path` count as health checks.
    #[must_use]
    pub fn new(observer: Option<Observer>, health_path: String, clock: Clock) -> Self {
        let (sender, newest) = (broadcast::Sender::new(BEHIND), watch::Sender::new(0));
        Self { kept: Mutex::default(), sender, newest, observer, health_path, clock }
    }

    /// Notes a worker before a version of it runs: its tags, and the values that its events must not show.
    pub fn register(&self, key: &Key, tags: Vec<String>, secrets: impl IntoIterator<Item = String>) {
        let mut kept = self.kept.lock();
        let worker = kept.workers.entry(key.clone()).or_default();
        worker.tags = tags;
        for secret in secrets.into_iter().filter(|secret| secret.len() >= SHORTEST) {
            for form in forms(&secret) {
                if form.len() >= SHORTEST && !worker.secrets.contains(&form) {
                    worker.secrets.insert(0, form);
                }
            }
        }
        worker.secrets.truncate(SECRETS);
    }

    /// Adds an event of a registered worker.
    pub fn add(&self, key: &Key, version: &str, mut event: Value) {
        let Value::Object(_) = event else { return };
        let trace = {
            let mut kept = self.kept.lock();
            let number = kept.number + 1;
            let Some(worker) = kept.workers.get_mut(key) else { return };
            event["scriptName"] = key.name.as_str().into();
            event["scriptVersion"] = json!({"id": version});
            event["scriptTags"] = worker.tags.clone().into();
            if !key.namespace.is_empty() {
                event["dispatchNamespace"] = key.namespace.as_str().into();
            }
            // The longest first: one can be the beginning of another.
            worker.secrets.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
            mask(&mut event, &worker.secrets);
            let mut json = event.to_string();
            if json.len() > LARGEST {
                (event["logs"], event["exceptions"], event["truncated"]) = (json!([]), json!([]), true.into());
                event["diagnosticsChannelEvents"] = json!([]);
                json = event.to_string();
                if json.len() > LARGEST {
                    return;
                }
            }
            worker.newest = number;
            count(&mut worker.summary, &event, &self.health_path);
            let Key { account, namespace, name } = key.clone();
            let trace = Arc::new(Trace { number, account, namespace, worker: name, json });
            worker.ring.add(trace.clone(), KEPT_OF_WORKER, KEPT_OF_WORKER_BYTES);
            kept.number = number;
            kept.all.add(trace.clone(), KEPT, KEPT_BYTES);
            kept.forget_oldest();
            trace
        };
        if let Some(observer) = &self.observer {
            observer(&trace);
        }
        self.newest.send_replace(trace.number);
        // An error means that nobody listens.
        let _ = self.sender.send(trace);
    }

    /// Adds what a worker printed while it was loaded, before any request.
    pub fn add_printed(&self, key: &Key, version: &str, printed: &str) {
        let (at, mut lines) = (self.now(), printed.lines().filter(|line| !line.trim().is_empty()).peekable());
        if lines.peek().is_some() {
            let logs = lines.map(|line| json!({"level": "log", "message": [line], "timestamp": at})).collect();
            self.add(key, version, event(at, "ok", Value::Null, logs, json!([])));
        }
    }

    /// Adds a request that a worker didn't answer because it doesn't run.
    pub fn add_failure(&self, key: &Key, version: &str, (method, url): (&str, &str), status: u16, why: &str) {
        let at = self.now();
        let request = json!({"request": {"method": method, "url": url, "headers": {}}, "response": {"status": status}});
        let exception = json!({"name": "Error", "message": why, "stack": null, "timestamp": at});
        self.add(key, version, event(at, "exception", request, json!([]), json!([exception])));
    }

    fn now(&self) -> u64 {
        u64::try_from((self.clock)().as_millis()).unwrap_or(u64::MAX)
    }

    /// Returns the events that come from now on.
    pub fn subscribe(&self) -> broadcast::Receiver<Arc<Trace>> {
        self.sender.subscribe()
    }

    /// Returns the number of the newest event.
    pub fn number(&self) -> u64 {
        *self.newest.borrow()
    }

    /// Returns a watch on the number of the newest event.
    pub fn newest(&self) -> watch::Receiver<u64> {
        self.newest.subscribe()
    }

    /// Returns the newest events after a number, the newest first: of one worker, or of all.
    #[must_use]
    pub fn recent(&self, key: Option<&Key>, after: u64, most: usize) -> Vec<Arc<Trace>> {
        let kept = self.kept.lock();
        let ring = match key {
            Some(key) => match kept.workers.get(key) {
                Some(worker) => &worker.ring,
                None => return Vec::new(),
            },
            None => &kept.all,
        };
        ring.events.iter().rev().take_while(|event| event.number > after).take(most).cloned().collect()
    }

    /// Returns the state of a worker as its events show it.
    #[must_use]
    pub fn summary(&self, key: &Key) -> Summary {
        self.kept.lock().workers.get(key).map(|worker| worker.summary.clone()).unwrap_or_default()
    }
}

impl Kept {
    /// Drops the events of the worker that was quiet for longest, where too many have some.
    fn forget_oldest(&mut self) {
        let with = |workers: &HashMap<Key, OfWorker>| {
            let quiet = workers.iter().filter(|(_, worker)| !worker.ring.events.is_empty());
            let oldest = quiet.clone().min_by_key(|(_, worker)| worker.newest).map(|(key, _)| key.clone());
            (quiet.count(), oldest)
        };
        if let (WORKERS.., Some(oldest)) = with(&self.workers)
            && let Some(worker) = self.workers.get_mut(&oldest)
        {
            worker.ring = Ring::default();
        }
    }
}

/// An event as workerd makes it.
fn event(at: u64, outcome: &str, event: Value, logs: Value, exceptions: Value) -> Value {
    json!({
        "wallTime": 0, "cpuTime": 0, "truncated": false, "executionModel": "stateless", "outcome": outcome,
        "diagnosticsChannelEvents": [], "exceptions": exceptions, "logs": logs, "eventTimestamp": at, "event": event,
    })
}

fn count(summary: &mut Summary, event: &Value, health_path: &str) {
    let request = &event["event"]["request"];
    if event["event"].is_null() {
        return;
    }
    let seen = Seen {
        at: event["eventTimestamp"].as_u64().unwrap_or_default(),
        outcome: event["outcome"].as_str().unwrap_or("unknown").to_owned(),
        status: event["event"]["response"]["status"].as_u64(),
    };
    summary.requests += 1;
    summary.errors += u64::from(seen.failed());
    if request["url"].as_str().and_then(path_of).is_some_and(|path| path == health_path) {
        summary.health = Some(seen.clone());
    }
    summary.last = Some(seen);
}

/// Returns the path of a URL.
fn path_of(url: &str) -> Option<&str> {
    let rest = url.split_once("://")?.1;
    let path = &rest[rest.find('/')?..];
    path.split(['?', '#']).next()
}

/// Returns the forms in which a secret can be printed: as it is, in a URL, in JSON, and each line of it alone.
fn forms(secret: &str) -> Vec<String> {
    let json = Value::from(secret).to_string();
    let mut forms = vec![utf8_percent_encode(secret, NON_ALPHANUMERIC).to_string(), json[1..json.len() - 1].to_owned()];
    forms.extend(secret.lines().map(str::trim).filter(|line| line.len() >= LINE).map(str::to_owned));
    forms.push(secret.to_owned());
    forms
}

fn mask(value: &mut Value, secrets: &[String]) {
    if secrets.is_empty() {
        return;
    }
    let masked = |text: &str| secrets.iter().fold(text.to_owned(), |text, secret| text.replace(secret.as_str(), MASK));
    match value {
        Value::String(text) if secrets.iter().any(|secret| text.contains(secret.as_str())) => *text = masked(text),
        Value::Array(items) => items.iter_mut().for_each(|item| mask(item, secrets)),
        Value::Object(fields) => {
            let found: Vec<String> = fields.keys().filter(|key| masked(key) != **key).cloned().collect();
            for key in found {
                if let Some(field) = fields.remove(&key) {
                    fields.insert(masked(&key), field);
                }
            }
            fields.values_mut().for_each(|field| mask(field, secrets));
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn acme() -> Key {
        Key::of_account("account", "acme")
    }

    fn activity() -> Activity {
        let activity = Activity::new(None, "/health".to_owned(), crate::clock::machine());
        let key = acme();
        activity.register(&key, vec!["customer-acme".to_owned()], ["hunter2/x".to_owned(), "abc".to_owned()]);
        activity
    }

    fn answered(path: &str, status: u64) -> Value {
        let request = json!({"url": format!("http://acme.localhost{path}"), "method": "GET", "headers": {}});
        json!({"outcome": "ok", "eventTimestamp": 7, "logs": [], "exceptions": [], "event": {"request": request, "response": {"status": status}}})
    }

    #[test]
    fn secrets_are_masked_wherever_they_are() {
        let activity = activity();
        let mut logged = answered("/?key=hunter2%2Fx", 200);
        logged["logs"] =
            json!([{"level": "log", "message": ["a hunter2/x", {"hunter2/x": ["hunter2/x"], "abc": "abc"}]}]);
        logged["exceptions"] = json!([{"name": "Error", "message": "hunter2/x", "stack": "at hunter2/x"}]);
        activity.add(&acme(), "v", logged);
        let found = activity.recent(Some(&acme()), 0, 10);
        assert!(!found[0].json.contains("hunter2"), "{}", found[0].json);
        // In JSON within a text, and a line alone, as of what is printed while a worker loads.
        activity.register(&acme(), Vec::new(), ["-----BEGIN\n\"abcdefgh12345\"\n".to_owned()]);
        let mut logged = answered("/", 200);
        logged["logs"] = json!([
            {"level": "log", "message": ["{\"s\":\"-----BEGIN\\n\\\"abcdefgh12345\\\"\\n\"}"]},
            {"level": "log", "message": ["\"abcdefgh12345\""]},
        ]);
        activity.add(&acme(), "v", logged);
        let all = activity.recent(Some(&acme()), 0, 10);
        assert!(all.iter().all(|trace| !trace.json.contains("abcdefgh")), "{}", all[0].json);
        // What is too short to be a secret stays.
        assert!(found[0].json.contains("\"abc\":\"abc\""), "{}", found[0].json);
        assert!(found[0].json.contains("\"scriptName\":\"acme\""), "{}", found[0].json);
    }

    #[test]
    fn memory_is_bounded() {
        let activity = activity();
        for number in 0..KEPT + 10 {
            activity.add(&acme(), "v", answered(&format!("/{number}"), 200));
        }
        assert_eq!(activity.recent(None, 0, usize::MAX).len(), KEPT);
        assert_eq!(activity.recent(Some(&acme()), 0, usize::MAX).len(), KEPT_OF_WORKER);
        assert_eq!(activity.recent(None, (KEPT + 7) as u64, usize::MAX).len(), 3);
        let mut large = answered("/", 200);
        large["logs"] = json!([{"level": "log", "message": ["x".repeat(LARGEST)]}]);
        activity.add(&acme(), "v", large);
        let newest = &activity.recent(None, 0, 1)[0];
        assert!(newest.json.len() < 1000 && newest.json.contains("\"truncated\":true"), "{}", newest.json);
        for _ in 0..=KEPT_BYTES / (LARGEST / 2) {
            let mut large = answered("/", 200);
            large["logs"] = json!([{"level": "log", "message": ["x".repeat(LARGEST / 2)]}]);
            activity.add(&acme(), "v", large);
        }
        let kept: usize = activity.recent(None, 0, usize::MAX).iter().map(|event| event.json.len()).sum();
        assert!(kept <= KEPT_BYTES, "{kept}");
        // Another worker's events are dropped before there are too many.
        for number in 0..WORKERS + 10 {
            let key = Key::of_account("account", &format!("w{number}"));
            activity.register(&key, Vec::new(), []);
            activity.add(&key, "v", answered("/", 200));
        }
        assert!(activity.recent(Some(&acme()), 0, 10).is_empty());
        assert!(activity.summary(&acme()).requests > 0);
    }

    #[test]
    fn a_summary_counts_requests_and_knows_health() {
        let activity = activity();
        activity.add(&acme(), "v", answered("/health?x", 503));
        activity.add(&acme(), "v", answered("/", 200));
        let mut threw = answered("/", 200);
        (threw["outcome"], threw["event"]["response"]) = ("exception".into(), Value::Null);
        activity.add(&acme(), "v", threw);
        // What a worker prints while it is loaded is no request.
        activity.add(&acme(), "v", json!({"outcome": "ok", "event": null, "logs": []}));
        let summary = activity.summary(&acme());
        assert_eq!((summary.requests, summary.errors), (3, 2));
        assert_eq!(summary.health.map(|seen| (seen.status, seen.failed())), Some((Some(503), true)));
        assert_eq!(summary.last.map(|seen| (seen.status, seen.failed())), Some((None, true)));
    }
}
