//! Cloudflare's API. Turns calls into requests and responses into replies; doesn't retry, wait or remember.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use data_encoding::BASE64;
use flotilla_http::{Answer, Client, Error, Method, Part, Request, Timeouts, check_token_address, redact};
pub use flotilla_http::{Kind, Sent, observe_requests};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::{Value, json};

use flotilla_model::failure::Failure;
use flotilla_model::paging::Page;
use flotilla_model::platform::{
    AssetBody, Call, CallError, DATABASES_PER_PAGE, Health, HealthCheck, Home, KV_PER_PAGE, Left, Module, Platform,
    Policy, QUEUES_PER_PAGE, Quota, Reply, SCRIPTS_PER_PAGE, WORKFLOWS_PER_PAGE, ZONES_PER_PAGE,
};

mod content;
mod hosts;
mod listing;
mod result;
mod web;

pub use web::{Network, health};

/// The environment variable with the API's address; wrangler's own.
pub const BASE_VARIABLE: &str = "CLOUDFLARE_API_BASE_URL";
/// The API's address, unless [`BASE_VARIABLE`] sets another.
pub const BASE: &str = "https://api.cloudflare.com/client/v4";

/// The timeouts of requests. The upload of the largest worker takes a fraction of them; the whole is below the value that
/// [`pace`](crate::pace) assumes for the longest time that a request is in flight.
const TIMEOUTS: Timeouts =
    Timeouts { connect: CONNECT_TIMEOUT, silence: TIMEOUT, total: TIMEOUT, idle: Duration::from_secs(90) };
/// The timeout for establishing a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// The timeout of a request, including its upload and its response.
const TIMEOUT: Duration = Duration::from_secs(120);
/// The same for long responses that are only read: a list of 100,000 workers has 60 MB, a worker's code up to 64.
const LONG_TIMEOUT: Duration = Duration::from_secs(600);
/// The maximum size of a response, in bytes: a route list of a full zone has about 200 KB.
const MAX_ANSWER: u64 = 8 << 20;

