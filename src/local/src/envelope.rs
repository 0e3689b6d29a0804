//! The API's answers: the envelope `{success, errors, messages, result}` and Cloudflare's error codes. Knows JSON
//! and statuses; not which operation answers what.

use serde_json::{Value, json};

/// The answer of one operation, before it is put on the wire.
#[derive(Debug, Clone)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// Value of the `content-type` header.
    pub content_type: String,
    /// Further headers, lower-case names.
    pub headers: Vec<(&'static str, String)>,
    /// Headers with names of others, likewise.
    pub more: Vec<(String, String)>,
    /// The bytes of the body.
    pub body: Vec<u8>,
}

impl Answer {
    /// A JSON value as it is, for the few operations that have no envelope.
    #[must_use]
    pub fn json(status: u16, value: &Value) -> Self {
        Self::bytes(status, "application/json", value.to_string().into_bytes())
    }

    /// Bytes of another type than JSON.
    #[must_use]
    pub fn bytes(status: u16, content_type: &str, body: Vec<u8>) -> Self {
        Self { status, content_type: content_type.to_owned(), headers: Vec::new(), more: Vec::new(), body }
    }

    /// Success: the envelope around `result`.
    #[must_use]
    pub fn ok(result: &Value) -> Self {
        Self::json(200, &json!({"success": true, "errors": [], "messages": [], "result": result}))
    }

    /// Success with one page of a list: the slice that `page` and `per_page` ask for, and `result_info`.
    #[must_use]
    pub fn page(all: &[Value], page: usize, per_page: usize) -> Self {
        let (page, per_page) = (page.max(1), per_page.max(1));
        let shown: Vec<&Value> = all.iter().skip((page - 1).saturating_mul(per_page)).take(per_page).collect();
        let info = json!({
            "page": page, "per_page": per_page, "count": shown.len(),
            "total_count": all.len(), "total_pages": all.len().div_ceil(per_page),
        });
        Self::json(200, &json!({"success": true, "errors": [], "messages": [], "result": shown, "result_info": info}))
    }

    /// The same answer with one more header.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }
}

/// A refused operation: a status and one of Cloudflare's error codes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// HTTP status.
    pub status: u16,
    /// The code, as in Cloudflare's lists of errors (docs, Workers, observability, errors, 2026).
    pub code: u32,
    /// The message for people.
    pub message: String,
    /// The errors behind this one, outermost first.
    pub chain: Vec<(u32, String)>,
}

impl Refusal {
    /// A refusal without a chain.
    #[must_use]
    pub fn new(status: u16, code: u32, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into(), chain: Vec::new() }
    }

    /// The request's body can't be understood (400, 10026).
    #[must_use]
    pub fn unparseable(why: impl std::fmt::Display) -> Self {
        Self::new(400, 10026, format!("could not parse the request body: {why}"))
    }

    /// The upload contradicts itself or can't run (400, 10021).
    #[must_use]
    pub fn invalid(why: impl std::fmt::Display) -> Self {
        Self::new(400, 10021, why.to_string())
    }

    /// No worker of that name (404, 10007).
    #[must_use]
    pub fn no_worker() -> Self {
        Self::new(404, 10007, "This Worker does not exist on your account.")
    }

    /// The path isn't part of the API (404, 7003).
    #[must_use]
    pub fn no_route(path: &str) -> Self {
        Self::new(404, 7003, format!("Could not route to {path}, perhaps your object identifier is invalid?"))
    }

    /// The envelope of this refusal.
    #[must_use]
    pub fn answer(&self) -> Answer {
        let mut error = json!({"code": self.code, "message": self.message});
        if !self.chain.is_empty() {
            error["error_chain"] =
                self.chain.iter().map(|(code, message)| json!({"code": code, "message": message})).collect();
        }
        Answer::json(self.status, &json!({"success": false, "errors": [error], "messages": [], "result": null}))
    }
}

/// The answer to a request over the quota, as users of 2025 and 2026 report it.
#[must_use]
pub fn throttled() -> Answer {
    Refusal::new(429, 971, "Please wait and consider throttling your request speed").answer()
}

/// A failure of the local database. Cloudflare calls its own "internal" (10002); the cause is added, because it is the emulator's own.
impl From<rusqlite::Error> for Refusal {
    fn from(error: rusqlite::Error) -> Self {
        Self::new(500, 10002, format!("the local Cloudflare's database failed: {error}"))
    }
}

/// The result of an operation.
pub type Outcome = Result<Answer, Refusal>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_says_where_it_is() {
        let all: Vec<Value> = (0..5).map(Value::from).collect();
        let answer: Value = serde_json::from_slice(&Answer::page(&all, 2, 2).body).unwrap();
        assert_eq!(answer["result"], json!([2, 3]));
        assert_eq!(
            answer["result_info"],
            json!({"page": 2, "per_page": 2, "count": 2, "total_count": 5, "total_pages": 3})
        );
    }

    #[test]
    fn a_refusal_keeps_its_chain() {
        let refusal = Refusal { chain: vec![(6111, "inner".into())], ..Refusal::new(400, 6003, "outer") };
        let answer: Value = serde_json::from_slice(&refusal.answer().body).unwrap();
        assert_eq!(answer["errors"][0]["error_chain"][0]["code"], 6111);
        assert_eq!(answer["result"], Value::Null);
    }
}
