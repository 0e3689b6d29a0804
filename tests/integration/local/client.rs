//! A client of the local Cloudflare for tests, which holds every request and answer to the OpenAPI document.

use flotilla_local::{Options, Running, Workerd, start};
use flotilla_model::progress::Silent;
use reqwest::blocking::{Client as Http, Response};
use serde_json::{Value, json};

use crate::folders::temporary_folder;
use crate::openapi::{validate_request, validate_response};

/// The account of the tests.
pub const ACCOUNT: &str = "0123456789abcdef0123456789abcdef";

/// A local Cloudflare in a folder of its own, and a token for it.
pub struct Local {
    pub running: Option<Running>,
    pub folder: tempfile::TempDir,
    pub token: String,
    http: Http,
}

/// Module bodies by name.
pub type Modules<'a> = &'a [(&'a str, &'a str)];

/// workerd, as `flotilla local` runs it.
pub fn workerd() -> Workerd {
    Workerd::Path(flotilla_engine::workerd::path(&Silent).unwrap_or_else(|failure| panic!("{failure}")))
}

pub fn local(change: impl FnOnce(&mut Options)) -> Local {
    let folder = temporary_folder();
    let running = Some(begin(&folder, change));
    Local { running, folder, token: "a-token".to_owned(), http: flotilla_http::builder().build().unwrap() }
}

fn begin(folder: &tempfile::TempDir, change: impl FnOnce(&mut Options)) -> Running {
    let mut options = Options::new(folder.path());
    options.address.set_port(0);
    change(&mut options);
    start(options).unwrap()
}

impl Local {
    pub fn origin(&self) -> String {
        format!("http://{}", self.running.as_ref().unwrap().address())
    }

    /// Stops it and starts it again on the same folder.
    pub fn restart(&mut self, change: impl FnOnce(&mut Options)) {
        self.running.take().unwrap().stop();
        self.running = Some(begin(&self.folder, change));
    }

    /// Sends without any check. `path` begins with `/`.
    pub fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: Vec<u8>) -> reqwest::Result<Response> {
        let mut request = self.http.request(method.parse().unwrap(), format!("{}{path}", self.origin())).body(body);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.send()
    }

    /// Calls the API with JSON; `path` may begin with `@` for the account and have a query.
    pub fn call(&self, method: &str, path: &str, body: Option<Value>) -> (u16, Value) {
        let path = path.replace('@', &format!("/accounts/{ACCOUNT}"));
        let bare = path.split('?').next().unwrap();
        if let Err(error) = validate_request(method, bare, body.as_ref()) {
            panic!("{method} {path}: the test's request: {error}");
        }
        let bytes = body.map(|body| body.to_string().into_bytes()).unwrap_or_default();
        self.raw(method, &path, "application/json", bytes)
    }

    /// Calls the API with any body and checks the answer.
    pub fn raw(&self, method: &str, path: &str, kind: &str, body: Vec<u8>) -> (u16, Value) {
        let path = path.replace('@', &format!("/accounts/{ACCOUNT}"));
        let token = format!("Bearer {}", self.token);
        let headers = [("authorization", token.as_str()), ("content-type", kind)];
        let response = self.send(method, &format!("/client/v4{path}"), &headers, body).unwrap();
        assert!(response.headers().contains_key("ratelimit") && response.headers().contains_key("ratelimit-policy"));
        let status = response.status().as_u16();
        let json = response.headers()["content-type"].to_str().unwrap().starts_with("application/json");
        let text = response.text().unwrap();
        let body = json.then(|| serde_json::from_str::<Value>(&text).unwrap());
        if let Err(error) = validate_response(method, path.split('?').next().unwrap(), status, body.as_ref()) {
            panic!("{method} {path}: the answer {status}: {error}");
        }
        (status, body.unwrap_or_else(|| text.into()))
    }

    /// As [`Self::call`], for a call that must succeed; returns the result.
    pub fn ok(&self, method: &str, path: &str, body: Option<Value>) -> Value {
        let (status, answer) = self.call(method, path, body);
        assert_eq!(status, 200, "{method} {path}: {answer}");
        answer["result"].clone()
    }

    /// As [`Self::call`], for a call that must be refused; returns status and code.
    pub fn refused(&self, method: &str, path: &str, body: Option<Value>) -> (u16, u64) {
        code(self.call(method, path, body))
    }

    /// Uploads to `path` by `method`.
    pub fn upload(&self, method: &str, path: &str, metadata: &Value, modules: Modules<'_>) -> (u16, Value) {
        let bare = path.split('?').next().unwrap().replace('@', &format!("/accounts/{ACCOUNT}"));
        if metadata["main_module"].is_string()
            && let Err(error) = validate_request(method, &bare, Some(&json!({"metadata": metadata})))
            && !metadata["wrong"].is_boolean()
        {
            panic!("{method} {path}: the test's metadata: {error}");
        }
        let (kind, body) = form(&[("metadata", "application/json", metadata.to_string().as_bytes())], modules);
        self.raw(method, path, &kind, body)
    }

    /// Uploads a worker of the account, which must succeed.
    pub fn put(&self, name: &str, bindings: Value, modules: Modules<'_>) -> Value {
        let metadata = json!({"main_module": modules[0].0, "compatibility_date": "2026-06-01", "bindings": bindings});
        let (status, answer) = self.upload("PUT", &format!("@/workers/scripts/{name}"), &metadata, modules);
        assert_eq!(status, 200, "{answer}");
        answer["result"].clone()
    }

    /// What a worker answers: status and text.
    pub fn get(&self, host: &str, path: &str) -> (u16, String) {
        let response = self.send("GET", path, &[("host", host)], Vec::new()).unwrap();
        (response.status().as_u16(), response.text().unwrap())
    }
}

/// Status and first code of a refusal.
pub fn code((status, answer): (u16, Value)) -> (u16, u64) {
    (status, answer["errors"][0]["code"].as_u64().unwrap_or_else(|| panic!("not refused: {status} {answer}")))
}

/// A form of these parts and modules: its content type and bytes.
pub fn form(parts: &[(&str, &str, &[u8])], modules: Modules<'_>) -> (String, Vec<u8>) {
    let mut body = Vec::new();
    let modules = modules.iter().map(|(name, code)| (*name, "application/javascript+module", code.as_bytes()));
    for (name, kind, bytes) in parts.iter().copied().chain(modules) {
        let file =
            if name == "metadata" || name == "settings" { String::new() } else { format!("; filename=\"{name}\"") };
        let head =
            format!("--edge\r\ncontent-disposition: form-data; name=\"{name}\"{file}\r\ncontent-type: {kind}\r\n\r\n");
        body.extend([head.as_bytes(), bytes, b"\r\n"].concat());
    }
    body.extend(b"--edge--\r\n");
    ("multipart/form-data; boundary=edge".to_owned(), body)
}