/// The largest value of KV that is read, in bytes: a host has the name of a worker.
const MAX_VALUE: u64 = 64 << 10;

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
    /// A client with a token for each account id; one under an empty id is for all others. A token is only sent over TLS, or within this
    /// machine.
    pub fn new(base: &str, tokens: HashMap<String, SecretString>) -> Result<Cloudflare, Failure> {
        let base = base.trim_end_matches('/');
        check_token_address(base).map_err(|reason| {
            Failure::new(format!("{BASE_VARIABLE} is not an address that a token may be sent to: {reason}"))
                .hint("use an https:// address, or one on this machine")
        })?;
        let http = Client::new(TIMEOUTS);
        http.prepare(base).map_err(|error| Failure::new(error.to_string()))?;
        Ok(Cloudflare { http, base: base.to_owned(), tokens })
    }

    /// The token of an account; one without an account's id is for all that have none of their own.
    fn token(&self, home: &Home) -> Option<&SecretString> {
        self.tokens.get(&home.account_id).or_else(|| self.tokens.get(""))
    }

    fn request(&self, home: &Home, method: Method, path: &str) -> Request {
        let request = Request::new(method, format!("{}{path}", self.base));
        match self.token(home) {
            Some(token) => request.bearer(token),
            None => request,
        }
    }

    /// The request for a page of a list.
    fn list(&self, home: &Home, path: &str, query: impl IntoIterator<Item = String>, page: &Page) -> Request {
        let page = match page {
            Page::First => None,
            Page::Number(number) => Some(format!("page={number}")),
            Page::Cursor(cursor) => Some(format!("cursor={}", escape(cursor))),
        };
        let query: Vec<String> = query.into_iter().chain(page).collect();
        let mark = if query.is_empty() { "" } else { "?" };
        self.request(home, Method::GET, &format!("{path}{mark}{}", query.join("&")))
    }

    /// An error without the secrets that were sent: a response can quote its request.
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
        if let Call::Upload { metadata, .. } = call {
            secrets.extend(metadata["assets"]["jwt"].as_str());
        }
        if let Call::UploadAssets { session, .. } = call {
            secrets.push(session.expose());
        }
        secrets.extend(self.token(home).map(|token| token.expose_secret()));
        let redact = |message: String| redact(&message, &secrets);
        match error {
            CallError::Rejected { status, code, message } => {
                CallError::Rejected { status, code, message: redact(message) }
            }
            CallError::Unavailable(message) => CallError::Unavailable(redact(message)),
            CallError::Unauthorized(message) => CallError::Unauthorized(redact(message)),
            throttled @ CallError::Throttled { .. } => throttled,
        }
    }

    fn build(&self, home: &Home, call: &Call) -> Request {
        let account = format!("/accounts/{}", home.account_id);
        let script = |worker: &str| match &home.namespace {
            Some(namespace) => format!("{account}/workers/dispatch/namespaces/{namespace}/scripts/{worker}"),
            None => format!("{account}/workers/scripts/{worker}"),
        };
        match call {
            Call::Upload { worker, metadata, modules } => {
                let path = format!("{}?bindings_inherit=strict", script(worker));
                self.request(home, Method::PUT, &path).form(form(metadata, modules))
            }
            Call::OpenAssets { worker, manifest } => self
                .request(home, Method::POST, &format!("{}/assets-upload-session", script(worker)))
                .json(&json!({ "manifest": manifest })),
            Call::UploadAssets { session, files } => {
                let token = SecretString::from(session.expose().to_owned());
                let path = format!("{}{account}/workers/assets/upload?base64=true", self.base);
                Request::new(Method::POST, path).bearer(&token).form(asset_form(files))
            }
            Call::Delete { tag: Some(tag), .. } => {
                let tags = escape(&format!("{tag}:yes"));
                let path = format!("{}?tags={tags}&limit=1", script("").trim_end_matches('/'));
                self.request(home, Method::DELETE, &path)
            }
            Call::Delete { worker, tag: None } => {
                self.request(home, Method::DELETE, &format!("{}?force=true", script(worker)))
            }
            Call::StartTail { worker, filters } => self
                .request(home, Method::POST, &format!("{}/tails", script(worker)))
                .json(&json!({"filters": filters})),
            Call::DeleteTail { worker, id } => {
                self.request(home, Method::DELETE, &format!("{}/tails/{}", script(worker), escape(id)))
            }
            Call::SetWorkersDev { worker, on, previews } => self
                .request(home, Method::POST, &format!("{}/subdomain", script(worker)))
                .json(&json!({"enabled": on, "previews_enabled": previews})),
            Call::SetCrons { worker, crons } => {
                let body: Vec<Value> = crons.iter().map(|cron| json!({"cron": cron})).collect();
                self.request(home, Method::PUT, &format!("{}/schedules", script(worker))).json(&Value::from(body))
            }
            Call::AttachDomain { worker, domain } => self
                .request(home, Method::PUT, &format!("{account}/workers/domains"))
                .json(&json!({"hostname": domain, "service": worker})),
            Call::MoveDomain { worker, domain } => self
                .request(home, Method::PUT, &format!("{account}/workers/domains"))
                .json(&json!({"hostname": domain, "service": worker, "override_existing_origin": true})),
            Call::DetachDomain { id } => self.request(home, Method::DELETE, &format!("{account}/workers/domains/{id}")),
            Call::FindDomain { domain, .. } => {
                self.request(home, Method::GET, &format!("{account}/workers/domains?hostname={domain}"))
            }
            Call::FindZone { name } => self.request(
                home,
                Method::GET,
                &format!("/zones?name={}&account.id={}", hosts::filter(name), home.account_id),
            ),
            Call::AddRoute { worker, zone_id, pattern } => self
                .request(home, Method::POST, &format!("/zones/{zone_id}/workers/routes"))
                .json(&json!({"pattern": pattern, "script": worker})),
            Call::MoveRoute { worker, zone_id, id, pattern } => self
                .request(home, Method::PUT, &format!("/zones/{zone_id}/workers/routes/{id}"))
                .json(&json!({"pattern": pattern, "script": worker})),
            Call::ReadRoute { zone_id, id } => {
                self.request(home, Method::GET, &format!("/zones/{zone_id}/workers/routes/{id}"))
            }
            Call::RemoveRoute { zone_id, id } => {
                self.request(home, Method::DELETE, &format!("/zones/{zone_id}/workers/routes/{id}"))
            }
            Call::FindSubdomain => self.request(home, Method::GET, &format!("{account}/workers/subdomain")),
            Call::CreateNamespace => self
                .request(home, Method::POST, &format!("{account}/workers/dispatch/namespaces"))
                .json(&json!({"name": home.namespace})),
            Call::ListWorkers { tags, page } => {
                let tags = tags.as_ref().map(|tags| format!("tags={}", escape(tags)));
                // Only the list of a namespace has pages.
                let limit = home.namespace.as_ref().map(|_| format!("limit={SCRIPTS_PER_PAGE}"));
                self.list(home, script("").trim_end_matches('/'), tags.into_iter().chain(limit), page)
            }
            Call::ListDomains { page } => self.list(home, &format!("{account}/workers/domains"), [], page),
            Call::ListRoutes { zone_id, page } => {
                self.list(home, &format!("/zones/{zone_id}/workers/routes"), [], page)
            }
            Call::ReadWorkersDev { worker } => {
                self.request(home, Method::GET, &format!("{}/subdomain", script(worker)))
            }
            Call::ReadSettings { worker } => self.request(home, Method::GET, &format!("{}/settings", script(worker))),
            Call::ListSecrets { worker } => self.request(home, Method::GET, &format!("{}/secrets", script(worker))),
            Call::ReadTags { worker } => {
                // Those of an account's worker are documented among its settings alone.
                let of = if home.namespace.is_some() { "tags" } else { "settings" };
                self.request(home, Method::GET, &format!("{}/{of}", script(worker)))
            }
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
                let query = [format!("per_page={DATABASES_PER_PAGE}")];
                let name = name.as_ref().map(|name| format!("name={}", hosts::filter(name)));
                self.list(home, &format!("{account}/d1/database"), query.into_iter().chain(name), page)
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
            Call::QueryDatabase { id, sql } => self
                .request(home, Method::POST, &format!("{account}/d1/database/{id}/query"))
                .json(&json!({"sql": sql})),
            Call::ReadBookmark { id } => {
                self.request(home, Method::GET, &format!("{account}/d1/database/{id}/time_travel/bookmark"))
            }
            Call::ListKv { page } => {
                let query = [format!("per_page={KV_PER_PAGE}")];
                self.list(home, &format!("{account}/storage/kv/namespaces"), query, page)
            }
            Call::CreateKv { title } => self
                .request(home, Method::POST, &format!("{account}/storage/kv/namespaces"))
                .json(&json!({"title": title})),
            Call::ListKeys { namespace_id, page } => {
                let path = format!("{account}/storage/kv/namespaces/{namespace_id}/keys");
                self.list(home, &path, ["limit=1000".to_owned()], page)
            }
            Call::ReadKey { namespace_id, key } => {
                let key = escape(key);
                self.request(home, Method::GET, &format!("{account}/storage/kv/namespaces/{namespace_id}/values/{key}"))
            }
            Call::PutKeys { namespace_id, pairs } => {
                let body: Vec<Value> = pairs.iter().map(|(key, value)| json!({"key": key, "value": value})).collect();
                self.request(home, Method::PUT, &format!("{account}/storage/kv/namespaces/{namespace_id}/bulk"))
                    .json(&Value::from(body))
            }
            Call::DeleteKeys { namespace_id, keys } => self
                .request(home, Method::POST, &format!("{account}/storage/kv/namespaces/{namespace_id}/bulk/delete"))
                .json(&json!(keys[..])),
            Call::ListQueues { name, page } => {
                let query = [format!("per_page={QUEUES_PER_PAGE}")];
                let name = name.as_ref().map(|name| format!("name={}", escape(name)));
                self.list(home, &format!("{account}/queues"), query.into_iter().chain(name), page)
            }
            Call::CreateQueue { name } => {
                self.request(home, Method::POST, &format!("{account}/queues")).json(&json!({"queue_name": name}))
            }
            Call::CreateConsumer { worker, queue_id, consumer } => self
                .request(home, Method::POST, &format!("{account}/queues/{queue_id}/consumers"))
                .json(&consumer.api(worker)),
            Call::UpdateConsumer { worker, queue_id, id, consumer } => self
                .request(home, Method::PUT, &format!("{account}/queues/{queue_id}/consumers/{id}"))
                .json(&consumer.api(worker)),
            Call::DeleteConsumer { queue_id, id } => {
                self.request(home, Method::DELETE, &format!("{account}/queues/{queue_id}/consumers/{id}"))
            }
            Call::ReadWorkflow { name } => {
                self.request(home, Method::GET, &format!("{account}/workflows/{}", escape(name)))
            }
            Call::PutWorkflow { name, workflow } => {
                self.request(home, Method::PUT, &format!("{account}/workflows/{}", escape(name))).json(&workflow.0)
            }
            Call::DeleteWorkflow { name } => {
                self.request(home, Method::DELETE, &format!("{account}/workflows/{}", escape(name)))
            }
            Call::ListWorkflows { page } => {
                self.list(home, &format!("{account}/workflows"), [format!("per_page={WORKFLOWS_PER_PAGE}")], page)
            }
            Call::VerifyToken { of_account: false } => self.request(home, Method::GET, "/user/tokens/verify"),
            Call::VerifyToken { of_account: true } => {
                self.request(home, Method::GET, &format!("{account}/tokens/verify"))
            }
            Call::ListZones { name, page } => {
                let query = [format!("per_page={ZONES_PER_PAGE}")];
                let name = name.as_ref().map(|name| format!("name={}", hosts::filter(name)));
                self.list(home, "/zones", query.into_iter().chain(name), page)
            }
            Call::ListAccounts { page } => self.list(home, "/accounts", [format!("per_page={ZONES_PER_PAGE}")], page),
        }
    }
}

