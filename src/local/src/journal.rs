//! The latest requests to the API, for tests and debugging. Knows requests and how to show them without
//! tokens and secrets; not their answers beyond the status.

use std::collections::VecDeque;
use std::time::Duration;

use serde_json::{Value, json};

use super::call::{Body, Call};
use super::form::Part;

/// The most requests that are kept; older ones are counted as dropped.
const KEPT: usize = 20_000;
/// JSON bodies up to this size are kept.
const SMALL: usize = 16 << 10;
/// The replacement of a secret.
const MASK: &str = "***";

/// The newest requests.
#[derive(Debug, Default)]
pub struct Journal {
    // As text: a tenth of the memory that values take.
    kept: VecDeque<String>,
    dropped: u64,
}

impl Journal {
    /// Adds what [`entry`] made of a request, with its status: 0 where the connection was dropped.
    pub fn add(&mut self, mut entry: Value, status: u16) {
        entry["status"] = status.into();
        if self.kept.len() == KEPT {
            self.kept.pop_front();
            self.dropped += 1;
        }
        self.kept.push_back(entry.to_string());
    }

    /// Returns all kept requests, oldest first, as the text of `{"requests": [...], "dropped": N}`.
    #[must_use]
    pub fn shown(&self) -> String {
        let kept: Vec<&str> = self.kept.iter().map(String::as_str).collect();
        format!("{{\"requests\":[{}],\"dropped\":{}}}", kept.join(","), self.dropped)
    }

    /// Forgets all.
    pub fn clear(&mut self) {
        *self = Self::default();
    }
}

/// Returns the journal's entry of a request: when it came, in milliseconds since 1970, method, path, query, a short
/// hash of the token, and the body as far as it is JSON or a form.
#[must_use]
pub fn entry(call: &Call, path: &str, token: Option<&str>, now: Duration) -> Value {
    let query: Vec<Value> = call.query.iter().map(|(name, value)| json!([name, value])).collect();
    let at = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
    let mut entry = json!({"at": at, "method": call.method, "path": path, "query": query});
    if let Some(token) = token {
        entry["token"] = super::seal::digest(token.as_bytes())[..8].into();
    }
    if let Some(agent) = call.header("user-agent") {
        entry["agent"] = agent.into();
    }
    match &call.body {
        Body::Empty => {}
        // Values of a KV namespace and parameters of a query may be anything; a request for secrets holds nothing else.
        Body::Json(body) => {
            let size = body.to_string().len();
            let all = path.contains("/secrets");
            entry["body"] = if size <= SMALL { masked(body.clone(), all) } else { json!({"size": size}) };
        }
        Body::Form(parts) => entry["parts"] = parts.iter().map(part).collect(),
        Body::Raw(bytes) => entry["body"] = json!({"size": bytes.len()}),
        Body::Broken(why) => entry["body"] = json!({"broken": why}),
    }
    entry
}

fn part(part: &Part) -> Value {
    let mut shown = json!({"name": part.name, "content_type": part.content_type, "size": part.body.len()});
    if matches!(part.name.as_str(), "metadata" | "settings")
        && let Ok(json) = serde_json::from_slice(&part.body)
    {
        shown["json"] = masked(json, false);
    }
    shown
}

/// The JSON with the values of secrets masked: in every object of a secret's type, or in every object.
fn masked(mut value: Value, all: bool) -> Value {
    mask(&mut value, all);
    value
}

fn mask(value: &mut Value, all: bool) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(|item| mask(item, all)),
        Value::Object(fields) => {
            let secret =
                all || fields.get("type").and_then(Value::as_str).is_some_and(|kind| kind.starts_with("secret"));
            for (name, field) in fields {
                if secret && matches!(name.as_str(), "text" | "key_base64" | "key_jwk") {
                    *field = MASK.into();
                } else {
                    mask(field, all);
                }
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_masked() {
        let metadata = json!({"bindings": [{"type": "secret_text", "name": "A", "text": "canary"}, {"type": "plain_text", "text": "plain"}]});
        let shown = masked(metadata, false).to_string();
        assert!(!shown.contains("canary") && shown.contains("plain"), "{shown}");
        let bulk = json!({"secrets": {"A": {"text": "canary"}, "B": null}});
        assert_eq!(masked(bulk, true), json!({"secrets": {"A": {"text": "***"}, "B": null}}));
    }

    #[test]
    fn the_oldest_is_dropped() {
        let mut journal = Journal::default();
        for number in 0..=KEPT {
            journal.add(json!({"path": number}), 200);
        }
        let shown: Value = serde_json::from_str(&journal.shown()).unwrap();
        assert_eq!(shown["dropped"], 1);
        assert_eq!(shown["requests"][0]["path"], 1);
    }
}
