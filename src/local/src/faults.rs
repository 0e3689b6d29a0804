//! Faults on request: an answer that isn't Cloudflare's, a delay, a dropped connection. Knows which request is
//! hit; the server does the damage.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::envelope::{Answer, Refusal};

/// One rule. Each rule counts every request that it matches; the first one, in order of arrival, whose turn it is hits.
///
/// As JSON: `{"match": {"method": "PUT", "path": "scripts/c15t-acme"}, "skip": 1, "times": 2, "do": {"status": 503}}`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    /// The requests to match; every one if empty.
    #[serde(rename = "match", default)]
    pub matches: Matches,
    /// The number of matching requests that pass first.
    #[serde(default)]
    pub skip: u64,
    /// The number of requests that are hit then; 0: all, until the faults are cleared.
    #[serde(default = "once")]
    pub times: u64,
    /// The share of those that are hit: 5 hits every fifth.
    #[serde(default = "once")]
    pub every: u64,
    /// The effect on them.
    #[serde(rename = "do")]
    pub effect: Effect,
}

fn once() -> u64 {
    1
}

/// The requests that a fault hits.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Matches {
    /// The method; none: any.
    pub method: Option<String>,
    /// A part of the path, which begins with `/client/v4`; none: any.
    pub path: Option<String>,
}

/// The effect of a fault. Several can be given: a delay comes first, then at most one of the others.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Effect {
    /// Waits this number of milliseconds.
    pub delay_ms: Option<u64>,
    /// Drops the connection without an answer.
    pub reset: Option<Reset>,
    /// Answers with this status instead of carrying the request out.
    pub status: Option<u16>,
    /// With `status`: the header `retry-after`, in seconds.
    pub retry_after: Option<u64>,
    /// With `status`: the body is a page of HTML, as from a proxy in front of the API, and no envelope.
    #[serde(default)]
    pub html: bool,
    /// Carries the request out first, so that only its answer is another one.
    #[serde(default)]
    pub after: bool,
    /// Carries the request out, and sets these fields of the answer's envelope, such as `{"result": null}`; with `status`, its
    /// status, too.
    pub set: Option<Map<String, Value>>,
    /// Answers with this error in an envelope instead of carrying the request out.
    pub error: Option<ErrorAnswer>,
}

/// The time at which the connection is dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Reset {
    /// Before the change is applied.
    Before,
    /// After it was applied, so that the client doesn't learn of it.
    After,
}

/// The behaviour of the audit log, whose delay and completeness Cloudflare promises nowhere.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AuditLog {
    /// The seconds after which an entry can be read.
    #[serde(default)]
    pub delay: u64,
    /// Whether changes leave no entry.
    #[serde(default)]
    pub silent: bool,
}

/// An error of Cloudflare's to answer with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ErrorAnswer {
    /// HTTP status.
    pub status: u16,
    /// Code in the envelope.
    pub code: u32,
    /// Message in the envelope.
    pub message: String,
}

impl Effect {
    /// The delay that comes first.
    #[must_use]
    pub fn delay(&self) -> Option<Duration> {
        self.delay_ms.map(Duration::from_millis)
    }

    /// Returns whether the request is carried out.
    #[must_use]
    pub fn carries_out(&self) -> bool {
        self.after || self.set.is_some() || self.answer().is_none()
    }

    /// Makes another answer of the real one.
    #[must_use]
    pub fn change(&self, real: Answer) -> Answer {
        let Some(fields) = &self.set else { return self.answer().unwrap_or(real) };
        let mut envelope: Value = serde_json::from_slice(&real.body).unwrap_or_default();
        if let Some(envelope) = envelope.as_object_mut() {
            envelope.extend(fields.clone());
        }
        Answer { status: self.status.unwrap_or(real.status), body: envelope.to_string().into_bytes(), ..real }
    }

