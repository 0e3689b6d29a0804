//! Cloudflare's API over HTTP: the only module that names reqwest. Turns calls into requests and answers into replies;
//! doesn't retry, wait or remember.

use std::collections::HashMap;
use std::error::Error as _;
use std::io::{Cursor, Read as _};
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use reqwest::Method;
use reqwest::blocking::multipart::{Form, Part};
use reqwest::blocking::{Client, ClientBuilder, RequestBuilder, Response};
use reqwest::header::{CONTENT_TYPE, HeaderMap};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::{Value, json};

use flotilla_model::failure::Failure;
use flotilla_model::platform::{
    Call, CallError, DATABASES_PER_PAGE, Health, Home, KV_PER_PAGE, Left, ListedZone, Module, Platform, Policy, Quota,
    Reply, ZONES_PER_PAGE,
};

mod content;
mod listing;
mod web;

pub use web::Network;

/// The environment variable with the API's address; wrangler's own.
pub const BASE_VARIABLE: &str = "CLOUDFLARE_API_BASE_URL";
/// The API's address, unless [`BASE_VARIABLE`] says otherwise.
pub const BASE: &str = "https://api.cloudflare.com/client/v4";

/// The content type of ES modules. Source: Cloudflare docs, Workers › Multipart upload metadata, and wrangler.
const MODULE_TYPE: &str = "application/javascript+module";
/// How long a connection may take to come about.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a request may take, upload included.
const TIMEOUT: Duration = Duration::from_secs(120);
/// How long a worker may take to say how it is: the pack's own checks give up after two seconds.
const HEALTH_TIMEOUT: Duration = Duration::from_secs(10);
/// The largest answer that is read, in bytes: a route list of a full zone has about 200 KB.
const MAX_ANSWER: u64 = 8 << 20;
/// What a part of a form takes beside its content, in bytes, at the most.
const PART_HEAD: usize = 1024;
/// The longest message of an error that is shown, in characters.
const MAX_MESSAGE: usize = 500;

/// Cloudflare's codes for a token that is wrong or may not do this.
/// Source: Cloudflare docs and the error codes that its clients handle: 10000 authentication error, 9109 invalid
/// access token, 6003 and 6111 malformed header.
const UNAUTHORIZED: [u64; 4] = [10000, 9109, 6003, 6111];
/// Cloudflare.
pub struct Cloudflare {
    http: Client,
    base: String,
    tokens: HashMap<String, SecretString>,
}