/// The form of an upload: the metadata first, then the modules, each under its path.
fn form(metadata: &Value, modules: &[Module]) -> Vec<Part> {
    let metadata = Part {
        name: "metadata".to_owned(),
        file_name: None,
        content_type: "application/json".into(),
        bytes: metadata.to_string().into_bytes().into(),
    };
    let module = |module: &Module| Part {
        name: module.name.clone(),
        file_name: Some(module.name.clone()),
        content_type: module.content_type.into(),
        bytes: Arc::clone(&module.bytes),
    };
    std::iter::once(metadata).chain(modules.iter().map(module)).collect()
}

/// The form of an upload of static assets: each file under its hash, in base64.
fn asset_form(files: &[AssetBody]) -> Vec<Part> {
    let part = |file: &AssetBody| Part {
        name: file.hash.clone(),
        file_name: Some(file.hash.clone()),
        // This type stands for none.
        content_type: file.content_type.clone().unwrap_or_else(|| "application/null".to_owned()).into(),
        bytes: BASE64.encode(&file.bytes).into_bytes().into(),
    };
    files.iter().map(part).collect()
}

impl Platform for Cloudflare {
    fn call(&self, home: &Home, call: &Call) -> (Result<Reply, CallError>, Option<Quota>) {
        let is_long = listing::is_listing(call) || matches!(call, Call::ReadContent { .. });
        let request = self.build(home, call);
        let request = if is_long { request.within(LONG_TIMEOUT) } else { request };
        match self.http.send(request) {
            Err(error) => (Err(failed(&error)), None),
            Ok(response) => {
                let quota = quota(&response);
                (answer(home, call, response).map_err(|error| self.redacted(home, call, error)), quota)
            }
        }
    }

