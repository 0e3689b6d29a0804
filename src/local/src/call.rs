//! One request to the API as the operations see it: method, path, query, body. Knows HTTP's forms; not what they mean.

use data_encoding::BASE64_NOPAD;
use hyper::HeaderMap;
use hyper::body::Bytes;
use percent_encoding::percent_decode_str;
use serde_json::Value;

use super::envelope::Refusal;
use super::form::{self, Part};

/// One request.
#[derive(Debug)]
pub struct Call {
    /// Upper-case method.
    pub method: String,
    /// The path below `/client/v4`, split at `/` and each segment percent-decoded.
    pub path: Vec<String>,
    /// The query, decoded, in order.
    pub query: Vec<(String, String)>,
    /// The headers.
    pub headers: HeaderMap,
    /// The body, parsed by its content type.
    pub body: Body,
}

/// A request's body.
#[derive(Debug)]
pub enum Body {
    /// No bytes.
    Empty,
    /// JSON: `application/json`, `application/merge-patch+json`, or no content type and parseable.
    Json(Value),
    /// `multipart/form-data`.
    Form(Vec<Part>),
    /// Any other bytes.
    Raw(Bytes),
    /// Bytes that don't match their content type, with the reason.
    Broken(String),
}

impl Call {
    /// The value of a query parameter, the first if there are several.
    #[must_use]
    pub fn query(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// A query parameter that is `true`.
    #[must_use]
    pub fn is_set(&self, name: &str) -> bool {
        self.query(name) == Some("true")
    }

    /// A query parameter that is a number.
    ///
    /// # Errors
    /// 400 (10004) when it isn't.
    pub fn number(&self, name: &str, default: usize) -> Result<usize, Refusal> {
        self.query(name).map_or(Ok(default), |text| {
            text.parse().map_err(|_| Refusal::new(400, 10004, format!("{name} isn't a number: {text:?}")))
        })
    }

    /// The value of a header, if it is text.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The body's JSON.
    ///
    /// # Errors
    /// 400 (10026) when the body isn't JSON.
    pub fn json(&self) -> Result<&Value, Refusal> {
        match &self.body {
            Body::Json(value) => Ok(value),
            Body::Broken(why) => Err(Refusal::unparseable(why)),
            Body::Empty => Err(Refusal::unparseable("it is empty")),
            Body::Form(_) | Body::Raw(_) => Err(Refusal::unparseable("it isn't JSON")),
        }
    }

    /// A text field of the JSON body.
    ///
    /// # Errors
    /// 400 (10026) when the body isn't an object or the field is missing or no text.
    pub fn text(&self, field: &str) -> Result<&str, Refusal> {
        self.json()?[field]
            .as_str()
            .ok_or_else(|| Refusal::unparseable(format!("{field} is required and must be text")))
    }

    /// The parts of the form.
    ///
    /// # Errors
    /// 400: 10001 when the body is no form at all, 10026 when it is a broken one.
    pub fn form(&self) -> Result<&[Part], Refusal> {
        match &self.body {
            Body::Form(parts) => Ok(parts),
            Body::Broken(why) => Err(Refusal::unparseable(why)),
            Body::Empty | Body::Json(_) | Body::Raw(_) => Err(Refusal::new(
                400,
                10001,
                format!(
                    "bad content type {:?}: expected multipart/form-data",
                    self.header("content-type").unwrap_or("")
                ),
            )),
        }
    }

    /// Returns the client that sent the request, as Cloudflare names it: `wrangler`, `terraform` or `api`.
    #[must_use]
    pub fn source(&self) -> &'static str {
        let agent = self.header("user-agent").unwrap_or_default();
        ["wrangler", "terraform"].into_iter().find(|name| agent.starts_with(name)).unwrap_or("api")
    }
}

impl Body {
    /// Parses a body by its content type.
    #[must_use]
    pub fn parse(content_type: Option<&str>, bytes: Bytes) -> Self {
        let kind = content_type.unwrap_or_default().to_ascii_lowercase();
        if bytes.is_empty() {
            Self::Empty
        } else if kind.starts_with("multipart/form-data") {
            form::parts(content_type.unwrap_or_default(), &bytes).map_or_else(Self::Broken, Self::Form)
        } else if kind.starts_with("application/json") || kind.starts_with("application/merge-patch+json") {
            serde_json::from_slice(&bytes).map_or_else(|error| Self::Broken(error.to_string()), Self::Json)
        } else if kind.is_empty() || kind.starts_with("text/plain") {
            // What `fetch` sends for a string body when the caller names no type; wrangler does for some calls.
            serde_json::from_slice(&bytes).map_or_else(|_| Self::Raw(bytes), Self::Json)
        } else {
            Self::Raw(bytes)
        }
    }
}

/// Decodes `%41`. Invalid escapes stay as they are.
#[must_use]
pub fn decode(text: &str) -> String {
    percent_decode_str(text).decode_utf8_lossy().into_owned()
}

/// Decodes base64 with or without padding.
#[must_use]
pub fn decode_base64(text: &str) -> Option<Vec<u8>> {
    BASE64_NOPAD.decode(text.trim_end_matches('=').as_bytes()).ok()
}

/// Splits a query string into decoded pairs; `+` is a space in it.
#[must_use]
pub fn pairs(query: &str) -> Vec<(String, String)> {
    form_urlencoded::parse(query.as_bytes()).into_owned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_decoded() {
        let expect = [("a", "x y/%zz"), ("b", ""), ("tags", "k:yes,é")];
        assert_eq!(pairs("a=x+y%2F%zz&b&tags=k%3Ayes,%C3%A9"), expect.map(|(k, v)| (k.to_owned(), v.to_owned())));
        assert_eq!(decode("a+b%%41"), "a+b%A");
    }

    #[test]
    fn base64_is_decoded_with_and_without_padding() {
        let cases: [(&str, &[u8]); 8] = [
            ("", b""),
            ("Zm8=", b"fo"),
            ("Zm9v", b"foo"),
            ("AH8=", b"\0\x7f"),
            ("Zg==", b"f"),
            ("Zg", b"f"),
            ("Zm9vYg==", b"foob"),
            ("//79", &[255, 254, 253]),
        ];
        for (text, bytes) in cases {
            assert_eq!(decode_base64(text).as_deref(), Some(bytes), "{text}");
        }
        for wrong in ["A", "A!==", "Zm9vY"] {
            assert_eq!(decode_base64(wrong), None, "{wrong}");
        }
    }
}
