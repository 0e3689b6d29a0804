//! A request as a value: what is sent where, and how long its answer may take. Sends nothing.

use std::borrow::Cow;
use std::io::{Cursor, Read as _};
use std::sync::Arc;
use std::time::Duration;

use reqwest::blocking::multipart;
use reqwest::header::CONTENT_TYPE;
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::Value;

pub use reqwest::Method;

/// The maximum size of a form part without its content, in bytes.
const PART_HEAD: usize = 1024;

/// A request.
pub struct Request {
    pub(crate) method: Method,
    pub(crate) url: String,
    bearer: Option<SecretString>,
    body: Content,
    pub(crate) within: Option<Duration>,
}

/// The body of a request.
enum Content {
    Nothing,
    Json(Vec<u8>),
    Form { boundary: String, bytes: Vec<u8> },
}

/// A part of a multipart form.
pub struct Part {
    /// Its name. It has no character that would need an encoding: none is applied, and slashes stay as they are.
    pub name: String,
    /// The name of its file, if it is one.
    pub file_name: Option<String>,
    /// Its content type.
    pub content_type: Cow<'static, str>,
    /// Its content, shared: dozens of uploads at once each hold a large module once, not three times.
    pub bytes: Arc<[u8]>,
}

impl Request {
    /// A request without credentials and without a body.
    pub fn new(method: Method, url: impl Into<String>) -> Request {
        Request { method, url: url.into(), bearer: None, body: Content::Nothing, within: None }
    }

    /// A GET request without credentials.
    pub fn get(url: impl Into<String>) -> Request {
        Request::new(Method::GET, url)
    }

    /// Adds the token that authorizes it.
    #[must_use]
    pub fn bearer(self, token: &SecretString) -> Request {
        Request { bearer: Some(token.clone()), ..self }
    }

    /// Returns whether it carries a token.
    pub(crate) fn has_token(&self) -> bool {
        self.bearer.is_some()
    }

    /// Sets a JSON body.
    #[must_use]
    pub fn json(self, body: &Value) -> Request {
        Request { body: Content::Json(body.to_string().into_bytes()), ..self }
    }

    /// Sets a multipart form as the body.
    ///
    /// The form is made as bytes. If it were streamed, the body could notice a lost connection before the connection
    /// does, and its error would be reported instead of the reason.
    #[must_use]
    pub fn form(self, parts: Vec<Part>) -> Request {
        let size = parts.iter().map(|part| part.bytes.len() + PART_HEAD).sum();
        // The default encoding would encode the slashes of names.
        let form = parts.into_iter().fold(multipart::Form::new().percent_encode_noop(), |form, part| {
            let length = part.bytes.len() as u64;
            let content = multipart::Part::reader_with_length(Cursor::new(part.bytes), length);
            let content = content.mime_str(&part.content_type).expect("BUG: a valid MIME type");
            let content = match part.file_name {
                Some(name) => content.file_name(name),
                None => content,
            };
            form.part(part.name, content)
        });
        let (boundary, mut bytes) = (form.boundary().to_owned(), Vec::with_capacity(size));
        form.into_reader().read_to_end(&mut bytes).expect("BUG: memory can be read");
        Request { body: Content::Form { boundary, bytes }, ..self }
    }

    /// Sets the time after which it is given up, from its sending to the end of its answer's body, in place of the client's.
    #[must_use]
    pub fn within(self, time: Duration) -> Request {
        Request { within: Some(time), ..self }
    }

    /// The request as reqwest sends it, with a timeout of its own or without.
    pub(crate) fn build(
        self,
        http: &reqwest::blocking::Client,
        timeout: Option<Duration>,
    ) -> reqwest::blocking::RequestBuilder {
        let request = http.request(self.method, self.url);
        let request = match timeout {
            Some(timeout) => request.timeout(timeout),
            None => request,
        };
        let request = match &self.bearer {
            Some(token) => request.bearer_auth(token.expose_secret()),
            None => request,
        };
        match self.body {
            Content::Nothing => request,
            Content::Json(bytes) => request.header(CONTENT_TYPE, "application/json").body(bytes),
            Content::Form { boundary, bytes } => {
                request.header(CONTENT_TYPE, format!("multipart/form-data; boundary={boundary}")).body(bytes)
            }
        }
    }
}