    fn health(&self, check: &HealthCheck) -> Health {
        web::health(check)
    }
}

/// Returns the error for a request without a complete answer: its outcome is unknown.
fn failed(error: &Error) -> CallError {
    let what = match error.kind {
        Kind::Client => "no HTTP client",
        Kind::Request => "the request to Cloudflare can't be created",
        Kind::Timeout => "Cloudflare did not respond in time",
        Kind::Connect => "Cloudflare can't be reached",
        Kind::Broken => "the connection to Cloudflare broke",
        Kind::TooLong => "Cloudflare's response exceeds the size limit",
    };
    let cause = if error.cause.is_empty() { String::new() } else { format!(": {}", error.cause) };
    CallError::Unavailable(format!("{what}{cause}"))
}

fn answer(home: &Home, call: &Call, response: Answer) -> Result<Reply, CallError> {
    let status = response.status();
    let is_success = (200..300).contains(&status);
    if is_success && listing::is_listing(call) {
        return listing::read(home, call, response.body(listing::MAX_LIST));
    }
    if is_success && matches!(call, Call::ReadContent { .. }) {
        let header = |name: &str| response.header(name).unwrap_or_default().to_owned();
        let (kind, entry) = (header("content-type"), header(content::ENTRY));
        return content::read(&kind, &entry, response.body(content::MAX_CONTENT));
    }
    if is_success && matches!(call, Call::ReadKey { .. }) {
        // A value has no envelope.
        let value = response.bytes(MAX_VALUE).map_err(|error| failed(&error))?;
        return Ok(Reply::Value(String::from_utf8_lossy(&value).into_owned()));
    }
    let (retry_after, mitigated) = (response.retry_after(), response.header("cf-mitigated").is_some());
    let body = response.bytes(MAX_ANSWER).map_err(|error| failed(&error))?;
    if status == 429 {
        return Err(CallError::Throttled { retry_after });
    }
    let Ok(mut envelope) = serde_json::from_slice::<Value>(&body) else {
        return Err(no_json(status, mitigated, &body));
    };
    // What isn't an object has no result.
    if let Some(result) = envelope.get_mut("result") {
        hosts::to_ascii(call, result);
    }
    if is_success && matches!(call, Call::Delete { tag: Some(_), .. }) {
        return result::deleted(&envelope).map_err(|why| undocumented(&why));
    }
    if is_success && envelope["success"] == true {
        let read = result::read(home, call, &envelope["result"], &envelope["result_info"]);
        return read.map_err(|why| undocumented(&why));
    }
    if envelope["success"] != false {
        return Err(CallError::Unavailable(format!(
            "Cloudflare responded with neither success nor an error (HTTP {status})"
        )));
    }
    let error = &envelope["errors"][0];
    let code = error["code"].as_u64().or_else(|| error["error_chain"][0]["code"].as_u64()).unwrap_or(0);
    let message = error["message"].as_str().unwrap_or("Cloudflare gave no reason").to_owned();
    // A proxy may have timed out, or redirected the request, while Cloudflare carried it out.
    if status >= 500 || status == 408 || (300..400).contains(&status) {
        return Err(CallError::Unavailable(format!("Cloudflare failed: {message} (HTTP {status})")));
    }
    // That the token may not do this to a zone, to databases or to KV says nothing about the account's workers.
    let apart = matches!(
        call,
        Call::FindZone { .. }
            | Call::AddRoute { .. }
            | Call::ReadRoute { .. }
            | Call::MoveRoute { .. }
            | Call::RemoveRoute { .. }
            | Call::ListRoutes { .. }
            | Call::ListDatabases { .. }
            | Call::CreateDatabase { .. }
            | Call::DeleteDatabase { .. }
            | Call::QueryDatabase { .. }
            | Call::ReadBookmark { .. }
            | Call::ListKv { .. }
            | Call::CreateKv { .. }
            | Call::ListKeys { .. }
            | Call::ReadKey { .. }
            | Call::PutKeys { .. }
            | Call::DeleteKeys { .. }
            | Call::ListQueues { .. }
            | Call::CreateQueue { .. }
            | Call::CreateConsumer { .. }
            | Call::UpdateConsumer { .. }
            | Call::DeleteConsumer { .. }
            | Call::ReadWorkflow { .. }
            | Call::PutWorkflow { .. }
            | Call::DeleteWorkflow { .. }
            | Call::ListWorkflows { .. }
            // Its token is the session's.
            | Call::UploadAssets { .. }
    );
    if matches!(status, 400 | 401 | 403) && UNAUTHORIZED.contains(&code) && !apart {
        // Before it is known which account a token is for, it has none.
        let whose = if home.account_id.is_empty() { String::new() } else { format!(" of account {}", home.account_id) };
        return Err(CallError::Unauthorized(format!(
            "the token{whose} was rejected: {message} (HTTP {status}, code {code})"
        )));
    }
    match result::missing(home, call, code).filter(|_| status == 404) {
        Some(reply) => Ok(reply),
        None => Err(CallError::Rejected { status, code, message }),
    }
}