impl Cloudflare {
    /// A client with a token for each account id; one under an empty id is for all others. A token is sent over TLS alone, or within this machine.
    pub fn new(base: &str, tokens: HashMap<String, SecretString>) -> Result<Cloudflare, Failure> {
        let base = base.trim_end_matches('/');
        let host = base.strip_prefix("http://").map(|rest| rest.split(['/', ':']).next().unwrap_or_default());
        let loopback = |host: &str| host == "localhost" || host.parse::<Ipv4Addr>().is_ok_and(|ip| ip.is_loopback());
        let safe = base.starts_with("https://") || host.is_some_and(loopback);
        if !safe {
            // Not what it is: an address can hold a password.
            return Err(Failure::new(format!(
                "{BASE_VARIABLE} is no https:// address: the token would be sent in the clear"
            ))
            .hint("use an https:// address, or one of this machine"));
        }
        let mut http = client();
        if host.is_some() {
            // What stays on this machine doesn't go to a proxy of the network, in the clear.
            http = http.no_proxy();
        }
        let http = http
            .user_agent(concat!("flotilla/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(TIMEOUT)
            .build()
            .map_err(|error| Failure::new(format!("no HTTP client: {error}")))?;
        Ok(Cloudflare { http, base: base.to_owned(), tokens })
    }

    /// The token of an account; one without an account's id is for all that have none of their own.
    fn token(&self, home: &Home) -> Option<&SecretString> {
        self.tokens.get(&home.account_id).or_else(|| self.tokens.get(""))
    }

    fn request(&self, home: &Home, method: Method, path: &str) -> RequestBuilder {
        let request = self.http.request(method, format!("{}{path}", self.base));
        match self.token(home) {
            Some(token) => request.bearer_auth(token.expose_secret()),
            None => request,
        }
    }

    /// An error without what was sent in secret: an answer can quote its request.
    fn redacted(&self, home: &Home, call: &Call, error: CallError) -> CallError {
        let mut secrets: Vec<&str> = Vec::new();
        if let Call::Upload { metadata, .. } = call {
            let bindings = metadata["bindings"].as_array().into_iter().flatten();
            secrets.extend(
                bindings
                    .filter(|binding| binding["type"] == "secret_text")
                    .filter_map(|binding| binding["text"].as_str()),
            );
        }
        secrets.extend(self.token(home).map(|token| token.expose_secret()));
        let mut redact = |message: String| redact(&message, &mut secrets);
        match error {
            CallError::Rejected { status, code, message } => {
                CallError::Rejected { status, code, message: redact(message) }
            }
            CallError::Unavailable(message) => CallError::Unavailable(redact(message)),
            CallError::Unauthorized(message) => CallError::Unauthorized(redact(message)),
            throttled @ CallError::Throttled { .. } => throttled,
        }
    }

    fn build(&self, home: &Home, call: &Call) -> RequestBuilder {
        let account = format!("/accounts/{}", home.account_id);
        let script = |worker: &str| match &home.namespace {
            Some(namespace) => format!("{account}/workers/dispatch/namespaces/{namespace}/scripts/{worker}"),
            None => format!("{account}/workers/scripts/{worker}"),
        };
        match call {
            Call::Upload { worker, metadata, modules } => {
                let path = format!("{}?bindings_inherit=strict", script(worker));
                let size = modules.iter().map(|module| module.bytes.len() + PART_HEAD).sum::<usize>();
                let metadata_size = metadata.to_string().len() + PART_HEAD;
                with_form(self.request(home, Method::PUT, &path), form(metadata, modules), size + metadata_size)
            }
            Call::Delete { worker } => self.request(home, Method::DELETE, &format!("{}?force=true", script(worker))),
            Call::SetWorkersDev { worker, on } => self
                .request(home, Method::POST, &format!("{}/subdomain", script(worker)))
                .json(&json!({"enabled": on, "previews_enabled": false})),
            Call::SetCrons { worker, crons } => {
                let body: Vec<Value> = crons.iter().map(|cron| json!({"cron": cron})).collect();
                self.request(home, Method::PUT, &format!("{}/schedules", script(worker))).json(&body)
            }
            Call::AttachDomain { worker, domain } => self
                .request(home, Method::PUT, &format!("{account}/workers/domains"))
                .json(&json!({"hostname": domain, "service": worker})),
            Call::DetachDomain { id } => self.request(home, Method::DELETE, &format!("{account}/workers/domains/{id}")),
            Call::FindDomain { domain, .. } => {
                self.request(home, Method::GET, &format!("{account}/workers/domains?hostname={domain}"))
            }
            Call::FindZone { name } => {
                self.request(home, Method::GET, &format!("/zones?name={name}&account.id={}", home.account_id))
            }
            Call::AddRoute { worker, zone_id, pattern } => self
                .request(home, Method::POST, &format!("/zones/{zone_id}/workers/routes"))
                .json(&json!({"pattern": pattern, "script": worker})),
            Call::FindRoute { zone_id, .. } => {
                self.request(home, Method::GET, &format!("/zones/{zone_id}/workers/routes"))
            }
            Call::RemoveRoute { zone_id, id } => {
                self.request(home, Method::DELETE, &format!("/zones/{zone_id}/workers/routes/{id}"))
            }
            Call::FindSubdomain => self.request(home, Method::GET, &format!("{account}/workers/subdomain")),
            Call::CreateNamespace => self
                .request(home, Method::POST, &format!("{account}/workers/dispatch/namespaces"))
                .json(&json!({"name": home.namespace})),
            Call::ListWorkers => self.request(home, Method::GET, script("").trim_end_matches('/')),
            Call::ListDomains => self.request(home, Method::GET, &format!("{account}/workers/domains")),
            Call::ListRoutes { zone_id } => {
                self.request(home, Method::GET, &format!("/zones/{zone_id}/workers/routes"))
            }
            Call::ReadWorkersDev { worker } => {
                self.request(home, Method::GET, &format!("{}/subdomain", script(worker)))
            }
            Call::ReadSettings { worker } => self.request(home, Method::GET, &format!("{}/settings", script(worker))),
            Call::ReadContent { worker } => {
                // The newer form, which tells the main module, is there for the workers of accounts alone.
                let form = if home.namespace.is_some() { "content" } else { "content/v2" };
                self.request(home, Method::GET, &format!("{}/{form}", script(worker)))
            }
            Call::SetTags { worker, tags } => self
                .request(home, Method::PATCH, &format!("{}/script-settings", script(worker)))
                .json(&json!({ "tags": tags })),
            Call::ReadCrons { worker } => self.request(home, Method::GET, &format!("{}/schedules", script(worker))),
            Call::ListDatabases { name, page } => {
                let path = format!("{account}/d1/database?per_page={DATABASES_PER_PAGE}&page={page}");
                let name = name.as_ref().map(|name| format!("&name={name}")).unwrap_or_default();
                self.request(home, Method::GET, &format!("{path}{name}"))
            }
            Call::CreateDatabase { name, jurisdiction, location_hint } => {
                let mut body = json!({"name": name});
                if let Some(jurisdiction) = jurisdiction {
                    body["jurisdiction"] = json!(jurisdiction);
                }
                if let Some(location_hint) = location_hint {
                    body["primary_location_hint"] = json!(location_hint);
                }
                self.request(home, Method::POST, &format!("{account}/d1/database")).json(&body)
            }
            Call::DeleteDatabase { id } => self.request(home, Method::DELETE, &format!("{account}/d1/database/{id}")),
            Call::ListKv { page } => {
                let path = format!("{account}/storage/kv/namespaces?per_page={KV_PER_PAGE}&page={page}");
                self.request(home, Method::GET, &path)
            }
            Call::CreateKv { title } => self
                .request(home, Method::POST, &format!("{account}/storage/kv/namespaces"))
                .json(&json!({"title": title})),
            Call::PutKeys { namespace_id, pairs } => {
                let body: Vec<Value> = pairs.iter().map(|(key, value)| json!({"key": key, "value": value})).collect();
                self.request(home, Method::PUT, &format!("{account}/storage/kv/namespaces/{namespace_id}/bulk"))
                    .json(&body)
            }
            Call::DeleteKeys { namespace_id, keys } => self
                .request(home, Method::POST, &format!("{account}/storage/kv/namespaces/{namespace_id}/bulk/delete"))
                .json(&keys[..]),
            Call::VerifyToken { of_account: false } => self.request(home, Method::GET, "/user/tokens/verify"),
            Call::VerifyToken { of_account: true } => {
                self.request(home, Method::GET, &format!("{account}/tokens/verify"))
            }
            Call::ListZones { name, page } => {
                let name = name.as_ref().map(|name| format!("&name={name}")).unwrap_or_default();
                self.request(home, Method::GET, &format!("/zones?per_page={ZONES_PER_PAGE}&page={page}{name}"))
            }
            Call::ListAccounts { page } => {
                self.request(home, Method::GET, &format!("/accounts?per_page={ZONES_PER_PAGE}&page={page}"))
            }
        }
    }
}

/// A client that follows no redirect: it would carry the token elsewhere, and the API has none. TLS is rustls on ring:
/// reqwest's default, aws-lc, compiles for more than a minute.
pub fn client() -> ClientBuilder {
    // It is there already if another client was made before.
    let _ = rustls::crypto::ring::default_provider().install_default();
    Client::builder().redirect(reqwest::redirect::Policy::none())
}

/// Asks a worker's `/health`. Sends no credentials.
pub fn health(address: &str) -> Health {
    let ask = || -> Result<(u16, Value), reqwest::Error> {
        let mut http = client().timeout(HEALTH_TIMEOUT);
        if address.starts_with("http://127.0.0.1:") {
            http = http.no_proxy();
        }
        let response = http.build()?.get(format!("{}/health", address.trim_end_matches('/'))).send()?;
        let status = response.status().as_u16();
        Ok((status, response.json().unwrap_or_default()))
    };
    match ask() {
        Err(error) if error.is_timeout() => Health::Unreachable("no answer in time".to_owned()),
        Err(_) => Health::Unreachable("no connection".to_owned()),
        Ok((200, body)) if body["status"] == "healthy" => {
            Health::Healthy(body["digest"].as_str().unwrap_or_default().to_owned())
        }
        Ok((status, body)) => match body["status"].as_str() {
            Some(word) => Health::Degraded(word.to_owned()),
            None => Health::Unreachable(format!("HTTP {status}")),
        },
    }
}

/// A message without secrets, as they are and as JSON writes them, and no longer than people read.
fn redact(message: &str, secrets: &mut [&str]) -> String {
    // The longest first: one can be a part of another.
    secrets.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
    let mut text = message.to_owned();
    for secret in secrets.iter().filter(|secret| !secret.is_empty()) {
        let json = Value::from(*secret).to_string();
        text = text.replace(&json[1..json.len() - 1], "***").replace(secret, "***");
    }
    match text.char_indices().nth(MAX_MESSAGE) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

/// A form as bytes. Streamed, as reqwest would send it, the body can notice before the connection does that nobody is there,
/// and then its complaint would be told instead of the reason.
fn with_form(request: RequestBuilder, form: Form, size: usize) -> RequestBuilder {
    let content_type = format!("multipart/form-data; boundary={}", form.boundary());
    let mut bytes = Vec::with_capacity(size);
    form.into_reader().read_to_end(&mut bytes).expect("BUG: memory can be read");
    request.header(CONTENT_TYPE, content_type).body(bytes)
}

fn form(metadata: &Value, modules: &[Module]) -> Form {
    let text = Part::text(metadata.to_string()).mime_str("application/json").expect("BUG: a valid MIME type");
    // Names have no character that would need an encoding; the default one would encode their slashes.
    modules.iter().fold(Form::new().percent_encode_noop().part("metadata", text), |form, module| {
        // Read from where they are: dozens of uploads at once each hold the runtime once, not three times.
        let part = Part::reader_with_length(Cursor::new(Arc::clone(&module.bytes)), module.bytes.len() as u64)
            .file_name(module.name.clone())
            .mime_str(MODULE_TYPE)
            .expect("BUG: a valid MIME type");
        form.part(module.name.clone(), part)
    })
}

impl Platform for Cloudflare {
    fn call(&self, home: &Home, call: &Call) -> (Result<Reply, CallError>, Option<Quota>) {
        match self.build(home, call).send() {
            Err(error) => (Err(CallError::Unavailable(unreachable(&error))), None),
            Ok(response) => {
                let quota = quota(response.headers());
                (answer(home, call, response).map_err(|error| self.redacted(home, call, error)), quota)
            }
        }
    }

    fn health(&self, address: &str) -> Health {
        health(address)
    }
}

/// A transport error, with its causes, without the URL.
fn unreachable(error: &reqwest::Error) -> String {
    let what = if error.is_timeout() {
        "Cloudflare did not answer in time"
    } else if error.is_connect() {
        "Cloudflare can't be reached"
    } else {
        "the connection to Cloudflare broke"
    };
    let mut text = what.to_owned();
    let mut source = error.source();
    while let Some(cause) = source {
        source = cause.source();
        if source.is_none() {
            text += &format!(": {cause}");
        }
    }
    text
}

fn answer(home: &Home, call: &Call, response: Response) -> Result<Reply, CallError> {
    let status = response.status().as_u16();
    if status < 400 && listing::is_listing(call) {
        return listing::read(home, call, response);
    }
    let headers = response.headers().clone();
    if let (Call::ReadContent { .. }, 200..400) = (call, status) {
        let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
        return content::read(header(CONTENT_TYPE.as_str()), header(content::ENTRY), response);
    }
    let mut body = Vec::new();
    if let Err(error) = response.take(MAX_ANSWER).read_to_end(&mut body) {
        return Err(CallError::Unavailable(format!("the connection to Cloudflare broke: {error}")));
    }
    if status == 429 {
        let retry_after = headers.get("retry-after").and_then(|value| value.to_str().ok()?.trim().parse().ok());
        return Err(CallError::Throttled { retry_after: retry_after.map(Duration::from_secs) });
    }
    let Ok(envelope) = serde_json::from_slice::<Value>(&body) else {
        return Err(no_json(status, &headers, &body));
    };
    if status < 400 && envelope["success"] == true {
        let unwritten = envelope["result"]["unsuccessful_keys"].as_array().map_or(0, Vec::len);
        if unwritten > 0 {
            // Which is no failure of the call, to KV: it is to be repeated.
            return Err(CallError::Unavailable(format!("KV didn't take {unwritten} keys")));
        }
        return Ok(reply(call, &envelope["result"]));
    }
    let error = &envelope["errors"][0];
    let code = error["code"].as_u64().or_else(|| error["error_chain"][0]["code"].as_u64()).unwrap_or(0);
    let message = error["message"].as_str().unwrap_or("Cloudflare gave no reason").to_owned();
    if status >= 500 {
        return Err(CallError::Unavailable(format!("Cloudflare failed: {message} (HTTP {status})")));
    }
    // That the token may not do this to a zone, to databases or to KV says nothing about the account's workers.
    let apart = matches!(
        call,
        Call::FindZone { .. }
            | Call::AddRoute { .. }
            | Call::FindRoute { .. }
            | Call::RemoveRoute { .. }
            | Call::ListRoutes { .. }
            | Call::ListDatabases { .. }
            | Call::CreateDatabase { .. }
            | Call::DeleteDatabase { .. }
            | Call::ListKv { .. }
            | Call::CreateKv { .. }
            | Call::PutKeys { .. }
            | Call::DeleteKeys { .. }
    );
    if matches!(status, 400 | 401 | 403) && UNAUTHORIZED.contains(&code) && !apart {
        // Before it is known which account a token is for, it has none.
        let whose = if home.account_id.is_empty() { String::new() } else { format!(" of account {}", home.account_id) };
        return Err(CallError::Unauthorized(format!(
            "the token{whose} is refused: {message} (HTTP {status}, code {code})"
        )));
    }
    match call {
        // Gone already is gone.
        Call::Delete { .. } | Call::DetachDomain { .. } | Call::RemoveRoute { .. } | Call::DeleteDatabase { .. }
            if status == 404 =>
        {
            Ok(Reply::Done)
        }
        Call::FindSubdomain if status == 404 => Ok(Reply::Nothing),
        // A namespace that nobody has made yet; a worker that somebody deleted meanwhile.
        Call::ListWorkers if status == 404 && home.namespace.is_some() => Ok(Reply::Nothing),
        Call::ReadWorkersDev { .. } | Call::ReadCrons { .. } | Call::ReadSettings { .. } | Call::ReadContent { .. }
            if status == 404 =>
        {
            Ok(Reply::Nothing)
        }
        _ => Err(CallError::Rejected { status, code, message }),
    }
}

/// Something between us and the API answered.
fn no_json(status: u16, headers: &HeaderMap, body: &[u8]) -> CallError {
    let is_html = body.trim_ascii_start().starts_with(b"<");
    let message = if headers.contains_key("cf-mitigated") {
        "a firewall in front of Cloudflare's API blocked the request".to_owned()
    } else if is_html {
        "Cloudflare answered with a web page instead of JSON".to_owned()
    } else {
        "Cloudflare answered with something that is no JSON".to_owned()
    };
    if !(400..500).contains(&status) {
        CallError::Unavailable(format!("{message} (HTTP {status})"))
    } else {
        CallError::Rejected { status, code: 0, message }
    }
}

fn reply(call: &Call, result: &Value) -> Reply {
    let id = |value: &Value| value.as_str().map_or(Reply::Nothing, |id| Reply::Id(id.to_owned()));
    match call {
        Call::Upload { .. } => Reply::Id(result["etag"].as_str().unwrap_or_default().to_owned()),
        Call::AttachDomain { .. } | Call::AddRoute { .. } => id(&result["id"]),
        Call::FindDomain { worker, domain } => result
            .as_array()
            .into_iter()
            .flatten()
            .find(|found| found["hostname"] == *domain && found["service"] == *worker)
            .map_or(Reply::Nothing, |found| id(&found["id"])),
        Call::FindZone { name } => result
            .as_array()
            .into_iter()
            .flatten()
            .find(|zone| zone["name"] == *name)
            .map_or(Reply::Nothing, |zone| id(&zone["id"])),
        Call::FindRoute { pattern, worker, .. } => result
            .as_array()
            .into_iter()
            .flatten()
            .find(|route| route["pattern"] == *pattern && route["script"] == *worker)
            .map_or(Reply::Nothing, |route| id(&route["id"])),
        Call::FindSubdomain => id(&result["subdomain"]),
        Call::ReadSettings { .. } => Reply::Settings(result.clone()),
        Call::ReadWorkersDev { .. } => Reply::On(result["enabled"] == true),
        Call::ReadCrons { .. } => {
            let crons = result["schedules"].as_array().into_iter().flatten();
            Reply::Crons(crons.filter_map(|schedule| schedule["cron"].as_str().map(str::to_owned)).collect())
        }
        Call::CreateDatabase { .. } => id(&result["uuid"]),
        Call::CreateKv { .. } => id(&result["id"]),
        Call::ListDatabases { .. } => page(result, "name", "uuid", DATABASES_PER_PAGE),
        Call::ListKv { .. } => page(result, "title", "id", KV_PER_PAGE),
        Call::ListAccounts { .. } => page(result, "name", "id", ZONES_PER_PAGE),
        Call::ListZones { .. } => zones(result),
        Call::VerifyToken { .. } => Reply::Token(result["status"].as_str().unwrap_or_default().to_owned()),
        _ => Reply::Done,
    }
}

/// A page of a list. That it is full says that there is another: not every list tells how many pages it has.
fn page(result: &Value, name: &str, id: &str, full: usize) -> Reply {
    let rows = result.as_array().map_or(&[][..], Vec::as_slice);
    let text = |value: &Value| value.as_str().map(str::to_owned);
    Reply::Page {
        names: rows.iter().filter_map(|row| Some((text(&row[name])?, text(&row[id])?))).collect(),
        more: rows.len() >= full,
    }
}

/// A page of the list of zones.
fn zones(result: &Value) -> Reply {
    let rows = result.as_array().map_or(&[][..], Vec::as_slice);
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let zone = |row: &Value| {
        let account = &row["account"];
        let (id, name, account_id) = (text(&row["id"])?, text(&row["name"])?, text(&account["id"])?);
        Some(ListedZone { id, name, account_id, account_name: text(&account["name"]).unwrap_or_default() })
    };
    Reply::Zones { zones: rows.iter().filter_map(zone).collect(), more: rows.len() >= ZONES_PER_PAGE }
}

/// What the headers say of the token's limits: `Ratelimit: "default";r=50;t=30` and
/// `Ratelimit-Policy: "burst";q=100;w=60, "default";q=1200;w=300`, lists of structured fields. What is no such thing is passed over.
/// Source: Cloudflare changelog, 2025-09-03, Rate limiting improvement.
fn quota(headers: &HeaderMap) -> Option<Quota> {
    let left = items(headers, "ratelimit", "r", "t");
    let policies = items(headers, "ratelimit-policy", "q", "w");
    if left.is_empty() && policies.is_empty() {
        return None;
    }
    let left = left.into_iter().map(|(name, requests, reset)| Left { name, requests, reset });
    let policies = policies.into_iter().map(|(name, requests, window)| Policy { name, requests, window });
    Some(Quota { left: left.collect(), policies: policies.collect() })
}

/// The items of a list that have a name, a count and a number of seconds.
fn items(headers: &HeaderMap, header: &str, count: &str, seconds: &str) -> Vec<(String, u64, Duration)> {
    let values = headers.get_all(header).iter().filter_map(|value| value.to_str().ok());
    let items = values.flat_map(|value| outside_quotes(value, ','));
    items
        .filter_map(|item| {
            let mut parts = outside_quotes(item, ';').into_iter();
            let name = parts.next()?.trim_matches('"').to_owned();
            let parameters: Vec<_> = parts.filter_map(|part| part.split_once('=')).collect();
            let number = |wanted: &str| {
                let (_, value) = parameters.iter().find(|(name, _)| *name == wanted)?;
                value.parse::<u64>().ok()
            };
            Some((name, number(count)?, Duration::from_secs(number(seconds)?)))
        })
        .collect()
}

/// The parts between separators that are in no string.
fn outside_quotes(text: &str, separator: char) -> Vec<&str> {
    let (mut quoted, mut escaped) = (false, false);
    text.split(|character| {
        let splits = character == separator && !quoted;
        quoted ^= character == '"' && !escaped;
        escaped = character == '\\' && quoted && !escaped;
        splits
    })
    .map(str::trim)
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(ratelimit: Option<&'static str>, policy: Option<&'static str>) -> Option<Quota> {
        let mut headers = HeaderMap::new();
        for (name, value) in [("ratelimit", ratelimit), ("ratelimit-policy", policy)] {
            if let Some(value) = value {
                headers.append(name, value.parse().unwrap());
            }
        }
        quota(&headers)
    }

    fn left(name: &str, requests: u64, reset: u64) -> Left {
        Left { name: name.to_owned(), requests, reset: Duration::from_secs(reset) }
    }

    fn policy(name: &str, requests: u64, window: u64) -> Policy {
        Policy { name: name.to_owned(), requests, window: Duration::from_secs(window) }
    }

    #[test]
    fn quotas_are_read_from_both_headers() {
        assert_eq!(
            parse(
                Some("\"burst\";r=7;t=3, \"default\";r=1100;t=200"),
                Some("\"burst\";q=100;w=60 , \"default\"; q=1200; w=300; pk=:abc=:")
            ),
            Some(Quota {
                left: vec![left("burst", 7, 3), left("default", 1100, 200)],
                policies: vec![policy("burst", 100, 60), policy("default", 1200, 300)],
            })
        );
        assert_eq!(parse(None, None), None);
        let only = parse(Some("\"default\";r=50;t=30"), None).unwrap();
        assert_eq!((only.left, only.policies), (vec![left("default", 50, 30)], vec![]));
        let only = parse(None, Some("default;w=300;q=1200")).unwrap();
        assert_eq!((only.left, only.policies), (vec![], vec![policy("default", 1200, 300)]));
    }

    #[test]
    fn names_of_quotas_can_hold_separators_and_nonsense_is_passed_over() {
        let quota =
            parse(Some(r#""a,b;r=9\"c";r=1;t=2, , "no numbers", "x";r=-1;t=3, "y";r=1, "z";r=5;t=6"#), None).unwrap();
        assert_eq!(quota.left, [left(r#"a,b;r=9\"c"#, 1, 2), left("z", 5, 6)]);
        for nonsense in
            ["nonsense", "", ",,;;==", "\"never ended;r=1;t=2", "r=1;t=2;\\", "\"a\";r=99999999999999999999;t=1"]
        {
            assert_eq!(parse(Some(nonsense), Some(nonsense)), None, "{nonsense}");
        }
    }

    #[test]
    fn a_token_goes_over_tls_or_stays_on_this_machine() {
        let new = |base| Cloudflare::new(base, HashMap::new()).is_ok();
        assert!(new(BASE) && new("http://127.0.0.1:8787/client/v4") && new("http://localhost:1/client/v4"));
        assert!(
            !new("http://api.example.com/client/v4")
                && !new("http://localhost.example.com")
                && !new("http://127.evil.example")
        );
    }
}