    /// The answer to give instead of the real one, if any.
    #[must_use]
    pub fn answer(&self) -> Option<Answer> {
        if let Some(error) = &self.error {
            return Some(Refusal::new(error.status, error.code, &error.message).answer());
        }
        let status = self.status?;
        let answer = if self.html {
            let page = format!(
                "<!DOCTYPE html><html><head><title>{status}</title></head><body><h1>Error {status}</h1></body></html>"
            );
            Answer::bytes(status, "text/html; charset=UTF-8", page.into_bytes())
        } else if status == 429 {
            super::envelope::throttled()
        } else {
            Refusal::new(status, 10013, "An unknown error has occurred. If this error persists, please report it.")
                .answer()
        };
        Some(match self.retry_after {
            Some(seconds) => answer.with("retry-after", seconds.to_string()),
            None => answer,
        })
    }
}

/// The rules with how often each was met.
#[derive(Debug, Default)]
pub struct Faults {
    rules: Vec<(Fault, u64)>,
}

impl Faults {
    /// Returns these rules, none met yet.
    #[must_use]
    pub fn new(rules: Vec<Fault>) -> Self {
        let mut faults = Self::default();
        faults.add(rules);
        faults
    }

    /// Adds rules after those there are.
    pub fn add(&mut self, rules: Vec<Fault>) {
        self.rules.extend(rules.into_iter().map(|rule| (rule, 0)));
    }

    /// Removes all rules.
    pub fn clear(&mut self) {
        self.rules.clear();
    }

    /// The rules with how often each was met, as JSON.
    #[must_use]
    pub fn shown(&self) -> serde_json::Value {
        self.rules.iter().map(|(rule, met)| serde_json::json!({"fault": rule, "met": met})).collect()
    }

    /// Returns the effect on a request.
    pub fn hit(&mut self, method: &str, path: &str) -> Option<Effect> {
        let mut hit = None;
        for (rule, met) in &mut self.rules {
            let method_fits = rule.matches.method.as_deref().is_none_or(|wanted| wanted.eq_ignore_ascii_case(method));
            let path_fits = rule.matches.path.as_deref().is_none_or(|wanted| path.contains(wanted));
            if !method_fits || !path_fits {
                continue;
            }
            *met += 1;
            let turn = *met > rule.skip && (*met - rule.skip - 1).is_multiple_of(rule.every.max(1));
            if hit.is_none() && turn && (rule.times == 0 || *met <= rule.skip + rule.times) {
                hit = Some(rule.effect.clone());
            }
        }
        hit
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_skipped_then_used_up() {
        let rules = serde_json::json!([
            {"match": {"method": "PUT", "path": "scripts/a"}, "skip": 1, "times": 2, "do": {"status": 503}},
            {"do": {"reset": "after"}},
        ]);
        let mut faults = Faults::new(serde_json::from_value(rules).unwrap());
        let mut hit = |method: &str, path: &str| faults.hit(method, path).map(|effect| (effect.status, effect.reset));
        assert_eq!(
            hit("PUT", "/x/scripts/a"),
            Some((None, Some(Reset::After))),
            "skipped by the first, hit by the second"
        );
        assert_eq!(hit("GET", "/x/scripts/a"), None);
        assert_eq!(hit("PUT", "/x/scripts/a"), Some((Some(503), None)));
        assert_eq!(hit("put", "/x/scripts/a"), Some((Some(503), None)));
        assert_eq!(hit("PUT", "/x/scripts/a"), None);
    }

    #[test]
    fn a_share_of_requests_is_hit() {
        let rules = serde_json::json!([{"skip": 2, "times": 0, "every": 3, "do": {"status": 503}}]);
        let mut faults = Faults::new(serde_json::from_value(rules).unwrap());
        let hits: Vec<bool> = (0..9).map(|_| faults.hit("PUT", "/x").is_some()).collect();
        assert_eq!(hits, [false, false, true, false, false, true, false, false, true]);
    }

    #[test]
    fn a_misspelt_rule_is_refused() {
        assert!(serde_json::from_str::<Fault>(r#"{"do": {"statsu": 503}}"#).is_err());
    }
}