/// Returns the error for a response that its operation doesn't document: the outcome is unknown.
fn undocumented(why: &str) -> CallError {
    CallError::Unavailable(format!("Cloudflare's response is not the documented one: {why}"))
}

/// Returns the error for a response that isn't the API's: a proxy responded, and may have passed the request on.
fn no_json(status: u16, mitigated: bool, body: &[u8]) -> CallError {
    if mitigated && (400..500).contains(&status) {
        let message = "a firewall in front of Cloudflare's API blocked the request".to_owned();
        return CallError::Rejected { status, code: 0, message };
    }
    let message = match body.trim_ascii_start().starts_with(b"<") {
        true => "Cloudflare responded with a web page instead of JSON",
        false => "Cloudflare's response is not JSON",
    };
    CallError::Unavailable(format!("{message} (HTTP {status})"))
}

/// Escapes a value of a query.
fn escape(value: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    value
        .bytes()
        .map(|byte| if is_plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

/// Returns what an answer's headers report about the token's limits.
fn quota(response: &Answer) -> Option<Quota> {
    let (left, policies) = (response.limits_left().into_iter(), response.limits().into_iter());
    let left: Vec<Left> =
        left.map(|left| Left { name: left.name, requests: left.requests, reset: left.time }).collect();
    let policies: Vec<Policy> =
        policies.map(|policy| Policy { name: policy.name, requests: policy.requests, window: policy.time }).collect();
    (!left.is_empty() || !policies.is_empty()).then_some(Quota { left, policies })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_goes_over_tls_or_stays_on_this_machine() {
        let new = |base| Cloudflare::new(base, HashMap::new()).is_ok();
        assert!(new(BASE) && new("http://127.0.0.1:8787/client/v4") && new("http://localhost:1/client/v4"));
        assert!(
            !new("http://api.example.com/client/v4")
                && !new("http://localhost.example.com")
                && !new("http://127.evil.example")
                && !new("http://localhost:x@evil.example/client/v4")
                && !new("https://api.cloudflare.com@evil.example")
        );
    }
}
